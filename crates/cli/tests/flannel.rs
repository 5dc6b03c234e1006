//! Real flannel on some of a lab's nodes, and nodes that move from one to the other under traffic:
//! `scripts/test.sh kubernetes`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    reason = "a test fails by panicking and is one crate"
)]

mod common;
mod flannel_node;

use std::process::{Child, Stdio};
use std::time::Duration;

use common::{Labs, eventually, machine_dump};
use flannel_node::{FlannelNode, kubectl};
use serde_json::Value;
use weft_judge::{Kubernetes, Parts};

const SOON: Duration = Duration::from_secs(60);
const LAB: &str = "fl";

/// Three nodes with one pod each, `p1` on `node1` and so on.
fn up(labs: &Labs, options: &[&str]) {
    let pod = |i: usize| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p{i}}}\nspec: {{nodeSelector: {{kubernetes.io/hostname: node{i}}}, containers: [{{name: c, image: i}}]}}\n---\n"
        )
    };
    let manifest = labs.file("pods.yaml", &(1..=3).map(pod).collect::<String>());
    let args = ["lab", "up", "--name", LAB, "--nodes", "3", "-f", &manifest];
    labs.expect(0, &[&args, options].concat());
}

fn ip(labs: &Labs, pod: &str) -> String {
    let pods = labs.pods(LAB);
    let found = pods.iter().find(|p| p["name"] == pod).unwrap();
    found["ips"][0].as_str().unwrap().to_owned()
}

fn in_pod(labs: &Labs, pod: &str, argv: &[&str]) -> Child {
    let args = [&["lab", "exec", "--name", LAB, pod, "--"], argv].concat();
    labs.weft(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Every pod and node reaches every other, as the oracle says.
fn all_reach_all(labs: &Labs, when: &str) {
    let mut told = String::new();
    eventually(SOON, when, || {
        let output = labs.run(&["lab", "check", "--name", LAB]);
        told = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.code() == Some(0)
    });
    println!("{when}: {}", told.lines().last().unwrap_or_default());
}

/// A TCP connection of some seconds between two pods.
struct Stream {
    server: Child,
    client: Child,
}

impl Stream {
    fn start(labs: &Labs, from: &str, to: &str, port: &str) -> Stream {
        let server = in_pod(labs, to, &["iperf3", "-s", "-1", "-p", port]);
        eventually(SOON, "iperf3 listens", || {
            let look = format!("ss -ltn | grep -q :{port}");
            labs.run(&["lab", "exec", "--name", LAB, to, "--", "sh", "-c", &look]).status.success()
        });
        let to = ip(labs, to);
        let client = in_pod(labs, from, &["iperf3", "-c", &to, "-p", port, "-t", "14", "-b", "5M", "-J"]);
        Stream { server, client }
    }

    /// Its retransmissions, once it has ended well.
    fn retransmissions(mut self) -> u64 {
        let output = self.client.wait_with_output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        self.server.wait().unwrap();
        assert!(report.get("error").is_none(), "{report}");
        let (sent, received) = (&report["end"]["sum_sent"], &report["end"]["sum_received"]);
        assert!(received["bytes"].as_u64().unwrap() > 4_000_000, "{report}");
        sent["retransmits"].as_u64().unwrap()
    }
}

fn a_cluster_moves_over_one_node_at_a_time(options: &[&str], config: &str) {
    let before = machine_dump();
    let labs = Labs::new();
    up(&labs, options);
    moves(&labs, config);
    drop(labs);
    assert_eq!(before, machine_dump(), "the machine's own network");
}

fn moves(labs: &Labs, config: &str) {
    let [mut two, mut three] = ["node2", "node3"].map(|name| FlannelNode::of(labs, LAB, name, config));
    two.start();
    three.start();
    all_reach_all(labs, "one node of ours and two of flannel");

    let others = Stream::start(labs, "p1", "p3", "5201");
    let moved = Stream::start(labs, "p3", "p2", "5202");
    two.end();
    // Before it is told to, our agent changes nothing on a host that flannel still has.
    two.agent();
    eventually(SOON, "the agent says what flannel left", || {
        two.errors().contains("weft network adopt-flannel")
    });
    two.adopt();
    all_reach_all(labs, "two nodes of ours and one of flannel");
    assert_eq!(others.retransmissions(), 0, "between the nodes that did not move");
    println!("retransmissions to the node that moved: {}", moved.retransmissions());

    two.start();
    all_reach_all(labs, "a node went back to flannel");
    for node in [&mut two, &mut three] {
        node.end();
        node.adopt();
        node.agent();
    }
    all_reach_all(labs, "all nodes are ours");
    eventually(SOON, "flannel's annotations are gone", || {
        !kubectl(labs, LAB, &["get", "nodes", "-o", "yaml"]).contains("flannel.alpha.coreos.com")
    });
}

/// Flannel's configuration with rules in nftables, which it starts with where br_netfilter is not.
fn config(backend: &str, ipv6: bool) -> String {
    let six = if ipv6 { r#""EnableIPv6":true,"IPv6Network":"fd00:244::/48","# } else { "" };
    format!(r#"{{"Network":"10.244.0.0/16",{six}"EnableNFTables":true,"Backend":{{"Type":"{backend}"}}}}"#)
}

#[test]
#[ignore = "needs real flannel: scripts/test.sh kubernetes"]
fn a_cluster_of_vxlan_moves_over_one_node_at_a_time() {
    a_cluster_moves_over_one_node_at_a_time(&["--backend", "vxlan"], &config("vxlan", false));
}

#[test]
#[ignore = "needs real flannel and the real Kubernetes: scripts/test.sh kubernetes"]
fn a_cluster_of_the_real_kubernetes_moves_over_one_node_at_a_time() {
    let binaries =
        Kubernetes::binaries().expect("WEFT_KUBERNETES names the folder that scripts/kubernetes.sh prints");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let cluster = runtime.block_on(Kubernetes::start(&binaries, Parts::WHOLE)).unwrap();
    let kubeconfig = cluster.kubeconfig();
    let options = ["--backend", "vxlan", "--kubeconfig", kubeconfig.to_str().unwrap()];
    a_cluster_moves_over_one_node_at_a_time(&options, &config("vxlan", false));
}

#[test]
#[ignore = "needs real flannel: scripts/test.sh kubernetes"]
fn a_cluster_of_host_gw_moves_over_one_node_at_a_time() {
    a_cluster_moves_over_one_node_at_a_time(&["--backend", "host-gw"], &config("host-gw", false));
}

#[test]
#[ignore = "needs real flannel: scripts/test.sh kubernetes"]
fn a_dual_stack_cluster_of_vxlan_moves_over_one_node_at_a_time() {
    let options = ["--backend", "auto", "--pod-cidr", "10.244.0.0/16", "--pod-cidr", "fd00:244::/48"];
    a_cluster_moves_over_one_node_at_a_time(&options, &config("vxlan", true));
}

#[test]
#[ignore = "needs real flannel: scripts/test.sh kubernetes"]
fn a_dual_stack_cluster_of_host_gw_moves_over_one_node_at_a_time() {
    let options = ["--backend", "host-gw", "--pod-cidr", "10.244.0.0/16", "--pod-cidr", "fd00:244::/48"];
    a_cluster_moves_over_one_node_at_a_time(&options, &config("host-gw", true));
}
