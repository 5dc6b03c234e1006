//! `sbr`: rules and tables as the reference makes them, and where packets go by them.

use std::process::Command;

use serde_json::{Value, json};
use weft_kernel::{Netlink, Netns, Rule};

use crate::Pod;
use crate::common::{Call, Node, path};

/// Rules, and the routes of all tables but those of the kernel's own, as `ip` shows them.
fn routing(pod: &Netns) -> Vec<String> {
    let show = |arguments: &'static [&'static str]| {
        let run = move || Command::new("ip").args(arguments).output().unwrap();
        String::from_utf8(pod.run(run).unwrap().stdout).unwrap()
    };
    let shown = [
        show(&["-4", "rule"]),
        show(&["-6", "rule"]),
        show(&["-4", "route", "show", "table", "all"]),
        show(&["-6", "route", "show", "table", "all"]),
    ];
    let mut lines: Vec<String> =
        shown.iter().flat_map(|text| text.lines()).map(|l| l.trim().to_owned()).collect();
    lines.retain(|line| !line.contains("table local") && !line.contains("fe80::"));
    lines.sort();
    lines
}

#[test]
fn each_source_has_its_routes_as_the_reference_gives_them() {
    let keys = json!({"type": "sbr"});
    let states = [true, false].map(|ours| {
        let node = Node::new();
        let mut pod = Pod::new(&node, "c1", &["10.9.0.0/24", "fd00:9::/64"]);
        let before = routing(&pod.netns);
        pod.add(&keys, ours);
        let made = routing(&pod.netns);
        pod.call("CHECK", &keys, true).success();
        pod.call("DEL", &keys, !ours).success();
        assert!(source_rules(&pod.netns).is_empty());
        assert_ne!(before, made);
        made
    });
    assert_eq!(states[0], states[1], "ours and the reference's");
}

fn source_rules(pod: &Netns) -> Vec<Rule> {
    let mut rules = Netlink::open_in(pod).unwrap().rules().unwrap();
    rules.retain(|rule| rule.from.is_some());
    rules
}

#[test]
fn a_table_that_is_given_gets_rules_only() {
    let node = Node::new();
    let mut pod = Pod::new(&node, "c1", &["10.9.0.0/24", "fd00:9::/64"]);
    let before = Netlink::open_in(&pod.netns).unwrap().routes().unwrap();
    let keys = json!({"type": "sbr", "table": 77});
    pod.add(&keys, true);
    let rules = source_rules(&pod.netns);
    assert!(rules.len() == 2 && rules.iter().all(|rule| rule.table == 77), "{rules:?}");
    assert_eq!(Netlink::open_in(&pod.netns).unwrap().routes().unwrap(), before);
    pod.call("CHECK", &keys, true).success();
    assert_eq!(pod.call("CHECK", &json!({"type": "sbr", "table": 78}), true).code(), 100);
    pod.call("DEL", &json!({"type": "sbr", "table": 78}), true).success();
    assert_eq!(source_rules(&pod.netns), rules);
    pod.call("DEL", &keys, true).success();
    assert!(source_rules(&pod.netns).is_empty());
}

#[test]
fn packets_leave_by_the_interface_of_their_source() {
    let node = Node::new();
    let mut pod = Pod::new(&node, "c1", &["10.9.0.0/24"]);
    // A second network of the container, whose bridge also has an address outside of both.
    let mut second = node.config(&["10.8.0.0/24"]);
    (second["name"], second["bridge"], second["isDefaultGateway"]) =
        (json!("two"), json!("br1"), json!(false));
    second["isGateway"] = json!(true);
    let netns = path(&pod.netns);
    let call = |command: &str, config: &Value| {
        Call::new(command, "c1", Some(&netns), config).env("CNI_IFNAME", Some("net1")).run().success()
    };
    let made = call("ADD", &second);
    let mut chained = json!({"cniVersion": "1.0.0", "name": "two", "type": "sbr", "prevResult": made});
    call("ADD", &chained);
    let leaves_by = |source: &str| {
        let mut netlink = Netlink::open_in(&pod.netns).unwrap();
        let route = netlink.route_get("192.0.2.1".parse().unwrap(), source.parse().ok(), None).unwrap();
        netlink.link_by_index(route.oif.unwrap()).unwrap().unwrap().name
    };
    assert_eq!((leaves_by("10.9.0.2"), leaves_by("10.8.0.2")), ("eth0".into(), "net1".into()));
    chained["prevResult"] = made;
    call("CHECK", &chained);
    call("DEL", &chained);
    assert_eq!(leaves_by("10.9.0.2"), "eth0");
    chained["type"] = json!("sbr");
    let failed = Call::new("CHECK", "c1", Some(&netns), &chained).env("CNI_IFNAME", Some("net1")).run();
    assert_eq!(failed.code(), 100);
    pod.result = Value::Null;
}

#[test]
fn a_failed_sbr_leaves_routes_and_rules_as_they_were() {
    let node = Node::new();
    let mut pod = Pod::new(&node, "c1", &["10.9.0.0/24"]);
    // A gateway that no network of the interface has: its default route cannot be made.
    pod.result["ips"][0]["gateway"] = json!("172.31.0.1");
    let before = routing(&pod.netns);
    let refused = pod.call("ADD", &json!({"type": "sbr"}), true);
    assert!(!refused.ok && refused.message().contains("172.31.0.1"), "{}", refused.json);
    assert_eq!(routing(&pod.netns), before);
}
