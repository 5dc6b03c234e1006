//! Interface plugins that get their addresses by DHCP.

use std::net::IpAddr;
use std::process::Command;

use serde_json::json;
use weft_kernel::testing::eventually;
use weft_kernel::{Netlink, Netns};

use crate::common::{Call, path};
use crate::harness::{Lan, PATIENCE, address_of, addresses};

fn reaches(pod: &Netns, target: IpAddr) -> bool {
    let ping = || Command::new("ping").args(["-c1", "-W5", &target.to_string()]).output().unwrap();
    pod.run(|| ping().status.success()).unwrap()
}

#[test]
fn a_bridge_without_a_gateway_and_a_server_on_it() {
    let mut lan = Lan::new();
    let server = lan.server(&["10.1.0.1/24"]);
    let options = ["--dhcp-range=10.1.0.50,10.1.0.60,255.255.255.0,120", "--dhcp-option=3,10.1.0.1"];
    let _dnsmasq = lan.dnsmasq(&server, "one", &options);
    let _daemon = lan.daemon(&[]);
    let pod = Netns::create_unpinned().unwrap();
    let mut config = lan.config(json!({}));
    (config["type"], config["bridge"]) = ("bridge".into(), "lan".into());
    let result = lan.add("web", &pod, &config).success();
    let address = address_of(&result);
    assert_eq!(addresses(&pod, "eth0"), [format!("{address}/24")]);
    assert!(reaches(&pod, "10.1.0.1".parse().unwrap()));
    lan.del("web", &pod, &config).success();
    eventually(PATIENCE, "it is given back", || lan.read("one.leases").is_empty());
    assert_eq!(lan.saved(), 0);
}

#[test]
fn a_bridge_with_both_families_is_as_it_was_made() {
    let mut lan = Lan::new();
    let server = lan.server(&["10.1.0.1/24", "fd00::1/64"]);
    let options =
        ["--dhcp-range=10.1.0.50,10.1.0.60,255.255.255.0,120", "--dhcp-range=fd00::50,fd00::60,64,120"];
    let _dnsmasq = lan.dnsmasq(&server, "one", &options);
    let _daemon = lan.daemon(&[]);
    let pod = Netns::create_unpinned().unwrap();
    let mut config = lan.config(json!({"dhcpv6": "stateful"}));
    (config["type"], config["bridge"]) = ("bridge".into(), "lan".into());
    let result = lan.add("web", &pod, &config).success();
    let v6 = result["ips"][1]["address"].as_str().unwrap().to_owned();
    let all = Netlink::open_in(&pod).unwrap().addresses().unwrap();
    assert!(all.iter().any(|address| address.net.to_string() == v6), "{v6}: {all:?}");
    config["prevResult"] = result;
    Call::new("CHECK", "web", Some(&path(&pod)), &config).run().success();
    lan.del("web", &pod, &config).success();
    let held = |lan: &Lan| lan.read("one.leases").lines().filter(|line| !line.starts_with("duid")).count();
    eventually(PATIENCE, "both are given back", || held(&lan) == 0);
}

#[test]
fn a_macvlan_interface_on_the_segment() {
    let mut lan = Lan::new();
    let server = lan.server(&["10.1.0.1/24"]);
    let options = ["--dhcp-range=10.1.0.50,10.1.0.60,255.255.255.0,120", "--dhcp-option=3,10.1.0.1"];
    let _dnsmasq = lan.dnsmasq(&server, "one", &options);
    let _daemon = lan.daemon(&[]);
    let here = lan.node.ns.ns().clone();
    lan.join(&here, "uplink");
    let pod = Netns::create_unpinned().unwrap();
    let mut config = lan.config(json!({}));
    (config["type"], config["master"]) = ("macvlan".into(), "uplink".into());
    let result = lan.add("web", &pod, &config).success();
    assert_eq!(addresses(&pod, "eth0"), [format!("{}/24", address_of(&result))]);
    assert!(reaches(&pod, "10.1.0.1".parse().unwrap()));
    lan.del("web", &pod, &config).success();
    eventually(PATIENCE, "it is given back", || lan.read("one.leases").is_empty());
}

#[test]
fn a_bridge_whose_server_does_not_answer_has_nothing_left() {
    let lan = Lan::new();
    let _daemon = lan.daemon(&["-resendtimeout", "1s"]);
    let pod = Netns::create_unpinned().unwrap();
    let mut config = lan.config(json!({}));
    (config["type"], config["bridge"]) = ("bridge".into(), "lan".into());
    assert_eq!(lan.add("web", &pod, &config).code(), 11);
    assert!(lan.node.pod_links().is_empty() && lan.saved() == 0);
}
