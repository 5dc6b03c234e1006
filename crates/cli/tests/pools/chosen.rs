//! Which pools pods have their addresses of.

use std::net::Ipv4Addr;

use super::common::eventually;
use super::{Pools, SOON, pod, pool, wishing};

#[test]
fn namespaces_have_their_pools_and_a_pod_the_address_it_asks_for() {
    let gold = "cidr: 10.243.0.0/22, namespaceSelector: {matchLabels: {tier: gold}}";
    let others = "namespaceSelector: {matchExpressions: [{key: tier, operator: DoesNotExist}]}";
    let manifest = [
        "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: gold, labels: {tier: gold}}\n".to_owned(),
        pool("gold", gold),
        pool("usual", &format!("cidr: 10.244.0.0/22, blockSize: 28, {others}")),
        pool("manual", "cidr: 10.242.0.0/24, assignment: Manual"),
        pod("a", "node1"),
        pod("b", "node2"),
        wishing("gold", "a", "node1", ""),
        wishing("gold", "b", "node3", ""),
        wishing("default", "named", "node2", "cni.projectcalico.org/ipAddrs: '[\"10.244.2.77\"]'"),
        wishing("default", "picked", "node3", "weft.dev/ip-pools: manual"),
    ];
    let lab = Pools::up("p", "auto", "3", &manifest.concat());
    let found = lab.wait_ready(6);
    assert_eq!(found["default/named"], Ipv4Addr::new(10, 244, 2, 77));
    for (pod, ip) in &found {
        let prefix = match pod.as_str() {
            "default/picked" => "10.242.0.",
            name if name.starts_with("gold/") => "10.243.",
            _ => "10.244.",
        };
        assert!(ip.to_string().starts_with(prefix), "{pod} has {ip}");
    }
    lab.check();
    // An address that is in another node's block is borrowed for the pod that asks for it.
    let block = lab.blocks().into_iter().find(|block| block["spec"]["cidr"] == "10.244.2.64/28").unwrap();
    assert_eq!(block["spec"]["node"], "node2");
    lab.apply(&wishing("default", "far", "node3", "weft.dev/ip-addresses: 10.244.2.71"));
    assert_eq!(lab.wait_ready(7)["default/far"], Ipv4Addr::new(10, 244, 2, 71));
    let borrowed = lab.ipam(0, &["show", "--ip", "10.244.2.71"]);
    assert!(borrowed.contains("BORROWED BY   node3") && borrowed.contains("default/far"), "{borrowed}");
    lab.check();
    // What cannot be is told, and harms nobody.
    lab.apply(&wishing("default", "greedy", "node1", "weft.dev/ip-addresses: 10.243.0.9"));
    lab.apply(&wishing("default", "twin", "node1", "weft.dev/ip-addresses: 10.244.2.77"));
    eventually(SOON, "the pods say why they wait", || {
        lab.told("greedy").contains("may not use") && lab.told("twin").contains("not with this node")
    });
    lab.delete_pods(&["greedy", "twin"]);
    // An edit that would move a pool is refused.
    let edit = ["patch", "ippool", "gold", "--type=merge", "-p", r#"{"spec":{"cidr":"10.99.0.0/16"}}"#];
    let refused = lab.try_kubectl(&edit);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("does not change"), "{refused:?}");
}
