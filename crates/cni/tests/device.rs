//! host-device, with a veth end as the device, and tap.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

mod common;

use common::{Call, Node, node_with_uplink, path, reaches, sh};
use serde_json::{Value, json};
use weft_kernel::{Link, Netlink, Netns};

fn host_device(node: &Node, subnets: &[&str]) -> Value {
    let mut config = node.config(subnets);
    config["type"] = json!("host-device");
    config["device"] = json!("uplink0");
    config
}

fn link(ns: &Netns, name: &str) -> Option<Link> {
    Netlink::open_in(ns).unwrap().link(name).unwrap()
}

#[test]
fn a_device_moves_to_the_container_and_back_with_its_name() {
    let (node, _outside) = node_with_uplink();
    let here = node.ns.ns().clone();
    let config = host_device(&node, &["10.9.0.0/24"]);
    let pod = node.pod();
    let mac = link(&here, "uplink0").unwrap().mac.unwrap().to_string();
    let made = node.add("c1", &pod, &config).success();
    assert_eq!(
        made["interfaces"],
        json!([{"name": "eth0", "mac": mac, "sandbox": path(&pod).display().to_string()}])
    );
    assert!(link(&here, "uplink0").is_none() && reaches(&pod, "10.9.0.251"));
    assert_eq!(link(&pod, "eth0").unwrap().alias.as_deref(), Some("uplink0"));
    let mut with_result = config.clone();
    with_result["prevResult"] = made;
    Call::new("CHECK", "c1", Some(&path(&pod)), &with_result).run().success();
    // The name that it shall get back is taken in the container, its present one on the node.
    sh(&pod, "ip link add uplink0 type veth peer name x");
    sh(&here, "ip link add eth0 type veth peer name x");
    node.del("c1", Some(&pod), &config).success();
    let back = link(&here, "uplink0").unwrap();
    assert_eq!((back.mac.unwrap().to_string(), back.alias, back.up), (mac, None, false));
    assert!(link(&pod, "eth0").is_none() && node.allocations().is_empty());
    node.del("c1", Some(&pod), &config).success();
    node.del("c1", None, &config).success();
}

#[test]
fn a_device_is_found_by_its_address_and_a_failed_add_gives_it_back() {
    let (node, _outside) = node_with_uplink();
    let here = node.ns.ns().clone();
    let mut config = host_device(&node, &["10.9.0.0/24"]);
    config.as_object_mut().unwrap().remove("device");
    config["hwaddr"] = json!(link(&here, "uplink0").unwrap().mac.unwrap().to_string());
    config["ipam"]["routes"] = json!([{"dst": "192.0.2.0/24", "gw": "198.51.100.1"}]);
    let pod = node.pod();
    let before = link(&here, "uplink0").unwrap();
    assert!(!node.add("c1", &pod, &config).ok, "the gateway is on no network");
    let back = link(&here, "uplink0").unwrap();
    assert_eq!((back.mac, back.up, back.alias), (before.mac, true, None));
    assert!(link(&pod, "eth0").is_none() && node.allocations().is_empty());
    config["ipam"] = json!({});
    let made = node.add("c1", &pod, &config).success();
    assert!(made.get("ips").is_none() && link(&pod, "eth0").unwrap().up);
    node.del("c1", Some(&pod), &config).success();
    assert!(link(&here, "uplink0").is_some());
}

#[test]
fn a_device_that_is_not_named_or_not_there_is_refused() {
    let node = Node::new();
    let cases = [
        json!({}),
        json!({"device": "nowhere0"}),
        json!({"device": "a/b"}),
        json!({"hwaddr": "02:00:00:00:00:01"}),
        json!({"hwaddr": "rubbish"}),
        json!({"kernelpath": "/etc"}),
        json!({"kernelpath": "/sys/devices/../../etc"}),
        json!({"pciBusID": "0000:ff:1f.7"}),
        json!({"pciBusID": "../../../etc"}),
        json!({"runtimeConfig": {"deviceID": "mlx5_core.sf.4000"}}),
        json!({"runtimeConfig": {"deviceID": "../auxiliary"}}),
    ];
    for keys in cases {
        let mut config = node.config(&["10.9.0.0/24"]);
        config["type"] = json!("host-device");
        config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        let pod = node.pod();
        let refused = node.add("c1", &pod, &config);
        assert_eq!(refused.code(), 7, "{keys}: {}", refused.json);
        assert!(node.allocations().is_empty());
        node.del("c1", Some(&pod), &config).success();
    }
}

#[test]
fn the_reference_gives_back_what_we_took_and_the_other_way_round() {
    for ours in [true, false] {
        let (node, _outside) = node_with_uplink();
        let here = node.ns.ns().clone();
        let mut config = host_device(&node, &["10.9.0.0/24"]);
        config["cniVersion"] = json!("0.4.0");
        let pod = node.pod();
        let call = |command: &str, config: &Value, ours: bool| {
            let call = Call::new(command, "c1", Some(&path(&pod)), config);
            if ours { call } else { call.reference() }.run().success()
        };
        let mut checked = config.clone();
        checked["prevResult"] = call("ADD", &config, ours);
        call("CHECK", &checked, !ours);
        call("DEL", &config, !ours);
        let back = link(&here, "uplink0").unwrap();
        // Debian's reference (1.1.1) leaves its mark there.
        assert!(!back.up && (ours || back.alias.is_none()), "taken by us: {ours}: {back:?}");
        assert!(node.allocations().is_empty());
    }
}

fn tap(node: &Node) -> Value {
    let mut config = node.config(&["10.9.0.0/24"]);
    config["type"] = json!("tap");
    config.as_object_mut().unwrap().remove("bridge");
    config
}

fn shown(pod: &Netns) -> Value {
    serde_json::from_str::<Value>(&sh(pod, "ip -d -j link show eth0")).unwrap()[0].clone()
}

#[test]
fn a_tap_interface_has_what_was_asked_for_and_goes_with_its_del() {
    let node = Node::new();
    let mut config = tap(&node);
    for (key, value) in [
        ("multiQueue", json!(true)),
        ("mac", json!("02:00:00:00:00:07")),
        ("mtu", json!(1400)),
        ("owner", json!(1234)),
        ("group", json!(0)),
        ("bridge", json!("br7")),
    ] {
        config[key] = value;
    }
    let pod = node.pod();
    let refused = node.add("c1", &pod, &config);
    assert!(refused.code() == 7 && refused.message().contains("br7"), "{}", refused.json);
    assert!(link(&pod, "eth0").is_none() && node.allocations().is_empty());
    sh(&pod, "ip link add br7 type bridge");
    let made = node.add("c1", &pod, &config).success();
    assert_eq!(made["interfaces"][0]["mac"], "02:00:00:00:00:07");
    assert_eq!(made["ips"][0]["address"], "10.9.0.2/24");
    let seen = shown(&pod);
    let data = &seen["linkinfo"]["info_data"];
    assert_eq!((&seen["mtu"], &seen["master"], &data["type"]), (&json!(1400), &json!("br7"), &json!("tap")));
    assert_eq!((&data["multi_queue"], &data["persist"]), (&json!(true), &json!(true)));
    assert_eq!(data["user"].to_string().trim_matches('"'), "1234");
    config["prevResult"] = made;
    Call::new("CHECK", "c1", Some(&path(&pod)), &config).run().success();
    node.del("c1", Some(&pod), &config).success();
    assert!(link(&pod, "eth0").is_none() && link(&pod, "br7").is_some() && node.allocations().is_empty());
}

#[test]
fn a_tap_interface_without_options_belongs_to_nobody_and_needs_no_address() {
    let node = Node::new();
    let mut config = tap(&node);
    config.as_object_mut().unwrap().remove("ipam");
    let pod = node.pod();
    node.add("c1", &pod, &config).success();
    let data = shown(&pod)["linkinfo"]["info_data"].clone();
    assert_eq!((data.get("user"), data.get("group")), (None, None));
    assert_eq!((&data["pi"], &data["vnet_hdr"]), (&json!(false), &json!(false)));
    assert!(link(&pod, "eth0").unwrap().up);
    node.del("c1", Some(&pod), &config).success();
    config["selinuxContext"] = json!("system_u:system_r:container_t:s0");
    let refused = node.add("c1", &pod, &config);
    assert!(refused.code() == 2 && refused.message().contains("selinuxContext"), "{}", refused.json);
    assert!(link(&pod, "eth0").is_none());
}

#[test]
fn of_two_adds_of_one_container_at_once_one_has_the_interface() {
    for kind in ["tap", "macvlan", "host-device"] {
        let (node, _outside) = node_with_uplink();
        let mut config = host_device(&node, &["10.9.0.0/24"]);
        config["type"] = json!(kind);
        config["master"] = json!("uplink0");
        config.as_object_mut().unwrap().remove("bridge");
        for round in 0..5 {
            let pod = node.pod();
            let call = Call::new("ADD", &format!("c{round}"), Some(&path(&pod)), &config);
            let running = [call.start(), call.start()];
            let done = running.map(|child| child.wait_with_output().unwrap());
            let succeeded: Vec<bool> = done.iter().map(|output| output.status.success()).collect();
            let said: Vec<_> = done.iter().map(|output| String::from_utf8_lossy(&output.stdout)).collect();
            assert_eq!(succeeded.iter().filter(|ok| **ok).count(), 1, "{kind}: {said:?}");
            let found = link(&pod, "eth0").unwrap();
            let first = said[usize::from(succeeded[1])].parse::<Value>().unwrap();
            assert_eq!(first["interfaces"][0]["mac"], found.mac.unwrap().to_string(), "{kind}");
            node.del(&format!("c{round}"), Some(&pod), &config).success();
            assert_eq!(Netlink::open_in(&pod).unwrap().links().unwrap().len(), 1, "{kind}");
            assert!(node.allocations().is_empty());
        }
    }
}
