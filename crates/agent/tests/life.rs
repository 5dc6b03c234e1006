//! What nodes live through: networks that become narrower, addresses that change, nodes that appear
//! twice; under the traffic of running pods.
#![allow(clippy::unwrap_used, unreachable_pub, reason = "a test fails by panicking and is one crate")]

mod world;

use weft_kernel::testing::eventually;
use weft_model::Node;
use weft_model::network::{Backend, Migration, Network};
use weft_store::Freshness;
use world::probes::transfer;
use world::traffic::{loses_nothing, settle, tell_all, under_traffic};
use world::{Families, SOON, World, sh};

const ALL: &[(Backend, Families)] = &[
    (Backend::HOST_GW, Families::Both),
    (Backend::VXLAN, Families::Both),
    (Backend::VXLAN, Families::V6),
    (Backend::UDP, Families::Both),
];

/// Nobody is told that something is too large.
const DEAF: &str = "nft -f - <<'N'
table inet deaf {
    chain out { type filter hook output priority -300; icmp type destination-unreachable drop
        icmpv6 type packet-too-big drop; }
    chain through { type filter hook forward priority -300; icmp type destination-unreachable drop
        icmpv6 type packet-too-big drop; }
}
N";

#[test]
fn f33_old_pods_transfer_through_a_narrower_underlay_that_tells_nobody() {
    for &(backend, families) in ALL {
        let world = World::of(backend, 2, families);
        let agents = world.up();
        let (near, far) = (&world.nodes[0].pod, &world.nodes[1].pod);
        world.nodes.iter().for_each(|node| drop(sh(&node.ns, DEAF)));
        sh(&world.underlay(), DEAF);
        // Made for 1,500 bytes, by another backend maybe.
        world.nodes.iter().for_each(|node| drop(sh(&node.pod, "ip link set eth0 mtu 1500")));
        let narrow = |what: &str| {
            for (ip, report) in under_traffic(&world, what, || {
                for (index, ip) in world.pod_ips(1).into_iter().enumerate() {
                    transfer(near, far, ip, 10_000_000);
                    transfer(far, near, world.pod_ips(0)[index], 10_000_000);
                }
                let outside = if families == Families::V6 { "2001:db8::1" } else { "192.0.2.1" };
                transfer(near, &world.underlay(), outside.parse().unwrap(), 10_000_000);
            }) {
                assert_eq!(report.connections.1, 0, "{backend}, {ip}, {what}: {report:?}");
            }
        };
        narrow("pods wider than their path");
        sh(&world.underlay(), "ip link set u1 mtu 1400; ip link set u2 mtu 1400; ip link set seg0 mtu 1400");
        world.nodes.iter().for_each(|node| drop(sh(&node.ns, "ip link set eth0 mtu 1400")));
        eventually(SOON, "the bridges follow", || {
            world.nodes.iter().all(|node| !sh(&node.ns, "ip -o link show weft0").contains("mtu 1500"))
        });
        settle(&agents);
        narrow("MTU 1500 to 1400");
    }
}

/// A node object that another one is made of.
fn as_another(cluster: &mut weft_model::Cluster, name: &str, change: impl FnOnce(&mut Node)) {
    let mut node = Node::clone(&cluster.nodes["node2"]);
    (node.name, node.uid, node.created) = (name.into(), name.into(), "2026-02-01T00:00:00Z".into());
    change(&mut node);
    cluster.nodes.insert(name.into(), node.into());
}

#[test]
fn a_node_that_appears_twice_is_refused_and_the_one_that_was_there_keeps_its_traffic() {
    for &(backend, families) in &ALL[..3] {
        let world = World::of(backend, 2, families);
        let agents = world.up();
        let mut cluster = world.cluster();
        for node in cluster.nodes.clone().values() {
            let aged = Node { created: "2026-01-01T00:00:00Z".into(), ..Node::clone(node) };
            cluster.nodes.insert(node.name.clone(), aged.into());
        }
        // By its name it would go first.
        for (what, change) in [
            ("one pod CIDR", (|node: &mut Node| node.addresses.clear()) as fn(&mut Node)),
            ("one address", |node| node.pod_cidrs = vec!["10.244.9.0/24".parse().unwrap()]),
            ("all the same", |_| {}),
        ] {
            let mut twice = cluster.clone();
            as_another(&mut twice, "a-clone", change);
            if what == "one pod CIDR" {
                let node = Node::clone(&twice.nodes["a-clone"]);
                let other = families != Families::V6;
                let addresses = vec![if other { "10.168.0.77" } else { "fd10:168::77" }.parse().unwrap()];
                twice.nodes.insert("a-clone".into(), Node { addresses, ..node }.into());
            }
            loses_nothing(&world, what, || {
                agents[0].tell_of(&twice, &["a-clone", "node1", "node2"]);
                let refused = || {
                    let status = agents[0].status();
                    let of = |name: &str| status.peers.iter().find(|peer| &*peer.node == name).cloned();
                    let (clone, old) = (of("a-clone"), of("node2"));
                    old.is_some_and(|old| old.programmed)
                        && clone.is_some_and(|clone| clone.reason.is_some_and(|why| why.contains("node2")))
                };
                eventually(SOON, "the clone is refused", refused);
                agents[0].tell_of(&cluster, &["a-clone"]);
                eventually(SOON, "it is gone", || agents[0].status().peers.len() == 1);
            });
        }
    }
}

#[test]
fn the_check_of_sources_is_loose_while_the_backend_changes_and_then_as_it_was() {
    let world = World::new(Backend::HOST_GW, 2);
    let node = &world.nodes[0];
    let check =
        |link: &str| sh(&node.ns, &format!("sysctl -n net.ipv4.conf.{link}.rp_filter")).trim().to_owned();
    sh(&node.ns, "sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.eth0.rp_filter=0");
    let mut agents = world.up();
    let before = (check("eth0"), check("weft0"));
    let mut migrating = world.cluster();
    let migration = Migration { to: Backend::VXLAN, nodes: Default::default() };
    let network = Network { backend: Backend::HOST_GW, migration: Some(migration), ..Network::default() };
    migrating.networks.insert("default".into(), network.clone().into());
    tell_all(&agents, &migrating);
    let loose = || ["eth0", "weft0", "weft-vxlan"].iter().all(|link| check(link) == "2");
    eventually(SOON, "it is loose", loose);
    // Killed in the middle: the next one knows what it was.
    agents.remove(0).kill();
    agents.insert(0, world.start(0));
    agents[0].tell(migrating.clone());
    agents[0].settled();
    assert!(loose());
    let done = Network { backend: Backend::VXLAN, migration: None, ..network };
    migrating.networks.insert("default".into(), done.into());
    tell_all(&agents, &migrating);
    eventually(SOON, "it is as it was", || (check("eth0"), check("weft0")) == before);
    eventually(SOON, "pods reach one another", || world.reaches(0, "10.244.1.2"));
}

#[test]
fn a_node_that_comes_back_from_a_snapshot_follows_the_cluster_and_disturbs_nobody() {
    for &(backend, families) in &ALL[..2] {
        let world = World::of(backend, 3, families);
        let mut agents = world.up();
        let node = &world.nodes[2];
        let whole = node.state();
        // What it remembers: node2 at another address, and a node that has left.
        let mut memory = world.cluster();
        let moved =
            Node { addresses: vec!["10.168.0.77".parse().unwrap()], ..Node::clone(&memory.nodes["node2"]) };
        memory.nodes.insert("node2".into(), moved.into());
        let left = Node {
            name: "node9".into(),
            addresses: vec!["10.168.0.99".parse().unwrap()],
            pod_cidrs: vec!["10.244.9.0/24".parse().unwrap()],
            ..Node::default()
        };
        memory.nodes.insert("node9".into(), left.into());
        loses_nothing(&world, "a third node comes back from a snapshot", || {
            agents.pop().unwrap().kill();
            // The kernel remembers nothing.
            sh(
                &node.ns,
                "ip link del weft-vxlan 2>/dev/null || true; ip link del weft0; ip nexthop flush; nft flush ruleset",
            );
            agents.push(world.start(2));
            let since = std::time::SystemTime::now();
            agents[2].tell_stale(memory.clone(), Freshness::Stale { since, reason: "not yet asked".into() });
            eventually(SOON, "it goes by its memory", || node.state().contains("10.244.9.0"));
            agents[2].tell(world.cluster());
            agents[2].settled();
        });
        sh(&node.ns, "ip link set wf0123456789a master weft0; bridge link set dev wf0123456789a hairpin on");
        eventually(SOON, "all is as it was", || node.state() == whole);
        eventually(SOON, "its pod is reached", || world.reaches(0, "10.244.2.2"));
    }
}
