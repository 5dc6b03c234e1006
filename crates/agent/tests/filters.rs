//! Other programs' filters on a node: Docker sets the policy of iptables' FORWARD to DROP (F42).
#![allow(clippy::unwrap_used, unreachable_pub, reason = "a test fails by panicking and is one crate")]

mod world;

use std::time::Duration;

use weft_kernel::testing::eventually;
use weft_model::network::Backend;
use world::{SOON, World, sh};

/// As Docker leaves it, shortened.
const DOCKER: &str = "IPT -N DOCKER-USER; IPT -A DOCKER-USER -j RETURN
    IPT -N DOCKER-FORWARD; IPT -A DOCKER-FORWARD -o docker0 -j ACCEPT
    IPT -A FORWARD -j DOCKER-USER; IPT -A FORWARD -j DOCKER-FORWARD; IPT -P FORWARD DROP";

fn passes_docker(iptables: &str) {
    let world = World::new(Backend::HOST_GW, 2);
    let node = &world.nodes[0].ns;
    let agents = world.up();
    eventually(SOON, "pod to pod", || world.reaches(0, "10.244.1.2"));

    sh(node, &DOCKER.replace("IPT", iptables));
    let others = |ns| {
        let all = sh(ns, &format!("{iptables} -S"));
        let others = |line: &&str| !line.contains("WEFT-FORWARD");
        all.lines().filter(others).map(str::to_owned).collect::<Vec<_>>()
    };
    let before = others(node);
    if iptables == "iptables-legacy" {
        // Nothing tells of the older tables: an audit finds it.
        eventually(Duration::from_secs(60), "the audit", || world.reaches(0, "10.244.1.2"));
    }
    eventually(SOON, "pod to pod past Docker's policy", || world.reaches(0, "10.244.1.2"));
    eventually(SOON, "from another node's pod", || world.reaches(1, "10.244.0.2"));
    assert_eq!(others(node), before, "what others wrote is as it was");
    let last = sh(node, &format!("{iptables} -S FORWARD"));
    assert!(last.trim_end().ends_with("-A FORWARD -j WEFT-FORWARD"), "behind all others' rules: {last}");

    // What somebody drops by a rule is dropped still.
    sh(
        node,
        &format!("{iptables} -A DOCKER-USER -d 10.244.1.2 -j DROP; {iptables} -D DOCKER-USER -j RETURN"),
    );
    assert!(!world.reaches(0, "10.244.1.2"));
    sh(node, &format!("{iptables} -D DOCKER-USER -d 10.244.1.2 -j DROP"));
    assert!(world.reaches(0, "10.244.1.2"));

    if iptables == "iptables-nft" {
        sh(node, "iptables-nft -F FORWARD");
        eventually(SOON, "the rule comes back", || world.reaches(0, "10.244.1.2"));
        sh(node, "iptables-nft -P FORWARD ACCEPT");
        let gone = || !sh(node, "iptables-nft -S").contains("WEFT-FORWARD");
        eventually(SOON, "nothing of it stays", gone);
    }
    drop(agents);
}

#[test]
fn pods_pass_dockers_policy() {
    passes_docker("iptables-nft");
}

#[test]
fn pods_pass_dockers_policy_in_the_older_tables() {
    passes_docker("iptables-legacy");
}

#[test]
fn a_filter_that_is_nobodys_chain_is_told() {
    let world = World::new(Backend::HOST_GW, 1);
    let agents = world.up();
    let told = || agents[0].status().errors.iter().any(|error| error.contains("inet firewall pass"));
    assert!(!told());
    sh(
        &world.nodes[0].ns,
        "nft add table inet firewall
        nft add chain inet firewall pass '{ type filter hook forward priority 0; policy drop; }'",
    );
    eventually(SOON, "it is told", told);
    sh(&world.nodes[0].ns, "nft delete table inet firewall");
    eventually(SOON, "and no more", || !told());
}
