//! How long a node takes to program its Services: all of them from nothing, one endpoint that changes, one
//! Service that gets one more, and all again after a restart. Must run as root in a network namespace of its
//! own: `unshare -n services SERVICES ENDPOINTS [iptables|ipvs] [monitored]`, in the mode nftables unless another is
//! named, and with a monitor of nftables in the same process if that is asked for. A monitor of another process, in
//! whatever namespace, makes all of them slower.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement ends by panicking and prints")]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use weft_kernel::nft::NftMonitor;
use weft_model::service::{Endpoint, EndpointPort, EndpointSlice, Protocol, Service, ServicePort};
use weft_model::{Changes, Cluster, Node};
use weft_service::iptables::Iptables;
use weft_service::ipvs::{Ipvs, IpvsConfig};
use weft_service::nftables::Nftables;
use weft_service::{Changed, Error, Planner, ServiceConfig, ServicePlan};

const ROUNDS: usize = 200;

enum Backend {
    Nftables(Box<Nftables>),
    Iptables(Box<Iptables>),
    Ipvs(Box<Ipvs>),
}

impl Backend {
    fn open(words: &[String]) -> Backend {
        let is = |name: &str| words.iter().any(|word| word == name);
        if is("iptables") {
            Backend::Iptables(Box::new(Iptables::open().unwrap()))
        } else if is("ipvs") {
            Backend::Ipvs(Box::new(Ipvs::open(IpvsConfig::default()).unwrap()))
        } else {
            Backend::Nftables(Box::new(Nftables::open().unwrap()))
        }
    }

    fn apply(&mut self, plan: &ServicePlan, changed: &Changed) -> usize {
        let writes: Result<usize, Error> = match self {
            Backend::Nftables(backend) => backend.apply(plan, changed),
            Backend::Iptables(backend) => backend.apply(plan, changed),
            Backend::Ipvs(backend) => backend.apply(plan, changed),
        };
        writes.unwrap()
    }

    fn remove(&mut self) {
        let removed: Result<(), Error> = match self {
            Backend::Nftables(backend) => backend.remove(),
            Backend::Iptables(backend) => backend.remove(),
            Backend::Ipvs(backend) => backend.remove(),
        };
        removed.unwrap();
    }
}

fn address(base: u32, number: usize) -> IpAddr {
    Ipv4Addr::from(base + u32::try_from(number).unwrap()).into()
}

fn service(i: usize) -> Arc<Service> {
    Arc::new(Service {
        namespace: "default".into(),
        name: format!("service{i}").into(),
        created: "2026-01-01T00:00:00Z".into(),
        // 10.96.0.0/12
        cluster_ips: vec![address(0x0a60_0001, i)],
        ports: vec![ServicePort { name: "http".into(), port: 80, ..ServicePort::default() }],
        ..Service::default()
    })
}

/// The slice of a Service with endpoints of these numbers.
fn slice(i: usize, endpoints: impl Iterator<Item = usize>) -> Arc<EndpointSlice> {
    let endpoint = |number: usize| Endpoint {
        // 10.128.0.0/9
        address: address(0x0a80_0001, number),
        ready: true,
        serving: true,
        terminating: false,
        node: Some(if number.is_multiple_of(50) { "node1" } else { "node2" }.into()),
        hints: None,
    };
    Arc::new(EndpointSlice {
        namespace: "default".into(),
        name: format!("service{i}-x").into(),
        service: format!("service{i}").into(),
        ports: vec![EndpointPort { name: "http".into(), protocol: Protocol::Tcp, port: 8080 }],
        endpoints: endpoints.map(endpoint).collect(),
    })
}

fn first(i: usize, endpoints: usize) -> impl Iterator<Item = usize> {
    i * endpoints..(i + 1) * endpoints
}

fn cluster(count: usize, endpoints: usize) -> Cluster {
    let node = |i: usize| Node {
        name: format!("node{i}").into(),
        addresses: vec![address(0xc0a8_0000, i)],
        ..Node::default()
    };
    Cluster {
        nodes: [node(1), node(2)].map(|node| (node.name.clone(), Arc::new(node))).into_iter().collect(),
        services: (0..count).map(service).map(|s| (s.key(), s)).collect(),
        slices: (0..count).map(|i| slice(i, first(i, endpoints))).map(|s| (s.key(), s)).collect(),
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

/// Changes one Service's slice in each round; prints the time from the change to the kernel.
fn rounds(
    what: &str,
    planner: &mut Planner,
    backend: &mut Backend,
    state: &mut Cluster,
    next: impl Fn(usize) -> Arc<EndpointSlice>,
) {
    let mut times = Vec::new();
    let mut writes = 0;
    for round in 0..ROUNDS {
        let slice = next(round);
        let start = Instant::now();
        let changes = Changes { slices: BTreeSet::from([slice.key()]), ..Changes::default() };
        state.slices.insert(slice.key(), slice);
        let changed = planner.update(state, &changes);
        writes += backend.apply(planner.plan(), &changed);
        times.push(start.elapsed());
    }
    times.sort();
    let at = |part: usize| times[part * ROUNDS / 1000];
    println!("{what}: median {:.2?}, p99 {:.2?}, slowest {:.2?}; {writes} writes", at(500), at(990), at(999));
}

fn main() {
    let mut args = std::env::args().skip(1);
    let count: usize = args.next().and_then(|n| n.parse().ok()).unwrap_or(10_000);
    let endpoints: usize = args.next().and_then(|n| n.parse().ok()).unwrap_or(3);
    let words: Vec<String> = args.collect();
    let monitor = words.iter().any(|word| word == "monitored").then(|| NftMonitor::open().unwrap());
    let mut state = cluster(count, endpoints);
    let config = ServiceConfig {
        node: "node1".into(),
        cluster_cidrs: vec!["10.128.0.0/9".parse().unwrap()],
        ..ServiceConfig::default()
    };
    let mut planner = Planner::new(config);
    let mut backend = Backend::open(&words);

    let start = Instant::now();
    let changed = planner.update(&state, &everything(&state));
    let planned = start.elapsed();
    assert_eq!(planner.plan().frontends.len(), count);
    let writes = backend.apply(planner.plan(), &changed);
    let whole = start.elapsed();
    println!(
        "{count} Services x {endpoints} from nothing: {whole:.1?} (planned in {planned:.1?}), {writes} writes"
    );

    let last = |round: usize| count - 1 - round;
    rounds("one endpoint becomes another", &mut planner, &mut backend, &mut state, |round| {
        let i = last(round);
        slice(i, first(i, endpoints).skip(1).chain([count * endpoints + round]))
    });
    rounds("one endpoint more", &mut planner, &mut backend, &mut state, |round| {
        slice(last(round), first(last(round), endpoints).chain([count * endpoints + round]))
    });
    drop(monitor);

    let mut backend = Backend::open(&words);
    let start = Instant::now();
    let writes = backend.apply(planner.plan(), &Changed::default());
    println!("all adopted after a restart: {:.1?}, {writes} writes", start.elapsed());
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    println!("{peak}");
    let start = Instant::now();
    backend.remove();
    println!("removed in {:.1?}", start.elapsed());
}
