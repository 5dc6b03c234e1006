//! Real agents in namespaces: packets cross, restarts lose none, and whatever is broken by hand
//! comes back while everything else stays as it was.
#![allow(clippy::unwrap_used, unreachable_pub, reason = "a test fails by panicking and is one crate")]

mod world;

use std::time::{Duration, Instant, SystemTime};

use weft_kernel::testing::{MachineDump, eventually};
use weft_model::network::Backend;
use weft_store::Freshness;
use world::{Ping, SOON, World, sh, sh_in};

fn reaches(world: &World, from: usize, to: &str) -> bool {
    sh_in(&world.nodes[from].pod, &format!("ping -n -c1 -W1 {to}")).status.success()
}

#[test]
fn pods_reach_pods_nodes_and_the_outside_with_the_right_source() {
    for backend in [Backend::HOST_GW, Backend::VXLAN] {
        let world = World::new(backend, 3);
        let _agents = world.up();
        for to in ["10.244.1.2", "10.244.2.2", "10.168.0.2", "10.168.0.3", "192.0.2.1", "10.244.0.1"] {
            eventually(SOON, &format!("{backend}: pod to {to}"), || reaches(&world, 0, to));
        }
        let source = |to: &str, at: &weft_kernel::Netns| {
            let socket = at.run(|| std::net::UdpSocket::bind((to, 9000)).unwrap()).unwrap();
            socket.set_read_timeout(Some(SOON)).unwrap();
            let sender = world.nodes[0].pod.run(|| std::net::UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
            sender.send_to(b"x", (to, 9000)).unwrap();
            socket.recv_from(&mut [0; 8]).unwrap().1.ip().to_string()
        };
        assert_eq!(source("10.244.1.2", &world.nodes[1].pod), "10.244.0.2", "pod to pod: no NAT");
        assert_eq!(source("10.168.0.2", &world.nodes[0].ns), "10.244.0.2", "pod to its own node: no NAT");
        assert_eq!(source("192.0.2.1", &world.underlay()), "10.168.0.2", "leaving the cluster");
        assert_eq!(source("10.168.0.3", &world.nodes[1].ns), "10.168.0.2", "pod to another node");
        sh(&world.nodes[0].ns, "ping -n -c1 -W2 10.244.1.2");
    }
}

#[test]
fn vxlan_never_asks_the_underlay() {
    let world = World::new(Backend::VXLAN, 2);
    let agents = world.up();
    eventually(SOON, "pod to pod", || reaches(&world, 0, "10.244.1.2"));
    let neighbours = sh(&world.nodes[0].ns, "ip neigh show dev weft-vxlan");
    assert!(neighbours.lines().all(|line| line.trim().ends_with("PERMANENT")), "{neighbours}");
    sh(
        &world.nodes[0].ns,
        "nft add table ip t; nft add chain ip t c '{ type filter hook output priority 0; }'
        nft add rule ip t c udp dport 8472 @th,312,8 1 counter
        nft add table arp t; nft add chain arp t c '{ type filter hook output priority 0; }'
        nft add rule arp t c arp daddr ip 10.244.0.0/16 oifname != weft0 counter",
    );
    // An address that no node has: nothing goes out, not even a question.
    assert!(!reaches(&world, 0, "10.244.77.2"));
    let counted = sh(&world.nodes[0].ns, "nft list table ip t; nft list table arp t");
    assert_eq!(counted.matches("packets 0 bytes 0").count(), 2, "{counted}");
    assert!(reaches(&world, 0, "10.244.1.2"));
    let counted = sh(&world.nodes[0].ns, "nft list table ip t; nft list table arp t");
    assert_eq!(counted.matches("packets 0 bytes 0").count(), 1, "only the tunnelled packet: {counted}");
    drop(agents);
}

#[test]
fn restarts_lose_no_packet_and_change_nothing() {
    for backend in [Backend::HOST_GW, Backend::VXLAN] {
        let world = World::new(backend, 2);
        let mut agents = world.up();
        eventually(SOON, "pod to pod", || reaches(&world, 0, "10.244.1.2"));
        let dump = world.nodes[0].ns.run(MachineDump::take).unwrap();
        let ping = Ping::start(&world.nodes[0].pod, "10.244.1.2");
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(2) {
            agents.remove(0).kill();
            let agent = world.start(0);
            agent.tell(world.cluster());
            agent.settled();
            assert_eq!(agent.status().repairs.count, 0);
            agents.insert(0, agent);
        }
        let (sent, received) = ping.end();
        assert!(sent > 20, "{sent}");
        assert!(sent - received <= 1, "{backend}: {received} of {sent}; the last may be on its way");
        let differences = dump.differences(&world.nodes[0].ns.run(MachineDump::take).unwrap());
        let ours: Vec<&String> =
            differences.iter().filter(|line| line.contains("weft") && !line.contains("fe80")).collect();
        assert!(ours.is_empty(), "{backend}: {ours:?}");
    }
}

#[test]
fn whatever_is_broken_comes_back_and_foreign_objects_stay() {
    let world = World::new(Backend::VXLAN, 3);
    let agents = world.up();
    let node = &world.nodes[0];
    sh(
        &node.ns,
        "ip route add 198.51.100.0/24 via 10.168.0.9 proto static
        ip neigh add 10.168.0.9 lladdr 02:00:00:00:00:09 dev eth0 nud permanent
        nft add table ip foreign; nft add chain ip foreign c '{ type filter hook forward priority 5; }'
        nft add rule ip foreign c ip daddr 203.0.113.9 drop",
    );
    eventually(SOON, "pod to pod", || reaches(&world, 0, "10.244.1.2"));
    let whole = node.state();
    let mac = weft_model::mark::vtep_mac("node2");
    let conflist = node.conflist();
    let (file, folder) = (conflist.display(), conflist.parent().unwrap().display());
    for breakage in [
        "ip route del 10.244.1.0/24".into(),
        "ip nexthop del id $(ip nexthop show | awk '/10.244.1.0/{print $2}')".into(),
        "ip nexthop flush".into(),
        "ip route change 10.244.1.0/24 via 10.168.0.9".into(),
        "ip neigh del 10.244.1.0 dev weft-vxlan".into(),
        format!("bridge fdb del {mac} dev weft-vxlan"),
        "ip addr del 10.244.0.1/24 dev weft0".into(),
        "ip addr flush dev weft-vxlan".into(),
        "ip link set weft-vxlan down".into(),
        "ip link del weft-vxlan".into(),
        "ip link set weft0 down".into(),
        "ip link del weft0".into(),
        "ip link set wf0123456789a nomaster".into(),
        "nft delete table ip weft".into(),
        "nft flush chain ip weft postrouting".into(),
        "nft delete element ip weft cluster '{ 10.244.0.0/16 }'".into(),
        "echo 0 > /proc/sys/net/ipv4/ip_forward".into(),
        "echo 0 > /proc/sys/net/ipv4/conf/weft0/forwarding".into(),
        format!("rm {file}"),
        format!("echo broken > {file}"),
        format!("mv {folder} {folder}.away; rm -r {folder}.away"),
    ] {
        let breakage: String = breakage;
        let repairs = agents[0].status().repairs.count;
        sh(&node.ns, &breakage);
        // Not the state alone: it may be read before the breakage is even noticed.
        let repaired = || agents[0].status().repairs.count > repairs && node.state() == whole;
        let deadline = Instant::now() + SOON;
        while !repaired() {
            let status = agents[0].status();
            assert!(Instant::now() < deadline, "{breakage}\n{status:?}\n{whole}\nbut\n{}", node.state());
        }
        eventually(SOON, &format!("pod to pod after {breakage}"), || reaches(&world, 0, "10.244.1.2"));
    }
    assert!(agents[0].status().errors.is_empty());
}

#[test]
fn routes_return_after_the_underlay_link_was_down() {
    let world = World::new(Backend::HOST_GW, 3);
    let agents = world.up();
    let node = &world.nodes[0];
    let whole = node.state();
    let back = "ip link set eth0 up; ip route add default via 10.168.0.1";
    for breakage in [
        format!("ip link set eth0 down; {back}"),
        "ip link set eth0 down".into(),
        back.into(),
        "ip addr del 10.168.0.2/16 dev eth0; ip addr add 10.168.0.2/16 dev eth0
            ip route add default via 10.168.0.1"
            .into(),
    ] {
        let breakage: String = breakage;
        sh(&node.ns, &breakage);
        if breakage.contains("default") {
            eventually(SOON, &breakage, || node.state() == whole);
        } else {
            let told = || agents[0].status().peers.iter().all(|peer| !peer.programmed);
            eventually(SOON, "the status tells that no peer is reachable", told);
        }
    }
    agents[0].settled();
}

#[test]
fn nothing_is_changed_before_the_first_view_nor_without_the_node_itself() {
    let world = World::new(Backend::VXLAN, 2);
    let untouched = world.nodes[0].ns.run(MachineDump::take).unwrap();
    let agent = world.start(0);
    let says = |text: &str| {
        let told = || agent.status().errors.iter().any(|error| error.contains(text));
        eventually(SOON, text, told);
    };
    says("waiting for the first view");
    let mut without = world.cluster();
    without.nodes.remove("node1");
    agent.tell(without);
    says("node node1 is not in the cluster");
    assert!(!agent.status().ready && !world.nodes[0].conflist().exists());
    let differences = untouched.differences(&world.nodes[0].ns.run(MachineDump::take).unwrap());
    assert!(differences.is_empty(), "{differences:?}");
    agent.tell(world.cluster());
    agent.settled();
    let state = world.nodes[0].state();
    let mut without = world.cluster();
    without.nodes.remove("node1");
    agent.tell(without);
    says("node node1 is not in the cluster");
    assert_eq!(world.nodes[0].state(), state, "its Node object vanished: the data plane stays");
}

#[test]
fn the_data_plane_stays_when_the_api_goes_and_the_status_says_since_when() {
    let world = World::new(Backend::HOST_GW, 2);
    let agents = world.up();
    let state = world.nodes[0].state();
    let freshness = Freshness::Stale { since: SystemTime::now(), reason: "connection refused".into() };
    agents[0].tell_stale(world.cluster(), freshness);
    eventually(SOON, "the status is stale", || agents[0].status().stale_since.is_some());
    assert!(agents[0].status().ready && agents[0].status().errors[0].contains("connection refused"));
    assert_eq!(world.nodes[0].state(), state);
    sh(&world.nodes[0].ns, "ip route del 10.244.1.0/24");
    eventually(SOON, "it is repaired all the same", || world.nodes[0].state() == state);
}

#[test]
fn peers_come_go_and_move() {
    let world = World::new(Backend::VXLAN, 3);
    let agents = world.up();
    eventually(SOON, "pod to pod", || reaches(&world, 0, "10.244.2.2"));
    let whole = world.nodes[0].state();
    let ping = Ping::start(&world.nodes[0].pod, "10.244.1.2");
    let mut two = world.cluster();
    let third = two.nodes.remove("node3").unwrap();
    let gone = |world: &World| !world.nodes[0].state().contains("10.244.2.0");
    let tell = |cluster| {
        let mut changes = weft_model::Changes::default();
        changes.nodes.insert("node3".into());
        agents[0].updates_with(cluster, changes);
    };
    tell(two.clone());
    eventually(SOON, "node3 is gone", || gone(&world));
    let mut moved = weft_model::Node::clone(&third);
    moved.addresses = vec!["10.168.0.3".parse().unwrap()];
    let mut bad = two.clone();
    bad.nodes.insert("node3".into(), moved.into());
    tell(bad);
    let refused = || {
        agents[0]
            .status()
            .peers
            .iter()
            .any(|p| !p.programmed && p.reason.as_ref().is_some_and(|r| r.contains("10.168.0.3")))
    };
    eventually(SOON, "two nodes with one address: the second is refused", refused);
    assert!(gone(&world));
    tell(world.cluster());
    eventually(SOON, "node3 is back", || world.nodes[0].state() == whole);
    let (sent, received) = ping.end();
    assert!(sent - received <= 1, "{received} of {sent}: node2 was not touched");
    assert_eq!(agents[0].status().repairs.count, 0, "changes of the plan are no repairs");
}

#[test]
fn the_mtu_follows_the_underlay() {
    let world = World::new(Backend::VXLAN, 2);
    let _agents = world.up();
    let node = &world.nodes[0];
    sh(&node.ns, "ip link set eth0 mtu 9000");
    let followed = || {
        let links = sh(&node.ns, "ip -o link show weft-vxlan; ip -o link show weft0");
        links.matches("mtu 8950").count() == 2 && node.state().contains("\"mtu\": 8950")
    };
    eventually(SOON, "device, bridge and configuration follow", followed);
}

#[test]
fn the_configuration_is_what_a_runtime_expects() {
    let world = World::new(Backend::HOST_GW, 1);
    let _agents = world.up();
    let text = std::fs::read_to_string(world.nodes[0].conflist()).unwrap();
    let list: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&list["cniVersion"], &list["name"]), (&"1.0.0".into(), &"weft".into()));
    assert_eq!(list["cniVersions"], serde_json::json!(["1.0.0", "1.1.0"]));
    let bridge = &list["plugins"][0];
    assert_eq!(
        (&bridge["type"], &bridge["bridge"], &bridge["mtu"]),
        (&"bridge".into(), &"weft0".into(), &1500.into())
    );
    assert_eq!(bridge["ipam"]["ranges"][0][0]["subnet"], "10.244.0.0/24");
}
