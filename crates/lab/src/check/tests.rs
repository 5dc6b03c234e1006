use std::path::Path;

use serde_json::{Value, json};

use super::*;

fn node(name: &str, ip: &str, cidr: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"podCIDRs": [cidr]},
           "status": {"addresses": [{"type": "Hostname", "address": name}, {"type": "InternalIP", "address": ip}]}})
}

fn pod(name: &str, node: &str, ip: &str) -> Value {
    json!({"metadata": {"namespace": "default", "name": name, "uid": format!("uid-{name}")},
           "spec": {"nodeName": node, "containers": [{"ports": [
               {"containerPort": 53, "protocol": "UDP"}, {"containerPort": 80}, {"containerPort": 9, "protocol": "SCTP"}]}]},
           "status": {"phase": "Running", "podIPs": [{"ip": ip}], "conditions": [{"type": "Ready", "status": "True"}]}})
}

fn lists() -> (Value, Value) {
    let nodes = [node("node2", "10.168.0.3", "10.244.1.0/24"), node("node1", "10.168.0.2", "10.244.0.0/24")];
    let pods =
        [pod("c", "node2", "10.244.1.2"), pod("a", "node1", "10.244.0.2"), pod("b", "node2", "10.244.1.3")];
    (json!({"items": nodes}), json!({"items": pods}))
}

/// Pods a (node1), b and c (node2), then the nodes.
pub(super) fn world() -> World {
    let (nodes, pods) = lists();
    World::new(&nodes, &pods, Path::new("/lab"))
}

#[test]
fn the_world_is_read_from_the_objects() {
    let world = world();
    let names: Vec<_> = world.members.iter().map(|m| m.party.name.as_str()).collect();
    assert_eq!(names, ["default/a", "default/b", "default/c", "node/node1", "node/node2"]);
    let a = &world.members[0];
    assert_eq!(a.party.listens, [(crate::oracle::Proto::Udp, 53), (crate::oracle::Proto::Tcp, 80)]);
    assert_eq!(a.netns, Path::new("/lab/netns/pod-uid-a"));
    assert_eq!(a.not_ready, None);
    let node1 = world.nodes.iter().find(|n| n.name == "node1").unwrap();
    let addresses: Vec<_> = node1.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.168.0.2", "10.244.0.0", "10.244.0.1"]);
}

#[test]
fn a_pod_of_the_host_network_is_at_its_node_and_ended_ones_are_left_out() {
    let (nodes, mut pods) = lists();
    pods["items"][0]["spec"]["hostNetwork"] = json!(true);
    pods["items"][1]["status"]["phase"] = json!("Succeeded");
    pods["items"][2]["spec"]["nodeName"] = Value::Null;
    let world = World::new(&nodes, &pods, Path::new("/lab"));
    let c = &world.members[0];
    assert_eq!((c.party.own_address, c.netns.as_path()), (false, Path::new("/lab/netns/node-node2")));
    assert_eq!(c.party.ips, ["10.168.0.3".parse::<std::net::IpAddr>().unwrap()]);
    let skipped: Vec<_> = world.skipped.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(skipped, ["default/a", "default/b"]);
}

#[test]
fn a_replica_belongs_to_its_deployment() {
    let (nodes, mut pods) = lists();
    pods["items"][0]["metadata"]["labels"] = json!({"pod-template-hash": "5d4f"});
    pods["items"][0]["metadata"]["ownerReferences"] =
        json!([{"kind": "ReplicaSet", "name": "web-front-5d4f", "controller": true}]);
    let world = World::new(&nodes, &pods, Path::new("/lab"));
    assert_eq!(world.members[2].workload, "default/web-front");
}
