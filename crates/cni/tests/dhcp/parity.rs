//! The reference plugin and daemon, and ours in the place of either.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use weft_kernel::Netns;
use weft_kernel::testing::eventually;

use crate::common::{Call, REFERENCE, chain, path, sh};
use crate::harness::{Lan, PATIENCE, call_of};

/// The folders of Debian's release, and of the newest one where it is built.
fn references() -> Vec<PathBuf> {
    let mut all = vec![PathBuf::from(REFERENCE), chain::reference()];
    all.dedup();
    all.retain(|folder| folder.join("dhcp").exists());
    assert!(!all.is_empty(), "the reference plugins are not installed");
    all
}

/// The newest version of the specification that it has.
fn version(reference: &Path) -> &'static str {
    if reference == Path::new(REFERENCE) { "1.0.0" } else { "1.1.0" }
}

/// Without DNS settings where there are none: releases differ in saying so.
fn normal(mut result: Value) -> Value {
    if let Some(all) = result.as_object_mut().filter(|all| all.get("dns") == Some(&json!({}))) {
        all.remove("dns");
    }
    result
}

#[test]
fn either_plugin_gets_the_same_from_either_daemon() {
    let ours = Path::new(env!("CARGO_BIN_EXE_weft-cni"));
    let options = [
        "--dhcp-range=10.1.0.50,10.1.0.60,255.255.255.0,120",
        "--dhcp-option=3,10.1.0.1",
        "--dhcp-option=6,10.1.0.3",
        "--dhcp-option=33,172.16.0.0,10.1.0.9",
        "--dhcp-option=121,192.0.2.0/25,10.1.0.9,198.51.100.0/24,0.0.0.0",
    ];
    let networks = [
        json!({}),
        json!({"request": [{"option": "33"}]}),
        json!({"request": [{"option": "121"}], "priority": 50}),
        json!({"provide": [{"option": "host-name", "fromArg": "K8S_POD_NAME"}]}),
    ];
    let mut lan = Lan::new();
    let server = lan.server(&["10.1.0.1/24"]);
    let _dnsmasq = lan.dnsmasq(&server, "one", &options);
    let pod = lan.pod();
    for reference in references() {
        let mut answers: Vec<Vec<Value>> = Vec::new();
        let theirs = reference.join("dhcp");
        for (daemon, own) in [(ours, &["-datadir", "DATA"][..]), (&theirs, &[])] {
            // The newest daemon sends it from 0.0.0.0, which does not reach dnsmasq's socket.
            let gives_back = daemon == ours || reference == Path::new(REFERENCE);
            let daemon = lan.daemon_of(daemon, own, &[]);
            for plugin in [ours, &theirs] {
                let mut all = Vec::new();
                for network in &networks {
                    let mut config = lan.config(network.clone());
                    config["cniVersion"] = version(&reference).into();
                    let result = call_of(plugin, "ADD", "web", &pod, &config).success();
                    assert!(!lan.read("one.leases").is_empty());
                    let again = call_of(plugin, "ADD", "web", &pod, &config).success();
                    assert_eq!(result, again, "a second ADD");
                    call_of(plugin, "DEL", "web", &pod, &config).success();
                    if gives_back {
                        eventually(PATIENCE, "it is given back", || lan.read("one.leases").is_empty());
                    }
                    all.push(normal(result));
                }
                answers.push(all);
            }
            daemon.kill();
            std::fs::remove_file(lan.file("sock")).ok();
        }
        for other in &answers[1..] {
            assert_eq!(&answers[0], other, "{}", reference.display());
        }
    }
}

#[test]
fn a_bridge_has_the_same_from_either_plugin_and_either_daemon() {
    let ours = Path::new(env!("CARGO_BIN_EXE_weft-cni"));
    let options = [
        "--dhcp-range=10.1.0.50,10.1.0.50,255.255.255.0,120",
        "--dhcp-option=3,10.1.0.1",
        "--dhcp-option=6,10.1.0.3",
        "--dhcp-option=15,shop.example",
        "--dhcp-option=121,192.0.2.0/25,10.1.0.9,0.0.0.0/0,10.1.0.1",
    ];
    let mut lan = Lan::new();
    let server = lan.server(&["10.1.0.1/24"]);
    let _dnsmasq = lan.dnsmasq(&server, "one", &options);
    for reference in references() {
        let mut seen = Vec::new();
        for (daemon, own) in [(ours, &["-datadir", "DATA"][..]), (&reference.join("dhcp"), &[])] {
            let gives_back = daemon == ours || reference == Path::new(REFERENCE);
            let daemon = lan.daemon_of(daemon, own, &[]);
            let socket = lan.file("sock").metadata().unwrap();
            let socket = (socket.file_type().is_socket(), socket.permissions().mode() & 0o777);
            for plugin in [ours, &reference.join("bridge")] {
                let pod = Netns::create_unpinned().unwrap();
                let mut config = lan.config(json!({"request": [{"option": "121"}]}));
                (config["type"], config["bridge"]) = ("bridge".into(), "lan".into());
                config["cniVersion"] = version(&reference).into();
                let call = |command, config: &Value| {
                    let mut call = Call::new(command, "web", Some(&path(&pod)), config);
                    call.program = plugin.to_owned();
                    call.env("CNI_PATH", reference.to_str()).run().success()
                };
                let mut result = call("ADD", &config);
                config["prevResult"] = result.clone();
                call("CHECK", &config);
                let state =
                    sh(&pod, "ip -4 -o addr show dev eth0 | sed 's/^[0-9]*://'; ip -4 route show table all");
                call("DEL", &config);
                assert_eq!(sh(&pod, "ip -br link"), sh(&pod, "ip -br link show dev lo"));
                // The reference's bridge asks for it when the interface is gone, so nothing is sent.
                if plugin == ours && gives_back {
                    eventually(PATIENCE, "it is given back", || lan.read("one.leases").is_empty());
                }
                // Names and hardware addresses are random.
                result.as_object_mut().unwrap().remove("interfaces");
                seen.push((normal(result), state, socket));
            }
            daemon.kill();
            std::fs::remove_file(lan.file("sock")).ok();
        }
        assert!(seen[0].1.contains("192.0.2.0/25 via 10.1.0.9"), "{}", seen[0].1);
        for other in &seen[1..] {
            assert_eq!(&seen[0], other, "{}", reference.display());
        }
    }
}
