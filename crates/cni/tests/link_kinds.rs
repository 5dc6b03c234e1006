//! Plugins whose link kinds not every kernel has, with packets: ipvlan, vlan, dummy, and sriov with
//! the virtual functions of a card. The virtual machine lane runs them (scripts/vm).
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

mod common;

use std::fs;
use std::path::Path;
use std::time::Duration;

use common::{Answer, Call, Node, node_with_uplink, path, reaches, sh};
use serde_json::{Value, json};
use weft_kernel::testing::eventually;
use weft_kernel::{Details, IpvlanMode, Link, Netlink, Netns, Vf};

const SOON: Duration = Duration::from_secs(20);

fn config(node: &Node, kind: &str, keys: &Value) -> Value {
    let mut config = node.config(&["10.9.0.0/24"]);
    config["type"] = json!(kind);
    config["master"] = json!("uplink0");
    config.as_object_mut().unwrap().remove("bridge");
    config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    config
}

fn eth0(pod: &Netns) -> Link {
    Netlink::open_in(pod).unwrap().link("eth0").unwrap().unwrap()
}

fn is_empty(pod: &Netns) -> bool {
    Netlink::open_in(pod).unwrap().links().unwrap().len() == 1
}

/// CHECK succeeds, and DEL leaves nothing of the attachment.
fn check_and_delete(node: &Node, config: &Value, id: &str, pod: &Netns, made: &Value) {
    let mut with_result = config.clone();
    with_result["prevResult"] = made.clone();
    Call::new("CHECK", id, Some(&path(pod)), &with_result).run().success();
    node.del(id, Some(pod), config).success();
    assert!(is_empty(pod));
}

#[test]
#[ignore = "not every kernel has ipvlan: scripts/vm-test.sh runs it"]
fn ipvlan_pods_of_each_mode_reach_each_other() {
    for (mode, kernel) in [("l2", IpvlanMode::L2), ("l3", IpvlanMode::L3), ("l3s", IpvlanMode::L3s)] {
        let (node, _outside) = node_with_uplink();
        sh(node.ns.ns(), "ip link add eth0 type veth peer name eth1");
        let config = config(&node, "ipvlan", &json!({"mode": mode, "mtu": 1400}));
        let pods = ["c1", "c2"].map(|id| {
            let pod = node.pod();
            let made = node.add(id, &pod, &config).success();
            (id, pod, made)
        });
        let link = eth0(&pods[0].1);
        let uplink = Netlink::open().unwrap().link("uplink0").unwrap().unwrap();
        assert!(matches!(link.details, Details::Ipvlan(Some(now), _) if now == kernel), "{mode}: {link:?}");
        assert_eq!((link.mac, link.mtu, link.peer), (uplink.mac, 1400, Some(uplink.index)), "{mode}");
        assert_eq!(pods[0].2["interfaces"][0]["mac"], uplink.mac.unwrap().to_string());
        assert!(reaches(&pods[0].1, "10.9.0.3") && reaches(&pods[1].1, "10.9.0.2"), "{mode}");
        if mode == "l2" {
            assert!(reaches(&pods[0].1, "10.9.0.251"), "outside");
        }
        for (id, pod, made) in &pods {
            check_and_delete(&node, &config, id, pod, made);
        }
        assert!(node.allocations().is_empty());
    }
}

#[test]
#[ignore = "not every kernel has ipvlan: scripts/vm-test.sh runs it"]
fn ipvlan_takes_master_and_addresses_of_the_plugin_before() {
    let (node, _outside) = node_with_uplink();
    let mut config = config(&node, "ipvlan", &json!({}));
    for key in ["master", "ipam"] {
        config.as_object_mut().unwrap().remove(key);
    }
    let pod = node.pod();
    assert_eq!(node.add("c1", &pod, &config).code(), 7, "nothing says where and what");
    config["prevResult"] = json!({
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "uplink0"}],
        "ips": [{"address": "10.9.0.77/24", "gateway": "10.9.0.251", "interface": 0}],
        "routes": [{"dst": "0.0.0.0/0"}],
    });
    let made = node.add("c1", &pod, &config).success();
    assert_eq!(made["interfaces"].as_array().unwrap().len(), 1);
    assert_eq!((&made["interfaces"][0]["name"], &made["ips"][0]["interface"]), (&json!("eth0"), &json!(0)));
    assert!(reaches(&pod, "10.9.0.251"));
    assert!(sh(&pod, "ip route").contains("default via 10.9.0.251"));
    check_and_delete(&node, &config, "c1", &pod, &made);
}

#[test]
#[ignore = "not every kernel has vlan: scripts/vm-test.sh runs it"]
fn packets_of_a_vlan_pod_have_its_tag_outside() {
    let (node, outside) = node_with_uplink();
    let config = config(&node, "vlan", &json!({"vlanId": 5, "mtu": 1400}));
    let pod = node.pod();
    let made = node.add("c1", &pod, &config).success();
    let link = eth0(&pod);
    assert_eq!((&link.details, link.mtu), (&Details::Vlan(5), 1400));
    assert!(!reaches(&pod, "10.9.0.251"), "untagged it is not");
    sh(
        &outside,
        "ip link add link out0 name out0.5 type vlan id 5 && ip link set out0.5 up \
         && ip addr add 10.9.0.252/24 dev out0.5 && ip addr del 10.9.0.251/24 dev out0",
    );
    assert!(reaches(&pod, "10.9.0.252") && reaches(&outside, "10.9.0.2"));
    let mut other = config.clone();
    (other["vlanId"], other["prevResult"]) = (json!(6), made.clone());
    assert_eq!(Call::new("CHECK", "c1", Some(&path(&pod)), &other).run().code(), 100);
    check_and_delete(&node, &config, "c1", &pod, &made);
    for (key, value) in
        [("vlanId", json!(4095)), ("master", json!("")), ("mtu", json!(1501)), ("ipam", json!({}))]
    {
        let mut wrong = config.clone();
        wrong[key] = value;
        assert_eq!(node.add("c1", &pod, &wrong).code(), 7, "{key}");
        assert!(is_empty(&pod) && node.allocations().is_empty());
    }
    // With the interface below in the container.
    let inside = node.pod();
    sh(&inside, "ip link add uplink0 type veth peer name x && ip link set uplink0 up && ip link set x up");
    let mut config = config.clone();
    config["linkInContainer"] = json!(true);
    node.add("c2", &inside, &config).success();
    assert_eq!((eth0(&inside).details, eth0(&inside).peer_netnsid), (Details::Vlan(5), None));
    node.del("c2", Some(&inside), &config).success();
    assert!(Netlink::open_in(&inside).unwrap().link("uplink0").unwrap().is_some());
}

#[test]
#[ignore = "not every kernel has dummy: scripts/vm-test.sh runs it"]
fn a_dummy_interface_has_its_address_and_keeps_the_dns_of_ipam() {
    let node = Node::new();
    let resolv = node.data.path().join("resolv.conf");
    fs::write(&resolv, "nameserver 10.96.0.10\n").unwrap();
    let mut config = config(&node, "dummy", &json!({}));
    config["ipam"]["resolvConf"] = json!(resolv);
    let pod = node.pod();
    let made = node.add("c1", &pod, &config).success();
    assert_eq!(made["dns"], json!({"nameservers": ["10.96.0.10"]}));
    assert_eq!((eth0(&pod).kind.as_deref(), eth0(&pod).up), (Some("dummy"), true));
    assert!(reaches(&pod, "10.9.0.2"));
    check_and_delete(&node, &config, "c1", &pod, &made);
    config["ipam"] = json!({});
    assert_eq!(node.add("c1", &pod, &config).code(), 7);
    assert!(is_empty(&pod) && node.allocations().is_empty());
}

type Named = (String, Option<weft_model::Mac>, u32);

/// The card of the machine: the interface of its physical function, and its virtual ones'
/// addresses in order.
struct Card {
    master: String,
    functions: Vec<String>,
}

impl Card {
    fn find() -> Card {
        let entries = fs::read_dir("/sys/class/net").unwrap().flatten();
        let master = entries.map(|entry| entry.file_name().into_string().unwrap());
        let device = |name: &str| Path::new("/sys/class/net").join(name).join("device");
        let master = master.filter(|name| device(name).join("virtfn0").exists()).min().unwrap();
        let address = |n: u32| fs::read_link(device(&master).join(format!("virtfn{n}"))).ok();
        let name = |path: std::path::PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        let functions = (0..).map_while(address).map(name).collect();
        Card { master, functions }
    }

    fn vfs(&self) -> Vec<Vf> {
        let mut netlink = Netlink::open().unwrap();
        let master = netlink.link(&self.master).unwrap().unwrap().index;
        netlink.vfs(master).unwrap()
    }

    /// The function's interface on the node.
    fn link(&self, function: usize) -> Option<Link> {
        let links = Netlink::open().unwrap().links().unwrap();
        links.into_iter().find(|link| link.device.as_ref() == Some(&self.functions[function]))
    }

    /// What there is to come back: the functions, and name, address and MTU of their interfaces.
    fn state(&self) -> (Vec<Vf>, Vec<Named>) {
        let links = (0..self.functions.len()).filter_map(|n| self.link(n));
        (self.vfs(), links.map(|link| (link.name, link.mac, link.mtu)).collect())
    }
}

struct Sriov {
    card: Card,
    data: tempfile::TempDir,
}

impl Sriov {
    fn new() -> Sriov {
        Sriov { card: Card::find(), data: tempfile::tempdir().unwrap() }
    }

    fn config(&self, function: usize, keys: &Value) -> Value {
        let mut config = common::config(self.data.path(), &["10.9.0.0/24"]);
        config["type"] = json!("sriov");
        config["cniVersion"] = json!("1.1.0");
        config["deviceID"] = json!(self.card.functions[function]);
        config["cniDir"] = json!(self.data.path().join("sriov"));
        config.as_object_mut().unwrap().remove("bridge");
        config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        config
    }

    fn call(&self, command: &str, id: &str, pod: Option<&Netns>, config: &Value) -> Answer {
        Call::new(command, id, pod.map(path).as_deref(), config).run()
    }

    fn left(&self) -> Vec<String> {
        let files = sh(
            &Netns::current().unwrap(),
            &format!("cd {} && find sriov -type f", self.data.path().display()),
        );
        files
            .lines()
            .map(str::to_owned)
            .chain(common::allocations(&self.data.path().join("net")).into_iter().map(|(a, _)| a))
            .collect()
    }
}

#[test]
#[ignore = "needs a card with virtual functions: scripts/vm-test.sh runs it"]
fn sriov_pods_have_their_functions_and_give_them_back_as_they_were() {
    let test = Sriov::new();
    let before = test.card.state();
    let keys = json!({
        "vlan": 7, "vlanQoS": 3, "spoofchk": "off", "trust": "on", "max_tx_rate": 100,
        "mac": "02:00:00:00:00:07",
    });
    let first = test.config(0, &keys);
    let second = test.config(1, &json!({"vlan": 7, "vlanProto": "802.1Q", "logLevel": "debug"}));
    let (one, two) = (Netns::create_unpinned().unwrap(), Netns::create_unpinned().unwrap());
    let made = test.call("ADD", "c1", Some(&one), &first).success();
    let mtu = before.1[0].2;
    assert_eq!(
        made["interfaces"],
        json!([{
            "name": "eth0", "mac": "02:00:00:00:00:07", "mtu": mtu, "pciID": test.card.functions[0],
            "sandbox": path(&one).display().to_string(),
        }])
    );
    let vf = test.card.vfs()[0];
    assert_eq!((vf.vlan.id, vf.vlan.qos, vf.mac.to_string().as_str()), (7, 3, "02:00:00:00:00:07"));
    assert_eq!((vf.spoof_check, vf.trust, vf.max_tx_rate), (Some(false), Some(true), 100));
    assert!(test.card.link(0).is_none());
    let taken = test.call("ADD", "c9", Some(&two), &first);
    assert!(taken.code() == 11 && taken.message().contains(&test.card.functions[0]), "{}", taken.json);
    test.call("ADD", "c2", Some(&two), &second).success();
    eventually(SOON, "the pods reach each other through the card", || reaches(&one, "10.9.0.3"));
    let mut checked = first.clone();
    checked["prevResult"] = made;
    test.call("CHECK", "c1", Some(&one), &checked).success();
    // The runtime does not remember more than the names.
    let bare = json!({"cniVersion": "1.1.0", "name": "net", "type": "sriov", "cniDir": first["cniDir"], "ipam": first["ipam"]});
    test.call("DEL", "c1", Some(&one), &bare).success();
    test.call("DEL", "c2", Some(&two), &second).success();
    test.call("DEL", "c2", Some(&two), &second).success();
    assert_eq!(test.card.state(), before);
    assert!(is_empty(&one) && is_empty(&two));
    assert_eq!(test.left(), Vec::<String>::new());
}

#[test]
#[ignore = "needs a card with virtual functions: scripts/vm-test.sh runs it"]
fn sriov_gives_a_function_back_whose_namespace_is_gone() {
    let test = Sriov::new();
    let before = test.card.state();
    for by_gc in [false, true] {
        let config = test.config(0, &json!({"vlan": 9, "mac": "02:00:00:00:00:09"}));
        let pod = Netns::create_unpinned().unwrap();
        test.call("ADD", "c1", Some(&pod), &config).success();
        assert_ne!(test.card.state().0, before.0);
        drop(pod);
        eventually(SOON, "the kernel puts the function back", || test.card.link(0).is_some());
        if by_gc {
            let mut gc = config.clone();
            gc["cni.dev/valid-attachments"] = json!([]);
            test.call("GC", "", None, &gc).success();
        } else {
            test.call("DEL", "c1", None, &config).success();
        }
        assert_eq!(test.card.state(), before, "by GC: {by_gc}");
        assert_eq!(test.left(), Vec::<String>::new());
    }
}

#[test]
#[ignore = "needs a card with virtual functions: scripts/vm-test.sh runs it"]
fn sriov_undoes_an_add_that_fails_and_refuses_what_cannot_be() {
    let test = Sriov::new();
    let before = test.card.state();
    let pod = Netns::create_unpinned().unwrap();
    let unreachable = json!({"vlan": 4, "ipam": {"type": "host-local", "dataDir": test.data.path(), "subnet": "10.9.0.0/24", "routes": [{"dst": "192.0.2.0/24", "gw": "198.51.100.1"}]}});
    // The driver of this card does not know outer tags.
    for keys in [unreachable, json!({"vlan": 4, "vlanProto": "802.1ad"})] {
        let refused = test.call("ADD", "c1", Some(&pod), &test.config(0, &keys));
        assert!(!refused.ok, "{keys}");
        assert_eq!(test.card.state(), before, "{keys}: {}", refused.json);
        assert!(is_empty(&pod) && test.left().is_empty(), "{keys}: {:?}", test.left());
    }
    let cases = [
        ("vlan", json!(4095)),
        ("vlanQoS", json!(1)),
        ("vlanProto", json!("802.1x")),
        ("spoofchk", json!("maybe")),
        ("trust", json!(" on")),
        ("link_state", json!("down")),
        ("mac", json!("rubbish")),
        ("deviceID", json!("")),
        ("deviceID", json!("../0000")),
        ("deviceID", json!("0000:00:00.0")),
        ("cniDir", json!("relative")),
    ];
    for (key, value) in cases {
        let refused = test.call("ADD", "c1", Some(&pod), &test.config(0, &json!({key: value})));
        assert_eq!(refused.code(), 7, "{key} {value}: {}", refused.json);
        assert!(is_empty(&pod) && test.left().is_empty());
    }
    assert_eq!(test.card.state(), before);
}

#[test]
#[ignore = "needs a card with virtual functions: scripts/vm-test.sh runs it"]
fn sriov_functions_are_host_devices_by_their_address_too() {
    let test = Sriov::new();
    let before = test.card.state();
    let mut config = test.config(0, &json!({"type": "host-device"}));
    config["pciBusID"] = config["deviceID"].clone();
    let kernel_path =
        fs::canonicalize(Path::new("/sys/bus/pci/devices").join(&test.card.functions[0])).unwrap();
    for keys in [
        json!({"pciBusID": test.card.functions[0]}),
        json!({"runtimeConfig": {"deviceID": test.card.functions[0]}}),
        json!({"kernelpath": kernel_path}),
    ] {
        let mut config = config.clone();
        config.as_object_mut().unwrap().remove("pciBusID");
        config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        let pod = Netns::create_unpinned().unwrap();
        let made = test.call("ADD", "c1", Some(&pod), &config).success();
        assert_eq!(eth0(&pod).device.as_ref(), Some(&test.card.functions[0]), "{keys}");
        assert_eq!(made["ips"][0]["address"].as_str().map(|ip| ip.ends_with("/24")), Some(true));
        test.call("DEL", "c1", Some(&pod), &config).success();
        assert_eq!(test.card.state(), before, "{keys}");
    }
}
