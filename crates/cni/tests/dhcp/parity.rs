//! The reference plugin and daemon, and ours in the place of either.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use weft_kernel::testing::eventually;

use crate::common::REFERENCE;
use crate::harness::{Lan, PATIENCE, call_of};

/// Debian's, and another one where the environment names a folder of them.
fn references() -> Vec<PathBuf> {
    let newer = std::env::var("WEFT_REFERENCE").ok().map(PathBuf::from);
    let all = [Some(PathBuf::from(REFERENCE)), newer].into_iter().flatten().map(|folder| folder.join("dhcp"));
    let there: Vec<PathBuf> = all.filter(|path| path.exists()).collect();
    assert!(!there.is_empty(), "the reference plugins are not installed");
    there
}

/// The newest version of the specification that it has.
fn version(reference: &Path) -> &'static str {
    if reference.starts_with(REFERENCE) { "1.0.0" } else { "1.1.0" }
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
        for (daemon, own) in [(ours, &["-datadir", "DATA"][..]), (&reference, &[])] {
            let daemon = lan.daemon_of(daemon, own, &[]);
            for plugin in [ours, &reference] {
                let mut all = Vec::new();
                for network in &networks {
                    let mut config = lan.config(network.clone());
                    config["cniVersion"] = version(&reference).into();
                    let result = call_of(plugin, "ADD", "web", &pod, &config).success();
                    assert!(!lan.read("one.leases").is_empty());
                    let again = call_of(plugin, "ADD", "web", &pod, &config).success();
                    assert_eq!(result, again, "a second ADD");
                    call_of(plugin, "DEL", "web", &pod, &config).success();
                    // The newer reference gives back from 0.0.0.0, which a Linux server does not take.
                    if !own.is_empty() {
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
