//! What a container may be reached by: forwarding on a node that drops, isolation, firewalld.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::chain::{Chain, blocked, listed, node_in_the_world, reference, saved, seen};
use common::{Node, sh};
use serde_json::{Value, json};
use weft_kernel::testing::eventually;

fn chain(node: &Node, bridge: &str, subnets: &[&str], firewall: Value) -> Chain {
    let mut of_bridge = node.config(subnets);
    of_bridge["bridge"] = json!(bridge);
    let mut config = json!({"type": "firewall", "backend": "iptables"});
    firewall.as_object().unwrap().iter().for_each(|(key, value)| config[key] = value.clone());
    Chain::of([of_bridge, config])
}

fn none() -> Value {
    json!({})
}

#[test]
fn a_container_gets_through_a_node_that_drops_and_only_answers_get_back() {
    for backend in ["iptables", "nftables"] {
        let (node, world) = node_in_the_world();
        let here = node.ns.ns();
        sh(here, "iptables -P FORWARD DROP; ip6tables -P FORWARD DROP");
        sh(&world, "ip route add 10.9.0.0/24 via 192.0.2.1; ip route add fd00:9::/64 via fd00:2::1");
        let pod = node.pod();
        let chain = chain(&node, "br0", &["10.9.0.0/24", "fd00:9::/64"], json!({"backend": backend}));
        let bridge = Chain::of([chain.plugins[0].clone()]);
        let made = bridge.add("c1", &pod, &none()).success();
        let out = || [seen(&world, 80, &pod, "192.0.2.2:80"), seen(&world, 80, &pod, "[fd00:2::2]:80")];
        for to in ["192.0.2.2:80", "[fd00:2::2]:80"] {
            assert!(blocked(&world, 80, &pod, to), "{backend}: {to}");
        }
        chain.call("ADD", "c1", Some(&pod), &chain.plugins[1], &none(), Some(&made)).success();
        assert_eq!(out(), [Some("10.9.0.2".to_owned()), Some("fd00:9::2".to_owned())], "{backend}");
        assert!(blocked(&pod, 80, &world, "10.9.0.2:80"), "{backend}: nobody asked");
        chain.check("c1", &pod, &none(), &made).success();
        chain.del("c1", &pod, &none(), &made);
        assert!(!saved(here).contains("10.9.0.2") && !saved(here).contains("fd00:9"), "{}", saved(here));
        let again = chain.call("CHECK", "c1", None, &chain.plugins[1], &none(), Some(&made));
        assert!(!again.ok, "CHECK needs a sandbox, and the rules");
    }
}

#[test]
fn containers_of_another_bridge_do_not_get_in() {
    let node = Node::new();
    let policy = json!({"ingressPolicy": "same-bridge"});
    let chains = [
        chain(&node, "br0", &["10.9.0.0/24"], policy.clone()),
        chain(&node, "br1", &["10.8.0.0/24"], policy),
    ];
    let pods = [node.pod(), node.pod(), node.pod()];
    for (n, (pod, of)) in pods.iter().zip([0, 0, 1]).enumerate() {
        let mut chain = chains[of].clone();
        chain.plugins[0]["ipam"]["dataDir"] = json!(node.data.path().join(of.to_string()));
        chain.add(&format!("c{n}"), pod, &none()).success();
    }
    assert_eq!(seen(&pods[0], 80, &pods[1], "10.9.0.2:80").as_deref(), Some("10.9.0.3"));
    assert!(blocked(&pods[0], 80, &pods[2], "10.9.0.2:80"), "another bridge");
    assert!(blocked(&pods[2], 80, &pods[0], "10.8.0.2:80"), "another bridge");
    assert!(seen(&pods[0], 80, node.ns.ns(), "10.9.0.2:80").is_some(), "the node itself");
}

#[test]
fn unknown_policies_and_names_are_refused() {
    let node = Node::new();
    let pod = node.pod();
    let whole = chain(&node, "br0", &["10.9.0.0/24"], json!({}));
    let made = Chain::of([whole.plugins[0].clone()]).add("c1", &pod, &none()).success();
    let before = node.settled();
    let mut without = made.clone();
    without["interfaces"] = json!([]);
    without["ips"][0].as_object_mut().unwrap().remove("interface");
    for (keys, prev, code, named) in [
        (json!({"ingressPolicy": "closed"}), &made, 2, "ingressPolicy"),
        (json!({"ingressPolicy": "isolated"}), &without, 7, "ingressPolicy"),
        (json!({"iptablesAdminChainName": "a b"}), &made, 7, "iptablesAdminChainName"),
        (json!({"iptablesAdminChainName": "x".repeat(29)}), &made, 7, "iptablesAdminChainName"),
    ] {
        let config = &chain(&node, "br0", &[], keys.clone()).plugins[1];
        let answer = whole.call("ADD", "c1", Some(&pod), config, &none(), Some(prev));
        assert!(answer.code() == code && answer.message().contains(named), "{keys}: {}", answer.json);
    }
    before.assert_unchanged();
}

#[test]
fn both_programs_make_the_same_rules_and_each_deletes_the_others() {
    let reference = reference();
    for variant in [
        json!({}),
        json!({"iptablesAdminChainName": "MY-RULES"}),
        json!({"ingressPolicy": "same-bridge"}),
        json!({"ingressPolicy": "isolated"}),
    ] {
        let made: Vec<String> = [None, Some(reference.as_path())]
            .into_iter()
            .map(|by| {
                let node = Node::new();
                let pods = [node.pod(), node.pod()];
                sh(node.ns.ns(), "iptables -A FORWARD -s 192.0.2.0/24 -j DROP");
                let chain = chain(&node, "br0", &["10.9.0.0/24", "fd00:9::/64"], variant.clone()).by(by);
                let results = [("c1", &pods[0]), ("c2", &pods[1])]
                    .map(|(id, pod)| chain.add(id, pod, &none()).success());
                let there = saved(node.ns.ns());
                let other = chain.by(if by.is_none() { Some(&reference) } else { None });
                let config = other.plugins[1].clone();
                other.call("CHECK", "c1", Some(&pods[0]), &config, &none(), Some(&results[0])).success();
                other.call("DEL", "c1", Some(&pods[0]), &config, &none(), Some(&results[0])).success();
                let left = saved(node.ns.ns());
                assert!(!left.contains("10.9.0.2") && left.contains("10.9.0.3"), "{variant}: {left}");
                there
            })
            .collect();
        assert_eq!(made[0], made[1], "{variant}: ours and the reference's");
    }
}

/// A bus and firewalld on it, in the namespace and with files of their own.
struct Daemon {
    children: Vec<Child>,
    folder: tempfile::TempDir,
}

impl Daemon {
    fn start() -> Option<Daemon> {
        let there = |program: &str| Path::new(program).exists();
        if !there("/usr/sbin/firewalld") || !there("/usr/bin/dbus-daemon") {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("bus");
        let config = format!(
            "<busconfig><type>custom</type><listen>unix:path={}</listen><policy context=\"default\">\
             <allow send_destination=\"*\" eavesdrop=\"true\"/><allow eavesdrop=\"true\"/><allow own=\"*\"/>\
             </policy></busconfig>",
            socket.display()
        );
        std::fs::write(folder.path().join("bus.conf"), config).unwrap();
        let mut daemon = Daemon { children: Vec::new(), folder };
        let conf = format!("--config-file={}", daemon.folder.path().join("bus.conf").display());
        daemon.run("dbus-daemon", &["--nofork", &conf]);
        eventually(Duration::from_secs(10), "the bus listens", || socket.exists());
        let configs = daemon.folder.path().join("firewalld");
        std::fs::create_dir(&configs).unwrap();
        let configs = configs.display().to_string();
        daemon.run("/usr/sbin/firewalld", &["--nofork", "--nopid", "--system-config", &configs]);
        Some(daemon)
    }

    fn address(&self) -> String {
        format!("unix:path={}", self.folder.path().join("bus").display())
    }

    fn run(&mut self, program: &str, args: &[&str]) {
        let child = Command::new(program)
            .args(args)
            .env("DBUS_SYSTEM_BUS_ADDRESS", self.address())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.children.push(child.unwrap());
    }

    /// The sources of the zone `trusted`, once firewalld answers.
    fn sources(&self) -> Option<String> {
        let output = Command::new("firewall-cmd")
            .args(["--zone=trusted", "--list-sources"])
            .env("DBUS_SYSTEM_BUS_ADDRESS", self.address())
            .output()
            .unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap().trim().to_owned())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        for child in self.children.iter_mut().rev() {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

#[test]
fn firewalld_gets_the_addresses_as_sources_of_its_zone() {
    let node = Node::new();
    let Some(daemon) = Daemon::start() else {
        eprintln!("not tested: firewalld and dbus-daemon are not installed");
        return;
    };
    eventually(Duration::from_secs(60), "firewalld answers", || daemon.sources().is_some());
    let pod = node.pod();
    // No backend named: firewalld, since it runs.
    for backend in [json!("firewalld"), Value::Null] {
        let chain = chain(&node, "br0", &["10.9.0.0/24", "fd00:9::/64"], json!({"backend": backend}));
        let made = Chain::of([chain.plugins[0].clone()]).add("c1", &pod, &none()).success();
        let mut config = chain.plugins[1].clone();
        config["name"] = json!("net");
        config["cniVersion"] = json!("1.0.0");
        config["prevResult"] = made.clone();
        let call = |command: &str, config: &Value| {
            let call = common::Call::new(command, "c1", Some(&common::path(&pod)), config);
            call.env("DBUS_SYSTEM_BUS_ADDRESS", Some(&daemon.address())).run()
        };
        assert_eq!(call("CHECK", &config).code(), 100);
        call("ADD", &config).success();
        call("ADD", &config).success();
        let host = |at: usize, length: &str| {
            let net = made["ips"][at]["address"].as_str().unwrap();
            format!("{}/{length}", net.split('/').next().unwrap())
        };
        assert_eq!(daemon.sources().unwrap(), format!("{} {}", host(0, "32"), host(1, "128")));
        call("CHECK", &config).success();
        let mut elsewhere = config.clone();
        elsewhere["firewalldZone"] = json!("no-such-zone");
        let refused = call("ADD", &elsewhere);
        assert!(refused.message().contains("no-such-zone"), "{}", refused.json);
        call("DEL", &config).success();
        call("DEL", &config).success();
        assert_eq!(daemon.sources().unwrap(), "");
        assert!(!listed(node.ns.ns()).contains("CNI-FORWARD"));
        Chain::of([chain.plugins[0].clone()]).del("c1", &pod, &none(), &made);
    }
}

#[test]
fn without_firewalld_the_rules_are_iptables() {
    let node = Node::new();
    let (pod, chain) = (node.pod(), chain(&node, "br0", &["10.9.0.0/24"], json!({"backend": null})));
    chain.add("c1", &pod, &none()).success();
    assert!(saved(node.ns.ns()).contains("-A CNI-FORWARD -s 10.9.0.2/32 -j ACCEPT"));
}
