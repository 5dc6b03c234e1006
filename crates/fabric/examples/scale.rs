//! How long a node takes to program its peers: all of them from nothing, one that changes, and
//! all again after a restart. Must run as root in a network namespace of its own:
//! `unshare -n scale NODES BACKEND`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement ends by panicking and prints")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weft_fabric::{Fabric, FabricConfig, Planner, Underlay};
use weft_kernel::{Address, LinkKind, Monitor, Netlink, NewLink, Op};
use weft_model::network::{Backend, Network, Tunnel};
use weft_model::{Cluster, Node};

fn node(i: usize, host: usize) -> Arc<Node> {
    let name: Arc<str> = format!("node{i}").into();
    let address = format!("10.{}.{}.{}", 160 + (host >> 16), (host >> 8) & 255, host & 255);
    Arc::new(Node {
        uid: name.clone(),
        name,
        addresses: vec![address.parse().unwrap()],
        pod_cidrs: vec![format!("10.{}.{}.0/24", i >> 8, i & 255).parse().unwrap()],
        ..Node::default()
    })
}

fn cluster(count: usize) -> Cluster {
    let nodes = (1..=count).map(|i| node(i, i)).map(|node| (node.name.clone(), node)).collect();
    Cluster { nodes, ..Cluster::default() }
}

fn underlay(netlink: &mut Netlink) -> Underlay {
    let kind = LinkKind::Veth {
        peer_name: "far".into(),
        peer_netns: None,
        peer_mac: None,
        peer_mtu: None,
        peer_up: true,
    };
    netlink.apply(&Op::LinkAdd(NewLink { up: true, ..NewLink::new("eth0", kind) })).unwrap();
    let link = netlink.link("eth0").unwrap().unwrap();
    let own = "10.160.0.1/11".parse().unwrap();
    netlink.apply(&Op::AddrAdd(Address::new(link.index, own))).unwrap();
    Underlay { link: "eth0".into(), index: link.index, mtu: 1500, addresses: vec![own] }
}

fn drain(monitor: &mut Monitor, fabric: &mut Fabric) {
    while let Some(event) = monitor.try_next().unwrap() {
        fabric.handle_event(&event);
    }
}

fn main() {
    let mut args = std::env::args().skip(1);
    let count: usize = args.next().and_then(|n| n.parse().ok()).unwrap_or(5000);
    let backend: Backend = args.next().and_then(|b| b.parse().ok()).unwrap_or(Backend::VXLAN);
    let mut netlink = Netlink::open().unwrap();
    let underlay = underlay(&mut netlink);
    let mut monitor = Monitor::open().unwrap();

    let cluster_cidrs = vec!["10.0.0.0/11".parse().unwrap()];
    let network = Network { backend, ..Network::default() };
    let cfg = FabricConfig { network, cluster_cidrs: cluster_cidrs.clone() };
    let mut planner = Planner::new("node1", cfg);
    let mut fabric = Fabric::new(cluster_cidrs.clone());
    let mut state = cluster(count);

    let start = Instant::now();
    let changed = planner.update(&state, &state.nodes.keys().cloned().collect(), Some(&underlay));
    let planned = start.elapsed();
    fabric.desire(planner.plan(), &changed);
    let applied = fabric.apply(&mut netlink, planner.plan());
    let whole = start.elapsed();
    assert!(applied.errors.is_empty(), "{:?}", applied.errors);
    println!(
        "{count} nodes, {backend}, from nothing: {whole:.1?} (planned in {planned:.1?}), {} writes",
        applied.writes
    );
    drain(&mut monitor, &mut fabric);

    let mut times = Vec::new();
    for round in 0..200 {
        let node = node(2 + round, 0x20000 + round);
        let start = Instant::now();
        state.nodes.insert(node.name.clone(), node.clone());
        let changed = planner.update(&state, &BTreeSet::from([node.name.clone()]), Some(&underlay));
        fabric.desire(planner.plan(), &changed);
        let applied = fabric.apply(&mut netlink, planner.plan());
        times.push(start.elapsed());
        // The tunnel's peers are none of the kernel's.
        let written = applied.writes > 0 || backend.tunnel == Some(Tunnel::Udp);
        assert!(applied.errors.is_empty() && written, "{applied:?}");
        drain(&mut monitor, &mut fabric);
    }
    times.sort();
    let micros = |time: Duration| time.as_micros();
    println!(
        "one node's address changes: median {} us, slowest {} us",
        micros(times[100]),
        micros(times[199])
    );

    let mut fabric = Fabric::new(cluster_cidrs);
    let start = Instant::now();
    fabric.desire(planner.plan(), &state.nodes.keys().cloned().collect());
    let applied = fabric.apply(&mut netlink, planner.plan());
    println!("all adopted after a restart: {:.1?}, {} writes", start.elapsed(), applied.writes);
}
