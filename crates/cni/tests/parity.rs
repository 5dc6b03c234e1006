//! The reference plugins and ours on one directory and one bridge: each undoes what the other
//! made, and they answer alike.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use common::{Call, Node, REFERENCE, path};
use serde_json::{Value, json};
use weft_kernel::{Netlink, Netns};

/// A result without what may differ: random names and hardware addresses, and the namespace.
fn normalised(mut result: Value) -> Value {
    // Release 1.9 leaves it out from 1.0.0 on, Debian's 1.1.1 does not.
    if result["dns"] == json!({}) {
        result.as_object_mut().unwrap().remove("dns");
    }
    for (index, interface) in result["interfaces"].as_array_mut().into_iter().flatten().enumerate() {
        let sandboxed = interface.get("sandbox").is_some();
        let name = if sandboxed || index == 0 { interface["name"].clone() } else { "host side".into() };
        *interface = json!({"name": name, "sandboxed": sandboxed, "mac": interface.get("mac").is_some()});
    }
    result
}

/// Addresses and routes of the pod as `ip` shows them, without hardware addresses and broadcast.
fn state(pod: &Netns) -> Value {
    let mut netlink = Netlink::open_in(pod).unwrap();
    let link = netlink.link("eth0").unwrap().unwrap();
    let addresses = netlink.addresses().unwrap().into_iter().filter(|a| a.ifindex == link.index);
    let ours: Vec<String> =
        addresses.map(|a| a.net.to_string()).filter(|net| !net.starts_with("fe80")).collect();
    let routes = netlink.routes().unwrap().into_iter().filter(|r| r.table == 254);
    let routes: Vec<String> = routes
        .filter(|r| !r.dst.to_string().starts_with("fe80"))
        .map(|r| {
            format!("{} via {:?} protocol {} scope {} metric {}", r.dst, r.via, r.protocol, r.scope, r.metric)
        })
        .collect();
    json!({"up": link.up, "mtu": link.mtu, "addresses": ours, "routes": routes})
}

#[test]
fn both_answer_and_program_alike_in_every_version() {
    let variants = [
        json!({}),
        json!({"isDefaultGateway": false, "isGateway": true}),
        json!({"isDefaultGateway": false, "hairpinMode": false}),
        json!({"mtu": 1400, "dns": {"nameservers": ["10.96.0.10"], "search": ["shop.svc"]}}),
        json!({"routes": [{"dst": "192.0.2.0/24"}, {"dst": "198.51.100.0/24", "gw": "10.9.0.9"}]}),
        json!({"isDefaultGateway": false, "routes": [{"dst": "0.0.0.0/0"}]}),
    ];
    for subnets in [vec!["10.9.0.0/24"], vec!["10.9.0.0/24", "fd00:9::/64"], vec!["fd00:9::/64"]] {
        for (version, variant) in
            ["0.3.1", "0.4.0", "1.0.0"].iter().flat_map(|v| variants.iter().map(move |x| (v, x)))
        {
            if subnets[0].contains("::") && variant.get("routes").is_some() {
                continue;
            }
            let answers = [false, true].map(|reference| {
                let node = Node::new();
                let mut config = node.config(&subnets);
                config["cniVersion"] = json!(version);
                for (key, value) in variant.as_object().unwrap() {
                    let place = if key == "routes" { &mut config["ipam"] } else { &mut config };
                    place[key] = value.clone();
                }
                let pod = node.pod();
                let call = Call::new("ADD", "c1", Some(&path(&pod)), &config);
                let call = if reference { call.reference() } else { call };
                let result = call.run().success();
                (normalised(result), state(&pod), node.allocations())
            });
            assert_eq!(answers[0], answers[1], "{version} {subnets:?} {variant}: ours and the reference's");
        }
    }
}

#[test]
fn each_deletes_and_checks_what_the_other_added() {
    let node = Node::new();
    let mut config = node.config(&["10.9.0.0/24", "fd00:9::/64"]);
    config["cniVersion"] = json!("0.4.0");
    for (round, ours_adds) in [true, false, true, false].into_iter().enumerate() {
        let (pod, id) = (node.pod(), format!("c{round}"));
        let call = |command: &str, config: &Value, ours: bool| {
            let call = Call::new(command, &id, Some(&path(&pod)), config);
            let call = if ours { call } else { call.reference() };
            call.run().success()
        };
        let mut with_result = config.clone();
        with_result["prevResult"] = call("ADD", &config, ours_adds);
        let expected = format!("10.9.0.{}/24", round + 2);
        assert_eq!(with_result["prevResult"]["ips"][0]["address"], expected, "one round robin");
        call("CHECK", &with_result, !ours_adds);
        call("DEL", &with_result, !ours_adds);
        assert!(node.allocations().is_empty() && node.pod_links().is_empty());
    }
}

#[test]
fn both_at_once_never_give_one_address_twice() {
    let node = Node::new();
    let config = node.config(&["10.9.0.0/24"]);
    let pods: Vec<Netns> = (0..24).map(|_| node.pod()).collect();
    let start = |(n, pod): (usize, &Netns)| {
        let call = Call::new("ADD", &format!("c{n}"), Some(&path(pod)), &config);
        if n % 2 == 0 { call.start() } else { call.reference().start() }
    };
    let running: Vec<_> = pods.iter().enumerate().map(start).collect();
    for child in running {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    assert_eq!(node.allocations().len(), 24);
}

#[test]
fn host_local_alone_and_as_the_ipam_of_the_reference_bridge() {
    let node = Node::new();
    let bin = node.data.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    let ours = bin.join("host-local");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_weft-cni"), &ours).unwrap();
    let config = node.config(&["10.9.0.0/24"]);
    let pod = node.pod();
    let call = |command: &str| {
        let call = Call::new(command, "c1", Some(&path(&pod)), &config).reference();
        call.env("CNI_PATH", Some(bin.to_str().unwrap())).run()
    };
    assert_eq!(call("ADD").success()["ips"][0]["address"], "10.9.0.2/24");
    assert!(node.network().join(".weft/id").exists(), "it was ours");
    call("DEL").success();
    assert!(node.allocations().is_empty());
}

#[test]
fn another_ipam_plugin_is_executed_and_its_failure_is_passed_on() {
    let node = Node::new();
    let bin = node.data.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(format!("{REFERENCE}/static"), bin.join("fixed")).unwrap();
    let mut config = node.config(&[]);
    config["ipam"] =
        json!({"type": "fixed", "addresses": [{"address": "10.7.0.9/24", "gateway": "10.7.0.1"}]});
    let pod = node.pod();
    let call = |command: &str, config: &Value| {
        let call = Call::new(command, "c1", Some(&path(&pod)), config);
        call.env("CNI_PATH", Some(bin.to_str().unwrap())).run()
    };
    let made = call("ADD", &config).success();
    assert_eq!(made["ips"], json!([{"address": "10.7.0.9/24", "gateway": "10.7.0.1", "interface": 2}]));
    call("DEL", &config).success();
    assert!(node.pod_links().is_empty());
    config["ipam"]["addresses"] = json!([{"address": "rubbish"}]);
    let refused = call("ADD", &config);
    assert!(!refused.ok && refused.message().contains("rubbish"), "{}", refused.json);
    assert!(node.pod_links().is_empty());
}
