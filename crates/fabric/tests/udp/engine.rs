//! The tunnel as a part of a node's plan: made, adopted, repaired, replaced.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weft_fabric::{Applied, Fabric, FabricConfig, FabricPlan, Underlay, plan};
use weft_kernel::{Monitor, Netlink};
use weft_model::network::{Migration, Network};
use weft_model::{Cluster, Node};

use super::*;

/// Node `n` of [`World`], run by a fabric on a thread in its namespace.
struct Agent {
    netlink: Netlink,
    monitor: Monitor,
    fabric: Fabric,
    plan: FabricPlan,
}

fn cluster(ipv6: bool) -> Cluster {
    let node = |n: usize| Node {
        name: format!("node{n}").into(),
        uid: format!("uid{n}").into(),
        addresses: vec![Outer::V4.node(n)],
        pod_cidrs: world::pod_nets(n).into_iter().filter(|net| ipv6 || net.addr().is_ipv4()).collect(),
        ..Node::default()
    };
    let nodes: BTreeMap<Arc<str>, Arc<Node>> = [1, 2].map(|n| (node(n).name, Arc::new(node(n)))).into();
    Cluster { nodes: nodes.into_iter().collect(), ..Cluster::default() }
}

fn cidrs() -> Vec<ipnet::IpNet> {
    ["10.244.0.0/16", "fd00::/16"].map(|net| net.parse().unwrap()).to_vec()
}

impl Agent {
    /// In the namespace of the calling thread.
    fn new(world: &World, n: usize, network: Network, ipv6: bool) -> Agent {
        let mut netlink = Netlink::open_in(&world.nodes[n - 1]).unwrap();
        let link = netlink.link("eth0").unwrap().unwrap();
        let length = if n == 1 { "192.0.2.1/24" } else { "198.51.100.1/24" };
        let addresses = vec![length.parse().unwrap()];
        let underlay = Underlay { link: "eth0".into(), index: link.index, mtu: link.mtu, addresses };
        let cfg = FabricConfig { network, cluster_cidrs: cidrs() };
        let plan = plan(&cluster(ipv6), &format!("node{n}"), &cfg, Some(&underlay));
        let monitor = world.nodes[n - 1].run(|| Monitor::open().unwrap()).unwrap();
        Agent { netlink, monitor, fabric: Fabric::new(cidrs()), plan }
    }

    fn try_apply(&mut self, world: &World, n: usize) -> Applied {
        world.nodes[n - 1]
            .run(|| {
                while let Some(event) = self.monitor.try_next().unwrap() {
                    self.fabric.handle_event(&event);
                }
                let names: BTreeSet<Arc<str>> = self.plan.peers.keys().cloned().collect();
                self.fabric.desire(&self.plan, &names);
                self.fabric.apply(&mut self.netlink, &self.plan)
            })
            .unwrap()
    }

    fn apply(&mut self, world: &World, n: usize) -> usize {
        let applied = self.try_apply(world, n);
        assert!(applied.errors.is_empty(), "{:?}", applied.errors);
        applied.writes
    }
}

fn by(backend: &str) -> Network {
    Network { backend: backend.parse().unwrap(), ..Network::default() }
}

fn agents(world: &World, network: &Network, ipv6: bool) -> [Agent; 2] {
    [1, 2].map(|n| {
        // The bridge takes the gateway's address from the pod's plain link.
        let own = "echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad; ip addr flush dev pod0 scope global
            ip link add weft0 type bridge; ip link set pod0 master weft0";
        world.nodes[n - 1].run(|| sh(own)).unwrap();
        let mut agent = Agent::new(world, n, network.clone(), ipv6);
        assert!(agent.apply(world, n) > 0);
        agent
    })
}

fn ping(world: &World) -> bool {
    ["10.244.2.2", "fd00:2::2"].iter().all(|target| world.pod(1, &format!("ping -c1 -W1 {target}")).0)
}

#[test]
fn a_plan_makes_the_device_its_route_and_the_tunnel() {
    let world = World::without_tunnels(Outer::V4, 1_500);
    let mut agents = agents(&world, &by("udp"), true);
    assert!(ping(&world));
    let said = world.nodes[0]
        .run(|| sh("ip -d link show weft-udp0; ip -o addr show weft-udp0; ip route; ip -6 route"));
    let said = said.unwrap();
    for part in ["tun type tun", "multi_queue", "persist on", "mtu 1472", "10.244.1.0/32", "fd00:1::/128"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(said.contains("10.244.0.0/16 dev weft-udp0 proto 87 scope link"), "{said}");
    assert!(said.contains("fd00::/16 dev weft-udp0 proto 87"), "{said}");
    assert!(
        agents[0].fabric.programmed("node2") && agents[0].fabric.udp_counters().unwrap().sent_packets > 0
    );
    // Nothing more to do, now and after a restart.
    let entries =
        || world.nodes[0].run(|| sh("ip -o addr show weft-udp0; ip route; ip -6 route show dev weft-udp0"));
    let before = entries().unwrap();
    for n in [1, 2] {
        assert_eq!(agents[n - 1].apply(&world, n), 0, "after its own events");
        agents[n - 1].fabric.distrust();
        assert_eq!(agents[n - 1].apply(&world, n), 0, "after an audit");
    }
    agents[0].fabric = Fabric::new(cidrs());
    assert!(!ping(&world), "the tunnel ended with its owner");
    assert_eq!(agents[0].apply(&world, 1), 0, "the device was adopted as it was");
    // The kernel takes note of a carrier that is back a moment later.
    eventually(SOON, "the adopted device carries", || ping(&world));
    assert_eq!(entries().unwrap(), before);
}

#[test]
fn what_others_break_is_made_again() {
    let world = World::without_tunnels(Outer::V4, 1_500);
    let mut agents = agents(&world, &by("udp"), true);
    for breakage in [
        "ip link set weft-udp0 down",
        "ip link set weft-udp0 mtu 1300",
        "ip addr del 10.244.1.0/32 dev weft-udp0",
        "ip route del 10.244.0.0/16 dev weft-udp0",
        "ip link del weft-udp0",
        "ip link del weft-udp0; ip link add weft-udp0 type bridge",
        "ip link del weft-udp0; ip tuntap add weft-udp0 mode tun",
    ] {
        world.nodes[0].run(|| sh(breakage)).unwrap();
        let agent = &mut agents[0];
        world.nodes[0]
            .run(|| {
                while let Some(event) = agent.monitor.try_next().unwrap() {
                    agent.fabric.handle_event(&event);
                }
            })
            .unwrap();
        assert!(agents[0].fabric.pending(), "{breakage}");
        agents[0].apply(&world, 1);
        eventually(SOON, breakage, || ping(&world));
        agents[0].apply(&world, 1);
        assert_eq!(agents[0].apply(&world, 1), 0, "{breakage}");
    }
}

#[test]
fn what_a_node_has_of_pools_changes_without_a_new_tunnel() {
    let world = World::without_tunnels(Outer::V4, 1_500);
    let mut agents = agents(&world, &by("udp"), true);
    eventually(SOON, "packets go through", || ping(&world));
    let sent = |agent: &Agent| agent.fabric.udp_counters().unwrap().sent_packets;
    let before = sent(&agents[0]);
    assert!(before > 0);
    let local = agents[0].plan.local.as_mut().unwrap();
    let udp = local.tunnels.udp.as_mut().unwrap();
    // A block more, and an address that is borrowed.
    udp.addresses.push("10.244.7.0/32".parse().unwrap());
    udp.pod_cidrs.extend(["10.244.7.0/26", "10.244.9.9/32"].map(|net| net.parse::<ipnet::IpNet>().unwrap()));
    assert_eq!(agents[0].apply(&world, 1), 1, "the address");
    eventually(SOON, "packets go on", || ping(&world));
    assert!(sent(&agents[0]) > before, "a new tunnel counts from nothing");
}

#[test]
fn a_tunnel_that_cannot_start_is_an_error_and_is_tried_again() {
    let world = World::without_tunnels(Outer::V4, 1_500);
    let taken =
        world.nodes[0].run(|| UdpSocket::bind(SocketAddr::new(Outer::V4.node(1), world::PORT)).unwrap());
    let mut agent = Agent::new(&world, 1, by("udp"), true);
    let applied = agent.try_apply(&world, 1);
    let said = applied.errors.iter().map(ToString::to_string).collect::<String>();
    assert!(said.contains("192.0.2.1:8285") && said.contains("in use"), "{said}");
    assert!(!agent.fabric.programmed("node2") && agent.fabric.pending());
    drop(taken);
    assert!(agent.try_apply(&world, 1).errors.is_empty());
    assert!(agent.fabric.programmed("node2"));
}

#[test]
fn a_stream_goes_on_while_the_backend_changes_and_back() {
    let world = World::without_tunnels(Outer::V4, 1_500);
    let both = |from: &str, to: &str, moved: &[&str]| {
        let nodes = moved.iter().map(|name| Arc::from(*name)).collect();
        Network { migration: Some(Migration { to: to.parse().unwrap(), nodes }), ..by(from) }
    };
    let mut agents = agents(&world, &both("vxlan", "udp", &[]), false);
    for n in [1, 2] {
        world.pod(n, "ip link set eth0 mtu 1450");
    }
    let (client, server) = connect(&world.pods[0], &world.pods[1], pods(true)[1]);
    let data = pattern(1 << 20);
    for network in [
        both("vxlan", "udp", &[]),
        both("vxlan", "udp", &["node1"]),
        both("vxlan", "udp", &["node1", "node2"]),
        by("udp"),
        both("udp", "vxlan", &[]),
        both("udp", "vxlan", &["node2"]),
        both("udp", "vxlan", &["node1", "node2"]),
        by("vxlan"),
    ] {
        for n in [1, 2] {
            agents[n - 1].plan = Agent::new(&world, n, network.clone(), false).plan;
            agents[n - 1].apply(&world, n);
            transfer(&client, &server, &data);
            transfer(&server, &client, &data);
        }
    }
    let links = world.nodes[0].run(|| sh("ip -o link")).unwrap();
    assert!(!links.contains("weft-udp0") && links.contains("weft-vxlan"), "{links}");
}
