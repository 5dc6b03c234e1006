//! A change of every kind under running traffic: what must lose nothing loses nothing, what must lose
//! something comes back, and no established connection breaks.
#![allow(clippy::unwrap_used, unreachable_pub, reason = "a test fails by panicking and is one crate")]

mod world;

use std::time::{Duration, Instant};

use weft_kernel::testing::eventually;
use weft_model::Node;
use weft_model::network::Backend;
use world::traffic::{loses_nothing, settle, tell_all, under_traffic};
use world::{Families, Running, SOON, World, sh, sh_in};

const ALL: &[(Backend, Families)] =
    &[(Backend::HOST_GW, Families::Both), (Backend::VXLAN, Families::Both), (Backend::VXLAN, Families::V6)];

#[test]
fn agents_that_die_and_peers_that_come_and_go_cost_nothing() {
    for &(backend, families) in ALL {
        let world = World::of(backend, 3, families);
        let mut agents = world.up();
        loses_nothing(&world, "agents killed and started again", || {
            for index in [0, 1, 0, 1] {
                agents.remove(index).kill();
                agents.insert(index, world.start(index));
                agents[index].tell(world.cluster());
                agents[index].settled();
            }
        });
        let mut two = world.cluster();
        two.nodes.remove("node3");
        loses_nothing(&world, "a peer leaves and comes back", || {
            for cluster in [&two, &world.cluster(), &two, &world.cluster()] {
                tell_all(&agents, cluster);
                let peers = cluster.nodes.len() - 1;
                let told = || agents[0].status().peers.len() == peers;
                eventually(SOON, "the agents know", told);
            }
            settle(&agents);
        });
        loses_nothing(&world, "another's routes, neighbours and tables come and go", || {
            sh(
                &world.nodes[0].ns,
                "ip route add 198.51.100.0/24 via 10.168.0.9 dev eth0 onlink proto static || true
                ip route del 198.51.100.0/24 proto static || true
                ip neigh add 10.168.0.99 lladdr 02:00:00:00:00:09 dev eth0; ip neigh del 10.168.0.99 dev eth0
                nft add table ip foreign; nft delete table ip foreign",
            );
        });
        assert_eq!(agents[0].status().repairs.count, 0, "{backend}: {:?}", agents[0].status());
    }
}

#[test]
fn f32_a_node_that_changes_its_address_keeps_its_pods_and_their_connections() {
    for &(backend, families) in ALL {
        let world = World::of(backend, 3, families);
        let agents = world.up();
        let conflist = std::fs::read_to_string(world.nodes[1].conflist()).unwrap();
        let mut moved = world.cluster();
        let mut node = Node::clone(&moved.nodes["node2"]);
        for address in &mut node.addresses {
            *address = if address.is_ipv4() { "10.168.0.33" } else { "fd10:168::33" }.parse().unwrap();
        }
        moved.nodes.insert("node2".into(), node.clone().into());
        let mut took = Duration::ZERO;
        under_traffic(&world, "node2 has another address", || {
            for (old, new) in world.cluster().nodes["node2"].addresses.iter().zip(&node.addresses) {
                let bits = if new.is_ipv4() { 16 } else { 64 };
                let gateway = if new.is_ipv4() { "10.168.0.1" } else { "fd10:168::1" };
                let nodad = if new.is_ipv4() { "" } else { "nodad" };
                sh(
                    &world.nodes[1].ns,
                    &format!(
                        "ip addr del {old}/{bits} dev eth0; ip addr add {new}/{bits} dev eth0 {nodad}
                        ip route replace default via {gateway} dev eth0"
                    ),
                );
            }
            let started = Instant::now();
            tell_all(&agents, &moved);
            for ip in world.pod_ips(1) {
                eventually(SOON, "the pod is reached again", || world.reaches(0, &ip.to_string()));
            }
            took = started.elapsed();
        });
        println!("{backend}: reached again after {took:?}");
        settle(&agents);
        assert_eq!(std::fs::read_to_string(world.nodes[1].conflist()).unwrap(), conflist, "{backend}");
    }
}

#[test]
fn f33_pods_made_before_the_underlay_became_narrower_are_told_and_go_on() {
    for &(backend, families) in ALL {
        let world = World::of(backend, 2, families);
        let links = |mtu: u32| {
            sh(&world.underlay(), &format!("ip link set u1 mtu {mtu}; ip link set u2 mtu {mtu}"));
            world.nodes.iter().for_each(|node| drop(sh(&node.ns, &format!("ip link set eth0 mtu {mtu}"))));
        };
        links(9000);
        let agents = world.up();
        let mtu = |index: usize| {
            let text = std::fs::read_to_string(world.nodes[index].conflist()).unwrap();
            let list: serde_json::Value = serde_json::from_str(&text).unwrap();
            list["plugins"][0]["mtu"].as_u64().unwrap()
        };
        let wide = mtu(0);
        for node in &world.nodes {
            sh(&node.pod, &format!("ip link set eth0 mtu {wide}"));
            sh(&node.ns, &format!("ip link set wf0123456789a mtu {wide}"));
        }
        for (before, now) in [(9000, 1500), (1500, 1400)] {
            let what = format!("MTU {before} to {now}");
            for (ip, report) in under_traffic(&world, &what, || {
                links(now);
                let less = u64::from(9000 - now);
                eventually(SOON, "new pods get the new MTU", || {
                    mtu(0) == wide - less && mtu(1) == wide - less
                });
                for ip in world.pod_ips(1) {
                    world::probes::transfer(&world.nodes[0].pod, &world.nodes[1].pod, ip, 10_000_000);
                    let told = world::probes::path_takes(&world.nodes[0].pod, &world.nodes[1].pod, ip);
                    assert_eq!(
                        u64::from(told),
                        wide - less,
                        "{backend}, {ip}: what a pod learns of its path"
                    );
                }
            }) {
                assert_eq!(report.connections.1, 0, "{backend}, {ip}, {what}: {report:?}");
            }
        }
        settle(&agents);
    }
}

#[test]
fn f34_a_link_that_flaps_loses_nothing_of_ours() {
    for &(backend, families) in ALL {
        let world = World::of(backend, 2, families);
        let agents = world.up();
        let node = &world.nodes[0];
        let back = "ip link set eth0 up; ip route replace default via 10.168.0.1 || true
            ip -6 route replace default via fd10:168::1 || true";
        let mut took = Duration::ZERO;
        under_traffic(&world, "50 flaps of 100 ms", || {
            let whole = node.state();
            sh(
                &node.ns,
                &format!(
                    "for i in $(seq 50); do ip link set eth0 down; sleep 0.05; ip link set eth0 up; sleep 0.05
                    done; {back}"
                ),
            );
            let started = Instant::now();
            eventually(SOON, "all is as before", || node.state() == whole);
            took = started.elapsed();
        });
        println!("{backend}: whole again {took:?} after the last flap");
        settle(&agents);
    }
}

#[test]
fn f39_a_pod_that_floods_hardware_addresses_harms_nobody() {
    for &(backend, families) in ALL {
        let world = World::of(backend, 2, families);
        let agents = world.up();
        let node = &world.nodes[0];
        loses_nothing(&world, "20,000 hardware addresses from a pod", || {
            let whole = node.state();
            world::probes::flood(&node.pod, 20_000);
            assert_eq!(node.state(), whole, "{backend}: the tunnel learnt nothing");
        });
        let learnt = sh(&node.ns, "bridge fdb show br weft0 | wc -l");
        let learnt: usize = learnt.trim().parse().unwrap();
        assert!(learnt < 10_000, "{backend}: the bridge keeps {learnt} addresses");
        assert_eq!(agents[0].status().repairs.count, 0);
    }
}

#[test]
fn f44_another_program_that_adds_our_prefixes_neither_wins_nor_loses_its_own() {
    let world = World::of(Backend::VXLAN, 3, Families::Both);
    let agents = world.up();
    let node = &world.nodes[0];
    let others = "ip route show proto bird; ip -6 route show proto bird";
    sh(
        &node.ns,
        "ip route add 10.244.1.0/24 via 10.168.0.9 dev eth0 onlink proto bird metric 20
        ip -6 route add fd00:244:0:1::/64 via fd10:168::9 dev eth0 onlink proto bird metric 2048",
    );
    let foreign = sh(&node.ns, others);
    assert_eq!(foreign.lines().count(), 2);
    loses_nothing(&world, "another's routes beside ours", || {
        agents[0].tell(world.cluster());
    });
    assert_eq!(sh(&node.ns, others), foreign);
    // Before ours, which with IPv6 it can be: said of the peer, and nothing is done to it.
    sh(&node.ns, "ip -6 route add fd00:244:0:1::/64 via fd10:168::9 dev eth0 onlink proto bird metric 20");
    let said = |words: &str| {
        let peers = agents[0].status().peers;
        peers.iter().any(|peer| !peer.programmed && peer.reason.as_ref().is_some_and(|r| r.contains(words)))
    };
    eventually(SOON, "the route that wins is told", || said("metric 20) goes before ours"));
    sh(&node.ns, "ip -6 route del fd00:244:0:1::/64 proto bird metric 20");
    agents[0].settled();
    // In the place of ours: it is ours again.
    under_traffic(&world, "ours is replaced by another's", || {
        let whole = node.state();
        sh(&node.ns, "ip route replace 10.244.1.0/24 via 10.168.0.9 dev eth0 onlink proto bird");
        eventually(SOON, "ours is back", || node.state() == whole);
    });
    // Before ours: it is told and stays, and ours comes when it goes.
    let mut two = world.cluster();
    two.nodes.remove("node3");
    agents[0].tell(two);
    eventually(SOON, "node3 is gone", || !node.state().contains("10.244.2.0"));
    sh(&node.ns, "ip route add 10.244.2.0/24 via 10.168.0.9 dev eth0 onlink proto bird");
    agents[0].tell(world.cluster());
    let told = || agents[0].status().errors.iter().any(|error| error.contains("10.244.2.0/24"));
    eventually(SOON, "the conflict is told", told);
    assert!(sh(&node.ns, "ip route show 10.244.2.0/24").contains("bird"), "it stays");
    sh(&node.ns, "ip route del 10.244.2.0/24 proto bird");
    eventually(SOON, "ours comes", || sh(&node.ns, "ip route show 10.244.2.0/24").contains("weft-vxlan"));
    agents[0].settled();
}

/// Programs that do not end by themselves, and end with the test also where that fails.
struct Endless {
    loops: Vec<std::process::Child>,
    /// Each loop ends when this file is there, with what it had begun: nothing of it comes later.
    end: std::path::PathBuf,
}

impl Drop for Endless {
    fn drop(&mut self) {
        if std::fs::write(&self.end, "").is_err() {
            self.loops.iter_mut().for_each(|each| drop(each.kill()));
        }
        self.loops.iter_mut().for_each(|each| drop(each.wait()));
    }
}

#[test]
fn f45_dumps_and_transactions_that_others_interrupt_are_tried_again() {
    let world = World::of(Backend::VXLAN, 3, Families::Both);
    let agents = world.up();
    let node = &world.nodes[0];
    let whole = node.state();
    // Two programs that never stop: every dump of routes, rules and links meets a change.
    let noise = [
        "until [ -e $0.end ]; do nft -f - <<'N'
        add table ip noise
        add set ip noise s { type ipv4_addr; elements = { 192.0.2.1, 192.0.2.2, 192.0.2.3 }; }
        delete table ip noise
N
        done",
        "seq -f 'route add 203.0.113.%g/32 dev lo proto static' 1 250 >$0.add
        seq -f 'route del 203.0.113.%g/32 dev lo proto static' 1 250 >$0.del
        until [ -e $0.end ]; do ip -force -batch $0.add; ip -force -batch $0.del; done 2>/dev/null",
    ];
    const TABLES: &str = "nft list table ip weft; nft list table ip6 weft";
    let tables = sh(&node.ns, TABLES);
    let base = node.files.path().join("noise").display().to_string();
    let loops = noise.iter().map(|script| {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", script, &base]).stderr(std::process::Stdio::null());
        node.ns.run(|| command.spawn().unwrap()).unwrap()
    });
    let noisy = Endless { loops: loops.collect(), end: format!("{base}.end").into() };
    let ours = |state: String| -> Vec<String> {
        let foreign = |line: &str| line.contains("203.0.113") || line.contains("noise");
        state.lines().filter(|line| !foreign(line)).map(str::to_owned).collect()
    };
    for breakage in [
        "ip route del 10.244.1.0/24",
        "ip -6 route del fd00:244:0:2::/64",
        "nft delete table ip weft",
        "nft flush chain ip6 weft postrouting",
        "ip link del weft-vxlan",
    ] {
        sh(&node.ns, breakage);
        let routes = || {
            let text = sh(&node.ns, "ip route; ip -6 route");
            ["10.244.1.0/24", "10.244.2.0/24", "fd00:244:0:1::/64", "fd00:244:0:2::/64"]
                .iter()
                .all(|net| text.lines().any(|line| line.starts_with(net) && line.contains("proto 87")))
                && sh_in(&node.ns, TABLES).stdout == tables.as_bytes()
        };
        let deadline = Instant::now() + 2 * SOON;
        while !routes() {
            let late = Instant::now() > deadline;
            assert!(!late, "{breakage}\n{:?}\n{}", agents[0].status(), sh(&node.ns, "ip route; ip nexthop"));
        }
    }
    drop(noisy);
    eventually(SOON, "all is as before", || ours(node.state()) == ours(whole.clone()));
    agents[0].settled();
}

#[test]
fn f46_where_ipv6_is_off_it_is_said_and_ipv4_works() {
    let world = World::of(Backend::VXLAN, 2, Families::Both);
    sh(
        &world.nodes[0].ns,
        "sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1",
    );
    let agents: Vec<Running> = (0..2).map(|index| world.start(index)).collect();
    tell_all(&agents, &world.cluster());
    agents[1].settled();
    let told =
        || agents[0].status().errors.iter().any(|error| error.contains("IPv6") || error.contains("fd00:244"));
    eventually(SOON, "the status tells what cannot be", told);
    world.nodes.iter().enumerate().for_each(|(index, node)| node.add_pod_of(index, Families::V4));
    eventually(SOON, "IPv4 works", || world.reaches(0, "10.244.1.2") && world.reaches(1, "10.244.0.2"));
}

#[test]
fn f47_a_pods_link_that_is_renamed_taken_down_or_let_go_carries_again() {
    let world = World::of(Backend::HOST_GW, 2, Families::Both);
    let agents = world.up();
    let node = &world.nodes[0];
    for (what, lines) in [
        ("down and up", "ip link set wf0123456789a down; ip link set wf0123456789a up"),
        ("renamed", "ip link set wf0123456789a down name other0 up"),
        ("renamed and let go", "ip link set other0 nomaster"),
        ("named as before", "ip link set other0 down name wf0123456789a up"),
        ("let go and down", "ip link set wf0123456789a nomaster; ip link set wf0123456789a down up"),
    ] {
        under_traffic(&world, what, || drop(sh(&node.ns, lines)));
    }
    agents[0].settled();
}
