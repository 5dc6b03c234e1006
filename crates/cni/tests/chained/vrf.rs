//! `vrf`, where the kernel has VRFs: `cargo test -p weft-cni --test chained -- --ignored vrf`.

use std::process::Command;

use serde_json::{Value, json};
use weft_kernel::{Details, Netlink, Netns};

use crate::Pod;
use crate::common::{Call, Node, path, sh};

fn keys() -> Value {
    json!({"type": "vrf", "vrfname": "blue"})
}

/// The routes of a table, without those of link-local addresses.
fn routes(pod: &Netns, table: u32) -> Vec<String> {
    let routes = Netlink::open_in(pod).unwrap().routes().unwrap().into_iter();
    let mut routes: Vec<String> = routes
        .filter(|r| r.table == table && !r.dst.to_string().starts_with("f"))
        .map(|r| format!("{} via {:?} kind {} scope {} metric {}", r.dst, r.via, r.kind, r.scope, r.metric))
        .collect();
    routes.sort();
    routes
}

#[test]
#[ignore = "needs VRFs in the kernel: the virtual machine lane runs it"]
fn an_interface_moves_with_its_addresses_and_routes_and_either_side_undoes_it() {
    for ours in [true, false] {
        let node = Node::new();
        let mut pod = Pod::new(&node, "c1", &["10.9.0.0/24", "fd00:9::/64"]);
        let addresses = |pod: &Pod| {
            let index = pod.link("eth0").index;
            let mut found = Netlink::open_in(&pod.netns).unwrap().addresses().unwrap();
            found.retain(|address| address.ifindex == index && address.scope == 0);
            found.into_iter().map(|address| address.net.to_string()).collect::<Vec<_>>()
        };
        let before = addresses(&pod);
        let result = pod.result.clone();
        pod.add(&keys(), ours);
        // Debian's release says that there are no DNS settings, ours says nothing then.
        let mut passed = pod.result.clone();
        passed.as_object_mut().unwrap().retain(|key, value| key != "dns" || *value != json!({}));
        assert_eq!(passed, result, "the result passes through");
        assert_eq!(pod.link("blue").details, Details::Vrf(1));
        assert_eq!((pod.link("eth0").master, addresses(&pod)), (Some(pod.link("blue").index), before));
        if ours {
            let moved = routes(&pod.netns, 1);
            for beginning in
                ["0.0.0.0/0 via Some(10.9.0.1)", "::/0 via Some(fd00:9::1)", "10.9.0.0/24 via None"]
            {
                assert!(moved.iter().any(|route| route.starts_with(beginning)), "{beginning}: {moved:?}");
            }
            assert_eq!(routes(&pod.netns, 254), Vec::<String>::new());
        }
        pod.call("CHECK", &keys(), !ours).success();
        assert!(!pod.call("ADD", &keys(), ours).ok, "it has a master");
        let mut other = keys();
        other["table"] = json!(9);
        assert!(!pod.call("ADD", &other, ours).ok);
        pod.call("DEL", &keys(), !ours).success();
        assert!(Netlink::open_in(&pod.netns).unwrap().link("blue").unwrap().is_none());
        assert_eq!(pod.link("eth0").master, None);
        pod.call("DEL", &keys(), ours).success();
    }
}

#[test]
#[ignore = "needs VRFs in the kernel: the virtual machine lane runs it"]
fn packets_go_by_the_table_of_the_vrf_which_goes_with_its_last_interface() {
    let node = Node::new();
    let mut pod = Pod::new(&node, "c1", &["10.9.0.0/24"]);
    pod.add(&keys(), true);
    let ping = || Command::new("ping").args(["-c1", "-W5", "-I", "blue", "10.9.0.1"]).output().unwrap();
    let output = pod.netns.run(ping).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let mut second = node.config(&["10.8.0.0/24"]);
    (second["name"], second["bridge"]) = (json!("two"), json!("br1"));
    let call = |command: &str, config: &Value| {
        let call = Call::new(command, "c1", Some(&path(&pod.netns)), config);
        call.env("CNI_IFNAME", Some("net1")).run().success()
    };
    let mut chained = json!({"cniVersion": "1.0.0", "name": "two", "type": "vrf", "vrfname": "blue"});
    chained["prevResult"] = call("ADD", &second);
    call("ADD", &chained);
    assert_eq!(pod.link("net1").master, pod.link("eth0").master);
    pod.call("DEL", &keys(), true).success();
    call("CHECK", &chained);
    call("DEL", &chained);
    assert!(Netlink::open_in(&pod.netns).unwrap().link("blue").unwrap().is_none());
}

#[test]
#[ignore = "needs VRFs in the kernel: the virtual machine lane runs it"]
fn a_failed_add_leaves_the_interface_as_it_was() {
    let node = Node::new();
    let pod = Pod::new(&node, "c1", &["10.9.0.0/24", "fd00:9::/64"]);
    let before = (pod.link("eth0"), routes(&pod.netns, 254));
    let mut taken = keys();
    taken["vrfname"] = json!("lo");
    assert_eq!(pod.call("ADD", &taken, true).code(), 7);
    // Nobody reads the answer, so nobody knows of the ADD.
    let config = json!({"cniVersion": "1.0.0", "name": "net", "type": "vrf", "vrfname": "blue",
                        "prevResult": pod.result});
    let mut child = Call::new("ADD", "c1", Some(&path(&pod.netns)), &config);
    let program = std::mem::replace(&mut child.program, "sh".into());
    child.arguments =
        ["-c", "exec \"$1\" >/dev/full", "sh", program.to_str().unwrap()].map(str::to_owned).to_vec();
    assert!(!child.run().ok);
    assert_eq!((pod.link("eth0"), routes(&pod.netns, 254)), before);
    assert!(Netlink::open_in(&pod.netns).unwrap().link("blue").unwrap().is_none());
}

#[test]
#[ignore = "needs VRFs in the kernel: the virtual machine lane runs it"]
fn routes_move_with_the_route_to_their_gateway() {
    let node = Node::new();
    let mut pod = Pod::new(&node, "c1", &["10.9.0.0/24"]);
    // As behind ptp.
    sh(
        &pod.netns,
        "ip route add 198.51.100.1 dev eth0; ip route add 203.0.113.0/24 via 198.51.100.1 dev eth0",
    );
    pod.add(&keys(), true);
    let moved = routes(&pod.netns, 1);
    for beginning in ["198.51.100.1/32 via None", "203.0.113.0/24 via Some(198.51.100.1)"] {
        assert!(moved.iter().any(|route| route.starts_with(beginning)), "{beginning}: {moved:?}");
    }
    assert_eq!(routes(&pod.netns, 254), Vec::<String>::new());
}
