//! What a container may be reached by: forwarding on a node that drops, isolation, firewalld.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use common::chain::{Chain, blocked, node_in_the_world, reference, saved, seen};
use common::{Node, sh};
use serde_json::{Value, json};

fn chain(node: &Node, bridge: &str, subnets: &[&str], firewall: Value) -> Chain {
    let mut of_bridge = node.config(subnets);
    of_bridge["bridge"] = json!(bridge);
    let mut config = json!({"type": "firewall", "backend": "iptables"});
    firewall.as_object().unwrap().iter().for_each(|(key, value)| config[key] = value.clone());
    Chain::of([of_bridge, config])
}

fn none() -> Value {
    json!({})
}

#[test]
fn a_container_gets_through_a_node_that_drops_and_only_answers_get_back() {
    for backend in ["iptables", "nftables"] {
        let (node, world) = node_in_the_world();
        let here = node.ns.ns();
        sh(here, "iptables -P FORWARD DROP; ip6tables -P FORWARD DROP");
        sh(&world, "ip route add 10.9.0.0/24 via 192.0.2.1; ip route add fd00:9::/64 via fd00:2::1");
        let pod = node.pod();
        let chain = chain(&node, "br0", &["10.9.0.0/24", "fd00:9::/64"], json!({"backend": backend}));
        let bridge = Chain::of([chain.plugins[0].clone()]);
        let made = bridge.add("c1", &pod, &none()).success();
        let out = || [seen(&world, 80, &pod, "192.0.2.2:80"), seen(&world, 80, &pod, "[fd00:2::2]:80")];
        for to in ["192.0.2.2:80", "[fd00:2::2]:80"] {
            assert!(blocked(&world, 80, &pod, to), "{backend}: {to}");
        }
        chain.call("ADD", "c1", Some(&pod), &chain.plugins[1], &none(), Some(&made)).success();
        assert_eq!(out(), [Some("10.9.0.2".to_owned()), Some("fd00:9::2".to_owned())], "{backend}");
        assert!(blocked(&pod, 80, &world, "10.9.0.2:80"), "{backend}: nobody asked");
        chain.check("c1", &pod, &none(), &made).success();
        chain.del("c1", &pod, &none(), &made);
        assert!(!saved(here).contains("10.9.0.2") && !saved(here).contains("fd00:9"), "{}", saved(here));
        let again = chain.call("CHECK", "c1", None, &chain.plugins[1], &none(), Some(&made));
        assert!(!again.ok, "CHECK needs a sandbox, and the rules");
    }
}

#[test]
fn containers_of_another_bridge_do_not_get_in() {
    let node = Node::new();
    let policy = json!({"ingressPolicy": "same-bridge"});
    let chains = [
        chain(&node, "br0", &["10.9.0.0/24"], policy.clone()),
        chain(&node, "br1", &["10.8.0.0/24"], policy),
    ];
    let pods = [node.pod(), node.pod(), node.pod()];
    for (n, (pod, of)) in pods.iter().zip([0, 0, 1]).enumerate() {
        let mut chain = chains[of].clone();
        chain.plugins[0]["ipam"]["dataDir"] = json!(node.data.path().join(of.to_string()));
        chain.add(&format!("c{n}"), pod, &none()).success();
    }
    assert_eq!(seen(&pods[0], 80, &pods[1], "10.9.0.2:80").as_deref(), Some("10.9.0.3"));
    assert!(blocked(&pods[0], 80, &pods[2], "10.9.0.2:80"), "another bridge");
    assert!(blocked(&pods[2], 80, &pods[0], "10.8.0.2:80"), "another bridge");
    assert!(seen(&pods[0], 80, node.ns.ns(), "10.9.0.2:80").is_some(), "the node itself");
}

#[test]
fn isolated_containers_reach_neither_each_other_nor_another_bridge() {
    let (node, world) = node_in_the_world();
    // What stays within a bridge is seen by iptables where this says so.
    sh(node.ns.ns(), "echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables");
    sh(&world, "ip route add 10.8.0.0/15 via 192.0.2.1");
    let policy = json!({"ingressPolicy": "isolated"});
    let chains = [
        chain(&node, "br0", &["10.9.0.0/24"], policy.clone()),
        chain(&node, "br1", &["10.8.0.0/24"], policy),
    ];
    let pods = [node.pod(), node.pod(), node.pod()];
    let ids = ["c0", "c1", "c2"];
    for (at, of) in [0, 0, 1].into_iter().enumerate() {
        let bridge = Chain::of([chains[of].plugins[0].clone()]);
        let made = bridge.add(ids[at], &pods[at], &none()).success();
        if at == 1 {
            assert!(seen(&pods[0], 80, &pods[1], "10.9.0.2:80").is_some(), "before there is a policy");
        }
        if at > 0 {
            let firewall = &chains[of].plugins[1];
            chains[of].call("ADD", ids[at], Some(&pods[at]), firewall, &none(), Some(&made)).success();
        }
    }
    assert!(blocked(&pods[0], 80, &pods[1], "10.9.0.2:80"), "on one bridge");
    assert!(blocked(&pods[1], 80, &pods[0], "10.9.0.3:80"), "on one bridge");
    assert!(blocked(&pods[0], 80, &pods[2], "10.9.0.2:80"), "from another bridge");
    assert!(blocked(&pods[2], 80, &pods[0], "10.8.0.2:80"), "to another bridge");
    assert!(seen(&pods[0], 80, node.ns.ns(), "10.9.0.2:80").is_some(), "the node itself");
    for (pod, own) in [(&pods[1], "10.9.0.3"), (&pods[2], "10.8.0.2")] {
        assert_eq!(seen(&world, 80, pod, "192.0.2.2:80").as_deref(), Some(own), "the world, and its answers");
    }
}

#[test]
fn unknown_policies_and_names_are_refused() {
    let node = Node::new();
    let pod = node.pod();
    let whole = chain(&node, "br0", &["10.9.0.0/24"], json!({}));
    let made = Chain::of([whole.plugins[0].clone()]).add("c1", &pod, &none()).success();
    let before = node.settled();
    let mut without = made.clone();
    without["interfaces"] = json!([]);
    without["ips"][0].as_object_mut().unwrap().remove("interface");
    for (keys, prev, code, named) in [
        (json!({"ingressPolicy": "closed"}), &made, 2, "ingressPolicy"),
        (json!({"ingressPolicy": "isolated"}), &without, 7, "ingressPolicy"),
        (json!({"iptablesAdminChainName": "a b"}), &made, 7, "iptablesAdminChainName"),
        (json!({"iptablesAdminChainName": "x".repeat(29)}), &made, 7, "iptablesAdminChainName"),
    ] {
        let config = &chain(&node, "br0", &[], keys.clone()).plugins[1];
        let answer = whole.call("ADD", "c1", Some(&pod), config, &none(), Some(prev));
        assert!(answer.code() == code && answer.message().contains(named), "{keys}: {}", answer.json);
    }
    before.assert_unchanged();
}

#[test]
fn both_programs_make_the_same_rules_and_each_deletes_the_others() {
    let reference = reference();
    for variant in [
        json!({}),
        json!({"iptablesAdminChainName": "MY-RULES"}),
        json!({"ingressPolicy": "same-bridge"}),
        json!({"ingressPolicy": "isolated"}),
    ] {
        let made: Vec<String> = [None, Some(reference.as_path())]
            .into_iter()
            .map(|by| {
                let node = Node::new();
                let pods = [node.pod(), node.pod()];
                sh(node.ns.ns(), "iptables -A FORWARD -s 192.0.2.0/24 -j DROP");
                let chain = chain(&node, "br0", &["10.9.0.0/24", "fd00:9::/64"], variant.clone()).by(by);
                let results = [("c1", &pods[0]), ("c2", &pods[1])]
                    .map(|(id, pod)| chain.add(id, pod, &none()).success());
                let there = saved(node.ns.ns());
                let other = chain.by(if by.is_none() { Some(&reference) } else { None });
                let config = other.plugins[1].clone();
                other.call("CHECK", "c1", Some(&pods[0]), &config, &none(), Some(&results[0])).success();
                other.call("DEL", "c1", Some(&pods[0]), &config, &none(), Some(&results[0])).success();
                let left = saved(node.ns.ns());
                assert!(!left.contains("10.9.0.2") && left.contains("10.9.0.3"), "{variant}: {left}");
                there
            })
            .collect();
        assert_eq!(made[0], made[1], "{variant}: ours and the reference's");
    }
}

#[test]
fn without_firewalld_the_rules_are_iptables() {
    let node = Node::new();
    let (pod, chain) = (node.pod(), chain(&node, "br0", &["10.9.0.0/24"], json!({"backend": null})));
    chain.add("c1", &pod, &none()).success();
    assert!(saved(node.ns.ns()).contains("-A CNI-FORWARD -s 10.9.0.2/32 -j ACCEPT"));
}
