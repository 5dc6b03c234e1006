//! `bandwidth`: queueing disciplines as the reference makes them, and what they do to packets.

use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use weft_kernel::testing::eventually;
use weft_kernel::{Filter, Link, Netlink, Netns, Op, Qdisc};

use crate::Pod;
use crate::common::{Call, Node};

fn ifbs() -> Vec<Link> {
    let links = Netlink::open().unwrap().links().unwrap();
    links.into_iter().filter(|link| link.kind.as_deref() == Some("ifb")).collect()
}

/// What shapes a link, without numbers that the kernel chooses and who is redirected to.
fn shaped(link: &Link) -> (Vec<Qdisc>, Vec<(u16, u16)>) {
    let mut netlink = Netlink::open().unwrap();
    let qdiscs = netlink.qdiscs(link.index).unwrap().into_iter();
    let qdiscs = qdiscs.map(|qdisc| Qdisc { ifindex: 0, ..qdisc }).collect();
    let filters: Vec<Filter> = netlink.filters(link.index, 0xffff_0000).unwrap_or_default();
    (qdiscs, filters.iter().map(|filter| (filter.priority, filter.protocol)).collect())
}

fn limits() -> Value {
    json!({"type": "bandwidth", "ingressRate": 8_000_000, "ingressBurst": 1_600_000,
           "egressRate": 4_000_000, "egressBurst": 800_000})
}

#[test]
fn bandwidth_is_limited_as_the_reference_limits_it() {
    let variants = [
        limits(),
        json!({"type": "bandwidth", "ingressRate": 123_456_789, "ingressBurst": 987_654}),
        json!({"type": "bandwidth", "egressRate": 40_000_000_000_u64, "egressBurst": 12_345_678}),
        json!({"type": "bandwidth", "runtimeConfig": {"bandwidth":
            {"ingressRate": 1000, "ingressBurst": 16_000, "egressRate": 1000, "egressBurst": 16_000}}}),
    ];
    for keys in variants {
        let states = [true, false].map(|ours| {
            let node = Node::new();
            let mut pod = Pod::new(&node, "c1", &["10.9.0.0/24"]);
            pod.add(&keys, ours);
            let ifb =
                ifbs().first().map(|ifb| (ifb.name.clone(), ifb.mtu, ifb.up, ifb.tx_queue_len, shaped(ifb)));
            let names: Vec<Value> = pod.result["interfaces"].as_array().unwrap()[3..]
                .iter()
                .map(|interface| json!([interface["name"], interface["mac"].is_string()]))
                .collect();
            (shaped(&pod.host_end()), ifb, names)
        });
        assert_eq!(states[0], states[1], "{keys}: ours and the reference's");
    }
}

#[test]
fn packets_pass_a_limit_and_those_above_it_are_dropped() {
    let node = Node::new();
    let mut pod = Pod::new(&node, "c1", &["10.9.0.0/24"]);
    pod.add(&limits(), true);
    let ping = |netns: &Netns, target: &'static str| {
        let ping = move || Command::new("ping").args(["-c1", "-W5", target]).output().unwrap();
        let output = netns.run(ping).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    };
    ping(&pod.netns, "10.9.0.1");
    ping(node.ns.ns(), "10.9.0.2");
    // 600 kB at once, where a burst is 100 or 200 kB and as much and 25 ms more may wait. Each
    // from a socket of its own: one would wait until its packets are on their way.
    let flood = |target: &'static str| {
        move || {
            for _ in 0..600 {
                UdpSocket::bind("0.0.0.0:0").unwrap().send_to(&[0; 1000], (target, 9)).ok();
            }
        }
    };
    pod.netns.run(flood("10.9.0.1")).unwrap();
    flood("10.9.0.2")();
    for link in [&ifbs()[0].name, &pod.host_end().name] {
        eventually(Duration::from_secs(5), "some packets passed, others were dropped", || {
            let shown = Command::new("tc").args(["-s", "-j", "qdisc", "show", "dev", link]).output().unwrap();
            let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
            let bucket = shown.as_array().unwrap().iter().find(|qdisc| qdisc["kind"] == "tbf").unwrap();
            bucket["packets"].as_u64() > Some(50) && bucket["drops"].as_u64() > Some(50)
        });
    }
}

#[test]
fn each_checks_and_removes_the_limits_that_the_other_made() {
    let node = Node::new();
    for ours in [true, false] {
        let mut pod = Pod::new(&node, if ours { "c1" } else { "c2" }, &["10.9.0.0/24"]);
        pod.add(&limits(), ours);
        assert_eq!(ifbs().len(), 1);
        assert_eq!(pod.call("CHECK", &limits(), !ours).json, Value::Null);
        pod.call("DEL", &limits(), !ours).success();
        pod.call("DEL", &limits(), ours).success();
        assert!(ifbs().is_empty());
    }
}

#[test]
fn a_limit_that_is_not_as_it_was_made_is_told() {
    let node = Node::new();
    let mut pod = Pod::new(&node, "c1", &["10.9.0.0/24"]);
    pod.add(&limits(), true);
    pod.call("CHECK", &limits(), true).success();
    let mut other = limits();
    other["egressRate"] = json!(5_000_000);
    assert_eq!(pod.call("CHECK", &other, true).code(), 100);
    let incoming = Qdisc::incoming(pod.host_end().index, weft_kernel::QdiscKind::Ingress);
    Netlink::open().unwrap().apply(&Op::QdiscDel(incoming)).unwrap();
    let broken = pod.call("CHECK", &limits(), true);
    assert!(broken.code() == 100 && broken.message().contains("redirect"), "{}", broken.json);
}

#[test]
fn a_failed_limit_leaves_nothing_and_gc_removes_what_is_left() {
    let node = Node::new();
    let mut pod = Pod::new(&node, "c1", &["10.9.0.0/24"]);
    let mut netlink = Netlink::open().unwrap();
    // The host's end has a bucket already, so the plugin's cannot be made.
    let bucket = weft_kernel::Tbf { rate: 1000, buffer: 1_000_000, limit: 9000 };
    let there = Qdisc::root(pod.host_end().index, weft_kernel::QdiscKind::Tbf(bucket));
    netlink.apply(&Op::QdiscAdd(there.clone())).unwrap();
    let before = shaped(&pod.host_end());
    assert_eq!(pod.call("ADD", &limits(), true).code(), 5);
    assert!(ifbs().is_empty());
    assert_eq!(shaped(&pod.host_end()), before);
    netlink.apply(&Op::QdiscDel(there)).unwrap();
    pod.add(&limits(), true);
    let collect = |name: &str, valid: Value| {
        let config = json!({"cniVersion": "1.1.0", "name": name, "type": "bandwidth",
                            "cni.dev/valid-attachments": valid});
        Call::new("GC", "", None, &config).run().success();
        ifbs().len()
    };
    assert_eq!(collect("other", json!([])), 1, "it is of another network");
    assert_eq!(collect("net", json!([{"containerID": "c1", "ifname": "eth0"}])), 1);
    assert_eq!(collect("net", json!([])), 0);
}

#[test]
fn subnets_that_are_not_limited_pass_beside_the_limit() {
    let node = Node::new();
    let mut pod = Pod::new(&node, "c1", &["10.9.0.0/24", "fd00:9::/64"]);
    let keys = json!({"type": "bandwidth", "ingressRate": 8000, "ingressBurst": 16_000,
                      "egressRate": 8000, "egressBurst": 16_000, "unshapedSubnets": ["10.9.0.0/24", "fd00:9::/64"]});
    pod.add(&keys, true);
    pod.call("CHECK", &keys, true).success();
    // 50 kB take 50 seconds at the limit.
    let received = UdpSocket::bind("10.9.0.1:7").unwrap();
    received.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let send = || {
        let socket = UdpSocket::bind("10.9.0.2:0").unwrap();
        (0..50).map(|_| socket.send_to(&[0; 1000], "10.9.0.1:7").unwrap()).sum::<usize>()
    };
    assert_eq!(pod.netns.run(send).unwrap(), 50_000);
    let mut buffer = [0; 2000];
    for _ in 0..50 {
        assert_eq!(received.recv(&mut buffer).unwrap(), 1000);
    }
    pod.call("DEL", &keys, true).success();
    assert!(ifbs().is_empty());
}
