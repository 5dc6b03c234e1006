//! Pools end to end, in a lab whose agents and plugins are killed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    reason = "a test fails by panicking and is one crate"
)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use common::{Labs, eventually, signal};

const SOON: Duration = Duration::from_secs(60);

/// A lab whose pods have their addresses out of the pools of `manifest`.
struct Pools {
    labs: Labs,
    name: &'static str,
}

impl Pools {
    fn up(name: &'static str, nodes: &str, manifest: &str) -> Pools {
        let labs = Labs::new();
        let file = labs.file("pools.yaml", manifest);
        labs.expect(0, &["lab", "up", "--name", name, "--nodes", nodes, "--ipam", "pools", "-f", &file]);
        Pools { labs, name }
    }

    fn kubeconfig(&self) -> String {
        self.labs.expect(0, &["lab", "kubeconfig", "--name", self.name]).trim().to_owned()
    }

    fn kubectl(&self, args: &[&str]) -> String {
        let mut command = Command::new("/usr/bin/kubectl");
        let output = command.arg("--kubeconfig").arg(self.kubeconfig()).args(args).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        text
    }

    fn ipam(&self, code: i32, args: &[&str]) -> String {
        let kubeconfig = self.kubeconfig();
        let all: Vec<&str> = [&["ipam"], args, &["--kubeconfig", &kubeconfig]].concat();
        self.labs.expect(code, &all)
    }

    /// Addresses of ready pods, by `namespace/name`.
    fn addresses(&self) -> BTreeMap<String, Ipv4Addr> {
        let ready = self.labs.pods(self.name).into_iter().filter(|pod| pod["ready"] == true);
        ready.filter_map(|pod| Some((key(&pod), pod["ips"][0].as_str()?.parse().ok()?))).collect()
    }

    fn wait_ready(&self, count: usize) -> BTreeMap<String, Ipv4Addr> {
        let mut found = BTreeMap::new();
        eventually(SOON, "as many pods are ready", || {
            found = self.addresses();
            found.len() == count
        });
        found
    }

    fn blocks(&self) -> Vec<Value> {
        serde_json::from_str::<Value>(&self.kubectl(&["get", "ipblocks", "-o", "json"])).unwrap()["items"]
            .as_array()
            .unwrap()
            .clone()
    }

    fn check(&self) {
        // An agent that was just killed is not ready at once.
        eventually(SOON, "everybody reaches everybody", || {
            self.labs.run(&["lab", "check", "--name", self.name]).status.success()
        });
        self.ipam(0, &["check"]);
    }
}

fn key(pod: &Value) -> String {
    format!("{}/{}", pod["namespace"].as_str().unwrap(), pod["name"].as_str().unwrap())
}

fn pool(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: weft.dev/v1\nkind: IPPool\nmetadata: {{name: {name}}}\nspec: {{natOutgoing: true, {spec}}}\n"
    )
}

#[test]
fn whoever_is_killed_no_address_is_given_twice_and_none_is_lost() {
    let deployment = |replicas: usize| {
        format!(
            "---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web, namespace: default}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec: {{containers: [{{name: c, image: example/x, ports: [{{containerPort: 8080}}]}}]}}
"
        )
    };
    // Sixteen blocks of seven addresses.
    let lab = Pools::up("k", "3", &(pool("p", "cidr: 10.244.0.0/25, blockSize: 29") + &deployment(12)));
    for replicas in ["60", "15", "80", "30"] {
        lab.kubectl(&["scale", "deployment", "web", "--replicas", replicas]);
        for _ in 0..8 {
            for pid in lab.labs.processes(&["agent", "--node-name"]) {
                signal(pid, "KILL");
            }
            for pid in cni_processes() {
                signal(pid, "KILL");
            }
            std::thread::sleep(Duration::from_millis(150));
        }
    }
    let found = lab.wait_ready(30);
    assert_eq!(found.values().collect::<BTreeSet<_>>().len(), 30, "an address is given twice: {found:?}");
    lab.check();
    // A block that somebody deleted while pods use it is claimed again by their node.
    let used = |block: &Value| {
        let cidr = block["spec"]["cidr"].as_str().unwrap();
        let first: Ipv4Addr = cidr.trim_end_matches("/29").parse().unwrap();
        let lends = block["spec"]["borrowed"].as_object().is_some_and(|lent| !lent.is_empty());
        let here = |ip: &&Ipv4Addr| u32::from(**ip) & !7 == u32::from(first);
        !lends && block["spec"]["node"].is_string() && found.values().any(|ip| here(&ip))
    };
    let block = lab.blocks().into_iter().find(used).unwrap();
    let name = block["metadata"]["name"].as_str().unwrap().to_owned();
    lab.kubectl(&["delete", "ipblock", &name]);
    let again = || lab.blocks().into_iter().find(|found| found["metadata"]["name"] == name.as_str());
    eventually(SOON, "the block is claimed again", || {
        again().is_some_and(|b| b["spec"]["node"] == block["spec"]["node"])
    });
    eventually(SOON, "nothing is wrong", || {
        let kubeconfig = lab.kubeconfig();
        lab.labs.run(&["ipam", "check", "--kubeconfig", &kubeconfig]).status.success()
    });
    lab.check();
    // What no pod has can be released, and what one has cannot.
    let (pod, ip) = found.iter().next().unwrap();
    let refused = lab.ipam(1, &["release", &ip.to_string()]);
    assert!(refused.contains(pod.as_str()), "{refused}");
    lab.ipam(1, &["release", "192.0.2.1"]);
}

/// Plugins of this test's build that run now.
fn cni_processes() -> Vec<i32> {
    let cni = common::built("weft-cni");
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    ids.filter(|pid| std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == cni)).collect()
}
