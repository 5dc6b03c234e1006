//! What the drivers do to a real kernel, in a namespace of the test's own.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use weft_fabric::{Error, Fabric, FabricConfig, FabricPlan, Underlay, masquerade, plan};
use weft_kernel::nft::Nft;
use weft_kernel::testing::{MachineDump, TestNs, eventually};
use weft_kernel::{Monitor, Netlink};
use weft_model::network::{Backend, Network};
use weft_model::{Cluster, Node};

const SOON: Duration = Duration::from_secs(5);

fn sh(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn cluster(nodes: usize) -> Cluster {
    let node = |i: usize| Node {
        name: format!("node{i}").into(),
        uid: format!("uid{i}").into(),
        addresses: vec![format!("10.168.0.{}", i + 1).parse().unwrap()],
        pod_cidrs: vec![format!("10.244.{}.0/24", i - 1).parse().unwrap()],
        ..Node::default()
    };
    Cluster { nodes: (1..=nodes).map(|i| (node(i).name, Arc::new(node(i)))).collect(), ..Cluster::default() }
}

/// node1 in a namespace with an underlay link, without any loop: each step is the test's.
struct Bench {
    _ns: TestNs,
    netlink: Netlink,
    monitor: Monitor,
    underlay: Underlay,
    fabric: Fabric,
}

impl Bench {
    fn new() -> Bench {
        let mut ns = TestNs::new();
        // Duplicate address detection would change dumps a second later.
        sh("cd /proc/sys/net/ipv6/conf; echo 0 > all/accept_dad; echo 0 > default/accept_dad");
        let (here, far) = (ns.ns().clone(), ns.extra("far"));
        ns.join((&here, "eth0", "10.168.0.2/16"), (&far, "eth0", "10.168.0.1/16"));
        let mut netlink = ns.netlink();
        let link = netlink.link("eth0").unwrap().unwrap();
        let addresses = vec!["10.168.0.2/16".parse().unwrap()];
        let underlay = Underlay { link: "eth0".into(), index: link.index, mtu: link.mtu, addresses };
        let monitor = Monitor::open().unwrap();
        Bench { _ns: ns, netlink, monitor, underlay, fabric: fresh() }
    }

    fn plan(&self, backend: Backend, nodes: usize) -> FabricPlan {
        let network = Network { backend, ..Network::default() };
        let cfg = FabricConfig { network, cluster_cidrs: vec!["10.244.0.0/16".parse().unwrap()] };
        plan(&cluster(nodes), "node1", &cfg, Some(&self.underlay))
    }

    fn drain(&mut self) {
        while let Some(event) = self.monitor.try_next().unwrap() {
            self.fabric.handle_event(&event);
        }
    }

    /// One whole pass; how much was written.
    fn apply(&mut self, plan: &FabricPlan) -> usize {
        self.drain();
        let names: BTreeSet<Arc<str>> = cluster(200).nodes.keys().cloned().collect();
        self.fabric.desire(plan, &names);
        let applied = self.fabric.apply(&mut self.netlink, plan);
        assert!(applied.errors.is_empty(), "{:?}", applied.errors);
        assert!(!self.fabric.pending());
        // A kernel's worker takes the flag from a new address, a moment after it is there.
        eventually(SOON, "addresses are in use", || sh("ip -6 addr show tentative").is_empty());
        applied.writes
    }
}

fn fresh() -> Fabric {
    Fabric::new(vec!["10.244.0.0/16".parse().unwrap()])
}

#[test]
fn a_second_pass_and_a_restart_write_nothing() {
    for backend in [Backend::HOST_GW, Backend::VXLAN] {
        let mut bench = Bench::new();
        let plan = bench.plan(backend, 20);
        assert!(bench.apply(&plan) >= 19);
        let before = MachineDump::take();
        assert_eq!(bench.apply(&plan), 0, "{backend}: after its own events");
        bench.fabric.distrust();
        assert_eq!(bench.apply(&plan), 0, "{backend}: after an audit");
        bench.fabric = fresh();
        assert_eq!(bench.apply(&plan), 0, "{backend}: after a restart");
        before.assert_unchanged();
    }
}

#[test]
fn one_peer_costs_its_own_entries_and_no_more() {
    let mut bench = Bench::new();
    let (few, many) = (bench.plan(Backend::VXLAN, 19), bench.plan(Backend::VXLAN, 20));
    bench.apply(&few);
    assert_eq!(bench.apply(&many), 4, "neighbour, forwarding entry, next hop, route");
    let route = sh("ip route show 10.244.19.0/24");
    assert!(route.contains("via 10.244.19.0 dev weft-vxlan proto 87 onlink"), "{route}");
    assert_eq!(bench.apply(&few), 4);
    assert!(!sh("ip route; ip nexthop; ip neigh; bridge fdb show dev weft-vxlan").contains("10.244.19.0"));
}

#[test]
fn the_objects_are_those_of_the_design() {
    let mut bench = Bench::new();
    bench.apply(&bench.plan(Backend::VXLAN, 2));
    let link = sh("ip -d link show weft-vxlan");
    for part in ["mtu 1450", "vxlan id 1 local 10.168.0.2 dev eth0", "dstport 8472", "nolearning", "UP"] {
        assert!(link.contains(part), "{part} in {link}");
    }
    let mac = weft_model::mark::vtep_mac("node2");
    assert!(sh("ip neigh").contains(&format!("10.244.1.0 dev weft-vxlan lladdr {mac} PERMANENT")));
    let fdb = sh("bridge fdb show dev weft-vxlan");
    assert!(fdb.contains(&format!("{mac} dst 10.168.0.3 self permanent")), "{fdb}");
    assert!(sh("ip -4 -o addr show weft-vxlan").contains("10.244.0.0/32"));
    assert!(sh("ip -4 -o addr show weft0").contains("10.244.0.1/24"));
    let mut bench = Bench::new();
    bench.apply(&bench.plan(Backend::HOST_GW, 2));
    assert!(sh("ip route show 10.244.1.0/24").contains("via 10.168.0.3 dev eth0 proto 87"));
}

#[test]
fn leftovers_are_removed_and_what_is_foreign_stays() {
    let mut bench = Bench::new();
    let plan = bench.plan(Backend::VXLAN, 3);
    bench.apply(&plan);
    sh("ip route add 192.0.2.0/24 via 10.168.0.9 proto static
        ip neigh add 10.168.0.9 lladdr 02:00:00:00:00:09 dev eth0 nud permanent
        ip addr add 198.51.100.1/32 dev weft0");
    let clean = MachineDump::take();
    sh("ip route add 10.244.77.0/24 via 10.168.0.9 proto 87
        ip route add 10.244.78.0/24 via 10.168.0.9 table 99 proto 87
        ip neigh add 10.244.77.0 lladdr 02:00:00:00:00:77 dev weft-vxlan nud permanent
        bridge fdb add 02:00:00:00:00:77 dev weft-vxlan dst 10.168.0.77 self permanent
        ip addr add 10.244.77.1/24 dev weft0");
    bench.fabric = fresh();
    bench.apply(&plan);
    clean.assert_unchanged();
}

#[test]
fn another_programs_route_is_reported_and_left() {
    let mut bench = Bench::new();
    sh("ip route add 10.244.1.0/24 via 10.168.0.9 proto static");
    let plan = bench.plan(Backend::HOST_GW, 3);
    bench.fabric.desire(&plan, &plan.peers.keys().cloned().collect());
    let applied = bench.fabric.apply(&mut bench.netlink, &plan);
    assert!(matches!(applied.errors[..], [Error::ForeignRoute { .. }]), "{:?}", applied.errors);
    assert!(!bench.fabric.programmed("node2") && bench.fabric.programmed("node3"));
    assert!(sh("ip route").contains("10.244.1.0/24 via 10.168.0.9 dev eth0 proto static"));
    sh("ip route del 10.244.1.0/24");
    assert_eq!(bench.apply(&plan), 1);
}

#[test]
fn a_route_that_took_the_place_of_ours_outlives_the_peer() {
    let mut bench = Bench::new();
    let (with, without) = (bench.plan(Backend::HOST_GW, 2), bench.plan(Backend::HOST_GW, 1));
    bench.apply(&with);
    sh("ip route replace 10.244.1.0/24 via 10.168.0.9 proto static");
    bench.apply(&without);
    assert!(sh("ip route").contains("10.244.1.0/24 via 10.168.0.9 dev eth0 proto static"));
}

#[test]
fn the_backend_changes_in_place_and_the_old_device_goes_last() {
    let mut bench = Bench::new();
    bench.apply(&bench.plan(Backend::HOST_GW, 5));
    let host_gw = sh("ip route; ip neigh show nud permanent; ip -o link | cut -d' ' -f2");
    bench.fabric = fresh();
    bench.apply(&bench.plan(Backend::VXLAN, 5));
    bench.fabric = fresh();
    bench.apply(&bench.plan(Backend::HOST_GW, 5));
    assert_eq!(sh("ip route; ip neigh show nud permanent; ip -o link | cut -d' ' -f2"), host_gw);
}

#[test]
fn a_link_of_our_name_but_of_another_kind_is_replaced() {
    let mut bench = Bench::new();
    sh(
        "ip link add weft-vxlan type vxlan id 7 dstport 4789 dev eth0; ip link add weft0 type veth peer name x0",
    );
    bench.apply(&bench.plan(Backend::VXLAN, 2));
    assert!(sh("ip -d link show weft-vxlan").contains("dstport 8472"));
    assert!(sh("ip -d link show weft0").contains("bridge"));
}

#[test]
fn every_removed_object_is_noticed_by_its_event() {
    let mut bench = Bench::new();
    let plan = bench.plan(Backend::VXLAN, 3);
    bench.apply(&plan);
    let mac = weft_model::mark::vtep_mac("node2");
    let before = MachineDump::take();
    for (breakage, same_links) in [
        ("ip route del 10.244.1.0/24".to_owned(), true),
        ("ip route replace 10.244.1.0/24 via 10.168.0.9".into(), true),
        ("ip neigh del 10.244.1.0 dev weft-vxlan".into(), true),
        ("ip neigh replace 10.244.1.0 lladdr 02:00:00:00:00:01 nud permanent dev weft-vxlan".into(), true),
        (format!("bridge fdb del {mac} dev weft-vxlan dst 10.168.0.3 self"), true),
        (format!("bridge fdb replace {mac} dev weft-vxlan dst 10.168.0.9 self permanent"), true),
        ("ip addr del 10.244.0.1/24 dev weft0".into(), true),
        ("ip addr del 10.244.0.0/32 dev weft-vxlan".into(), true),
        ("ip link set weft-vxlan down".into(), true),
        ("ip link set weft-vxlan mtu 1400".into(), true),
        ("ip link set weft0 address 02:00:00:00:00:02".into(), true),
        ("ip link del weft-vxlan".into(), false),
        ("ip link del weft0".into(), false),
    ] {
        sh(&breakage);
        bench.drain();
        assert!(bench.fabric.pending(), "{breakage}");
        assert!(bench.apply(&plan) > 0, "{breakage}");
        // The audit sees what no event told: nothing.
        bench.fabric.distrust();
        assert_eq!(bench.apply(&plan), 0, "{breakage}");
        if same_links {
            before.assert_unchanged();
        }
    }
}

#[test]
fn a_pods_link_returns_to_the_bridge() {
    let mut bench = Bench::new();
    let plan = bench.plan(Backend::HOST_GW, 2);
    bench.apply(&plan);
    // Takes in what the making of the bridge itself told.
    bench.apply(&plan);
    sh("ip link add wf0123456789a type veth peer name pod0
        ip link set wf0123456789a alias weft:default/a master weft0 up
        ip link add other0 type veth peer name pod1");
    bench.drain();
    assert!(!bench.fabric.pending());
    for breakage in ["ip link set wf0123456789a nomaster", "ip link del weft0"] {
        sh(breakage);
        bench.apply(&plan);
        let ports = sh("ip -d -o link show master weft0");
        assert!(ports.contains("wf0123456789a") && ports.contains("hairpin on"), "{breakage}: {ports}");
        assert!(!ports.contains("other0"));
    }
}

#[test]
fn the_bridges_mtu_does_not_follow_its_ports() {
    for backend in [Backend::HOST_GW, Backend::VXLAN] {
        let mut bench = Bench::new();
        let plan = bench.plan(backend, 2);
        bench.apply(&plan);
        sh("ip link add p0 mtu 1300 type veth peer name p1; ip link set p0 master weft0 up
            ip link add p2 mtu 1500 type veth peer name p3; ip link set p2 master weft0 up; ip link del p0");
        assert_eq!(bench.apply(&plan), 0, "{backend}");
    }
}

#[test]
fn the_masquerade_table_is_whole_and_replaced_only_when_it_differs() {
    let bench = Bench::new();
    let local = bench.plan(Backend::HOST_GW, 1).local.unwrap();
    let mut nft = Nft::open().unwrap();
    sh("nft add table ip6 weft; nft add table ip foreign; nft add chain ip foreign c");
    assert_eq!(masquerade::ensure(&mut nft, &local.masquerade).unwrap(), 2, "made, and an orphan removed");
    let ruleset = sh("nft list ruleset");
    assert!(ruleset.contains("table ip foreign") && !ruleset.contains("table ip6 weft"), "{ruleset}");
    for part in [
        "10.244.0.0/16",
        "ip saddr @masqueraded ip daddr != @cluster",
        "masquerade fully-random",
        "priority srcnat",
        "tcp option maxseg size set rt mtu",
    ] {
        assert!(ruleset.contains(part), "{part} in {ruleset}");
    }
    assert_eq!(masquerade::ensure(&mut nft, &local.masquerade).unwrap(), 0);
    for breakage in [
        "nft delete table ip weft",
        "nft flush chain ip weft postrouting",
        "nft flush chain ip weft forward",
        "nft add element ip weft cluster '{ 192.0.2.0/24 }'",
    ] {
        sh(breakage);
        assert_eq!(masquerade::ensure(&mut nft, &local.masquerade).unwrap(), 1, "{breakage}");
        assert_eq!(sh("nft list ruleset").len(), ruleset.len(), "{breakage}");
    }
}

/// What BGP says: prefixes and one next hop each; none where it is empty.
fn told(routes: &[(&str, &str)]) -> Vec<(ipnet::IpNet, Vec<std::net::IpAddr>)> {
    let one = |(prefix, hop): &(&str, &str)| (prefix.parse().unwrap(), hop.parse().into_iter().collect());
    routes.iter().map(one).collect()
}

#[test]
fn what_bgp_brings_is_in_the_kernel_and_goes_behind_what_the_host_had() {
    let mut bench = Bench::new();
    let plan = bench.plan(Backend::BGP, 3);
    sh(
        "ip route add 10.244.2.0/24 via 10.168.0.9 metric 100; ip route add default via 10.168.0.1 metric 1024",
    );
    let brought = told(&[
        ("10.244.1.0/24", "10.168.0.3"),
        ("10.244.2.0/24", "10.168.0.4"),
        ("0.0.0.0/0", "10.168.0.4"),
        ("10.168.7.0/24", "10.168.0.3"),
    ]);
    bench.fabric.learn(brought, true);
    bench.apply(&plan);
    let of = |prefix: &str| sh(&format!("ip route show {prefix}"));
    let ours = of("10.244.1.0/24");
    assert!(
        ours.contains("nhid ")
            && ours.contains("via 10.168.0.3 dev eth0")
            && ours.contains("proto 87 metric 87000"),
        "{ours}"
    );
    let get = |ip: &str| sh(&format!("ip route get {ip}"));
    assert!(get("10.244.2.1").contains("via 10.168.0.9"), "the host's own goes first");
    assert!(get("192.0.2.1").contains("via 10.168.0.1"), "its default route as well");
    assert_eq!(of("10.168.7.0/24"), "", "what lies in a network of a link is not taken");
    assert!(bench.fabric.unused().next().unwrap().contains("10.168.7.0/24"));
    assert!(bench.fabric.programmed("node2") && bench.fabric.programmed("node3"));
    assert!(of("10.244.0.0/24").starts_with("blackhole"), "what no pod has leads nowhere");
    // Somebody else's hands.
    sh("ip route del 10.244.1.0/24");
    eventually(SOON, "the event", || {
        bench.drain();
        bench.fabric.pending()
    });
    bench.apply(&plan);
    assert_eq!(of("10.244.1.0/24"), ours);
    // It leads elsewhere, then nowhere.
    bench.fabric.learn(told(&[("10.244.1.0/24", "10.168.0.4")]), true);
    bench.apply(&plan);
    assert!(of("10.244.1.0/24").contains("via 10.168.0.4"));
    bench.fabric.learn(told(&[("10.244.1.0/24", "")]), true);
    bench.apply(&plan);
    assert_eq!(of("10.244.1.0/24"), "");
    assert!(!bench.fabric.programmed("node2"));
    assert!(!sh("ip nexthop").contains("10.168.0.3"), "with its last route");
}

#[test]
fn what_bgp_brought_before_a_restart_stays_until_all_is_told_anew() {
    let mut bench = Bench::new();
    let plan = bench.plan(Backend::BGP, 3);
    let both = told(&[("10.244.1.0/24", "10.168.0.3"), ("10.244.2.0/24", "10.168.0.4")]);
    bench.fabric.learn(both, true);
    bench.apply(&plan);
    let before = sh("ip route; ip nexthop");
    bench.fabric = fresh();
    assert_eq!(bench.apply(&plan), 0);
    bench.fabric.learn(told(&[("10.244.1.0/24", "10.168.0.3")]), false);
    assert_eq!(bench.apply(&plan), 0, "adopted as it is");
    assert_eq!(sh("ip route; ip nexthop"), before);
    assert!(!bench.fabric.pending(), "nothing is to be done meanwhile");
    bench.fabric.learn([], true);
    bench.apply(&plan);
    let after = sh("ip route; ip nexthop");
    assert!(after.contains("10.244.1.0/24") && !after.contains("10.168.0.4"), "{after}");
    bench.fabric.unlearn();
    bench.apply(&bench.plan(Backend::HOST_GW, 3));
    assert!(sh("ip route show 10.244.2.0/24").contains("via 10.168.0.4"), "another backend has its own");
    assert!(!sh("ip route").contains("metric 87000"));
}
