//! `weft network migrate`: a running cluster changes its backend, and what runs goes on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    reason = "a test fails by panicking and is one crate"
)]

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::Duration;

use common::{Labs, eventually, example};

const SOON: Duration = Duration::from_secs(30);

/// A lab of three nodes with a pod on two of them.
struct Cluster {
    labs: Labs,
    kubeconfig: String,
}

impl Cluster {
    fn up(backend: &str, more: &[&str]) -> Cluster {
        let labs = Labs::new();
        let manifest = example("two-pods.yaml");
        let up = ["lab", "up", "--name", "m", "--backend", backend, "-f", &manifest];
        labs.expect(0, &[&up[..], more].concat());
        let kubeconfig = labs.expect(0, &["lab", "kubeconfig", "--name", "m"]).trim().to_owned();
        Cluster { labs, kubeconfig }
    }

    fn network<'a>(&'a self, args: &[&'a str]) -> Vec<&'a str> {
        [&["network"][..], args, &["--kubeconfig", &self.kubeconfig]].concat()
    }

    fn migrate(&self, to: &str) {
        let said = self.labs.expect(0, &self.network(&["migrate", "--to", to]));
        assert!(said.starts_with(&format!("all 3 nodes send by {to}\n")), "{said}");
    }

    fn show(&self) -> serde_json::Value {
        self.labs.json(&self.network(&["show", "-o", "json"]))
    }

    fn start(&self, pod: &str, argv: &[&str]) -> Child {
        let args = [&["lab", "exec", "--name", "m", pod, "--"], argv].concat();
        self.labs.weft(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn ip(&self, name: &str) -> String {
        let pods = self.labs.pods("m");
        let pod = pods.iter().find(|pod| pod["name"] == name).unwrap();
        pod["ips"][0].as_str().unwrap().to_owned()
    }

    fn links(&self, node: &str) -> String {
        self.labs.expect(0, &["lab", "exec", "--name", "m", node, "--", "ip", "-br", "link"])
    }
}

#[test]
fn a_cluster_changes_its_backend_and_back_under_traffic() {
    let dual = ["--pod-cidr", "10.244.0.0/16", "--pod-cidr", "fd00:244::/56"];
    let cluster = Cluster::up("host-gw", &dual);
    let pong = cluster.ip("pong");
    let mut server = cluster.start("default/pong", &["iperf3", "-s", "-1"]);
    eventually(SOON, "iperf3 listens", || {
        let listens =
            ["lab", "exec", "--name", "m", "default/pong", "--", "sh", "-c", "ss -ltn | grep -q :5201"];
        cluster.labs.run(&listens).status.success()
    });
    let stream = cluster.start("default/ping", &["iperf3", "-c", &pong, "-n", "400M", "-b", "200M", "-J"]);
    let ping = cluster.start("default/ping", &["ping", "-i", "0.01", "-c", "1500", "-q", &pong]);
    for to in ["vxlan", "auto", "udp", "vxlan", "udp", "host-gw"] {
        cluster.migrate(to);
        let shown = cluster.show();
        assert_eq!(shown["network"]["backend"], to);
        assert!(shown["network"]["migration"].is_null(), "{shown}");
    }
    let left = cluster.links("node/node1");
    assert!(!left.contains("weft-vxlan"), "what is no longer in force is gone: {left}");

    let stream = stream.wait_with_output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&stream.stdout).unwrap();
    assert!(report.get("error").is_none(), "{report}");
    assert!(report["end"]["sum_received"]["bytes"].as_u64().unwrap() >= 400_000_000, "{report}");
    server.wait().unwrap();
    let report = ping.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&report.stdout).into_owned();
    assert!(text.contains("1500 received, 0% packet loss"), "{text}");
    cluster.labs.expect(0, &["lab", "check", "--name", "m"]);
}

#[test]
fn an_interrupted_migration_is_shown_goes_on_and_can_be_taken_back() {
    let cluster = Cluster::up("host-gw", &[]);
    let interrupted = |to: &str| {
        let args = cluster.network(&["migrate", "--to", to]);
        let mut child =
            cluster.labs.weft(&args).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        assert!(first.starts_with("[1/3]"), "{first}");
        child.kill().unwrap();
        child.wait().unwrap();
    };
    interrupted("vxlan");
    let shown = cluster.show();
    assert_eq!(shown["network"]["migration"]["to"], "vxlan", "{shown}");
    assert_eq!(shown["network"]["backend"], "host-gw");
    cluster.labs.expect(0, &["lab", "check", "--name", "m"]);
    let third = cluster.labs.run(&cluster.network(&["migrate", "--to", "auto"]));
    assert_eq!(third.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&third.stderr).contains("--to vxlan"), "{third:?}");
    cluster.migrate("vxlan");

    interrupted("host-gw");
    cluster.migrate("vxlan");
    let shown = cluster.show();
    assert_eq!(shown["network"]["backend"], "vxlan");
    assert!(shown["network"]["migration"].is_null(), "{shown}");
    cluster.labs.expect(0, &["lab", "check", "--name", "m"]);
}

#[test]
fn what_the_new_backend_cannot_reach_is_refused_and_nothing_breaks() {
    let cluster = Cluster::up("auto", &["--topology", "racks=2"]);
    let refused = cluster.labs.run(&cluster.network(&["migrate", "--to", "host-gw"]));
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("cannot reach node") && said.contains("host-gw"), "{said}");
    cluster.labs.expect(0, &["lab", "check", "--name", "m"]);
    cluster.migrate("auto");
    cluster.labs.expect(0, &["lab", "check", "--name", "m"]);
}
