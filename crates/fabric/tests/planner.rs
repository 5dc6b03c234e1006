//! The plan is a function of the last snapshot alone, and refuses what would break a node.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use proptest::prelude::*;
use weft_fabric::{FabricConfig, Path, Planner, Refusal, Tunnels, Underlay, Via, Waiting, plan};
use weft_model::network::{Backend, Migration, Network};
use weft_model::{Cluster, FlannelAnnotation, FlannelAnnotations, Node, mark};

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn node(name: &str, addresses: &[&str], cidrs: &[&str]) -> Node {
    let addresses = addresses.iter().map(|a| ip(a)).collect();
    let pod_cidrs = cidrs.iter().map(|c| net(c)).collect();
    Node { name: name.into(), uid: name.into(), addresses, pod_cidrs, ..Node::default() }
}

fn cluster(nodes: impl IntoIterator<Item = Node>) -> Cluster {
    let nodes = nodes.into_iter().map(|n| (n.name.clone(), Arc::new(n))).collect();
    Cluster { nodes, ..Cluster::default() }
}

fn config(backend: Backend) -> FabricConfig {
    let network = Network { backend, ..Network::default() };
    FabricConfig { network, cluster_cidrs: vec![net("10.244.0.0/16"), net("fd00:244::/48")] }
}

/// The address that the kernel gives an interface of this MAC address.
fn link_local(mac: weft_model::Mac) -> IpAddr {
    let [a, b, c, d, e, f] = mac.0;
    ip(&format!(
        "fe80::{:x}:{:x}:{:x}:{:x}",
        (u16::from(a) ^ 2) << 8 | u16::from(b),
        u16::from(c) << 8 | 0xff,
        0xfe00 | u16::from(d),
        u16::from(e) << 8 | u16::from(f)
    ))
}

fn underlay() -> Underlay {
    let addresses = vec![net("10.168.0.2/16"), net("fd00:168::2/64"), net("fe80::1/64")];
    Underlay { link: "eth0".into(), index: 7, mtu: 1500, addresses }
}

fn node1() -> Node {
    node("node1", &["10.168.0.2"], &["10.244.0.0/24"])
}

fn planned(backend: Backend, peers: impl IntoIterator<Item = Node>) -> weft_fabric::FabricPlan {
    plan(&cluster(peers.into_iter().chain([node1()])), "node1", &config(backend), Some(&underlay()))
}

fn refusals(backend: Backend, peer: Node) -> Vec<Refusal> {
    let name = peer.name.clone();
    let plan = planned(backend, [peer]);
    assert!(plan.peers[&name].paths.is_empty(), "{plan:?}");
    plan.peers[&name].refused.clone()
}

#[test]
fn host_gw_routes_through_the_peer_on_the_underlay_link() {
    let plan = planned(Backend::HOST_GW, [node("node2", &["10.168.0.3"], &["10.244.1.0/24"])]);
    let via = Via::Direct { gateway: ip("10.168.0.3"), link: 7 };
    let path = Path { cidr: net("10.244.1.0/24"), via };
    assert_eq!(plan.peers["node2"].paths, [path]);
    let local = plan.local.unwrap();
    assert_eq!(local.bridge.addresses, [net("10.244.0.1/24")]);
    assert_eq!((local.bridge.mtu, local.tunnels), (1500, Tunnels::default()));
}

#[test]
fn host_gw_refuses_a_peer_of_another_segment_and_names_the_way_out() {
    let refused = refusals(Backend::HOST_GW, node("node2", &["10.169.0.3"], &["10.244.1.0/24"]));
    let text = refused[0].to_string();
    for word in ["node2", "10.169.0.3", "10.168.0.0/16", "eth0", "vxlan"] {
        assert!(text.contains(word), "{text}");
    }
}

#[test]
fn vxlan_tunnels_to_any_peer_and_takes_its_header_off_the_mtu() {
    let plan = planned(Backend::VXLAN, [node("node2", &["192.0.2.9"], &["10.244.1.0/24"])]);
    let mac = mark::vtep_mac("node2");
    let (cidr, gateway) = (net("10.244.1.0/24"), ip("10.244.1.0"));
    let path = Path { cidr, via: Via::Vxlan { gateway, mac, endpoint: ip("192.0.2.9") } };
    assert_eq!(plan.peers["node2"].paths, [path]);
    let local = plan.local.unwrap();
    let vxlan = local.tunnels.vxlan.unwrap();
    assert_eq!((vxlan.mtu, local.bridge.mtu), (1450, 1450));
    assert_eq!(vxlan.addresses, [net("10.244.0.0/32")]);
    assert_eq!((vxlan.vni, vxlan.port, vxlan.mac), (1, 8472, mark::vtep_mac("node1")));
}

#[test]
fn both_families_are_planned() {
    let me = node("node1", &["10.168.0.2", "fd00:168::2"], &["10.244.0.0/24", "fd00:244::/64"]);
    let peer = node("node2", &["10.168.0.3", "fd00:168::3"], &["10.244.1.0/24", "fd00:244:0:1::/64"]);
    let both = cluster([me, peer]);
    let routed = plan(&both, "node1", &config(Backend::HOST_GW), Some(&underlay()));
    let via = Via::Direct { gateway: ip("fd00:168::3"), link: 7 };
    let v6 = Path { cidr: net("fd00:244:0:1::/64"), via };
    assert_eq!(routed.peers["node2"].paths[1], v6);
    assert_eq!(routed.local.unwrap().bridge.addresses[1], net("fd00:244::1/64"));
    let tunnelled = plan(&both, "node1", &config(Backend::VXLAN), Some(&underlay()));
    let cidr = net("fd00:244:0:1::/64");
    let gateway = link_local(mark::vtep_mac("node2"));
    let via = Via::Vxlan { gateway, mac: mark::vtep_mac("node2"), endpoint: ip("10.168.0.3") };
    let v6 = Path { cidr, via };
    assert_eq!(tunnelled.peers["node2"].paths[1], v6);
}

#[test]
fn an_ipv6_underlay_costs_seventy_bytes() {
    let six = cluster([node("node1", &["fd00:168::2"], &["10.244.0.0/24"])]);
    let plan = plan(&six, "node1", &config(Backend::VXLAN), Some(&underlay()));
    assert_eq!(plan.local.unwrap().bridge.mtu, 1430);
}

#[test]
fn bad_peers_are_refused_with_their_reason() {
    let vx = |addresses: &[&str], cidrs: &[&str]| {
        refusals(Backend::VXLAN, node("node2", addresses, cidrs)).remove(0)
    };
    let ok = &["10.168.0.3"][..];
    assert!(matches!(vx(ok, &[]), Refusal::NoPodCidr { .. }));
    assert!(matches!(vx(&[], &["10.244.1.0/24"]), Refusal::NoAddress { .. }));
    assert!(matches!(vx(&["127.0.0.1"], &["10.244.1.0/24"]), Refusal::AddressUnusable { .. }));
    assert!(matches!(vx(&["10.168.0.2"], &["10.244.1.0/24"]), Refusal::AddressTaken { .. }));
    assert!(matches!(vx(ok, &["10.244.0.0/16"]), Refusal::CidrTaken { .. }));
    assert!(matches!(vx(ok, &["10.168.5.0/24"]), Refusal::CidrOverlapsUnderlay { .. }));
    assert!(matches!(vx(ok, &["10.244.1.0/31"]), Refusal::CidrTooSmall { .. }));
    assert!(matches!(vx(ok, &["0.0.0.0/0"]), Refusal::CidrReserved { .. }));
    assert!(matches!(vx(ok, &["fe80::/64"]), Refusal::CidrReserved { .. }));
    assert!(matches!(vx(&["192.0.2.9"], &["192.0.2.0/24"]), Refusal::CidrHoldsNode { .. }));
}

#[test]
fn of_two_conflicting_peers_the_first_by_name_is_programmed_until_it_leaves() {
    let (b, c) =
        (node("b", &["10.168.0.3"], &["10.244.1.0/24"]), node("c", &["10.168.0.4"], &["10.244.0.0/20"]));
    let first = node("a", &["10.168.0.4"], &["10.244.8.0/24"]);
    let all = cluster([node1(), b.clone(), c.clone(), first.clone()]);
    let mut planner = Planner::new("node1", config(Backend::HOST_GW));
    planner.update(&all, &all.nodes.keys().cloned().collect(), Some(&underlay()));
    assert!(planner.plan().peers["a"].complete() && planner.plan().peers["b"].complete());
    assert!(matches!(planner.plan().peers["c"].refused[..], [Refusal::AddressTaken { .. }]));
    let fixed = Node { pod_cidrs: vec![net("10.244.1.0/25")], ..c };
    let without_a = cluster([node1(), b, fixed.clone()]);
    let changed = planner.update(&without_a, &["a".into(), "c".into()].into(), Some(&underlay()));
    assert_eq!(changed, ["a".into(), "c".into()].into());
    assert!(matches!(planner.plan().peers["c"].refused[..], [Refusal::CidrTaken { .. }]));
    let without_b = cluster([node1(), fixed]);
    planner.update(&without_b, &["b".into()].into(), Some(&underlay()));
    assert!(planner.plan().peers["c"].complete(), "the other one left: {:?}", planner.plan().peers);
}

/// How node1 reaches a peer on its segment and one beyond it, with a configuration of the cluster's.
fn ways(network: Network) -> [Result<Via, Refusal>; 2] {
    let peers =
        [node("near", &["10.168.0.3"], &["10.244.1.0/24"]), node("far", &["192.0.2.9"], &["10.244.2.0/24"])];
    let cluster = with_network(cluster(peers.into_iter().chain([node1()])), Some(network));
    let plan = plan(&cluster, "node1", &config(Backend::HOST_GW), Some(&underlay()));
    ["near", "far"].map(|name| match &plan.peers[name] {
        peer if peer.complete() => Ok(peer.paths[0].via.clone()),
        peer => Err(peer.refused[0].clone()),
    })
}

#[test]
fn each_peer_is_reached_by_what_the_backend_has_for_it() {
    let near = ip("10.168.0.3");
    let far = ip("192.0.2.9");
    let direct = Via::Direct { gateway: near, link: 7 };
    let vxlan = |name: &str, gateway, endpoint| Via::Vxlan {
        gateway: ip(gateway),
        mac: mark::vtep_mac(name),
        endpoint,
    };
    for (name, to_near, to_far) in [
        ("auto", direct.clone(), vxlan("far", "10.244.2.0", far)),
        ("vxlan", vxlan("near", "10.244.1.0", near), vxlan("far", "10.244.2.0", far)),
        ("udp", Via::Udp { endpoint: near }, Via::Udp { endpoint: far }),
        ("udp-cross-subnet", direct.clone(), Via::Udp { endpoint: far }),
        ("ipip", Via::Ipip { endpoint: near }, Via::Ipip { endpoint: far }),
        ("ipip-cross-subnet", direct.clone(), Via::Ipip { endpoint: far }),
    ] {
        let network = Network { backend: name.parse().unwrap(), ..Network::default() };
        assert_eq!(ways(network), [Ok(to_near), Ok(to_far)], "{name}");
    }
    let [to_near, to_far] = ways(Network { backend: Backend::HOST_GW, ..Network::default() });
    assert_eq!(to_near, Ok(direct));
    assert!(matches!(to_far, Err(Refusal::OtherSegment { .. })));
}

#[test]
fn a_migration_has_both_backends_in_force_and_moves_the_named_nodes() {
    let migrating = |nodes: &[&str]| {
        let nodes = nodes.iter().map(|name| Arc::from(*name)).collect();
        let migration = Some(Migration { to: Backend::HOST_GW, nodes });
        Network { backend: Backend::VXLAN, migration, ..Network::default() }
    };
    let is_vxlan = |via: &Result<Via, Refusal>| matches!(via, Ok(Via::Vxlan { .. }));
    assert!(ways(migrating(&["near"])).iter().all(is_vxlan), "node1 is not moved yet");
    let [to_near, to_far] = ways(migrating(&["node1"]));
    assert!(matches!(to_near, Ok(Via::Direct { .. })));
    assert!(is_vxlan(&to_far), "what the new backend cannot reach keeps the old one");
    let there = Network { backend: Backend::HOST_GW, ..migrating(&[]) };
    assert!(there.tunnels().is_empty());
}

#[test]
fn the_mtu_fits_every_tunnel_in_force() {
    let dual = || node("node1", &["10.168.0.2", "fd00:168::2"], &["10.244.0.0/24", "fd00:244::/64"]);
    let of = |network: Network, node: Node| {
        let cluster = with_network(cluster([node]), Some(network));
        plan(&cluster, "node1", &config(Backend::HOST_GW), Some(&underlay())).local.unwrap()
    };
    let mtu = |name: &str, node| {
        of(Network { backend: name.parse().unwrap(), ..Network::default() }, node).bridge.mtu
    };
    for (name, single, both) in
        [("host-gw", 1500, 1500), ("auto", 1450, 1450), ("udp", 1472, 1472), ("ipip", 1480, 1460)]
    {
        assert_eq!((mtu(name, node1()), mtu(name, dual())), (single, both), "{name}");
    }
    let migration = Some(Migration { to: Backend::VXLAN, nodes: BTreeSet::new() });
    let network = Network { backend: Backend::IPIP, migration, ..Network::default() };
    let local = of(network.clone(), dual());
    assert_eq!((local.bridge.mtu, local.tunnels.vxlan.unwrap().mtu), (1450, 1450));
    assert_eq!((local.tunnels.ipip.unwrap().mtu, local.tunnels.ip6tnl.unwrap().mtu), (1480, 1460));
    assert_eq!(of(Network { mtu: Some(1300), ..network.clone() }, dual()).bridge.mtu, 1300);
    assert_eq!(of(Network { mtu: Some(9000), ..network }, dual()).bridge.mtu, 1450, "no more than fits");
}

#[test]
fn a_conflict_with_this_node_refuses_the_peer_and_is_reported() {
    let plan = planned(Backend::VXLAN, [node("a", &["10.168.0.3"], &["10.244.0.0/24"])]);
    assert!(matches!(plan.peers["a"].refused[..], [Refusal::CidrTaken { .. }]));
    assert!(matches!(plan.local.unwrap().problems[..], [Refusal::CidrTaken { .. }]));
}

#[test]
fn a_node_waits_until_its_object_and_its_link_are_there() {
    let cfg = config(Backend::VXLAN);
    let waiting = |nodes: Vec<Node>, link: Option<&Underlay>| {
        let plan = plan(&cluster(nodes), "node1", &cfg, link);
        assert!(plan.peers.is_empty());
        plan.local.unwrap_err()
    };
    let other = node("node2", &["10.168.0.3"], &["10.244.1.0/24"]);
    assert!(matches!(waiting(vec![other.clone()], Some(&underlay())), Waiting::NodeMissing(_)));
    assert!(matches!(waiting(vec![node1(), other], None), Waiting::NoUnderlay { .. }));
    let without = node("node1", &["10.168.0.2"], &[]);
    assert!(matches!(waiting(vec![without], Some(&underlay())), Waiting::Refused(Refusal::NoPodCidr { .. })));
    let small = node("node1", &["10.168.0.2"], &["10.244.0.0/31"]);
    assert!(matches!(
        waiting(vec![small], Some(&underlay())),
        Waiting::Refused(Refusal::CidrTooSmall { .. })
    ));
}

/// Nodes from a small space, so that they conflict often; node `n0` is the one that plans.
fn any_node(index: usize) -> impl Strategy<Value = Option<Node>> {
    let cidrs = prop::sample::subsequence(
        vec![
            "10.244.0.0/24",
            "10.244.0.0/22",
            "10.244.1.0/24",
            "10.244.2.0/30",
            "10.168.0.0/24",
            "fd00:244::/64",
        ],
        0..=2,
    );
    let addresses = prop::sample::subsequence(
        vec!["10.168.0.2", "10.168.0.3", "10.169.0.4", "10.244.1.9", "fd00:168::3"],
        0..=2,
    );
    let of = move |(a, c, flannel): (Vec<&str>, Vec<&str>, FlannelAnnotations)| Node {
        flannel,
        ..node(&format!("n{index}"), &a, &c)
    };
    prop::option::weighted(0.8, (addresses, cidrs, any_annotations()).prop_map(of))
}

fn any_annotations() -> impl Strategy<Value = FlannelAnnotations> {
    use FlannelAnnotation as A;
    let data = [
        r#"{"VNI":1,"VtepMAC":"3a:0f:2e:0c:9d:51"}"#.to_owned(),
        format!(r#"{{"VNI":1,"VtepMAC":"{}"}}"#, mark::vtep_mac("n0")),
        r#"{"VNI":1,"Weft":true,"VtepMAC":"3a:0f:2e:0c:9d:51"}"#.to_owned(),
        "null".to_owned(),
    ];
    let text = |choices: Vec<String>| prop::sample::select(choices);
    let some = (
        text(["vxlan", "host-gw", "", "?"].map(str::to_owned).to_vec()),
        text(data.to_vec()),
        text(["10.168.0.2", "10.168.0.3", "10.169.0.4", "10.244.1.9"].map(str::to_owned).to_vec()),
    );
    let some = some.prop_map(|(backend, data, address)| {
        let texts = [(A::KubeSubnetManager, "true".to_owned()), (A::BackendType, backend)];
        let texts = texts.into_iter().chain([(A::BackendData, data), (A::PublicIp, address)]);
        texts.map(|(annotation, text)| (annotation, text.into())).collect()
    });
    prop_oneof![2 => Just(FlannelAnnotations::new()), 1 => some]
}

fn any_cluster() -> impl Strategy<Value = Cluster> {
    let own = prop::option::weighted(0.9, Just(node("n0", &["10.168.0.2"], &["10.244.3.0/24"])));
    let own = prop_oneof![4 => own, 1 => any_node(0)];
    let network = prop::option::of(any_network());
    (own, any_node(1), any_node(2), any_node(3), any_node(4), network).prop_map(|(a, b, c, d, e, network)| {
        with_network(cluster([a, b, c, d, e].into_iter().flatten()), network)
    })
}

fn with_network(cluster: Cluster, network: Option<Network>) -> Cluster {
    let networks = network.into_iter().map(|network| (Arc::from("default"), Arc::new(network))).collect();
    Cluster { networks, ..cluster }
}

fn any_backend() -> impl Strategy<Value = Backend> {
    prop::sample::select(Backend::NAMES.map(|(_, backend)| backend).to_vec())
}

fn any_network() -> impl Strategy<Value = Network> {
    let nodes = prop::sample::subsequence(vec!["n0", "n1"], 0..=2);
    let migration = (any_backend(), nodes)
        .prop_map(|(to, nodes)| Migration { to, nodes: nodes.into_iter().map(Arc::from).collect() });
    let mtu = prop::option::of(prop::sample::select(vec![1400, 9000]));
    (any_backend(), prop::option::of(migration), mtu).prop_map(|(backend, migration, mtu)| Network {
        backend,
        migration,
        mtu,
        ..Network::default()
    })
}

fn differing(a: &Cluster, b: &Cluster) -> BTreeSet<Arc<str>> {
    let names = a.nodes.keys().chain(b.nodes.keys()).cloned();
    names.filter(|name| a.nodes.get(name) != b.nodes.get(name)).collect()
}

proptest! {
    #[test]
    fn history_does_not_matter(
        states in prop::collection::vec((any_cluster(), any::<bool>()), 1..6),
        backend in any_backend(),
        reversed in any::<bool>(),
        doubled in any::<bool>(),
    ) {
        let cfg = config(backend);
        let last = states[states.len() - 1].clone();
        let mut states = states;
        if reversed { states.reverse() }
        states.push((Cluster::default(), true));
        states.push(last.clone());
        let mut planner = Planner::new("n0", cfg.clone());
        let mut before = Cluster::default();
        let known = underlay();
        for (state, has_link) in &states {
            let link = has_link.then_some(&known);
            let old = planner.plan().peers.clone();
            let mut reported = planner.update(state, &differing(&before, state), link);
            if doubled {
                reported.extend(planner.update(state, &state.nodes.keys().cloned().collect(), link));
            }
            let new = &planner.plan().peers;
            let differ = old.keys().chain(new.keys()).filter(|n| old.get(*n) != new.get(*n)).cloned();
            prop_assert_eq!(reported, differ.collect::<BTreeSet<_>>());
            prop_assert_eq!(planner.plan(), &plan(state, "n0", &cfg, link));
            before = state.clone();
        }
    }

    #[test]
    fn nothing_conflicting_is_ever_programmed(state in any_cluster(), backend in any_backend()) {
        let plan = plan(&state, "n0", &config(backend), Some(&underlay()));
        let Ok(local) = &plan.local else { return Ok(()) };
        let programmed = plan.peers.values().flat_map(|p| &p.paths).map(|path| path.cidr);
        let all: Vec<IpNet> = programmed.chain(local.pod_cidrs.iter().copied()).collect();
        for (i, a) in all.iter().enumerate() {
            for b in &all[..i] {
                let shared = weft_model::network::overlaps(a, b);
                let own = local.pod_cidrs.contains(a) && local.pod_cidrs.contains(b);
                prop_assert!(!shared || own, "{a} and {b}");
            }
            prop_assert!(!underlay().addresses.iter().any(|u| weft_model::network::overlaps(&u.trunc(), a)));
        }
    }
}

#[test]
fn with_bgp_paths_are_learnt_on_whatever_segment_and_pods_are_routed() {
    let plan = planned(Backend::BGP, [node("node2", &["192.0.2.9"], &["10.244.1.0/24"])]);
    let local = plan.local.unwrap();
    assert!(local.learns && local.routed && !local.pools && local.bridge.addresses.is_empty());
    assert_eq!((local.tunnels, local.bridge.mtu), (Tunnels::default(), 1500));
    let learnt = Path { cidr: net("10.244.1.0/24"), via: Via::Learnt };
    assert_eq!((&plan.peers["node2"].paths[..], plan.peers["node2"].complete()), (&[learnt][..], true));
}
