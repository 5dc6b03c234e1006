mod network;
mod sessions;
mod told;

use std::net::IpAddr;
use std::sync::Arc;

use weft_model::bgp::{
    BgpConfiguration, BgpFilter, BgpPeer, Passwords, Peering, RESTART_TIME, Remote, Rules, Speakers, Speaking,
};
use weft_model::pools::LabelSelector;
use weft_model::{Cluster, Node};

use super::{Plan, plan};

/// A node with an IPv4 address and a pod CIDR, both after its number; with a label `rack`.
fn node(number: u8, rack: &str) -> Node {
    Node {
        name: format!("n{number}").into(),
        uid: format!("uid{number}").into(),
        addresses: vec![address(number)],
        pod_cidrs: vec![format!("10.244.{number}.0/24").parse().unwrap()],
        labels: [("rack".into(), rack.into())].into(),
        ..Node::default()
    }
}

fn address(number: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, number])
}

fn cluster(nodes: impl IntoIterator<Item = Node>) -> Cluster {
    let nodes = nodes.into_iter().map(|node| (node.name.clone(), Arc::new(node))).collect();
    Cluster { nodes, ..Cluster::default() }
}

fn labelled(key: &str, value: &str) -> LabelSelector {
    LabelSelector { match_labels: [(key.into(), value.into())].into(), ..LabelSelector::default() }
}

fn peering(of: Speakers, with: Remote) -> Peering {
    Peering {
        of,
        with,
        password: None,
        from_node_address: true,
        filters: Vec::new(),
        keep_next_hop: false,
        restart_time: RESTART_TIME,
        ttl_security: None,
        allowed_own_as: 0,
        reachable_by: None,
    }
}

fn router(ip: &str, asn: u32) -> Remote {
    Remote::Router { ip: ip.parse().unwrap(), port: 179, asn: Some(asn) }
}

fn with_peer(mut cluster: Cluster, name: &str, spec: Peering) -> Cluster {
    let peer = BgpPeer { name: name.into(), created: "".into(), spec: Ok(spec) };
    cluster.bgp_peers.insert(name.into(), peer.into());
    cluster
}

fn with_configuration(mut cluster: Cluster, spec: Speaking) -> Cluster {
    let object = BgpConfiguration { name: "default".into(), spec: Ok(spec) };
    cluster.bgp_configurations.insert("default".into(), object.into());
    cluster
}

fn with_filter(mut cluster: Cluster, name: &str, rules: Rules) -> Cluster {
    let object = BgpFilter { name: name.into(), spec: Ok(rules) };
    cluster.bgp_filters.insert(name.into(), object.into());
    cluster
}

fn planned(cluster: &Cluster, node: &str) -> Plan {
    plan(cluster, node, &Passwords::new())
}

/// The names of a node's neighbours.
fn neighbours(cluster: &Cluster, node: &str) -> Vec<String> {
    let settings = planned(cluster, node).settings.unwrap();
    settings.neighbours.keys().map(ToString::to_string).collect()
}
