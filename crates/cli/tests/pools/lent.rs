//! What is lent, and what comes back.

use std::collections::BTreeSet;
use std::time::Duration;

use super::common::eventually;
use super::{Pools, SOON, pod, pool};

/// Unused blocks are given back after half a minute.
const UNUSED: Duration = Duration::from_secs(120);

/// Four blocks of three addresses.
fn tiny() -> String {
    pool("tiny", "cidr: 10.244.0.0/28, blockSize: 30")
}

fn pods(names: std::ops::RangeInclusive<usize>, node: &str) -> String {
    names.map(|i| pod(&format!("p{i}"), node)).collect()
}

#[test]
fn a_pool_that_is_used_up_is_shared_and_comes_back() {
    let lab = Pools::up("t", "auto", "3", &tiny());
    lab.apply(&pods(1..=11, "node1"));
    let found = lab.wait_ready(11);
    assert_eq!(found.values().collect::<BTreeSet<_>>().len(), 11);
    assert!(lab.lent() >= 2, "{} addresses lent", lab.lent());
    lab.check();
    let shown = lab.ipam(0, &["show", "--blocks", "-o", "wide"]);
    assert!(shown.contains("=node1"), "{shown}");
    // One more than there are addresses waits and says why, and has the one that becomes free.
    lab.apply(&pods(12..=13, "node2"));
    lab.wait_ready(12);
    eventually(SOON, "the last pod says why it waits", || {
        let ready = lab.addresses();
        let last = if ready.contains_key("default/p12") { "p13" } else { "p12" };
        lab.told(last).contains("code 11")
    });
    lab.delete_pods(&["p1"]);
    eventually(SOON, "the waiting pod has the address", || {
        let found = lab.addresses();
        found.len() == 12 && !found.contains_key("default/p1")
    });
    lab.check();
    lab.delete_pods(&["--all"]);
    eventually(UNUSED, "what is unused is given back", || lab.blocks().len() == 3 && lab.lent() == 0);
    lab.ipam(0, &["check"]);
}

/// Pods with borrowed addresses reach and are reached, from before the loan to after its end.
fn loans_through(name: &'static str, backend: &str, device: &str) {
    let lab = Pools::up(name, backend, "3", &(tiny() + &pod("a", "node2") + &pod("b", "node3")));
    lab.wait_ready(2);
    lab.check();
    lab.apply(&pods(1..=8, "node1"));
    let found = lab.wait_ready(10);
    assert!(lab.lent() >= 1, "{} addresses lent", lab.lent());
    lab.check();
    // The borrowed address is not its owner's way any more, though it is in the owner's block.
    for block in lab.blocks() {
        let Some(owner) = block["spec"]["node"].as_str() else { continue };
        for ip in block["spec"]["borrowed"].as_object().into_iter().flatten().map(|(ip, _)| ip) {
            assert!(found.values().any(|pod| pod.to_string() == *ip), "{ip} is lent and nobody has it");
            let route = lab.labs.on_node(name, owner, &format!("ip route get {ip}"));
            assert!(route.contains(&format!("dev {device}")), "{owner}: {route}");
        }
    }
    lab.delete_pods(&["p1", "p2", "p3", "p4", "p5", "p6", "p7", "p8"]);
    eventually(SOON, "what was borrowed is returned", || lab.lent() == 0);
    lab.apply(&pods(9..=10, "node3"));
    lab.wait_ready(4);
    lab.check();
}

#[test]
fn loans_go_through_vxlan() {
    loans_through("lv", "vxlan", "weft-vxlan");
}

#[test]
fn loans_go_through_udp() {
    loans_through("lu", "udp", "weft-udp0");
}
