//! What leaked, and who frees it.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use super::common::eventually;
use super::{Pools, SOON, pod, pool};

/// The agents look every half minute, and believe what they see twice.
const SWEPT: Duration = Duration::from_secs(180);

/// An allocation of a container that never was, as a runtime leaves it that dies within an ADD.
fn leak(lab: &Pools, node: &str, at: u8) -> (Ipv4Addr, PathBuf) {
    let block = lab.blocks().into_iter().find(|block| block["spec"]["node"] == node).unwrap();
    let cidr = block["spec"]["cidr"].as_str().unwrap();
    let first: Ipv4Addr = cidr.split('/').next().unwrap().parse().unwrap();
    let ip = Ipv4Addr::from(u32::from(first) + u32::from(at));
    let file = lab.labs.state(lab.name).join(format!("node/{node}/cni/networks/weft/{ip}"));
    std::fs::write(&file, format!("leaked{at}\r\neth0")).unwrap();
    (ip, file)
}

#[test]
fn leaked_addresses_are_released_when_asked_and_swept_when_not() {
    let manifest = pool("p", "cidr: 10.244.0.0/24, blockSize: 28") + &pod("a", "node1");
    let lab = Pools::up("r", "auto", "2", &manifest);
    let found = lab.wait_ready(1);
    let (asked, asked_file) = leak(&lab, "node1", 9);
    let (swept, swept_file) = leak(&lab, "node1", 10);
    let said = lab.ipam(0, &["release", &asked.to_string()]);
    assert!(said.contains("released by node node1"), "{said}");
    assert!(!asked_file.exists());
    // What a pod has stays, whoever asks.
    let used = found["default/a"];
    let refused = lab.ipam(1, &["release", &used.to_string()]);
    assert!(refused.contains("default/a"), "{refused}");
    // A block that nobody has, as when an agent was stopped for good between two writes.
    lab.kubectl(&["apply", "-f", &lab.labs.file("block.yaml",
        "apiVersion: weft.dev/v1\nkind: IPBlock\nmetadata: {name: 10-244-0-240-28}\nspec: {cidr: 10.244.0.240/28, pool: p}\n")]);
    eventually(SWEPT, "a sweep removes the block and says so", || {
        let gone = !lab.blocks().iter().any(|block| block["spec"]["cidr"] == "10.244.0.240/28");
        let logs = lab.log("node1") + &lab.log("node2");
        gone && logs.contains("repaired: block 10-244-0-240-28: it has no node: it is free again")
    });
    eventually(SWEPT, "the other address is freed by the agent, which says so", || {
        !swept_file.exists() && lab.log("node1").contains(&format!("freed {swept}"))
    });
    eventually(SOON, "nothing is wrong", || lab.addresses() == found);
    lab.check();
}
