use std::collections::BTreeSet;
use std::net::SocketAddr;

use weft_kernel::Netns;
use weft_model::service::Protocol;
use weft_service::nftables::Nftables;
use weft_service::{Changed, Frontend, Kind, Policy, ServicePlan};

use super::world::{PODS, World, address, ask};
use super::{changed, choice, frontend, key, plan};

/// Who answers a client at `to`, asked so many times.
fn answers(client: &Netns, to: SocketAddr, times: usize) -> BTreeSet<String> {
    client.run(|| (0..times).map(|_| ask(to).unwrap().0).collect()).unwrap()
}

fn sticky(ipv6: bool, pods: &[usize]) -> Frontend {
    let backends: Vec<String> = pods
        .iter()
        .map(|i| format!("!{}", SocketAddr::new(address(*i, ipv6, true).parse().unwrap(), 8080)))
        .collect();
    let backends: Vec<&str> = backends.iter().map(String::as_str).collect();
    Frontend { affinity: Some(600), ..frontend(&backends) }
}

fn services(pods: &[usize]) -> ServicePlan {
    let node = |ipv6| Frontend { kind: Kind::NodePort, policy: Policy::Cluster, ..sticky(ipv6, pods) };
    plan([
        (key("10.96.0.1", Protocol::Tcp, 80), sticky(false, pods)),
        (key("fd00:96::1", Protocol::Tcp, 80), sticky(true, pods)),
        (key("node", Protocol::Tcp, 30080), node(false)),
        (key("node6", Protocol::Tcp, 30080), node(true)),
    ])
}

#[test]
fn a_client_stays_with_its_backend_until_that_goes() {
    let mut world = World::new();
    let mut nftables = Nftables::open().unwrap();
    let both = services(&[0, 1]);
    nftables.apply(&both, &Changed::default()).unwrap();
    let mut before = both.clone();
    for to in ["10.96.0.1:80", "[fd00:96::1]:80", "192.0.2.1:30080", "[fd00:50::1]:30080"] {
        let to: SocketAddr = to.parse().unwrap();
        let mut step = |plan: &ServicePlan| {
            nftables.apply(plan, &changed(&before, plan)).unwrap();
            before = plan.clone();
        };
        let [c, d] = ["c", "d"].map(|name| world.pod(name));
        let first = answers(&c, to, 12);
        assert_eq!(first.len(), 1, "{to}: {first:?}");
        let other = answers(&d, to, 12);
        assert_eq!(other.len(), 1, "{to}: {other:?}");
        let index = PODS.iter().position(|pod| first.contains(*pod)).unwrap();
        let left = BTreeSet::from([PODS[1 - index].to_owned()]);
        step(&services(&[1 - index]));
        assert_eq!(answers(&c, to, 6), left, "{to}: its backend has gone");
        step(&both);
        assert_eq!(answers(&c, to, 12), left, "{to}: it stays with the new one");
        if other == left {
            assert_eq!(answers(&d, to, 12), other, "{to}: others never left theirs");
        }
        // A second agent takes over what the first learned.
        assert_eq!(Nftables::open().unwrap().apply(&both, &Changed::default()).unwrap(), 0);
        assert_eq!(answers(&c, to, 12), left, "{to}");
    }
}

#[test]
fn each_backend_is_as_likely_as_the_others() {
    let mut world = World::new();
    let at = key("10.96.0.1", Protocol::Tcp, 80);
    let plan = plan([(at, frontend(&["!10.244.0.2:8080", "!10.244.1.2:8080"]))]);
    Nftables::open().unwrap().apply(&plan, &Changed::default()).unwrap();
    let (client, to) = (world.pod("c"), "10.96.0.1:80".parse().unwrap());
    let count = 2000;
    let first = client.run(|| (0..count).filter(|_| ask(to).unwrap().0 == "a").count()).unwrap();
    // Six standard deviations of a fair choice: one run in 500 million is outside.
    assert!((866..=1134).contains(&first), "{first} of {count}");
}

#[test]
fn where_only_backends_here_count_one_elsewhere_is_not_remembered() {
    let mut world = World::new();
    let outside = world.pod("outside");
    let at = key("198.51.100.7", Protocol::Tcp, 80);
    let cluster = Frontend { kind: Kind::LoadBalancer, policy: Policy::Cluster, ..sticky(false, &[0]) };
    let all = sticky(false, &[0, 1]).all;
    let local = Frontend {
        policy: Policy::Local,
        all: all.clone(),
        local: choice(&["!10.244.1.2:8080"]),
        ..cluster.clone()
    };
    let (before, after) = (plan([(at, cluster)]), plan([(at, local)]));
    let mut nftables = Nftables::open().unwrap();
    nftables.apply(&before, &Changed::default()).unwrap();
    let to = "198.51.100.7:80".parse().unwrap();
    assert_eq!(answers(&outside, to, 3), BTreeSet::from(["a".to_owned()]));
    nftables.apply(&after, &changed(&before, &after)).unwrap();
    assert_eq!(answers(&outside, to, 6), BTreeSet::from(["b".to_owned()]));
}
