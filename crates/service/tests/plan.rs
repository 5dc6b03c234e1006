//! The plan as its users see it: what a Service means on a node, and that history does not matter.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    reason = "a test fails by panicking and is one crate"
)]

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;
use weft_model::service::{
    Endpoint, EndpointPort, EndpointSlice, Protocol, Service, ServiceKey, ServicePort, ServiceType,
};
use weft_model::{Changes, Cluster, Node};
use weft_service::{Changed, Choice, Frontend, FrontendKey, Planner, Policy, ServiceConfig, ServicePlan};

fn config() -> ServiceConfig {
    ServiceConfig {
        node: "a".into(),
        cluster_cidrs: vec!["10.244.0.0/16".parse().unwrap(), "fd00:244::/48".parse().unwrap()],
        ..ServiceConfig::default()
    }
}

fn node(name: &str, address: &str) -> Node {
    Node { name: name.into(), addresses: vec![address.parse().unwrap()], ..Node::default() }
}

fn service(name: &str) -> Service {
    Service {
        namespace: "shop".into(),
        name: name.into(),
        created: "2026-01-01T00:00:00Z".into(),
        cluster_ips: vec!["10.96.0.7".parse().unwrap()],
        ports: vec![ServicePort { name: "http".into(), port: 80, ..ServicePort::default() }],
        ..Service::default()
    }
}

fn endpoint(address: &str, node: &str) -> Endpoint {
    Endpoint {
        address: address.parse().unwrap(),
        ready: true,
        serving: true,
        terminating: false,
        node: Some(node.into()),
        hints: None,
    }
}

fn slice(service: &str, endpoints: Vec<Endpoint>) -> EndpointSlice {
    EndpointSlice {
        namespace: "shop".into(),
        name: format!("{service}-x").into(),
        service: service.into(),
        ports: vec![EndpointPort { name: "http".into(), protocol: Protocol::Tcp, port: 8080 }],
        endpoints,
    }
}

fn cluster(services: Vec<Service>, slices: Vec<EndpointSlice>) -> Cluster {
    let nodes = [node("a", "10.168.0.2"), node("b", "10.168.0.3")];
    Cluster {
        nodes: nodes.into_iter().map(|node| (node.name.clone(), Arc::new(node))).collect(),
        services: services.into_iter().map(|s| (s.key(), Arc::new(s))).collect(),
        slices: slices.into_iter().map(|s| (s.key(), Arc::new(s))).collect(),
        ..Cluster::default()
    }
}

fn everything(cluster: &Cluster) -> Changes {
    Changes {
        nodes: cluster.nodes.keys().cloned().collect(),
        services: cluster.services.keys().cloned().collect(),
        slices: cluster.slices.keys().cloned().collect(),
        ..Changes::default()
    }
}

fn plan(cluster: &Cluster) -> ServicePlan {
    let mut planner = Planner::new(config());
    planner.update(cluster, &everything(cluster));
    planner.plan().clone()
}

/// One line for each frontend.
fn show(plan: &ServicePlan) -> Vec<String> {
    let choice = |choice: &Choice| match choice {
        Choice::Reject => "reject".to_owned(),
        Choice::Drop => "drop".to_owned(),
        Choice::Backends(list) => list.iter().map(|b| b.address.to_string()).collect::<Vec<_>>().join(","),
    };
    let line = |(at, frontend): (&FrontendKey, &Arc<Frontend>)| {
        let all = choice(&frontend.all);
        match frontend.policy {
            Policy::Internal => format!("{at} -> {all}"),
            Policy::Cluster => format!("{at} => {all}"),
            Policy::Local => format!("{at} => {all} outside {}", choice(&frontend.local)),
        }
    };
    plan.frontends.iter().map(line).collect()
}

fn refused(plan: &ServicePlan) -> Vec<String> {
    let lines = plan.refused.iter();
    lines.flat_map(|(key, list)| list.iter().map(move |why| format!("{}: {why}", key.name))).collect()
}

fn both() -> Vec<Endpoint> {
    vec![endpoint("10.244.0.5", "a"), endpoint("10.244.1.5", "b")]
}

#[test]
fn every_kind_of_frontend() {
    let mut web = service("web");
    web.kind = ServiceType::LoadBalancer;
    web.cluster_ips.push("fd00:10:96::7".parse().unwrap());
    web.external_ips = vec!["192.0.2.1".parse().unwrap()];
    web.load_balancer_ips = vec!["203.0.113.1".parse().unwrap()];
    web.ports[0].node_port = Some(30080);
    let lines = |web: &Service| show(&plan(&cluster(vec![web.clone()], vec![slice("web", both())])));
    let all = "10.244.0.5:8080,10.244.1.5:8080";
    assert_eq!(
        lines(&web),
        [
            format!("10.96.0.7:80 TCP -> {all}"),
            format!("192.0.2.1:80 TCP => {all}"),
            format!("203.0.113.1:80 TCP => {all}"),
            "[fd00:10:96::7]:80 TCP -> reject".to_owned(),
            format!("node port 30080 TCP => {all}"),
            "node port 30080 TCP (IPv6) => reject".to_owned(),
        ]
    );
    web.external_local = true;
    web.internal_local = true;
    web.cluster_ips.pop();
    assert_eq!(
        lines(&web),
        [
            "10.96.0.7:80 TCP -> 10.244.0.5:8080".to_owned(),
            format!("192.0.2.1:80 TCP => {all} outside 10.244.0.5:8080"),
            format!("203.0.113.1:80 TCP => {all} outside 10.244.0.5:8080"),
            format!("node port 30080 TCP => {all} outside 10.244.0.5:8080"),
        ]
    );
    web.proxy = Some("other".into());
    assert!(lines(&web).is_empty(), "another proxy's");
}

#[test]
fn local_policies_without_an_endpoint_here_drop_and_health_checks_count() {
    let mut web = service("web");
    web.external_local = true;
    web.internal_local = true;
    web.health_check_port = Some(30100);
    web.ports[0].node_port = Some(30080);
    let plan = plan(&cluster(vec![web], vec![slice("web", vec![endpoint("10.244.1.5", "b")])]));
    assert_eq!(
        show(&plan),
        ["10.96.0.7:80 TCP -> drop", "node port 30080 TCP => 10.244.1.5:8080 outside drop"]
    );
    assert_eq!(plan.checks[&30100].endpoints, 0);
    assert_eq!(plan.node_addresses, ["10.168.0.2/32".parse().unwrap()], "this node's InternalIP");
}

#[test]
fn source_ranges_concern_the_load_balancer_alone() {
    let mut web = service("web");
    web.load_balancer_ips = vec!["203.0.113.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
    web.source_ranges = Some(["192.0.2.0/24".parse().unwrap()].into());
    let found = |web: &Service| -> Vec<Option<usize>> {
        let plan = plan(&cluster(vec![web.clone()], vec![slice("web", both())]));
        plan.frontends.values().map(|f| f.sources.as_ref().map(|ranges| ranges.len())).collect()
    };
    assert_eq!(found(&web), [None, Some(1), None], "the other family is open");
    web.source_ranges = Some([].into());
    assert_eq!(found(&web), [None, Some(0), Some(0)], "what made no sense lets nobody in");
}

#[test]
fn the_older_of_two_keeps_a_frontend_and_the_other_is_told() {
    let (mut old, mut new) = (service("z-old"), service("a-new"));
    new.created = "2026-02-01T00:00:00Z".into();
    new.cluster_ips = vec!["10.96.0.8".parse().unwrap()];
    for service in [&mut old, &mut new] {
        service.ports[0].node_port = Some(30080);
    }
    let slices = || vec![slice("z-old", both()), slice("a-new", vec![endpoint("10.244.9.9", "b")])];
    let before = cluster(vec![old, new.clone()], slices());
    let mut planner = Planner::new(config());
    planner.update(&before, &everything(&before));
    assert!(show(planner.plan())[2].contains("10.244.0.5:8080"), "{:?}", show(planner.plan()));
    let told = refused(planner.plan());
    assert!(told[0].starts_with("a-new: node port 30080 TCP is that of Service shop/z-old"), "{told:?}");
    // When the older goes the other has it.
    let after = cluster(vec![new], slices());
    let gone = ServiceKey::new("shop", "z-old");
    planner.update(&after, &Changes { services: [gone].into(), ..Changes::default() });
    assert_eq!(planner.plan(), &plan(&after));
    assert!(show(planner.plan())[1].contains("10.244.9.9:8080"));
    assert!(refused(planner.plan()).is_empty());
}

#[test]
fn addresses_that_are_others_are_refused() {
    let mut bad = service("bad");
    bad.cluster_ips = vec!["10.168.0.3".parse().unwrap()];
    let external = ["10.244.0.9", "127.0.0.1", "169.254.169.254", "10.168.0.3"];
    bad.external_ips = external.map(|ip| ip.parse().unwrap()).to_vec();
    bad.ports.push(ServicePort { name: "api".into(), port: 6443, ..ServicePort::default() });
    let mut api = slice("kubernetes", vec![endpoint("10.168.0.3", "b")]);
    api.namespace = "default".into();
    api.ports[0].port = 6443;
    let plan = plan(&cluster(vec![bad], vec![api, slice("bad", both())]));
    assert_eq!(
        show(&plan),
        ["10.168.0.3:80 TCP => 10.244.0.5:8080,10.244.1.5:8080"],
        "an external IP may be a node's"
    );
    let told = refused(&plan);
    for part in [
        "clusterIPs 10.168.0.3 is a node's address",
        "10.244.0.9 is a pod's",
        "127.0.0.1 is a loopback",
        "169.254.169.254 is a link-local",
        "10.168.0.3:6443 TCP is where the API server answers",
    ] {
        assert!(told.iter().any(|line| line.contains(part)), "{part}: {told:#?}");
    }
}

#[test]
fn ten_thousand_ports_are_bounded_by_their_endpoints() {
    let mut wide = service("wide");
    let port = |port| ServicePort { name: "http".into(), port, ..ServicePort::default() };
    wide.ports = (1..=10_000).map(port).collect();
    let few = plan(&cluster(vec![wide.clone()], vec![slice("wide", both())]));
    assert_eq!(few.frontends.len(), 10_000);
    let many = (0..100).map(|i| endpoint(&format!("10.244.1.{i}"), "b")).collect();
    let many = plan(&cluster(vec![wide], vec![slice("wide", many)]));
    assert!(many.frontends.is_empty());
    assert!(refused(&many)[0].contains("split it"));
}

/// One step of a cluster's life.
#[derive(Clone, Debug)]
enum Step {
    Service(u8, Option<Box<Service>>),
    Slice(u8, Option<Box<EndpointSlice>>),
    Node(u8, Option<u8>),
}

fn some_service(name: u8) -> impl Strategy<Value = Service> {
    let ips = prop::collection::vec(0..4u8, 0..3);
    (ips, 0..3u8, any::<[bool; 5]>(), 0..3u8, prop::option::of(0..3u8)).prop_map(
        move |(ips, age, flags, port, node_port)| {
            let ip = |i: u8, net: &str| format!("{net}.{i}").parse().unwrap();
            let mut made = service(&format!("s{name}"));
            made.cluster_ips = ips.iter().take(1).map(|i| ip(*i + 1, "10.96.0")).collect();
            made.load_balancer_ips = ips.iter().skip(1).map(|i| ip(*i + 1, "203.0.113")).collect();
            made.created = format!("2026-01-0{}T00:00:00Z", age + 1).into();
            [made.internal_local, made.external_local] = [flags[0], flags[1]];
            made.affinity = flags[2].then_some(60);
            made.health_check_port = flags[3].then_some(30100);
            made.proxy = (flags[4] && flags[0]).then(|| "other".into());
            made.ports[0].port = 80 + u16::from(port);
            made.ports[0].node_port = node_port.map(|port| 30_000 + u16::from(port));
            made
        },
    )
}

fn some_slice(name: u8) -> impl Strategy<Value = EndpointSlice> {
    let endpoints = prop::collection::vec((0..6u8, 0..2u8, any::<[bool; 3]>()), 0..4);
    (0..4u8, endpoints).prop_map(move |(of, endpoints)| {
        let mut made = slice(&format!("s{of}"), Vec::new());
        made.name = format!("slice{name}").into();
        let one = |(host, at, [ready, serving, terminating]): (u8, u8, [bool; 3])| Endpoint {
            ready,
            serving,
            terminating,
            ..endpoint(&format!("10.244.{at}.{}", host + 2), ["a", "b"][usize::from(at)])
        };
        made.endpoints = endpoints.into_iter().map(one).collect();
        made
    })
}

fn step() -> impl Strategy<Value = Step> {
    let service = |n: u8| {
        let made = prop::option::of(some_service(n).prop_map(Box::new));
        made.prop_map(move |made| Step::Service(n, made))
    };
    let slice = |n: u8| {
        let made = prop::option::of(some_slice(n).prop_map(Box::new));
        made.prop_map(move |made| Step::Slice(n, made))
    };
    prop_oneof![
        3 => (0..4u8).prop_flat_map(service),
        3 => (0..4u8).prop_flat_map(slice),
        1 => (0..2u8, prop::option::of(0..4u8)).prop_map(|(n, at)| Step::Node(n, at)),
    ]
}

fn take(cluster: &mut Cluster, changes: &mut Changes, step: Step) {
    match step {
        Step::Service(n, made) => {
            let key = ServiceKey::new("shop", format!("s{n}"));
            match made {
                Some(made) => _ = cluster.services.insert(key.clone(), Arc::new(*made)),
                None => _ = cluster.services.remove(&key),
            }
            changes.services.insert(key);
        }
        Step::Slice(n, made) => {
            let key = ServiceKey::new("shop", format!("slice{n}"));
            match made {
                Some(made) => _ = cluster.slices.insert(key.clone(), Arc::new(*made)),
                None => _ = cluster.slices.remove(&key),
            }
            changes.slices.insert(key);
        }
        Step::Node(n, at) => {
            let name = ["a", "b"][usize::from(n)];
            match at {
                // Sometimes an address that a Service has.
                Some(at) => {
                    let made = node(name, &format!("10.96.0.{}", at + 3));
                    cluster.nodes.insert(name.into(), Arc::new(made));
                }
                None => _ = cluster.nodes.remove(name),
            }
            changes.nodes.insert(name.into());
        }
    }
}

/// What differs between two plans was told.
fn told_whole(before: &ServicePlan, after: &ServicePlan, told: &Changed) -> bool {
    let keys: BTreeSet<_> = before.frontends.keys().chain(after.frontends.keys()).collect();
    let differs = |key: &&FrontendKey| before.frontends.get(*key) != after.frontends.get(*key);
    let frontends = keys.into_iter().filter(differs).all(|key| told.frontends.contains(key));
    let ips: BTreeSet<_> = before.cluster_ips.keys().chain(after.cluster_ips.keys()).collect();
    let mut ips = ips
        .into_iter()
        .filter(|ip| before.cluster_ips.contains_key(*ip) != after.cluster_ips.contains_key(*ip));
    let rest = (&before.checks, &before.node_addresses) == (&after.checks, &after.node_addresses);
    frontends && ips.all(|ip| told.cluster_ips.contains(ip)) && (rest || told.rest)
}

proptest! {
    #[test]
    fn whatever_came_before_the_plan_is_that_of_the_last_view(
        steps in prop::collection::vec((step(), any::<bool>()), 1..40),
    ) {
        let mut view = cluster(Vec::new(), Vec::new());
        let mut planner = Planner::new(config());
        planner.update(&view, &everything(&view));
        let mut changes = Changes::default();
        let mut before = planner.plan().clone();
        for (step, now) in steps {
            take(&mut view, &mut changes, step);
            // Sometimes several changes come at once.
            if !now {
                continue;
            }
            let told = planner.update(&view, &std::mem::take(&mut changes));
            prop_assert_eq!(planner.plan(), &plan(&view));
            prop_assert!(told_whole(&before, planner.plan(), &told));
            before = planner.plan().clone();
        }
    }
}
