//! Plans of nodes whose pods have their addresses out of pools.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use proptest::prelude::*;
use weft_fabric::{FabricConfig, FabricPlan, Planner, Underlay, Via, plan};
use weft_model::network::{Backend, Ipam, Network};
use weft_model::pools::{IpBlock, IpPool, LabelSelector, block_name};
use weft_model::{Cluster, Node};

fn config() -> FabricConfig {
    let network = Network { backend: Backend::HOST_GW, ipam: Some(Ipam::Pools), ..Network::default() };
    FabricConfig { network, cluster_cidrs: vec!["10.244.0.0/16".parse().unwrap()] }
}

fn underlay(node: usize) -> Underlay {
    let address = format!("10.168.0.{node}/24").parse().unwrap();
    Underlay { link: "eth0".into(), index: 7, mtu: 1500, addresses: vec![address] }
}

fn block(place: u8, node: Option<usize>, lent: &[(u8, usize)]) -> IpBlock {
    let cidr: IpNet = format!("10.9.0.{}/28", place * 16).parse().unwrap();
    let name = |i: usize| -> Arc<str> { format!("node{i}").into() };
    let borrowed = lent.iter().map(|(at, to)| (IpAddr::from([10, 9, 0, place * 16 + at]), name(*to)));
    IpBlock {
        name: block_name(&cidr).into(),
        uid: "u".into(),
        version: "1".into(),
        cidr,
        pool: "p".into(),
        node: node.map(name),
        nat_outgoing: true,
        borrowed: borrowed.collect(),
        asked: BTreeMap::new(),
        release: BTreeSet::new(),
    }
}

fn cluster(blocks: Vec<IpBlock>) -> Cluster {
    let node = |i: usize| Node {
        name: format!("node{i}").into(),
        addresses: vec![format!("10.168.0.{i}").parse().unwrap()],
        // What a controller wrote there is nobody's.
        pod_cidrs: vec![format!("10.244.{i}.0/24").parse().unwrap()],
        ..Node::default()
    };
    let pool = IpPool {
        name: "p".into(),
        uid: "p".into(),
        created: "".into(),
        cidr: "10.9.0.0/24".parse().unwrap(),
        block_size: 28,
        disabled: false,
        nat_outgoing: true,
        manual: false,
        disable_bgp_export: false,
        node_selector: LabelSelector::default(),
        namespace_selector: LabelSelector::default(),
    };
    Cluster {
        nodes: (1..=3).map(|i| (node(i).name, Arc::new(node(i)))).collect(),
        pools: [(pool.name.clone(), Arc::new(pool))].into_iter().collect(),
        blocks: blocks.into_iter().map(|block| (block.name.clone(), Arc::new(block))).collect(),
        ..Cluster::default()
    }
}

fn paths(plan: &FabricPlan, peer: &str) -> Vec<String> {
    plan.peers[peer].paths.iter().map(|path| path.cidr.to_string()).collect()
}

#[test]
fn blocks_are_prefixes_and_loans_single_addresses() {
    let cluster =
        cluster(vec![block(0, Some(1), &[]), block(1, Some(2), &[(5, 3), (6, 1)]), block(2, None, &[])]);
    let first = plan(&cluster, "node1", &config(), Some(&underlay(1)));
    let local = first.local.as_ref().unwrap();
    assert!(local.routed && local.bridge.addresses.is_empty(), "{local:?}");
    assert_eq!(local.pod_cidrs, ["10.9.0.0/28".parse::<IpNet>().unwrap()]);
    assert_eq!(local.loans, ["10.9.0.22/32".parse::<IpNet>().unwrap()]);
    assert!(local.masquerade.never.contains(&"10.9.0.0/24".parse().unwrap()), "a pool is of the cluster");
    assert_eq!(paths(&first, "node2"), ["10.9.0.16/28"]);
    assert_eq!(paths(&first, "node3"), ["10.9.0.21/32"]);
    assert!(
        matches!(first.peers["node3"].paths[0].via, Via::Direct { gateway, .. } if gateway.to_string() == "10.168.0.3")
    );
    assert!(first.peers.values().all(|peer| peer.complete()));
    // A node without a block is ready for its first pod.
    let third = plan(&cluster, "node3", &config(), Some(&underlay(3)));
    assert!(third.local.unwrap().pod_cidrs.is_empty());
}

#[test]
fn the_cluster_s_object_decides_where_addresses_come_from() {
    let mut cluster = cluster(vec![block(0, Some(2), &[])]);
    let mut planner = Planner::new("node1", config());
    let all: BTreeSet<Arc<str>> = cluster.nodes.keys().cloned().collect();
    planner.update(&cluster, &all, Some(&underlay(1)));
    assert_eq!(paths(planner.plan(), "node2"), ["10.9.0.0/28"]);
    let network = Network { ipam: Some(Ipam::NodeCidr), ..config().network };
    cluster.networks.insert("default".into(), Arc::new(network));
    planner.update(&cluster, &BTreeSet::new(), Some(&underlay(1)));
    assert_eq!(paths(planner.plan(), "node2"), ["10.244.2.0/24"]);
    assert!(!planner.plan().local.as_ref().unwrap().routed);
}

proptest! {
    #[test]
    fn history_does_not_matter(
        states in prop::collection::vec(prop::collection::vec((0u8..4, prop::option::of(1usize..4), prop::option::of((1u8..15, 1usize..4))), 0..5), 1..6),
    ) {
        let mut planner = Planner::new("node1", config());
        let mut before = Cluster::default();
        for state in &states {
            let blocks: BTreeMap<u8, IpBlock> = state.iter()
                .map(|(place, node, lent)| (*place, block(*place, *node, lent.as_slice()))).collect();
            let now = cluster(blocks.into_values().collect());
            // As the agent tells it: the nodes of blocks that changed, before and after.
            let names: BTreeSet<Arc<str>> = before.blocks.keys().chain(now.blocks.keys()).cloned().collect();
            let mut changed: BTreeSet<Arc<str>> = [&before, &now].into_iter()
                .flat_map(|cluster| cluster.nodes_of_blocks(&names).cloned()).collect();
            changed.extend(now.nodes.keys().filter(|_| before.nodes.is_empty()).cloned());
            planner.update(&now, &changed, Some(&underlay(1)));
            prop_assert_eq!(planner.plan(), &plan(&now, "node1", &config(), Some(&underlay(1))));
            before = now;
        }
    }
}
