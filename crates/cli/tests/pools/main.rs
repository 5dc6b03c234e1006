//! Pools end to end, in labs with real packets: which pods get which addresses, what is lent and comes
//! back, what outlives its pool, what is released and repaired.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    reason = "a test fails by panicking and is one crate"
)]

#[path = "../common/mod.rs"]
mod common;

mod chosen;
mod killed;
mod lent;
mod outlived;
mod repaired;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;

use common::{Labs, eventually};

const SOON: Duration = Duration::from_secs(60);

/// A lab whose pods have their addresses out of the pools of `manifest`.
struct Pools {
    labs: Labs,
    name: &'static str,
}

impl Pools {
    fn up(name: &'static str, backend: &str, nodes: &str, manifest: &str) -> Pools {
        let labs = Labs::new();
        let file = labs.file("pools.yaml", manifest);
        let options = ["--ipam", "pools", "--backend", backend, "--nodes", nodes, "-f", &file];
        labs.expect(0, &[&["lab", "up", "--name", name], &options[..]].concat());
        Pools { labs, name }
    }

    fn kubeconfig(&self) -> String {
        self.labs.expect(0, &["lab", "kubeconfig", "--name", self.name]).trim().to_owned()
    }

    fn try_kubectl(&self, args: &[&str]) -> Output {
        let mut command = Command::new("/usr/bin/kubectl");
        command.arg("--kubeconfig").arg(self.kubeconfig()).args(args).output().unwrap()
    }

    fn kubectl(&self, args: &[&str]) -> String {
        let output = self.try_kubectl(args);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        text
    }

    fn ipam(&self, code: i32, args: &[&str]) -> String {
        let kubeconfig = self.kubeconfig();
        let all: Vec<&str> = [&["ipam"], args, &["--kubeconfig", &kubeconfig]].concat();
        self.labs.expect(code, &all)
    }

    fn apply(&self, manifest: &str) {
        let file = self.labs.file("more.yaml", manifest);
        self.labs.expect(0, &["lab", "apply", "--name", self.name, "-f", &file]);
    }

    /// What the lab says of the pod with this name.
    fn told(&self, name: &str) -> String {
        let pods = self.labs.pods(self.name);
        pods.into_iter().find(|pod| pod["name"] == name).unwrap_or_default().to_string()
    }

    /// Everything that the node's agent logged.
    fn log(&self, node: &str) -> String {
        let path = self.labs.state(self.name).join(format!("log/agent-{node}.log"));
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
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

    /// How many addresses are lent.
    fn lent(&self) -> usize {
        let lent = |block: &Value| block["spec"]["borrowed"].as_object().map_or(0, serde_json::Map::len);
        self.blocks().iter().map(lent).sum()
    }

    fn delete_pods(&self, names: &[&str]) {
        self.kubectl(&[&["delete", "pod", "--wait=false"], names].concat());
    }

    fn wait_check(&self) {
        eventually(SOON, "nothing is wrong", || {
            let kubeconfig = self.kubeconfig();
            self.labs.run(&["ipam", "check", "--kubeconfig", &kubeconfig]).status.success()
        });
    }

    /// Everybody reaches everybody, under the address that the rules say.
    fn reach(&self) {
        // An agent that was just killed is not ready at once.
        let mut said = Vec::new();
        let deadline = Instant::now() + SOON;
        while Instant::now() < deadline {
            let output = self.labs.run(&["lab", "check", "--name", self.name]);
            if output.status.success() {
                return;
            }
            said = output.stdout;
        }
        panic!("not everybody reaches everybody:\n{}", String::from_utf8_lossy(&said));
    }

    fn check(&self) {
        self.reach();
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

fn pod(name: &str, node: &str) -> String {
    wishing("default", name, node, "")
}

/// A pod with annotations.
fn wishing(namespace: &str, name: &str, node: &str, annotations: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {namespace}, annotations: {{{annotations}}}}}
spec: {{nodeName: {node}, containers: [{{name: c, image: example/x, ports: [{{containerPort: 8080}}]}}]}}
"
    )
}
