//! Two nodes that claim the same: who was there first keeps it, on every node but the claimants.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use ipnet::IpNet;
use weft_fabric::{FabricConfig, Refusal, Underlay, plan};
use weft_model::network::{Backend, Network};
use weft_model::{Cluster, Node};

fn node(name: &str, created: &str, address: &str, cidr: &str) -> Node {
    let (addresses, pod_cidrs) = (vec![address.parse().unwrap()], vec![cidr.parse().unwrap()]);
    Node { name: name.into(), created: created.into(), addresses, pod_cidrs, ..Node::default() }
}

/// The refusals of both as the third node plans it.
fn refused(one: Node, other: Node) -> [Vec<Refusal>; 2] {
    let names = [one.name.clone(), other.name.clone()];
    let third = node("third", "2026-03-01T00:00:00Z", "10.168.0.2", "10.244.0.0/24");
    let nodes = [one, other, third].map(|node| (node.name.clone(), Arc::new(node)));
    let cluster = Cluster { nodes: nodes.into_iter().collect(), ..Cluster::default() };
    let network = Network { backend: Backend::VXLAN, ..Network::default() };
    let cfg = FabricConfig { network, cluster_cidrs: vec!["10.244.0.0/16".parse().unwrap()] };
    let addresses: Vec<IpNet> = vec!["10.168.0.2/16".parse().unwrap()];
    let underlay = Underlay { link: "eth0".into(), index: 7, mtu: 1500, addresses };
    let plan = plan(&cluster, "third", &cfg, Some(&underlay));
    names.map(|name| plan.peers[&name].refused.clone())
}

#[test]
fn the_older_node_keeps_address_and_pod_cidr_whatever_the_names() {
    let (old, new) = ("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z");
    for (older, younger) in [("a", "b"), ("b", "a")] {
        for (address, cidr) in [("10.168.0.3", "10.244.2.0/24"), ("10.168.0.4", "10.244.1.128/25")] {
            let one = node(older, old, "10.168.0.3", "10.244.1.0/24");
            let [first, second] = refused(one, node(younger, new, address, cidr));
            assert!(first.is_empty(), "{older} was there: {first:?}");
            assert!(second[0].to_string().contains(&format!("node {older}")), "{second:?}");
        }
    }
    // Of one age it is the first by name.
    let [first, second] =
        refused(node("b", old, "10.168.0.3", "10.244.1.0/24"), node("a", old, "10.168.0.3", "10.244.2.0/24"));
    assert_eq!((first.len(), second.len()), (1, 0));
}
