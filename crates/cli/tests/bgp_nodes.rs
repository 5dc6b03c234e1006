//! A cluster whose nodes tell one another by BGP where pods are.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    reason = "a test fails by panicking and is one crate"
)]

mod common;

use std::process::Command;
use std::time::Duration;

use common::{Labs, eventually, example};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);

const REFLECTED: &str = r#"
apiVersion: weft.dev/v1
kind: BGPConfiguration
metadata: {name: default}
spec: {nodeToNodeMeshEnabled: false}
---
apiVersion: weft.dev/v1
kind: BGPPeer
metadata: {name: reflector}
spec:
  peerSelector: {matchLabels: {reflects: "yes"}}
"#;

fn up() -> Labs {
    let labs = Labs::new();
    let shop = example("shop");
    labs.expect(0, &["lab", "up", "--name", "b", "--nodes", "3", "--backend", "bgp", "-f", &shop]);
    labs
}

/// The neighbours of a node with which it exchanges routes.
fn established(labs: &Labs, node: &str) -> Vec<String> {
    let path = labs.state("b").join("node").join(node).join("agent/bgp.json");
    let told: Value = serde_json::from_slice(&std::fs::read(path).unwrap_or_default()).unwrap_or_default();
    let neighbours = told["speaker"]["neighbours"].as_object().cloned().unwrap_or_default();
    let up = neighbours.into_iter().filter(|(_, neighbour)| neighbour["state"] == "established");
    up.map(|(name, _)| name).collect()
}

#[test]
fn agents_that_are_killed_lose_no_packet() {
    let labs = up();
    let pods = labs.pods("b");
    let far = pods.iter().find(|pod| pod["node"] == "node3").unwrap()["ips"][0].as_str().unwrap();
    let ping = format!("ping -q -i 0.01 -c 1000 {far}");
    std::thread::scope(|scope| {
        let pinged = scope.spawn(|| labs.on_node("b", "node1", &ping));
        let agents: Vec<i32> = ["node1", "node2", "node3"]
            .iter()
            .flat_map(|node| labs.processes(&["agent", "--node-name", node]))
            .collect();
        assert_eq!(agents.len(), 3);
        for agent in agents {
            assert!(Command::new("kill").args(["-9", &agent.to_string()]).status().unwrap().success());
        }
        let said = pinged.join().unwrap();
        assert!(said.contains(" 0% packet loss"), "{said}");
    });
    eventually(SOON, "all sessions are back", || {
        ["node1", "node2", "node3"].iter().all(|node| established(&labs, node).len() == 2)
    });
    labs.expect(0, &["lab", "check", "--name", "b"]);
}

#[test]
fn a_mesh_becomes_a_reflector_and_its_clients() {
    let labs = up();
    eventually(SOON, "a mesh", || established(&labs, "node2") == ["node/node1", "node/node3"]);
    let kubeconfig = labs.expect(0, &["lab", "kubeconfig", "--name", "b"]).trim().to_owned();
    let kubectl = |args: &[&str]| {
        let mut kubectl = Command::new("kubectl");
        let output = kubectl.args(args).env("KUBECONFIG", &kubeconfig).env("HOME", labs.path("")).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    kubectl(&["label", "node", "node1", "reflects=yes"]);
    kubectl(&["annotate", "node", "node1", "projectcalico.org/RouteReflectorClusterID=244.0.0.1"]);
    kubectl(&["apply", "-f", &labs.file("reflected.yaml", REFLECTED)]);
    eventually(SOON, "clients speak with their reflector alone", || {
        established(&labs, "node2") == ["node/node1"]
            && established(&labs, "node3") == ["node/node1"]
            && established(&labs, "node1") == ["node/node2", "node/node3"]
    });
    eventually(SOON, "routes are by the nodes themselves", || {
        let routes = labs.on_node("b", "node2", "ip route show proto 87");
        routes.contains("via 10.168.0.2 ") && routes.contains("via 10.168.0.4 ")
    });
    labs.expect(0, &["lab", "check", "--name", "b"]);
}
