//! Agents and plugins that are killed.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::Value;

use super::common::{built, eventually, signal};
use super::{Pools, SOON, pool};

#[test]
fn whoever_is_killed_no_address_is_given_twice_and_none_is_lost() {
    let deployment = |replicas: usize| {
        format!(
            "---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web, namespace: default}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec: {{containers: [{{name: c, image: example/x, ports: [{{containerPort: 8080}}]}}]}}
"
        )
    };
    // Sixteen blocks of seven addresses.
    let lab =
        Pools::up("k", "auto", "3", &(pool("p", "cidr: 10.244.0.0/25, blockSize: 29") + &deployment(12)));
    for replicas in ["60", "15", "80", "30"] {
        lab.kubectl(&["scale", "deployment", "web", "--replicas", replicas]);
        for _ in 0..8 {
            for pid in lab.labs.processes(&["agent", "--node-name"]) {
                signal(pid, "KILL");
            }
            for pid in cni_processes() {
                signal(pid, "KILL");
            }
            std::thread::sleep(Duration::from_millis(150));
        }
    }
    let found = lab.wait_ready(30);
    assert_eq!(found.values().collect::<BTreeSet<_>>().len(), 30, "an address is given twice: {found:?}");
    lab.check();
    // A block that somebody deleted while pods use it is claimed again by their node.
    let used = |block: &Value| {
        let cidr = block["spec"]["cidr"].as_str().unwrap();
        let first: Ipv4Addr = cidr.trim_end_matches("/29").parse().unwrap();
        let lends = block["spec"]["borrowed"].as_object().is_some_and(|lent| !lent.is_empty());
        let here = |ip: &&Ipv4Addr| u32::from(**ip) & !7 == u32::from(first);
        !lends && block["spec"]["node"].is_string() && found.values().any(|ip| here(&ip))
    };
    let block = lab.blocks().into_iter().find(used).unwrap();
    let name = block["metadata"]["name"].as_str().unwrap().to_owned();
    lab.kubectl(&["delete", "ipblock", &name]);
    let again = || lab.blocks().into_iter().find(|found| found["metadata"]["name"] == name.as_str());
    eventually(SOON, "the block is claimed again", || {
        again().is_some_and(|b| b["spec"]["node"] == block["spec"]["node"])
    });
    lab.wait_check();
    lab.check();
    // What no pod has can be released, and what one has cannot.
    let (pod, ip) = found.iter().next().unwrap();
    let refused = lab.ipam(1, &["release", &ip.to_string()]);
    assert!(refused.contains(pod.as_str()), "{refused}");
    lab.ipam(1, &["release", "192.0.2.1"]);
}

/// Plugins of this test's build that run now.
fn cni_processes() -> Vec<i32> {
    let cni = built("weft-cni");
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    ids.filter(|pid| std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == cni)).collect()
}
