//! F1 to F3 of the faults, step by step: `weft-cni` is killed at every single system call of an
//! ADD and of a DEL. The DEL that a runtime makes then leaves nothing, and the next ADD works.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

mod common;

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use common::strace::{killed_at, system_calls};
use common::{Call, Node, path};
use serde_json::{Value, json};
use weft_kernel::testing::MachineDump;
use weft_kernel::{Netlink, Netns};

/// The plugins of the network, in the order of ADD.
fn chain(node: &Node) -> [Value; 2] {
    let mut bridge = node.config(&["10.9.0.0/24", "fd00:9::/64"]);
    bridge["ipMasq"] = json!(true);
    bridge["macspoofchk"] = json!(true);
    bridge["weft"] = json!({"records": node.data.path().join("records")});
    let ports = json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]);
    let portmap = json!({
        "cniVersion": "1.0.0", "name": "net", "type": "portmap",
        "capabilities": {"portMappings": true}, "runtimeConfig": {"portMappings": ports},
    });
    [bridge, portmap]
}

fn call(command: &str, pod: &Netns, config: &Value, previous: &Value) -> Call {
    let mut config = config.clone();
    if !previous.is_null() {
        config["prevResult"] = previous.clone();
    }
    Call::new(command, "c1", Some(&path(pod)), &config)
}

/// ADD of the whole chain, up to `count` plugins.
fn add(pod: &Netns, chain: &[Value], count: usize) -> Value {
    let add = |previous: Value, config: &Value| call("ADD", pod, config, &previous).run().success();
    chain[..count].iter().fold(Value::Null, add)
}

/// DEL of the whole chain as a runtime makes it that knows a result or none.
fn del(pod: &Netns, chain: &[Value], previous: &Value) {
    for config in chain.iter().rev() {
        call("DEL", pod, config, previous).run().success();
    }
}

/// What a DEL must have removed, quickly told.
fn left(node: &Node, pod: &Netns) -> (Vec<(String, String)>, usize, String, bool) {
    let records = fs::read_dir(node.data.path().join("records")).unwrap();
    assert_eq!(records.count(), 0, "records of containers");
    let rules = Command::new("nft").args(["-s", "list", "ruleset"]).output().unwrap();
    let rules = String::from_utf8(rules.stdout).unwrap();
    let eth0 = Netlink::open_in(pod).unwrap().link("eth0").unwrap().is_some();
    (node.allocations(), node.pod_links().len(), rules, eth0)
}

/// The node is as it was once the last port has gone (the bridge loses its carrier a little later).
fn unchanged(before: &MachineDump) {
    let end = Instant::now() + Duration::from_secs(10);
    while !before.differences(&MachineDump::take()).is_empty() && Instant::now() < end {}
    before.assert_unchanged();
}

#[test]
fn an_add_killed_at_any_system_call_is_undone_by_its_del() {
    let node = Node::new();
    let chain = chain(&node);
    let pod = node.pod();
    // What stays between containers (the bridge, chains for all of them) is there from now on.
    let made = add(&pod, &chain, 2);
    del(&pod, &chain, &made);
    let clean = left(&node, &pod);
    assert!(clean.0.is_empty() && clean.1 == 0 && !clean.3);
    let before = node.settled();
    for plugin in 0..chain.len() {
        let previous = add(&pod, &chain, plugin);
        let victim = call("ADD", &pod, &chain[plugin], &previous);
        let calls = system_calls(&node, &victim);
        del(&pod, &chain, &Value::Null);
        let mut killed = 0;
        for (name, count) in &calls {
            for nth in 1..=*count {
                let previous = add(&pod, &chain, plugin);
                let victim = call("ADD", &pod, &chain[plugin], &previous);
                killed += usize::from(killed_at(&victim, name, nth));
                del(&pod, &chain, &Value::Null);
                assert_eq!(left(&node, &pod), clean, "plugin {plugin} killed at {name} {nth}");
            }
        }
        assert!(killed * 10 > calls.values().sum::<usize>() * 9, "{killed} of {calls:?}");
        let made = add(&pod, &chain, 2);
        del(&pod, &chain, &made);
    }
    unchanged(&before);
    assert_eq!(fs::read_dir(node.network().join(".weft/intent")).unwrap().count(), 0);
}

#[test]
fn a_del_killed_at_any_system_call_is_finished_by_the_next() {
    let node = Node::new();
    let chain = chain(&node);
    let pod = node.pod();
    let made = add(&pod, &chain, 2);
    del(&pod, &chain, &made);
    let clean = left(&node, &pod);
    let before = node.settled();
    for plugin in 0..chain.len() {
        let made = add(&pod, &chain, 2);
        let victim = call("DEL", &pod, &chain[plugin], &made);
        let calls = system_calls(&node, &victim);
        del(&pod, &chain, &made);
        for (name, count) in &calls {
            for nth in 1..=*count {
                let made = add(&pod, &chain, 2);
                killed_at(&call("DEL", &pod, &chain[plugin], &made), name, nth);
                del(&pod, &chain, &made);
                assert_eq!(left(&node, &pod), clean, "plugin {plugin} killed at {name} {nth}");
            }
        }
    }
    unchanged(&before);
}
