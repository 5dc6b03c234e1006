//! Bad input of every plugin besides the bridge: the code that the specification wants, and a
//! message that names the key. Nothing is changed by any of it.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use common::{Call, Node, path};
use serde_json::{Value, json};
use weft_kernel::testing::MachineDump;

/// A configuration that is right, and what makes it wrong: what is merged into it, the code, and
/// the key that the message names.
type Rows = (Value, Vec<(Value, u64, &'static str)>);

fn given(extra: Value) -> Value {
    let previous = json!({
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "eth0", "sandbox": "/run/netns/x"}],
        "ips": [{"address": "10.9.0.2/24", "gateway": "10.9.0.1", "interface": 0}],
    });
    merged(&json!({"prevResult": previous}), &extra)
}

fn with_addresses(extra: Value) -> Value {
    merged(&json!({"ipam": {"type": "static", "addresses": [{"address": "10.7.0.9/24"}]}}), &extra)
}

fn rows() -> Vec<Rows> {
    let ports = |ports: Value| json!({"runtimeConfig": {"portMappings": ports}});
    let port = |extra: Value| {
        ports(json!([merged(&json!({"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}), &extra)]))
    };
    vec![
        (
            with_addresses(json!({"type": "ptp"})),
            vec![
                (json!({"ipam": null}), 7, "ipam"),
                (json!({"mtu": "1500"}), 6, "mtu"),
                (json!({"mtu": 70000}), 7, "mtu"),
                (json!({"ipMasq": "yes"}), 6, "ipMasq"),
                (json!({"ipMasq": true, "ipMasqBackend": "ebpf"}), 2, "ipMasqBackend"),
                (json!({"ipam": {"addresses": [{"address": "rubbish"}]}}), 7, "ipam.addresses[0].address"),
                (json!({"ipam": {"addresses": [{"address": "10.7.0.9"}]}}), 7, "ipam.addresses[0].address"),
                (
                    json!({"ipam": {"addresses": [{"address": "10.7.0.9/24", "gateway": "x"}]}}),
                    7,
                    "ipam.addresses[0].gateway",
                ),
                (json!({"ipam": {"addresses": []}}), 7, "ipam"),
                (json!({"ipam": {"routes": [{"dst": "x"}]}}), 7, "ipam.routes[0].dst"),
            ],
        ),
        (
            with_addresses(json!({"type": "macvlan", "master": "up0"})),
            vec![
                (json!({"mode": "other"}), 7, "mode"),
                (json!({"master": "nil0"}), 7, "master"),
                (json!({"master": null}), 7, "master"),
                (json!({"mtu": -1}), 7, "mtu"),
                (json!({"mac": "rubbish"}), 7, "mac"),
                (json!({"linkInContainer": "x"}), 6, "linkInContainer"),
            ],
        ),
        (
            with_addresses(json!({"type": "vlan", "master": "up0", "vlanId": 5})),
            vec![
                (json!({"vlanId": 4095}), 7, "vlanId"),
                (json!({"vlanId": -1}), 7, "vlanId"),
                (json!({"vlanId": "5"}), 6, "vlanId"),
                (json!({"master": "nil0"}), 7, "master"),
                (json!({"master": null}), 7, "master"),
            ],
        ),
        (
            with_addresses(json!({"type": "ipvlan", "master": "up0"})),
            vec![(json!({"mode": "l4"}), 7, "mode"), (json!({"master": "nil0"}), 7, "master")],
        ),
        (
            json!({"type": "host-device", "device": "up0"}),
            vec![
                (json!({"device": null}), 7, "device"),
                (json!({"device": "nil0"}), 7, "device"),
                (json!({"device": null, "hwaddr": "rubbish"}), 7, "hwaddr"),
                (json!({"device": null, "pciBusID": "../x"}), 7, "pciBusID"),
                (json!({"device": null, "kernelpath": "/etc"}), 7, "kernelpath"),
            ],
        ),
        (
            with_addresses(json!({"type": "tap"})),
            vec![
                (json!({"mac": "rubbish"}), 7, "mac"),
                (json!({"owner": -1}), 6, "owner"),
                (json!({"bridge": "nil0"}), 7, "bridge"),
            ],
        ),
        (
            given(json!({"type": "portmap", "capabilities": {"portMappings": true}})),
            vec![
                (port(json!({"hostPort": 0})), 7, "hostPort"),
                (port(json!({"hostPort": 70000})), 7, "hostPort"),
                (port(json!({"containerPort": 0})), 7, "containerPort"),
                (port(json!({"protocol": "foo"})), 7, "protocol"),
                (port(json!({"hostIP": "x"})), 7, "hostIP"),
                (merged(&port(json!({})), &json!({"backend": "ebpf"})), 2, "backend"),
                (merged(&port(json!({})), &json!({"markMasqBit": 32})), 7, "markMasqBit"),
            ],
        ),
        (
            given(json!({"type": "firewall"})),
            vec![
                (json!({"ingressPolicy": "other"}), 2, "ingressPolicy"),
                (json!({"prevResult": null}), 7, "prevResult"),
            ],
        ),
        (
            given(json!({"type": "bandwidth"})),
            vec![
                (json!({"ingressRate": 8000}), 7, "ingressBurst"),
                (json!({"egressBurst": 8000}), 7, "egressRate"),
                (json!({"ingressRate": "8000"}), 6, "8000"),
                (
                    json!({"ingressRate": 8000, "ingressBurst": 8000, "unshapedSubnets": ["x"]}),
                    7,
                    "unshapedSubnets",
                ),
                (json!({"ingressRate": 8000, "ingressBurst": 8000, "prevResult": null}), 7, "prevResult"),
            ],
        ),
        (
            given(json!({"type": "tuning"})),
            vec![
                (json!({"sysctl": {"kernel.shmmax": "1"}}), 7, "kernel.shmmax"),
                (json!({"sysctl": {"net/../kernel/shmmax": "1"}}), 7, "net/../kernel/shmmax"),
                (json!({"sysctl": {"net.ipv4.conf.all.log_martians": 1}}), 6, "a string"),
                (json!({"mac": "rubbish"}), 7, "mac"),
                (json!({"mtu": -1}), 7, "mtu"),
                (json!({"prevResult": null}), 7, "prevResult"),
            ],
        ),
        (given(json!({"type": "sbr"})), vec![(json!({"prevResult": null}), 7, "prevResult")]),
        (
            given(json!({"type": "vrf", "vrfname": "blue"})),
            vec![
                (json!({"vrfname": null}), 7, "vrfname"),
                (json!({"vrfname": "a/b"}), 7, "vrfname"),
                (json!({"table": -1}), 6, "table"),
                (json!({"prevResult": null}), 7, "prevResult"),
            ],
        ),
        (
            with_addresses(json!({"type": "dummy"})),
            vec![
                (json!({"ipam": null}), 7, "ipam"),
                (json!({"ipam": {"type": "../../bin/sh"}}), 7, "ipam.type"),
            ],
        ),
    ]
}

#[test]
fn each_plugin_names_what_is_wrong() {
    let node = Node::new();
    let prepare = "ip link add up0 type veth peer name up1; ip link set up0 up; ip link set up1 up";
    assert!(std::process::Command::new("sh").args(["-c", prepare]).status().unwrap().success());
    let pod = node.pod();
    node.settled();
    let before = MachineDump::take();
    let mut wrong = Vec::new();
    for (config, rows) in rows() {
        let config = merged(&json!({"cniVersion": "1.0.0", "name": "net"}), &config);
        for (change, code, key) in rows {
            let config = merged(&config, &change);
            let answer = Call::new("ADD", "c1", Some(&path(&pod)), &config).run();
            if answer.ok || answer.code() != code || !answer.message().contains(key) {
                wrong.push(format!("{} {change}: wanted {code} and {key}: {}", config["type"], answer.json));
            }
            // Nothing is there to be deleted, and that is no error, as long as it is known where.
            let deleted = Call::new("DEL", "c1", Some(&path(&pod)), &config).run();
            if !deleted.ok && !["vrfname", "table", "ipam.type"].contains(&key) {
                wrong.push(format!("DEL {} {change}: {}", config["type"], deleted.json));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    before.assert_unchanged();
}

/// A merge patch (RFC 7386).
fn merged(config: &Value, with: &Value) -> Value {
    let (Value::Object(old), Value::Object(new)) = (config, with) else { return with.clone() };
    let mut merged = old.clone();
    for (key, value) in new {
        match value {
            Value::Null => drop(merged.remove(key)),
            value => {
                let old = old.get(key).unwrap_or(&Value::Null);
                merged.insert(key.clone(), self::merged(old, value));
            }
        }
    }
    merged.into()
}
