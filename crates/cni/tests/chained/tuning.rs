//! `tuning`: an interface and its parameters changed, and put back by either side.

use serde_json::{Value, json};
use weft_kernel::{LinkSet, Netlink, Op, sysctl};

use crate::Pod;
use crate::common::{Call, Node, path};

fn tuned(data: &Node) -> Value {
    json!({"type": "tuning", "dataDir": data.data.path().join("tuning"), "mac": "0a:11:22:33:44:55",
           "mtu": 1400, "promisc": true, "allmulti": true,
           "sysctl": {"net.ipv4.conf.eth0.log_martians": "1", "net/ipv4/ip_forward": "1"}})
}

#[test]
fn an_interface_is_tuned_and_put_back_by_either_side() {
    for (adds, deletes) in [(true, true), (true, false), (false, true)] {
        let node = Node::new();
        let mut pod = Pod::new(&node, "c1", &["10.9.0.0/24"]);
        let before = pod.link("eth0");
        pod.add(&tuned(&node), adds);
        assert_eq!(pod.result["interfaces"][2]["mac"], "0a:11:22:33:44:55");
        let link = pod.link("eth0");
        assert_eq!(link.mac.unwrap().to_string(), "0a:11:22:33:44:55");
        assert_eq!((link.mtu, link.promiscuous, link.allmulti), (1400, true, true));
        let values = pod.netns.run(|| {
            ["net.ipv4.conf.eth0.log_martians", "net.ipv4.ip_forward"].map(|name| sysctl::get(name).unwrap())
        });
        assert_eq!(values.unwrap(), ["1", "1"]);
        assert!(node.data.path().join("tuning/c1_eth0.json").exists());
        pod.call("CHECK", &tuned(&node), deletes).success();
        let mut other = tuned(&node);
        other["mtu"] = json!(1300);
        assert!(!pod.call("CHECK", &other, deletes).ok);
        pod.call("DEL", &tuned(&node), deletes).success();
        assert_eq!(pod.link("eth0"), before);
        assert!(!node.data.path().join("tuning/c1_eth0.json").exists());
        pod.call("DEL", &tuned(&node), deletes).success();
    }
}

#[test]
fn the_interfaces_own_parameters_and_its_queue_are_set() {
    let node = Node::new();
    let mut pod = Pod::new(&node, "c1", &["10.9.0.0/24"]);
    let before = pod.link("eth0").tx_queue_len;
    let keys = json!({"type": "tuning", "dataDir": node.data.path(), "txQLen": 77, "mac": "0A:00:00:00:00:01",
                      "sysctl": {"net.ipv4.conf.IFNAME.log_martians": "0"},
                      "args": {"cni": {"sysctl": {"net.ipv4.conf.IFNAME.log_martians": "1"}}}});
    pod.add(&keys, true);
    let martians = || pod.netns.run(|| sysctl::get("net.ipv4.conf.eth0.log_martians").unwrap()).unwrap();
    assert_eq!((pod.link("eth0").tx_queue_len, martians()), (77, "1".into()));
    assert_eq!(pod.result["interfaces"][2]["mac"], "0A:00:00:00:00:01", "as it was written");
    pod.call("CHECK", &keys, true).success();
    pod.call("DEL", &keys, true).success();
    assert_eq!(pod.link("eth0").tx_queue_len, before);
}

#[test]
fn both_write_the_same_backup() {
    let files = [true, false].map(|ours| {
        let node = Node::new();
        let mut pod = Pod::new(&node, "c1", &["10.9.0.0/24"]);
        let set = LinkSet {
            index: pod.link("eth0").index,
            mac: "0a:00:00:00:00:07".parse().ok(),
            ..LinkSet::default()
        };
        Netlink::open_in(&pod.netns).unwrap().apply(&Op::LinkSet(set)).unwrap();
        pod.add(&tuned(&node), ours);
        std::fs::read_to_string(node.data.path().join("tuning/c1_eth0.json")).unwrap()
    });
    assert_eq!(files[0], files[1]);
}

#[test]
fn what_cannot_be_tuned_changes_nothing() {
    let node = Node::new();
    let pod = Pod::new(&node, "c1", &["10.9.0.0/24"]);
    let before = pod.link("eth0");
    let martians = || pod.netns.run(|| sysctl::get("net.ipv4.conf.eth0.log_martians").unwrap()).unwrap();
    let cases = [
        (json!({"sysctl": {"net.ipv4.conf.IFNAME.log_martians": "1", "net.ipv4.no_such": "1"}}), 5),
        (json!({"sysctl": {"net.ipv4.conf.IFNAME.log_martians": "1"}, "mtu": 65000, "txQLen": -1}), 7),
        (json!({"sysctl": {"net.ipv4.conf.IFNAME.log_martians": "1", "net.ipv4.ip_default_ttl": "999"}}), 5),
        (json!({"sysctl": {"kernel.domainname": "x"}}), 7),
        (json!({"sysctl": {"net.../../kernel.domainname": "x"}}), 7),
        (json!({"mac": "01:00:00:00:00:01"}), 7),
        (json!({"mtu": 60}), 7),
        (json!({"promisc": "yes"}), 6),
    ];
    for (mut keys, code) in cases {
        keys["type"] = json!("tuning");
        keys["dataDir"] = json!(node.data.path().join("tuning"));
        let answer = pod.call("ADD", &keys, true);
        assert_eq!(answer.code(), code, "{keys}: {}", answer.json);
        assert_eq!((pod.link("eth0"), martians()), (before.clone(), "0".to_owned()), "{keys}");
    }
    assert!(!node.data.path().join("tuning/c1_eth0.json").exists());
}

#[test]
fn only_what_the_allow_list_names_can_be_set() {
    let node = Node::new();
    let pod = Pod::new(&node, "c1", &["10.9.0.0/24"]);
    let list = node.data.path().join("allowlist.conf");
    std::fs::write(&list, "^net\\.ipv4\\.conf\\.IFNAME\\.[a-z_]+$\n").unwrap();
    // A file system of the plugin's own over /etc, so that the machine's is not touched.
    let script =
        "mount -t tmpfs none /etc && mkdir -p /etc/cni/tuning && cp \"$1\" /etc/cni/tuning/ && exec \"$2\"";
    let call = |key: &str| {
        let config = json!({"cniVersion": "1.0.0", "name": "net", "type": "tuning", "prevResult": pod.result,
                            "sysctl": {key: "1"}});
        let mut call = Call::new("ADD", "c1", Some(&path(&pod.netns)), &config);
        call = call.env("PATH", Some("/usr/sbin:/usr/bin:/sbin:/bin"));
        let program = std::mem::replace(&mut call.program, "unshare".into());
        let words = ["--mount", "sh", "-c", script, "sh", list.to_str().unwrap(), program.to_str().unwrap()];
        call.arguments = words.map(str::to_owned).to_vec();
        call.run()
    };
    call("net.ipv4.conf.IFNAME.log_martians").success();
    let refused = call("net.ipv4.ip_forward");
    assert!(refused.code() == 7 && refused.message().contains("net.ipv4.ip_forward"), "{}", refused.json);
}
