//! macvlan: pods on the network of the node, with packets between them and to outside.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

mod common;

use std::time::Duration;

use common::{Answer, Call, Node, REFERENCE, node_with_uplink, path, reaches, sh};
use serde_json::{Value, json};
use weft_ipam::host_local::Attachment;
use weft_kernel::testing::eventually;
use weft_kernel::{Details, LinkKind, MacvlanMode, Netlink, Netns, NewLink, Op, sysctl};

const SOON: Duration = Duration::from_secs(10);

fn config(node: &Node, subnets: &[&str]) -> Value {
    let mut config = node.config(subnets);
    config["type"] = json!("macvlan");
    config["master"] = json!("uplink0");
    config
}

fn add(node: &Node, id: &str, config: &Value) -> (Netns, Value) {
    let pod = node.pod();
    let made = node.add(id, &pod, config).success();
    (pod, made)
}

fn eth0(pod: &Netns) -> weft_kernel::Link {
    Netlink::open_in(pod).unwrap().link("eth0").unwrap().unwrap()
}

fn is_empty(pod: &Netns) -> bool {
    Netlink::open_in(pod).unwrap().links().unwrap().len() == 1
}

#[test]
fn pods_reach_each_other_and_outside_and_leave_nothing() {
    let (node, outside) = node_with_uplink();
    // The name is taken on the node, as it is on most.
    sh(node.ns.ns(), "ip link add eth0 type veth peer name eth1");
    let before = node.settled();
    let config = config(&node, &["10.9.0.0/24"]);
    let (one, made) = add(&node, "c1", &config);
    let (two, made_two) = add(&node, "c2", &config);
    let mac = eth0(&one).mac.unwrap().to_string();
    assert_eq!(
        made,
        json!({
            "cniVersion": "1.0.0",
            "interfaces": [{"name": "eth0", "mac": mac, "sandbox": path(&one).display().to_string()}],
            "ips": [{"address": "10.9.0.2/24", "gateway": "10.9.0.1", "interface": 0}],
        })
    );
    assert!(reaches(&one, "10.9.0.3") && reaches(&two, "10.9.0.2") && reaches(&one, "10.9.0.251"));
    assert!(reaches(&outside, "10.9.0.2"), "from outside");
    for (id, pod, made) in [("c1", &one, made), ("c2", &two, made_two)] {
        let mut with_result = config.clone();
        with_result["prevResult"] = made;
        Call::new("CHECK", id, Some(&path(pod)), &with_result).run().success();
        node.del(id, Some(pod), &config).success();
        node.del(id, Some(pod), &config).success();
        assert!(is_empty(pod));
    }
    assert!(node.allocations().is_empty());
    assert_eq!(node.settled(), before);
}

#[test]
fn private_pods_do_not_reach_each_other() {
    let (node, _) = node_with_uplink();
    let mut config = config(&node, &["10.9.0.0/24"]);
    config["mode"] = json!("private");
    let (one, _) = add(&node, "c1", &config);
    let (_two, _) = add(&node, "c2", &config);
    assert!(reaches(&one, "10.9.0.251") && !reaches(&one, "10.9.0.3"));
}

#[test]
fn neighbours_learn_of_an_address_without_asking() {
    let (node, outside) = node_with_uplink();
    outside.run(|| sysctl::set("net/ipv4/conf/out0/arp_accept", "1").unwrap()).unwrap();
    let (pod, _) = add(&node, "c1", &config(&node, &["10.9.0.0/24"]));
    let mut netlink = Netlink::open_in(&outside).unwrap();
    let mac = eth0(&pod).mac;
    eventually(SOON, "a gratuitous ARP", || {
        let known = netlink.neighbours().unwrap();
        known.iter().any(|n| n.ip.to_string() == "10.9.0.2" && n.mac == mac)
    });
    let inside = |key: &'static str| pod.run(move || sysctl::get(key).unwrap()).unwrap();
    assert_eq!(inside("net/ipv4/conf/eth0/arp_notify"), "1");
    assert_eq!(inside("net/ipv6/conf/eth0/ndisc_notify"), "1");
}

#[test]
fn every_option_has_its_effect() {
    let (node, _) = node_with_uplink();
    let modes = [
        ("bridge", MacvlanMode::Bridge),
        ("private", MacvlanMode::Private),
        ("vepa", MacvlanMode::Vepa),
        ("passthru", MacvlanMode::Passthru),
    ];
    for (mode, kernel) in modes {
        let mut config = config(&node, &["10.9.0.0/24"]);
        config["mode"] = json!(mode);
        config["mtu"] = json!(1400);
        config["mac"] = json!("02:00:00:00:00:07");
        config["bcqueuelen"] = json!(2345);
        let (pod, made) = add(&node, "c1", &config);
        let link = eth0(&pod);
        assert_eq!((&link.details, link.mtu), (&Details::Macvlan(Some(kernel)), 1400), "{mode}");
        // The kernel lets the only one on a parent have no address but the parent's.
        let parent = Netlink::open().unwrap().link("uplink0").unwrap().unwrap().mac.unwrap().to_string();
        let expected = if mode == "passthru" { parent.as_str() } else { "02:00:00:00:00:07" };
        assert_eq!(made["interfaces"][0]["mac"], expected, "{mode}");
        assert!(sh(&pod, "ip -d link show eth0").contains("bcqueuelen 2345"));
        config["prevResult"] = made;
        Call::new("CHECK", "c1", Some(&path(&pod)), &config).run().success();
        config["mode"] = json!(if mode == "vepa" { "private" } else { "vepa" });
        let other = Call::new("CHECK", "c1", Some(&path(&pod)), &config).run();
        assert_eq!(other.code(), 100, "{}", other.json);
        node.del("c1", Some(&pod), &config).success();
    }
    // The runtime's address goes before that of CNI_ARGS, and that before the configuration's.
    let mut config = config(&node, &["10.9.0.0/24"]);
    config["mac"] = json!("02:00:00:00:00:01");
    let args = "IgnoreUnknown=1;MAC=02:00:00:00:00:02";
    for (runtime, expected) in [(None, "02:00:00:00:00:02"), (Some("02:00:00:00:00:03"), "02:00:00:00:00:03")]
    {
        config["runtimeConfig"] = json!({"mac": runtime});
        let pod = node.pod();
        let call = |command| Call::new(command, "c1", Some(&path(&pod)), &config).env("CNI_ARGS", Some(args));
        let made = call("ADD").run().success();
        assert_eq!(made["interfaces"][0]["mac"], expected);
        call("DEL").run().success();
    }
}

#[test]
fn without_a_master_it_is_the_default_routes_and_without_ipam_there_is_no_address() {
    let (node, _) = node_with_uplink();
    let mut config = config(&node, &[]);
    config.as_object_mut().unwrap().remove("master");
    config["ipam"] = json!({});
    let pod = node.pod();
    let refused = node.add("c1", &pod, &config);
    assert_eq!(refused.code(), 7);
    assert!(refused.message().contains("master"), "{}", refused.message());
    sh(node.ns.ns(), "ip route add default via 10.9.0.251");
    let made = node.add("c1", &pod, &config).success();
    assert!(made.get("ips").is_none(), "{made}");
    let uplink = Netlink::open().unwrap().link("uplink0").unwrap().unwrap();
    assert_eq!((eth0(&pod).peer, eth0(&pod).up), (Some(uplink.index), true));
    node.del("c1", Some(&pod), &config).success();
    assert!(is_empty(&pod));
}

#[test]
fn the_master_may_be_in_the_container() {
    let node = Node::new();
    let pod = node.pod();
    sh(&pod, "ip link add uplink0 type veth peer name x && ip link set uplink0 up && ip link set x up");
    let mut config = config(&node, &["10.9.0.0/24"]);
    config["linkInContainer"] = json!(true);
    config["prevResult"] = node.add("c1", &pod, &config).success();
    assert_eq!(eth0(&pod).peer_netnsid, None);
    Call::new("CHECK", "c1", Some(&path(&pod)), &config).run().success();
    node.del("c1", Some(&pod), &config).success();
    assert!(Netlink::open_in(&pod).unwrap().link("uplink0").unwrap().is_some());
}

#[test]
fn what_cannot_be_is_refused_and_leaves_nothing() {
    let (node, _) = node_with_uplink();
    let cases = [
        ("mode", json!("fast"), 7),
        ("mode", json!(7), 6),
        ("mtu", json!(1501), 7),
        ("mtu", json!(-1), 7),
        ("master", json!("nowhere0"), 7),
        ("mac", json!("01:00:00:00:00:01"), 7),
        ("bcqueuelen", json!(-1), 6),
        ("linkInContainer", json!(true), 7),
    ];
    for (key, value, code) in cases {
        let mut config = config(&node, &["10.9.0.0/24"]);
        config[key] = value.clone();
        let pod = node.pod();
        let refused = node.add("c1", &pod, &config);
        assert_eq!((refused.ok, refused.code()), (false, code), "{key} {value}: {}", refused.json);
        assert!(is_empty(&pod) && node.allocations().is_empty(), "{key} {value}");
    }
    // The address range is used up: the interface, made before, is gone again.
    let mut config = config(&node, &[]);
    config["ipam"]["ranges"] =
        json!([[{"subnet": "10.9.0.0/29", "rangeStart": "10.9.0.2", "rangeEnd": "10.9.0.2"}]]);
    let (_one, _) = add(&node, "c1", &config);
    let pod = node.pod();
    assert!(!node.add("c2", &pod, &config).ok);
    assert!(is_empty(&pod));
}

#[test]
fn a_del_cleans_up_after_an_add_that_was_killed() {
    let (node, _) = node_with_uplink();
    let config = config(&node, &["10.9.0.0/24"]);
    let pod = node.pod();
    let key = Attachment { container_id: "c1", ifname: "eth0" }.key().replacen("wf", "wt", 1);
    let parent = Netlink::open().unwrap().link("uplink0").unwrap().unwrap().index;
    let kind = LinkKind::Macvlan { parent, mode: MacvlanMode::Bridge, bc_queue_len: None };
    let unnamed = NewLink { netns: Some(pod.clone()), ..NewLink::new(key, kind) };
    Netlink::open().unwrap().apply(&Op::LinkAdd(unnamed)).unwrap();
    node.del("c1", Some(&pod), &config).success();
    assert!(is_empty(&pod));
    // An interface of another kind is somebody else's.
    sh(&pod, "ip link add eth0 type veth peer name x");
    node.del("c1", Some(&pod), &config).success();
    assert!(!is_empty(&pod));
    node.del("c1", None, &config).success();
}

#[test]
fn an_ipv6_address_that_is_on_the_network_already_is_not_used() {
    let (node, outside) = node_with_uplink();
    sh(&outside, "ip -6 addr add fd00:9::2/64 dev out0 nodad");
    let config = config(&node, &["fd00:9::/64"]);
    let pod = node.pod();
    let taken = node.add("c1", &pod, &config);
    assert_eq!(taken.code(), 11, "{}", taken.json);
    assert!(taken.message().contains("fd00:9::2"), "{}", taken.message());
    assert!(is_empty(&pod) && node.allocations().is_empty());
    sh(&outside, "ip -6 addr del fd00:9::2/64 dev out0 && ip -6 addr add fd00:9::ff/64 dev out0 nodad");
    let mut again = config.clone();
    again["ipam"]["ranges"] =
        json!([[{"subnet": "fd00:9::/64", "rangeStart": "fd00:9::2", "rangeEnd": "fd00:9::2"}]]);
    node.add("c1", &pod, &again).success();
    assert!(reaches(&pod, "fd00:9::ff"), "the address can be used when ADD ends");
}

#[test]
fn the_reference_answers_and_programs_alike() {
    let variants = [
        json!({}),
        json!({"mode": "private", "mtu": 1300, "mac": "02:00:00:00:00:09"}),
        json!({"dns": {"nameservers": ["10.96.0.10"]}, "mode": "vepa"}),
        json!({"ipam": {}}),
    ];
    for variant in variants {
        let answers = [true, false].map(|ours| {
            let (node, _outside) = node_with_uplink();
            let mut config = config(&node, &["10.9.0.0/24", "fd00:9::/64"]);
            config["cniVersion"] = json!("0.4.0");
            config["ipam"]["routes"] =
                json!([{"dst": "0.0.0.0/0"}, {"dst": "192.0.2.0/24", "gw": "10.9.0.7"}]);
            for (key, value) in variant.as_object().unwrap() {
                config[key] = value.clone();
            }
            let pod = node.pod();
            let call = |command: &str, config: &Value| -> Answer {
                let call = Call::new(command, "c1", Some(&path(&pod)), config);
                if ours { call.run() } else { call.reference().run() }
            };
            let mut made = call("ADD", &config).success();
            let mut checked = config.clone();
            checked["prevResult"] = made.clone();
            // Each checks and deletes what the other made.
            let other = Call::new("CHECK", "c1", Some(&path(&pod)), &checked);
            if ours { other.reference().run() } else { other.run() }.success();
            let link = eth0(&pod);
            let state = sh(
                &pod,
                "ip -o route; ip -o -6 route | grep -v '^fe80' || true; cat /proc/sys/net/ipv4/conf/eth0/arp_notify",
            );
            let other = Call::new("DEL", "c1", Some(&path(&pod)), &config);
            if ours { other.reference().run() } else { other.run() }.success();
            assert!(is_empty(&pod) && node.allocations().is_empty());
            for key in ["mac", "sandbox"] {
                made["interfaces"][0][key] = made["interfaces"][0][key].is_string().into();
            }
            (made, state, link.mtu, link.up, link.details)
        });
        assert_eq!(answers[0], answers[1], "{variant}: ours and that of {REFERENCE}");
    }
}
