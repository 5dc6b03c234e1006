//! Pods that outlive their pool.

use super::common::{eventually, signal};
use super::{Pools, SOON, pod, pool};

#[test]
fn pods_of_a_disabled_and_of_a_deleted_pool_go_on_as_before() {
    // Outside of the cluster's CIDR: nothing but the pool and its blocks says that these are pods.
    let usual = pool("usual", "cidr: 10.243.0.0/24, blockSize: 28");
    let other = pool("other", "cidr: 10.242.0.0/24, assignment: Manual");
    let lab = Pools::up("o", "udp", "2", &(usual + &other + &pod("a", "node1") + &pod("b", "node2")));
    let before = lab.wait_ready(2);
    lab.check();
    lab.kubectl(&["patch", "ippool", "usual", "--type=merge", "-p", r#"{"spec":{"disabled":true}}"#]);
    let shown = lab.ipam(0, &["show"]);
    assert!(shown.lines().any(|line| line.contains("usual") && line.contains("disabled")), "{shown}");
    lab.apply(&pod("late", "node1"));
    eventually(SOON, "no new pod has an address of it", || lab.told("late").contains("code 11"));
    assert_eq!(lab.addresses(), before);
    lab.delete_pods(&["late"]);
    eventually(SOON, "the pod is gone", || lab.labs.pods("o").len() == 2);
    lab.check();
    lab.kubectl(&["delete", "ippool", "usual"]);
    // Between pods without NAT, to other nodes under the node's address: so it was in the pool.
    lab.reach();
    for pid in lab.labs.processes(&["agent", "--node-name"]) {
        signal(pid, "KILL");
    }
    lab.reach();
    assert_eq!(lab.addresses(), before);
    let findings = lab.ipam(1, &["check"]);
    assert!(findings.contains("block-outside-pool"), "{findings}");
    lab.delete_pods(&["a", "b"]);
    eventually(SOON, "the blocks of the deleted pool are given back", || lab.blocks().is_empty());
    lab.ipam(0, &["check"]);
}

#[test]
fn who_leaves_the_cluster_as_itself_does_so_when_its_pool_is_gone() {
    let plain =
        "---\napiVersion: weft.dev/v1\nkind: IPPool\nmetadata: {name: plain}\nspec: {cidr: 10.243.0.0/24}\n";
    let lab = Pools::up("n", "auto", "2", &(plain.to_owned() + &pod("a", "node1")));
    lab.wait_ready(1);
    let sources = || lab.labs.on_node("n", "node1", "nft list ruleset | sed -n '/set masqueraded/,/}/p'");
    assert!(!sources().contains("10.243.0"), "{}", sources());
    // The block follows its pool for as long as that is there.
    lab.kubectl(&["patch", "ippool", "plain", "--type=merge", "-p", r#"{"spec":{"natOutgoing":true}}"#]);
    let noted = || lab.blocks().iter().all(|block| block["spec"]["natOutgoing"] == true);
    eventually(SOON, "the blocks note it", noted);
    eventually(SOON, "the pool's pods are masqueraded", || sources().contains("10.243.0.0/24"));
    lab.kubectl(&["delete", "ippool", "plain"]);
    let block = lab.blocks().into_iter().find(|block| block["spec"]["node"] == "node1").unwrap();
    let cidr = block["spec"]["cidr"].as_str().unwrap().to_owned();
    eventually(SOON, "the block's are", || {
        let now = sources();
        now.contains(&cidr) && !now.contains("10.243.0.0/24")
    });
}
