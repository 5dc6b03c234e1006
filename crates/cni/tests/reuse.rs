//! F16 to F18 of the faults: an address that is given again, a network whose ranges change, and two
//! networks that give the same.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use common::chain::{Chain, node_in_the_world};
use common::{Call, Node, path, reaches, sh};
use serde_json::{Value, json};
use weft_ipam::host_local::Attachment;
use weft_kernel::Netns;

const SOON: Duration = Duration::from_secs(10);
const COUNTED: &str = "nft 'table inet t { chain c { type filter hook input priority -300; \
    meta l4proto != icmp ip saddr 192.0.2.2 counter; }; }'";

fn address(made: &Value) -> &str {
    made["ips"][0]["address"].as_str().unwrap().split('/').next().unwrap()
}

fn published(ports: &[(u16, u16, &str)]) -> Value {
    let one = |(host, pod, protocol): &(u16, u16, &str)| json!({"hostPort": host, "containerPort": pod, "protocol": protocol});
    json!({"portMappings": ports.iter().map(one).collect::<Vec<_>>()})
}

fn udp(ns: &Netns, at: &str) -> UdpSocket {
    let socket = ns.run(|| UdpSocket::bind(at).unwrap()).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
}

#[test]
fn f16_no_packet_of_an_old_flow_reaches_the_next_owner_of_the_address() {
    for backend in ["iptables", "nftables"] {
        let (node, world) = node_in_the_world();
        let mut bridge = node.config(&["10.9.0.0/24"]);
        bridge["ipMasq"] = json!(true);
        bridge["ipMasqBackend"] = json!(backend);
        bridge["ipam"]["ranges"] =
            json!([[{"subnet": "10.9.0.0/24", "rangeStart": "10.9.0.2", "rangeEnd": "10.9.0.3"}]]);
        let chain = Chain::of([bridge, json!({"type": "portmap", "backend": backend})]);
        let ports = published(&[(5353, 53, "udp"), (8080, 80, "tcp")]);
        let old = node.pod();
        let made = chain.add("c1", &old, &ports).success();
        assert_eq!(address(&made), "10.9.0.2");
        // Three flows that live long: to published ports of both protocols, and from the container.
        let mut buffer = [0; 16];
        let (client, server) = (udp(&world, "192.0.2.2:0"), udp(&old, "0.0.0.0:53"));
        client.send_to(b"in", "192.0.2.1:5353").unwrap();
        server.recv_from(&mut buffer).unwrap();
        let (asked, asking) = (udp(&world, "192.0.2.2:7000"), udp(&old, "0.0.0.0:6000"));
        asking.send_to(b"out", "192.0.2.2:7000").unwrap();
        let masqueraded = asked.recv_from(&mut buffer).unwrap().1;
        assert_eq!(masqueraded.ip().to_string(), "192.0.2.1", "{backend}");
        asked.send_to(b"back", masqueraded).unwrap();
        asking.recv_from(&mut buffer).unwrap();
        let listener = old.run(|| TcpListener::bind("0.0.0.0:80").unwrap()).unwrap();
        let mut stream = world.run(|| TcpStream::connect("192.0.2.1:8080").unwrap()).unwrap();
        let mut accepted = listener.accept().unwrap().0;
        stream.write_all(b"tcp").unwrap();
        accepted.read_exact(&mut buffer[..3]).unwrap();

        chain.del("c1", &old, &ports, &made);
        let none = json!({});
        let (other, next) = (node.pod(), node.pod());
        let second = chain.add("c2", &other, &none).success();
        assert_eq!(address(&second), "10.9.0.3", "the address that was not just freed");
        sh(&next, COUNTED);
        let third = chain.add("c3", &next, &none).success();
        assert_eq!(address(&third), "10.9.0.2");
        for _ in 0..5 {
            // What answers that nobody is there may come back as an error of the next.
            client.send_to(b"in", "192.0.2.1:5353").ok();
            asked.send_to(b"back", masqueraded).ok();
            stream.write_all(b"tcp").ok();
        }
        // A flow of its own comes last, and it alone was counted.
        let portmap = &chain.plugins[1];
        let own = published(&[(5354, 54, "udp")]);
        chain.call("ADD", "c3", Some(&next), portmap, &own, Some(&third)).success();
        let (fresh, server) = (udp(&world, "192.0.2.2:0"), udp(&next, "0.0.0.0:54"));
        fresh.send_to(b"own", "192.0.2.1:5354").unwrap();
        server.recv_from(&mut buffer).unwrap();
        let counted = sh(&next, "nft list table inet t");
        assert!(counted.contains("counter packets 1 "), "{backend}: {counted}");
    }
}

/// Networks without a bridge of their own, and one without a gateway: their ranges may change under
/// running containers.
fn networks(node: &Node) -> Vec<Value> {
    let mut bridge = node.config(&["10.9.0.0/24"]);
    bridge["isDefaultGateway"] = json!(false);
    let mut all = vec![bridge];
    for kind in ["ptp", "routed"] {
        let mut config = node.config(&["10.9.0.0/24"]);
        config["type"] = json!(kind);
        config["ipam"]["routes"] = json!([{"dst": "0.0.0.0/0"}]);
        all.push(config);
    }
    all
}

#[test]
fn f17_when_the_ranges_change_containers_stay_and_nobody_elses_address_is_freed() {
    for at in 0..3 {
        let node = Node::new();
        let config = networks(&node).swap_remove(at);
        let kind = config["type"].clone();
        let pods: Vec<Netns> = (0..4).map(|_| node.pod()).collect();
        for (n, pod) in pods.iter().enumerate().take(2) {
            let made = node.add(&format!("c{n}"), pod, &config).success();
            assert_eq!(address(&made), format!("10.9.0.{}", n + 2));
        }
        let mut changed = config.clone();
        changed["ipam"]["ranges"] = json!([[{"subnet": "10.8.0.0/24"}]]);
        for (n, pod) in pods.iter().enumerate().skip(2) {
            let made = node.add(&format!("c{n}"), pod, &changed).success();
            assert_eq!(address(&made), format!("10.8.0.{}", n), "{kind}");
        }
        assert!(reaches(&pods[0], "10.9.0.3") && reaches(&pods[2], "10.8.0.3"), "{kind}");
        let held = |node: &Node| node.allocations().into_iter().map(|(ip, _)| ip).collect::<Vec<_>>();

        // By the new ranges its own goes, and by another's address in what the ADD answered only its own.
        let mut stale = changed.clone();
        stale["prevResult"] = json!({"cniVersion": "1.0.0", "ips": [{"address": "10.9.0.3/24"}]});
        node.del("c0", Some(&pods[0]), &stale).success();
        assert_eq!(held(&node), ["10.8.0.2", "10.8.0.3", "10.9.0.3"], "{kind}");
        // A node that returns with an index from before it was given to another frees nothing.
        let key = Attachment { container_id: "c0", ifname: "eth0" }.key();
        let index = node.network().join(".weft/id").join(key);
        fs::write(index, "address 10.9.0.3\naddress 10.8.0.2\n").unwrap();
        for config in [&config, &changed] {
            node.del("c0", Some(&pods[0]), config).success();
            node.del("c0", None, config).success();
        }
        assert_eq!(held(&node), ["10.8.0.2", "10.8.0.3", "10.9.0.3"], "{kind}");
        assert!(reaches(&pods[2], "10.8.0.3"), "{kind}");
        // Every container goes by the configuration that there is now.
        for (n, pod) in pods.iter().enumerate() {
            node.del(&format!("c{n}"), Some(pod), &changed).success();
        }
        assert_eq!((held(&node).len(), node.pod_links().len()), (0, 0), "{kind}");
        // And back: what rests is not given before its turn.
        assert_eq!(address(&node.add("c5", &pods[0], &config).success()), "10.9.0.2");
    }
}

#[test]
fn f18_an_address_that_another_network_gave_is_refused_and_its_owner_named() {
    for kind in ["bridge", "ptp", "routed"] {
        let node = Node::new();
        let mut config = node.config(&["10.9.0.0/24"]);
        config["type"] = json!(kind);
        let mut second = config.clone();
        second["name"] = json!("second");
        let (pod, other) = (node.pod(), node.pod());
        let mut check = config.clone();
        check["prevResult"] = node.add("first-one", &pod, &config).success();
        let before = node.settled();
        let refused = node.add("c2", &other, &second);
        assert_eq!(refused.code(), 7, "{kind}: {}", refused.json);
        let owner = if kind == "bridge" { "first-one" } else { "weft:shop/web-0" };
        let says = |text: &str| refused.message().contains(text);
        assert!(says("10.9.0.2") && says(owner), "{kind}: {}", refused.json);
        before.assert_unchanged();
        assert!(common::allocations(&node.data.path().join("second")).is_empty(), "{kind}");
        node.del("c2", Some(&other), &second).success();
        // The first is whole, and ranges that do not overlap are no clash.
        Call::new("CHECK", "first-one", Some(&path(&pod)), &check).run().success();
        second["ipam"]["ranges"] = json!([[{"subnet": "10.9.0.0/24", "rangeStart": "10.9.0.9"}]]);
        assert_eq!(address(&node.add("c2", &other, &second).success()), "10.9.0.9", "{kind}");
        assert!(kind == "bridge" || reaches(&pod, "10.9.0.9"), "{kind}");
    }
}

#[test]
fn f18_two_bridges_may_have_the_same_addresses() {
    let node = Node::new();
    let mut config = node.config(&["10.9.0.0/24"]);
    config["isDefaultGateway"] = json!(false);
    let mut second = config.clone();
    second["name"] = json!("second");
    second["bridge"] = json!("br1");
    let pods = [node.pod(), node.pod()];
    node.add("c1", &pods[0], &config).success();
    assert_eq!(address(&node.add("c2", &pods[1], &second).success()), "10.9.0.2");
}

#[test]
fn f18_a_second_network_cannot_have_the_interface_of_the_first() {
    let node = Node::new();
    let mut second = node.config(&["10.8.0.0/24"]);
    second["name"] = json!("second");
    second["bridge"] = json!("br1");
    let (config, pod) = (node.config(&["10.9.0.0/24"]), node.pod());
    let made = node.add("c1", &pod, &config).success();
    let before = node.settled();
    let refused = node.add("c1", &pod, &second);
    assert!(refused.code() == 4 && refused.message().contains("CNI_IFNAME"), "{}", refused.json);
    before.assert_unchanged();
    let mut check = config.clone();
    check["prevResult"] = made;
    Call::new("CHECK", "c1", Some(&path(&pod)), &check).run().success();
    // Under a name of its own it can.
    second["isDefaultGateway"] = json!(false);
    let call = |command| Call::new(command, "c1", Some(&path(&pod)), &second).env("CNI_IFNAME", Some("eth1"));
    call("ADD").run().success();
    assert!(reaches(node.ns.ns(), "10.9.0.2"));
    call("DEL").run().success();
    Call::new("CHECK", "c1", Some(&path(&pod)), &check).run().success();
}
