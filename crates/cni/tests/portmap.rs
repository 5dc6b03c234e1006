//! Published ports: reached from everywhere, removed without a trace, refused when taken.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use std::net::UdpSocket;
use std::time::Duration;

use common::chain::{Chain, blocked, listed, node_in_the_world, reference, saved, seen};
use common::{Call, Node, sh};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(10);

fn chain(node: &Node, subnets: &[&str], backend: &str) -> Chain {
    Chain::of([node.config(subnets), json!({"type": "portmap", "backend": backend})])
}

fn published(host: u16, container: u16, protocol: &str) -> Value {
    json!({"portMappings": [{"hostPort": host, "containerPort": container, "protocol": protocol}]})
}

#[test]
fn a_published_port_is_reached_from_the_world_the_node_and_the_container_itself() {
    for backend in ["iptables", "nftables"] {
        let (node, world) = node_in_the_world();
        let here = node.ns.ns();
        let (pod, chain) = (node.pod(), chain(&node, &["10.9.0.0/24", "fd00:9::/64"], backend));
        let ports = published(8080, 80, "tcp");
        let made = chain.add("c1", &pod, &ports).success();
        let from = |from, to: &str| seen(&pod, 80, from, to);
        assert_eq!(from(&world, "192.0.2.1:8080").as_deref(), Some("192.0.2.2"), "{backend}");
        assert_eq!(from(&world, "[fd00:2::1]:8080").as_deref(), Some("fd00:2::2"), "{backend}");
        assert_eq!(from(here, "127.0.0.1:8080").as_deref(), Some("10.9.0.1"), "{backend}");
        assert_eq!(from(here, "192.0.2.1:8080").as_deref(), Some("192.0.2.1"), "{backend}");
        assert_eq!(
            from(&pod, "10.9.0.1:8080").as_deref(),
            Some("10.9.0.1"),
            "{backend}: the container itself"
        );
        assert_eq!(
            from(&pod, "[fd00:9::1]:8080").as_deref(),
            Some("fd00:9::1"),
            "{backend}: the container itself"
        );
        assert!(blocked(&pod, 80, &world, "192.0.2.1:80"), "{backend}: not published");
        chain.check("c1", &pod, &ports, &made).success();
        chain.del("c1", &pod, &ports, &made);
        chain.del("c1", &pod, &ports, &made);
        let left = saved(here) + &listed(here);
        assert!(!left.contains("8080") && !left.contains("CNI-DN"), "{left}");
    }
}

#[test]
fn a_port_of_one_address_is_published_there_only() {
    for backend in ["iptables", "nftables"] {
        let (node, world) = node_in_the_world();
        let (pod, chain) = (node.pod(), chain(&node, &["10.9.0.0/24"], backend));
        let ports = json!({"portMappings": [
            {"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "192.0.2.1"},
            {"hostPort": 8081, "containerPort": 80, "protocol": "tcp", "hostIP": "fd00:2::1"},
            {"hostPort": 8082, "containerPort": 80, "protocol": "tcp", "hostIP": "0.0.0.0"},
        ]});
        chain.add("c1", &pod, &ports).success();
        let from = |from, to: &str| seen(&pod, 80, from, to).is_some();
        assert!(from(&world, "192.0.2.1:8080") && from(&world, "192.0.2.1:8082"), "{backend}");
        assert!(blocked(&pod, 80, node.ns.ns(), "10.9.0.1:8080"), "{backend}: another address");
        assert!(from(node.ns.ns(), "10.9.0.1:8082"), "{backend}");
        assert!(blocked(&pod, 80, &world, "192.0.2.1:8081"), "{backend}: another family");
    }
}

#[test]
fn a_peer_that_was_sending_before_reaches_the_container_after() {
    for backend in ["iptables", "nftables"] {
        let (node, world) = node_in_the_world();
        let (pod, chain) = (node.pod(), chain(&node, &["10.9.0.0/24"], backend));
        // Connections are tracked where a rule asks for them.
        sh(
            node.ns.ns(),
            "nft 'table ip t { chain c { type filter hook prerouting priority 0; ct state new accept; }; }'",
        );
        let client = world.run(|| UdpSocket::bind("192.0.2.2:0").unwrap()).unwrap();
        client.send_to(b"before", "192.0.2.1:5353").unwrap();
        let made = chain.add("c1", &pod, &published(5353, 53, "udp")).success();
        let server = pod.run(|| UdpSocket::bind("0.0.0.0:53").unwrap()).unwrap();
        server.set_read_timeout(Some(SOON)).unwrap();
        client.send_to(b"after", "192.0.2.1:5353").unwrap();
        let mut buffer = [0; 16];
        let (length, _) = server.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"after");
        chain.del("c1", &pod, &published(5353, 53, "udp"), &made);
        let other = node.pod();
        chain.add("c2", &other, &published(5353, 53, "udp")).success();
        let server = other.run(|| UdpSocket::bind("0.0.0.0:53").unwrap()).unwrap();
        server.set_read_timeout(Some(SOON)).unwrap();
        client.send_to(b"again", "192.0.2.1:5353").unwrap();
        let (length, _) = server.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"again");
    }
}

#[test]
fn f18_a_port_that_another_container_has_is_refused_and_its_owner_named() {
    for backend in ["iptables", "nftables"] {
        let (node, world) = node_in_the_world();
        let chain = chain(&node, &["10.9.0.0/24"], backend);
        let (first, second) = (node.pod(), node.pod());
        chain.add("first", &first, &published(8080, 80, "tcp")).success();
        let before = saved(node.ns.ns()) + &listed(node.ns.ns());
        let bridge = Chain::of([chain.plugins[0].clone()]);
        let made = bridge.add("second", &second, &json!({})).success();
        let add =
            |ports: &Value| chain.call("ADD", "second", Some(&second), &chain.plugins[1], ports, Some(&made));
        let refused = add(&published(8080, 81, "tcp"));
        assert!(refused.code() == 7 && refused.message().contains("8080/tcp"), "{}", refused.json);
        assert!(refused.message().contains("first"), "{}", refused.json);
        let plain =
            |text: String| text.lines().filter(|line| !line.starts_with(':')).collect::<Vec<_>>().join("\n");
        assert_eq!(plain(saved(node.ns.ns()) + &listed(node.ns.ns())), plain(before));
        add(&published(8080, 81, "udp")).success();
        add(&published(8081, 81, "tcp")).success();
        assert_eq!(seen(&second, 81, &world, "192.0.2.1:8081").as_deref(), Some("192.0.2.2"));
    }
}

#[test]
fn a_del_finds_the_rules_by_the_container_alone_and_gc_by_the_network() {
    for backend in ["iptables", "nftables"] {
        let node = Node::new();
        let chain = chain(&node, &["10.9.0.0/24", "fd00:9::/64"], backend);
        let pods = [node.pod(), node.pod(), node.pod()];
        for (n, pod) in pods.iter().enumerate() {
            chain.add(&format!("c{n}"), pod, &published(8080 + n as u16, 80, "tcp")).success();
        }
        let has = |port: u16| (saved(node.ns.ns()) + &listed(node.ns.ns())).contains(&port.to_string());
        let mut portmap = chain.plugins[1].clone();
        portmap["markMasqBit"] = json!("rubbish");
        chain.call("DEL", "c0", None, &portmap, &Value::Null, Some(&json!("rubbish"))).success();
        assert!(!has(8080) && has(8081) && has(8082), "{backend}");
        let mut config = chain.plugins[1].clone();
        config["cniVersion"] = json!("1.1.0");
        config["name"] = json!("net");
        let gc = |config: &Value| Call::new("GC", "", None, config).run();
        assert_eq!(gc(&config).code(), 7);
        config["cni.dev/valid-attachments"] = json!([{"containerID": "c1", "ifname": "eth0"}]);
        gc(&config).success();
        // Rules of nftables name no network, so they stay.
        assert!(has(8081) && has(8082) == (backend == "nftables"), "{backend}");
        Call::new("STATUS", "", None, &config).run().success();
    }
}

#[test]
fn check_sees_a_rule_that_is_gone() {
    for (backend, break_it) in [
        ("iptables", "iptables -t nat -D CNI-HOSTPORT-DNAT 1"),
        ("iptables", "iptables -t nat -F $(iptables -t nat -S | grep -o 'CNI-DN-[0-9a-f]*' | head -1)"),
        ("nftables", "nft flush chain ip cni_hostport hostports"),
        ("nftables", "nft flush chain ip cni_hostport masquerading"),
    ] {
        let node = Node::new();
        let (pod, chain) = (node.pod(), chain(&node, &["10.9.0.0/24"], backend));
        let ports = published(8080, 80, "tcp");
        let made = chain.add("c1", &pod, &ports).success();
        chain.check("c1", &pod, &ports, &made).success();
        sh(node.ns.ns(), break_it);
        assert_eq!(chain.check("c1", &pod, &ports, &made).code(), 100, "{break_it}");
    }
}

#[test]
fn bad_input_53_and_keys_that_exclude_each_other_are_refused_before_anything_is_made() {
    let node = Node::new();
    let (pod, chain) = (node.pod(), chain(&node, &["10.9.0.0/24"], "iptables"));
    let made = Chain::of([chain.plugins[0].clone()]).add("c1", &pod, &json!({})).success();
    let before = node.settled();
    let mut cases: Vec<(Value, Value, u64, &str)> = vec![
        (json!({}), published(0, 80, "tcp"), 7, "hostPort"),
        (json!({}), published(8080, 0, "tcp"), 7, "containerPort"),
        (json!({}), published(8080, 80, "foo"), 7, "protocol"),
        (json!({"backend": "ebpf"}), published(8080, 80, "tcp"), 2, "backend"),
        (json!({"markMasqBit": 32}), published(8080, 80, "tcp"), 7, "markMasqBit"),
        (
            json!({"markMasqBit": 1, "externalSetMarkChain": "X"}),
            published(8080, 80, "tcp"),
            7,
            "markMasqBit",
        ),
        (json!({"externalSetMarkChain": "a b"}), published(8080, 80, "tcp"), 7, "externalSetMarkChain"),
        (
            json!({"conditionsV4": ["ip", "saddr", "10.0.0.0/8"]}),
            published(8080, 80, "tcp"),
            7,
            "conditionsV4",
        ),
        (
            json!({"backend": "nftables", "conditionsV4": ["-s", "10.0.0.0/8"]}),
            published(8080, 80, "tcp"),
            7,
            "conditionsV4",
        ),
        (
            json!({"backend": "nftables", "conditionsV4": ["meta", "skuid", "0"]}),
            published(8080, 80, "tcp"),
            2,
            "conditionsV4",
        ),
    ];
    cases.push((json!({"snat": "yes"}), published(8080, 80, "tcp"), 6, "snat"));
    let text = r#"[{"hostPort": 70000, "containerPort": 80, "protocol": "tcp"}]"#;
    let large: Value = serde_json::from_str(text).unwrap();
    cases.push((json!({}), json!({ "portMappings": large }), 7, "hostPort"));
    let mut twice = published(8080, 80, "tcp");
    let again = published(8080, 81, "tcp")["portMappings"][0].take();
    twice["portMappings"].as_array_mut().unwrap().push(again);
    cases.push((json!({}), twice, 7, "portMappings[1].hostPort"));
    for (keys, ports, code, named) in cases {
        let mut config = chain.plugins[1].clone();
        keys.as_object().unwrap().iter().for_each(|(key, value)| config[key] = value.clone());
        let answer = chain.call("ADD", "c1", Some(&pod), &config, &ports, Some(&made));
        let names = answer.message().contains(named) || code == 6;
        assert!(answer.code() == code && names, "{keys} {ports}: {}", answer.json);
    }
    let alone = chain.call("ADD", "c1", Some(&pod), &chain.plugins[1], &published(1, 1, "tcp"), None);
    assert_eq!(alone.code(), 7, "{}", alone.json);
    before.assert_unchanged();
}

#[test]
fn both_programs_make_the_same_rules_and_each_deletes_the_others() {
    let reference = reference();
    let newest = reference != std::path::Path::new(common::REFERENCE);
    let many: Vec<Value> = (0..17)
        .map(|n| json!({"hostPort": 9000 + n, "containerPort": 80 + n, "protocol": "tcp"}))
        .chain([json!({"hostPort": 53, "containerPort": 53, "protocol": "udp", "hostIP": "192.0.2.1"})])
        .chain([json!({"hostPort": 54, "containerPort": 53, "protocol": "sctp"})])
        .collect();
    let runtime = json!({ "portMappings": many });
    let variants = [
        json!({}),
        json!({"snat": false}),
        json!({"masqAll": true}),
        json!({"markMasqBit": 5}),
        json!({"conditionsV4": ["!", "-s", "192.0.2.0/24"], "conditionsV6": ["-i", "eth+"]}),
        json!({"conditionsV4": ["-m", "limit", "--limit", "5/sec"]}),
        json!({"backend": "nftables"}),
        json!({"backend": "nftables", "snat": false, "conditionsV4": ["ip", "saddr", "!=", "192.0.2.0/24"]}),
    ];
    for variant in variants.iter().filter(|variant| newest || variant.get("backend").is_none()) {
        let made: Vec<String> = [None, Some(reference.as_path())]
            .into_iter()
            .map(|by| {
                let node = Node::new();
                let (pod, mut chain) =
                    (node.pod(), chain(&node, &["10.9.0.0/24", "fd00:9::/64"], "iptables"));
                variant
                    .as_object()
                    .unwrap()
                    .iter()
                    .for_each(|(key, value)| chain.plugins[1][key] = value.clone());
                let chain = chain.by(by);
                let result = chain.add("c1", &pod, &runtime).success();
                let there = saved(node.ns.ns()) + &tables(&listed(node.ns.ns()));
                let other = chain.by(if by.is_none() { Some(&reference) } else { None });
                let checked = other.plugins[1].clone();
                other.call("CHECK", "c1", Some(&pod), &checked, &runtime, Some(&result)).success();
                other.call("DEL", "c1", Some(&pod), &checked, &runtime, Some(&result)).success();
                let left = saved(node.ns.ns()) + &listed(node.ns.ns());
                assert!(!left.contains("900") && !left.contains("CNI-DN"), "{variant}: {left}");
                there
            })
            .collect();
        assert_eq!(made[0], made[1], "{variant}: ours and the reference's");
    }
}

/// The tables that are nobody's but the plugin's.
fn tables(listed: &str) -> String {
    listed.split('\n').skip_while(|line| !line.contains("cni_hostport")).collect::<Vec<_>>().join("\n")
}

#[test]
fn many_at_once_all_get_their_ports_and_share_one_entry() {
    for backend in ["iptables", "nftables"] {
        let node = Node::new();
        let pod = node.pod();
        let start = |n: u16| {
            let config = json!({
                "cniVersion": "1.0.0", "name": "net", "type": "portmap", "backend": backend,
                "runtimeConfig": published(9000 + n, 80, "tcp"),
                "prevResult": {"cniVersion": "1.0.0", "ips": [{"address": format!("10.9.0.{}/24", n + 2)}]},
            });
            Call::new("ADD", &format!("c{n}"), Some(&common::path(&pod)), &config).start()
        };
        let running: Vec<_> = (0..32).map(start).collect();
        for child in running {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        }
        let there = if backend == "iptables" { saved(node.ns.ns()) } else { listed(node.ns.ns()) };
        let count = |text: &str| there.lines().filter(|line| line.contains(text)).count();
        assert_eq!(count("dnat to 10.9") + count("--to-destination 10.9"), 32, "{there}");
        let entries = ["-A PREROUTING", "-A OUTPUT", "-A POSTROUTING"].map(count);
        assert_eq!(entries, if backend == "iptables" { [1; 3] } else { [0; 3] }, "{there}");
        assert_eq!(count("jump hostports_all"), if backend == "iptables" { 0 } else { 2 }, "{there}");
    }
}
