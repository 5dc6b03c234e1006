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
use flannel_node::{FlannelNode, Store, kubectl};
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

/// How a stream of 5 Mbit/s is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rate {
    /// 128 KiB at once, and then nothing for a while.
    Bursts,
    /// Evenly: of what comes at once flannel's udp proxy drops what its socket does not hold.
    Even,
}

impl Rate {
    /// That of flannel's configuration.
    fn of(config: &str) -> Rate {
        if config.contains(r#""Type":"udp""#) { Rate::Even } else { Rate::Bursts }
    }
}

/// A TCP connection of some seconds between two pods.
struct Stream {
    server: Child,
    client: Child,
}

impl Stream {
    fn start(labs: &Labs, from: &str, to: &str, port: &str, rate: Rate) -> Stream {
        let server = in_pod(labs, to, &["iperf3", "-s", "-1", "-p", port]);
        eventually(SOON, "iperf3 listens", || {
            let look = format!("ss -ltn | grep -q :{port}");
            labs.run(&["lab", "exec", "--name", LAB, to, "--", "sh", "-c", &look]).status.success()
        });
        let to = ip(labs, to);
        let rate = if rate == Rate::Bursts { "-b" } else { "--fq-rate" };
        let line = ["iperf3", "-c", &to, "-p", port, "-t", "14", rate, "5M", "-J"];
        let client = in_pod(labs, from, &line);
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

/// Packets of the MTU with DF go from pod to pod and back, larger ones in fragments.
fn every_size_passes(labs: &Labs, from: &str, to: &str) {
    let run = |line: &str| labs.expect(0, &["lab", "exec", "--name", LAB, from, "--", "sh", "-c", line]);
    let mtu: usize = run("cat /sys/class/net/eth0/mtu").trim().parse().unwrap();
    // Less the headers of IPv4 and ICMP.
    for (df, size) in
        [("do", 0), ("do", 1000), ("do", mtu - 29), ("do", mtu - 28), ("dont", mtu - 27), ("dont", 4000)]
    {
        run(&format!("ping -c1 -W5 -M{df} -s{size} {}", ip(labs, to)));
    }
}

fn a_cluster_moves_over_one_node_at_a_time(options: &[&str], config: &str) {
    let before = machine_dump();
    let labs = Labs::new();
    up(&labs, options);
    moves(&labs, Rate::of(config), |name| FlannelNode::of(&labs, LAB, name, config));
    drop(labs);
    assert_eq!(before, machine_dump(), "the machine's own network");
}

fn moves<'a>(labs: &'a Labs, rate: Rate, node: impl Fn(&'static str) -> FlannelNode<'a>) {
    let [mut two, mut three] = ["node2", "node3"].map(node);
    two.start();
    three.start();
    all_reach_all(labs, "one node of ours and two of flannel");
    every_size_passes(labs, "p1", "p3");
    every_size_passes(labs, "p3", "p1");

    let others = Stream::start(labs, "p1", "p3", "5201", rate);
    let moved = Stream::start(labs, "p3", "p2", "5202", rate);
    two.end();
    // Before it is told to, our agent changes nothing on a host that flannel still has.
    assert!(two.errors().contains("weft network adopt-flannel"), "{}", two.errors());
    two.adopt();
    all_reach_all(labs, "two nodes of ours and one of flannel");
    assert_eq!(others.retransmissions(), 0, "between the nodes that did not move");
    println!("retransmissions to the node that moved: {}", moved.retransmissions());

    two.start();
    all_reach_all(labs, "a node went back to flannel");
    for node in [&mut two, &mut three] {
        node.end();
        node.adopt();
    }
    all_reach_all(labs, "all nodes are ours");
    eventually(SOON, "flannel's annotations are gone", || {
        !kubectl(labs, LAB, &["get", "nodes", "-o", "yaml"]).contains("flannel.alpha.coreos.com")
    });
}

fn a_cluster_without_kubernetes_moves_over_one_host_at_a_time(backend: &str, ipv6: bool) {
    let before = machine_dump();
    let config = config(backend, ipv6);
    let store = Store::start(&config);
    let labs = Labs::new();
    let kubeconfig = store.kubeconfig();
    let options = ["--backend", backend, "--kubeconfig", kubeconfig.to_str().unwrap()];
    let families = ["--pod-cidr", "10.244.0.0/16", "--pod-cidr", "fd00:244::/48"];
    up(&labs, &[&options, &families[..if ipv6 { 4 } else { 2 }]].concat());
    let subnets = store.subnets();
    assert_eq!(subnets.len(), 3, "{subnets:?}");
    moves(&labs, Rate::of(&config), |name| FlannelNode::with_store(&labs, LAB, name, &store));
    let same = |(old, new): (&(String, Value), &(String, Value))| old.0 == new.0;
    assert!(subnets.iter().zip(&store.subnets()).all(same), "each host keeps its subnet");
    // With both families the two hosts that one node plays there would share an address of IPv6.
    if !ipv6 {
        a_host_of_flannel_s_alone_comes_and_goes(&labs, &store);
    }
    drop(labs);
    drop(store);
    assert_eq!(before, machine_dump(), "the machine's own network");
}

/// A host that has no Node object but the one that its key makes.
fn a_host_of_flannel_s_alone_comes_and_goes(labs: &Labs, store: &Store) {
    const ADDRESS: &str = "10.168.0.77";
    let known = store.subnets();
    let mut host = FlannelNode::with_store(labs, LAB, "node3", store).with_address(ADDRESS);
    host.start();
    let subnets = store.subnets();
    let (key, _) = subnets.iter().find(|(key, _)| known.iter().all(|(old, _)| old != key)).unwrap();
    let name = format!("flannel-{}", key.rsplit('/').next().unwrap());
    let cidr =
        || store.kubectl(&["get", "node", &name, "-o", "jsonpath={.spec.podCIDR}"]).unwrap_or_default();
    eventually(SOON, "the host has a Node", || !cidr().is_empty());
    let cidr = cidr();
    let inside = cidr.replace(".0/24", ".1");
    labs.on_node(LAB, "node3", &format!("ip addr add {inside}/32 dev lo"));
    let ping = || {
        labs.run(&["lab", "exec", "--name", LAB, "p1", "--", "ping", "-c2", "-W1", "-Mdo", "-s1400", &inside])
    };
    eventually(SOON, "a pod reaches the host's", || ping().status.success());
    let back = format!("ping -c2 -W1 -Mdo -s1400 -I {inside} {}", ip(labs, "p1"));
    labs.on_node(LAB, "node3", &back);
    let mut server = in_pod(labs, "node/node3", &["iperf3", "-s", "-1", "-B", &inside]);
    eventually(SOON, "iperf3 listens", || labs.on_node(LAB, "node3", "ss -ltn").contains(":5201"));
    labs.expect(0, &["lab", "exec", "--name", LAB, "p1", "--", "iperf3", "-c", &inside, "-n", "20M"]);
    server.wait().unwrap();

    host.end_by("KILL");
    store.end_lease(key);
    let nodes = || store.kubectl(&["get", "nodes"]).unwrap_or(name.clone());
    eventually(SOON, "its Node is gone", || !nodes().contains(&name));
    let routes = || labs.on_node(LAB, "node1", "ip route");
    eventually(SOON, "nothing leads there", || !routes().contains(&cidr));
}

/// Flannel's configuration with rules in nftables, which it starts with where br_netfilter is not.
fn config(backend: &str, ipv6: bool) -> String {
    let six = if ipv6 { r#""EnableIPv6":true,"IPv6Network":"fd00:244::/48","# } else { "" };
    format!(r#"{{"Network":"10.244.0.0/16",{six}"EnableNFTables":true,"Backend":{{"Type":"{backend}"}}}}"#)
}

/// What flannel makes with iptables, by both variants, and one rule of somebody else.
const CHAINS: &str = "set -e; for ipt in iptables-nft iptables-legacy ip6tables-nft ip6tables-legacy; do \
    masq='-m comment --comment flanneld-masq'; forward='-m comment --comment flanneld-forward'; \
    case $ipt in iptables*) net=10.244.0.0/16;; *) net=fd00:244::/48;; esac; \
    $ipt -w -t nat -N FLANNEL-POSTRTG; $ipt -w -t nat -A POSTROUTING $masq -j FLANNEL-POSTRTG; \
    $ipt -w -t nat -A FLANNEL-POSTRTG -s $net -d $net $masq -j RETURN; \
    $ipt -w -t nat -A FLANNEL-POSTRTG -s $net $masq -j MASQUERADE --random-fully; \
    $ipt -w -N FLANNEL-FWD; $ipt -w -A FORWARD $forward -j FLANNEL-FWD; \
    $ipt -w -A FLANNEL-FWD -s $net $forward -j ACCEPT; $ipt -w -A FLANNEL-FWD -d $net $forward -j ACCEPT; \
    $ipt -w -A FORWARD -m comment --comment kept -j ACCEPT; done";

#[test]
fn flannel_s_chains_of_both_variants_of_iptables_go_and_traffic_goes_on() {
    let before = machine_dump();
    let labs = Labs::new();
    up(&labs, &["--backend", "vxlan"]);
    all_reach_all(&labs, "before");
    labs.on_node(LAB, "node2", CHAINS);
    let listed = || {
        let list = "for ipt in iptables ip6tables; do for variant in nft legacy; do \
            $ipt-$variant -t nat -S; $ipt-$variant -S; done; done";
        labs.on_node(LAB, "node2", list)
    };
    assert_eq!(listed().matches("-N FLANNEL-").count(), 8);
    let stream = Stream::start(&labs, "p1", "p2", "5201", Rate::Bursts);
    let weft = common::built("weft").display().to_string();
    let adopt = |options: &str| {
        let folder = labs.state(LAB).join("node/node2/cni");
        let folders = format!("--cni-conf-dir {0}/net.d --cni-data-dir {0}/networks", folder.display());
        labs.on_node(LAB, "node2", &format!("{weft} network adopt-flannel {folders} {options}"))
    };
    let found = listed();
    assert_eq!(adopt("--dry-run").matches("would remove").count(), 8);
    assert_eq!(listed(), found, "a dry run changes nothing");
    let told = adopt("");
    assert!(told.contains("the ip6tables-legacy chain FLANNEL-FWD of table filter"), "{told}");
    let left = listed();
    assert!(!left.contains("FLANNEL"), "{left}");
    assert_eq!(left.matches("--comment kept -j ACCEPT").count(), 4, "{left}");
    assert!(adopt("").contains("nothing of flannel"));
    all_reach_all(&labs, "after");
    assert_eq!(stream.retransmissions(), 0);

    // Where FORWARD drops by default, as Docker sets it, the chain is what lets pods through.
    labs.on_node(LAB, "node2", &format!("{CHAINS}; iptables-nft -P FORWARD DROP"));
    assert!(adopt("").contains("keep the iptables-nft chain FLANNEL-FWD"));
    assert_eq!(listed().matches("-N FLANNEL-").count(), 1);
    drop(labs);
    assert_eq!(before, machine_dump(), "the machine's own network");
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
#[ignore = "needs real flannel with its udp backend: scripts/test.sh kubernetes"]
fn a_cluster_of_udp_moves_over_one_node_at_a_time() {
    a_cluster_moves_over_one_node_at_a_time(&["--backend", "udp"], &config("udp", false));
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

#[test]
#[ignore = "needs real flannel: scripts/test.sh kubernetes"]
fn hosts_of_vxlan_without_kubernetes_move_over_one_at_a_time() {
    a_cluster_without_kubernetes_moves_over_one_host_at_a_time("vxlan", false);
}

#[test]
#[ignore = "needs real flannel: scripts/test.sh kubernetes"]
fn hosts_of_host_gw_without_kubernetes_move_over_one_at_a_time() {
    a_cluster_without_kubernetes_moves_over_one_host_at_a_time("host-gw", false);
}

#[test]
#[ignore = "needs real flannel with its udp backend: scripts/test.sh kubernetes"]
fn hosts_of_udp_without_kubernetes_move_over_one_at_a_time() {
    a_cluster_without_kubernetes_moves_over_one_host_at_a_time("udp", false);
}

#[test]
#[ignore = "needs real flannel: scripts/test.sh kubernetes"]
fn dual_stack_hosts_of_vxlan_without_kubernetes_move_over_one_at_a_time() {
    a_cluster_without_kubernetes_moves_over_one_host_at_a_time("vxlan", true);
}
