//! F32: hosts whose address changes, and a second host of a node's name.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    reason = "a test fails by panicking and is one crate"
)]

mod common;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Labs, eventually, example};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(30);
const HOST: &str = "weft.dev/host";

/// A lab of two nodes with a pod on each.
struct Cluster {
    labs: Labs,
    kubeconfig: String,
    near: String,
    far: String,
    far_ip: String,
}

impl Cluster {
    fn up() -> Cluster {
        let labs = Labs::new();
        let manifest = example("two-pods.yaml");
        labs.expect(0, &["lab", "up", "--name", "l", "--nodes", "2", "--backend", "vxlan", "-f", &manifest]);
        let kubeconfig = labs.expect(0, &["lab", "kubeconfig", "--name", "l"]).trim().to_owned();
        let mut pods = labs.pods("l");
        pods.sort_by_key(|pod| pod["node"].as_str().unwrap().to_owned());
        let name =
            |pod: &Value| format!("{}/{}", pod["namespace"].as_str().unwrap(), pod["name"].as_str().unwrap());
        let far_ip = pods[1]["ips"][0].as_str().unwrap().to_owned();
        Cluster { near: name(&pods[0]), far: name(&pods[1]), far_ip, kubeconfig, labs }
    }

    fn kubectl(&self, args: &[&str]) -> String {
        let mut kubectl = Command::new("kubectl");
        let kubectl = kubectl.args(args).env("KUBECONFIG", &self.kubeconfig).env("HOME", self.labs.path(""));
        let output = kubectl.output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn node(&self, name: &str) -> Value {
        serde_json::from_str(&self.kubectl(&["get", "node", name, "-o", "json"])).unwrap()
    }

    fn patch_status(&self, node: &str, status: &Value) {
        let patch = json!({ "status": status }).to_string();
        self.kubectl(&["patch", "node", node, "--subresource=status", "--type=merge", "-p", &patch]);
    }

    /// The first InternalIP.
    fn address(&self, node: &str) -> String {
        let node = self.node(node);
        let mut all = node["status"]["addresses"].as_array().unwrap().iter();
        let entry = all.find(|entry| entry["type"] == "InternalIP").unwrap();
        entry["address"].as_str().unwrap().to_owned()
    }

    /// As a DHCP client does it that got another lease.
    fn readdress(&self, node: &str, old: &str, new: &str) {
        let line = format!(
            "set -e; r=$(ip route show default); ip addr del {old}/24 dev eth0; ip addr add {new}/24 dev eth0
            ip route replace $r"
        );
        self.labs.on_node("l", node, &line);
    }

    fn start(&self, pod: &str, argv: &[&str]) -> Child {
        let args = [&["lab", "exec", "--name", "l", pod, "--"], argv].concat();
        self.labs.weft(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn reaches(&self) -> bool {
        let ping = ["lab", "exec", "--name", "l", &self.near, "--", "ping", "-c1", "-W1", &self.far_ip];
        self.labs.run(&ping).status.success()
    }

    fn says(&self, agent_dir: &str, words: &str) {
        let file = self.labs.path(agent_dir).join("status.json");
        eventually(SOON, words, || std::fs::read_to_string(&file).is_ok_and(|text| text.contains(words)));
    }
}

#[test]
fn f32_a_bare_host_says_its_new_address_itself_and_its_connections_go_on() {
    let cluster = Cluster::up();
    // As on a host without kubelet.
    cluster.patch_status("node2", &json!({"nodeInfo": {"kubeletVersion": ""}}));
    eventually(SOON, "the Node says whose it is", || {
        ["node1", "node2"].iter().all(|name| cluster.node(name)["metadata"]["annotations"][HOST].is_string())
    });
    let mut server = cluster.start(&cluster.far, &["iperf3", "-s", "-1"]);
    let listens = ["lab", "exec", "--name", "l", &cluster.far, "--", "sh", "-c", "ss -ltn | grep -q :5201"];
    eventually(SOON, "iperf3 listens", || cluster.labs.run(&listens).status.success());
    let stream =
        cluster.start(&cluster.near, &["iperf3", "-c", &cluster.far_ip, "-t", "20", "-b", "5M", "-J"]);
    for new in ["10.168.0.33", "10.168.0.34"] {
        let old = cluster.address("node2");
        cluster.readdress("node2", &old, new);
        let changed = Instant::now();
        eventually(SOON, "the Node has the new address", || cluster.address("node2") == new);
        println!("{old} to {new}: announced after {:?}", changed.elapsed());
        eventually(SOON, "the pod is reached again", || cluster.reaches());
        println!("{old} to {new}: reached again after {:?}", changed.elapsed());
    }
    let stream = stream.wait_with_output().unwrap();
    let report: Value = serde_json::from_slice(&stream.stdout).unwrap();
    assert!(report.get("error").is_none(), "{report}");
    server.wait().unwrap();
    // Everything else that it says is as before.
    let node = cluster.node("node2");
    let hostname = json!({"type": "Hostname", "address": "node2"});
    assert!(node["status"]["addresses"].as_array().unwrap().contains(&hostname), "{node}");

    // What a kubelet says stays until it says something else.
    let old = cluster.address("node1");
    cluster.readdress("node1", &old, "10.168.0.35");
    cluster.says("labs/l/node/node1/agent", "no link of this host carries");
    assert_eq!(cluster.address("node1"), old);
    let addresses = json!([{"type": "InternalIP", "address": "10.168.0.35"}]);
    cluster.patch_status("node1", &json!({ "addresses": addresses }));
    eventually(SOON, "the pod is reached again", || cluster.reaches());
}

#[test]
fn a_second_host_of_a_node_s_name_says_nothing_in_its_place() {
    let cluster = Cluster::up();
    eventually(SOON, "the Node says whose it is", || {
        cluster.node("node1")["metadata"]["annotations"][HOST].is_string()
    });
    let told = |node: &Value| {
        let all = node["status"]["conditions"].as_array().unwrap();
        let ours = all.iter().filter(|one| one["type"] != "Ready").cloned().collect::<Vec<_>>();
        (node["metadata"]["annotations"].clone(), node["status"]["addresses"].clone(), ours)
    };
    let before = told(&cluster.node("node1"));
    let ping = cluster.start(&cluster.near, &["ping", "-i", "0.01", "-c", "500", "-q", &cluster.far_ip]);
    // On the other host, with node1's credentials and files of its own.
    let files = cluster.labs.path("second");
    let path = |name: &str| files.join(name).display().to_string();
    let kubeconfig = cluster.labs.state("l").join("node/node1/kubeconfig").display().to_string();
    let weft = common::built("weft").display().to_string();
    let agent = [
        &weft,
        "agent",
        "--node-name",
        "node1",
        "--backend",
        "vxlan",
        "--kubeconfig",
        &kubeconfig,
        "--cluster-cidr",
        "10.244.0.0/16",
        "--cni-conf-dir",
        &path("net.d"),
        "--cni-data-dir",
        &path("networks"),
        "--subnet-file",
        &path("subnet.env"),
        "--state-dir",
        &path("agent"),
    ];
    let mut second = cluster.start("node/node2", &agent);
    cluster.says("second/agent", "node node1 is another host's");
    // Longer than it takes to write a condition.
    let ping = ping.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&ping.stdout).into_owned();
    assert!(text.contains("500 received, 0% packet loss"), "{text}");
    assert_eq!(told(&cluster.node("node1")), before);
    assert!(!files.join("net.d/10-weft.conflist").exists());
    second.kill().unwrap();
    second.wait().unwrap();
    cluster.labs.expect(0, &["lab", "check", "--name", "l"]);
}
