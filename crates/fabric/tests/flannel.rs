//! Nodes that run flannel among ours: planned by their annotations, and told of this node.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use weft_fabric::{FabricConfig, FabricPlan, Path, Underlay, Via, plan};
use weft_model::network::{Backend, Network};
use weft_model::{Cluster, FlannelAnnotation as A, Mac, Node, mark};

const MAC: &str = "3a:0f:2e:0c:9d:51";
const MAC6: &str = "3a:0f:2e:0c:9d:52";

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn mac(text: &str) -> Mac {
    text.parse().unwrap()
}

fn node(i: u8, annotations: &[(A, &str)]) -> Node {
    Node {
        name: format!("n{i}").into(),
        addresses: vec![ip(&format!("10.168.0.{i}")), ip(&format!("fd00:168::{i}"))],
        pod_cidrs: vec![net(&format!("10.244.{i}.0/24")), net(&format!("fd00:244:0:{i}::/64"))],
        flannel: annotations.iter().map(|(annotation, text)| (*annotation, (*text).into())).collect(),
        ..Node::default()
    }
}

/// As real flannel writes them for both families.
fn vxlan(i: u8) -> Node {
    let mut node = node(i, &[(A::KubeSubnetManager, "true"), (A::BackendType, "vxlan")]);
    node.flannel.extend([
        (A::BackendData, format!(r#"{{"VNI":1,"VtepMAC":"{MAC}"}}"#).into()),
        (A::BackendV6Data, format!(r#"{{"VNI":1,"VtepMAC":"{MAC6}"}}"#).into()),
        (A::PublicIp, format!("10.168.0.{i}").into()),
        (A::PublicIpv6, format!("fd00:168::{i}").into()),
    ]);
    node
}

fn planned(backend: Backend, peers: impl IntoIterator<Item = Node>) -> FabricPlan {
    let nodes = peers.into_iter().chain([node(1, &[])]);
    let nodes = nodes.map(|node| (node.name.clone(), Arc::new(node))).collect();
    let network = Network { backend, ..Network::default() };
    let cfg = FabricConfig { network, cluster_cidrs: vec![net("10.244.0.0/16"), net("fd00:244::/48")] };
    let addresses = vec![net("10.168.0.1/16"), net("fd00:168::1/64")];
    let underlay = Underlay { link: "eth0".into(), index: 7, mtu: 1500, addresses };
    plan(&Cluster { nodes, ..Cluster::default() }, "n1", &cfg, Some(&underlay))
}

fn refusals(plan: &FabricPlan, name: &str) -> String {
    plan.peers[name].refused.iter().map(|refusal| format!("{refusal}\n")).collect()
}

#[test]
fn a_vxlan_peer_is_reached_by_its_own_mac_and_address_each_family_by_its_own_device() {
    let mut peer = vxlan(2);
    peer.flannel.insert(A::PublicIp, "10.169.0.9".into());
    for backend in [Backend::VXLAN, Backend::AUTO] {
        let plan = planned(backend, [peer.clone()]);
        let v4 = Via::Vxlan { gateway: ip("10.244.2.0"), mac: mac(MAC), endpoint: ip("10.169.0.9") };
        let v6 = Via::Vxlan {
            gateway: ip("fe80::380f:2eff:fe0c:9d52"),
            mac: mac(MAC6),
            endpoint: ip("fd00:168::2"),
        };
        let path = |cidr, via| Path { cidr: net(cidr), via };
        assert_eq!(plan.peers["n2"].paths, [path("10.244.2.0/24", v4), path("fd00:244:0:2::/64", v6)]);
        let local = plan.local.unwrap();
        let second = local.tunnels.vxlan6.unwrap();
        assert_eq!((second.name, second.local, second.mtu), (mark::VXLAN6, ip("fd00:168::1"), 1430));
        assert_eq!(second.mac, local.tunnels.vxlan.unwrap().mac);
    }
}

#[test]
fn flannel_is_told_of_this_node_while_one_node_runs_it_and_no_longer() {
    let ours = planned(Backend::AUTO, [vxlan(2)]).local.unwrap().flannel;
    assert_eq!(&*ours[&A::BackendType], "vxlan");
    assert_eq!(&*ours[&A::PublicIpv6], "fd00:168::1");
    assert!(ours[&A::BackendData].contains(&mark::vtep_mac("n1").to_string()));

    // A node that wrote such annotations itself is one of ours: planned as ever.
    let weft = Node { flannel: ours, ..node(3, &[]) };
    let plan = planned(Backend::VXLAN, [weft]);
    let local = plan.local.unwrap();
    assert!(local.flannel.is_empty() && local.tunnels.vxlan6.is_none());
    let Via::Vxlan { mac, endpoint, .. } = plan.peers["n3"].paths[1].via else { panic!("a tunnel") };
    assert_eq!((mac, endpoint), (mark::vtep_mac("n3"), ip("10.168.0.3")));
}

#[test]
fn host_gw_and_udp_peers() {
    let texts = [(A::KubeSubnetManager, "true"), (A::BackendData, "null"), (A::PublicIp, "10.168.0.9")];
    let mut peer = node(2, &texts);
    peer.flannel.insert(A::BackendType, "host-gw".into());
    let plan = planned(Backend::HOST_GW, [peer.clone()]);
    assert_eq!(plan.peers["n2"].paths[0].via, Via::Direct { gateway: ip("10.168.0.9"), link: 7 });
    assert!(refusals(&plan, "n2").contains("announces no IPv6"), "{}", refusals(&plan, "n2"));

    peer.flannel.insert(A::BackendType, "".into());
    let plan = planned(Backend::UDP, [peer]);
    assert_eq!(plan.peers["n2"].paths[0].via, Via::Udp { endpoint: ip("10.168.0.9") });
    assert_eq!(&*plan.local.unwrap().flannel[&A::BackendType], "");
}

#[test]
fn a_peer_that_lies_or_was_edited_by_hand_is_refused_alone() {
    let mac_of_n1 = format!(r#"{{"VNI":1,"VtepMAC":"{}"}}"#, mark::vtep_mac("n1"));
    for (backend, annotation, text, told) in [
        (Backend::VXLAN, A::BackendData, mac_of_n1.as_str(), "VtepMAC"),
        (Backend::VXLAN, A::BackendData, r#"{"VNI":2,"VtepMAC":"3a:0f:2e:0c:9d:59"}"#, "VNI 2"),
        (Backend::VXLAN, A::BackendData, "{}", "backend-data"),
        (Backend::VXLAN, A::PublicIp, "10.168.0.1", "address 10.168.0.1 of node n1"),
        (Backend::VXLAN, A::PublicIp, "10.168.0.4", "address 10.168.0.4 of node n4"),
        (Backend::VXLAN, A::PublicIp, "10.244.4.9", "holds the address"),
        (Backend::VXLAN, A::BackendType, "host-gw", "backend host-gw"),
        (Backend::HOST_GW, A::BackendType, "host-gw", ""),
        (Backend::HOST_GW, A::BackendType, "vxlan", "backend vxlan"),
    ] {
        let mut liar = vxlan(5);
        liar.flannel.insert(annotation, text.into());
        let plan = planned(backend, [liar, node(4, &[])]);
        let refused = refusals(&plan, if told.starts_with("holds") { "n4" } else { "n5" });
        assert!(refused.contains(told) && refused.is_empty() == told.is_empty(), "{text}: {refused}");
        assert!(!plan.peers["n4"].paths.is_empty(), "{text}: the other node stays");
    }
}

#[test]
fn of_two_nodes_with_one_mac_the_first_by_name_keeps_it() {
    let plan = planned(Backend::VXLAN, [vxlan(2), vxlan(3)]);
    assert!(plan.peers["n2"].complete());
    assert!(plan.peers["n3"].paths.is_empty());
    assert!(refusals(&plan, "n3").contains("of node n2"));
}
