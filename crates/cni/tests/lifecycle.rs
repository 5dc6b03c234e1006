//! Pods come and go, in real namespaces, by the executable itself; faults by their numbers.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use common::{Call, Node, allocations, path};
use serde_json::json;
use weft_kernel::testing::{SmallDisk, eventually};
use weft_kernel::{Netlink, Netns, sysctl};
use weft_model::mark;

const SOON: Duration = Duration::from_secs(10);

#[test]
fn an_add_makes_what_it_answers_and_a_del_removes_it() {
    let node = Node::new();
    let mut config = node.config(&["10.9.0.0/24", "fd00:9::/64"]);
    config["cniVersion"] = json!("1.1.0");
    config["mtu"] = json!(1400);
    let pod = node.pod();
    let made = node.add("c1", &pod, &config).success();
    let sandbox = path(&pod).display().to_string();
    let host_link = mark::host_link_name("c1", "eth0");
    assert_eq!(
        made,
        json!({
            "cniVersion": "1.1.0",
            "interfaces": [
                {"name": "br0", "mac": "0a:58:0a:09:00:01", "mtu": 1400},
                {"name": host_link, "mac": made["interfaces"][1]["mac"], "mtu": 1400},
                {"name": "eth0", "mac": "0a:58:0a:09:00:02", "mtu": 1400, "sandbox": sandbox},
            ],
            "ips": [
                {"address": "10.9.0.2/24", "gateway": "10.9.0.1", "interface": 2},
                {"address": "fd00:9::2/64", "gateway": "fd00:9::1", "interface": 2},
            ],
            "routes": [{"dst": "0.0.0.0/0", "gw": "10.9.0.1"}, {"dst": "::/0", "gw": "fd00:9::1"}],
        })
    );
    let mut netlink = Netlink::open().unwrap();
    let host = netlink.link(&host_link).unwrap().unwrap();
    assert_eq!(host.alias.as_deref(), Some("weft:shop/web-0"));
    assert_eq!(host.master, netlink.link("br0").unwrap().map(|bridge| bridge.index));
    assert_eq!((host.hairpin, host.mtu, host.running), (Some(true), 1400, true));
    assert_eq!(made["interfaces"][1]["mac"], host.mac.unwrap().to_string());
    let eth0 = Netlink::open_in(&pod).unwrap().link("eth0").unwrap().unwrap();
    assert_eq!((eth0.up, eth0.mtu, host.peer), (true, 1400, Some(eth0.index)));
    assert_eq!(sysctl::get("net.ipv4.ip_forward").unwrap(), "1");
    config["prevResult"] = made;
    Call::new("CHECK", "c1", Some(&path(&pod)), &config).run().success();
    node.del("c1", Some(&pod), &config).success();
    assert!(node.pod_links().is_empty() && node.allocations().is_empty());
    assert!(Netlink::open_in(&pod).unwrap().link("eth0").unwrap().is_none());
    let check = Call::new("CHECK", "c1", Some(&path(&pod)), &config).run();
    assert_eq!(check.code(), 100, "{}", check.json);
}

#[test]
fn check_sees_each_difference() {
    let node = Node::new();
    let mut config = node.config(&["10.9.0.0/24"]);
    let pod = node.pod();
    config["prevResult"] = node.add("c1", &pod, &config).success();
    let check = || Call::new("CHECK", "c1", Some(&path(&pod)), &config).run();
    check().success();
    let run = |command: &str| {
        let script = command.to_owned();
        pod.run(move || std::process::Command::new("sh").args(["-c", &script]).status().unwrap()).unwrap()
    };
    for (break_it, mend_it, said) in [
        ("ip route del default", "ip route add default via 10.9.0.1", "no route to 0.0.0.0/0"),
        (
            "ip addr del 10.9.0.2/24 dev eth0",
            "ip addr add 10.9.0.2/24 dev eth0; ip route add default via 10.9.0.1",
            "does not have 10.9.0.2/24",
        ),
        ("ip link set eth0 address 02:00:00:00:00:01", "ip link set eth0 address 0a:58:0a:09:00:02", "MAC"),
    ] {
        assert!(run(break_it).success());
        let answer = check();
        assert!(answer.code() == 100 && answer.message().contains(said), "{}", answer.json);
        assert!(run(mend_it).success());
        check().success();
    }
}

#[test]
fn loopback_is_set_up_and_answered() {
    let node = Node::new();
    let pod = node.pod();
    let config = json!({"cniVersion": "1.0.0", "name": "lo", "type": "loopback"});
    let call = |command| Call::new(command, "c1", Some(&path(&pod)), &config).env("CNI_IFNAME", Some("lo"));
    let made = call("ADD").run().success();
    assert_eq!(made["ips"][0]["address"], "127.0.0.1/8");
    assert_eq!(made["interfaces"][0]["name"], "lo");
    call("DEL").run().success();
    assert!(!Netlink::open_in(&pod).unwrap().link("lo").unwrap().unwrap().up);
}

#[test]
fn f4_a_second_add_of_one_container_is_refused_and_changes_nothing() {
    let node = Node::new();
    let config = node.config(&["10.9.0.0/24"]);
    let pod = node.pod();
    node.add("c1", &pod, &config).success();
    let before = (node.allocations(), node.settled());
    let again = node.add("c1", &pod, &config);
    assert_eq!(again.code(), 4, "{}", again.json);
    let elsewhere = node.add("c1", &node.pod(), &config);
    assert!(elsewhere.message().contains("has 10.9.0.2 already"), "{}", elsewhere.json);
    assert_eq!(node.allocations(), before.0);
    before.1.assert_unchanged();
    let next = node.pod();
    assert_eq!(node.add("c2", &next, &config).success()["ips"][0]["address"], "10.9.0.3/24");
}

#[test]
fn f4_two_adds_of_one_container_at_once_give_one_network() {
    let node = Node::new();
    let config = node.config(&["10.9.0.0/24"]);
    for round in 0..10 {
        let pod = node.pod();
        let call = Call::new("ADD", &format!("c{round}"), Some(&path(&pod)), &config);
        let both = [call.start(), call.start()].map(|child| child.wait_with_output().unwrap());
        let won = both.iter().filter(|output| output.status.success()).count();
        assert_eq!(won, 1, "{both:?}");
        assert_eq!((node.allocations().len(), node.pod_links().len()), (1, 1));
        node.del(&format!("c{round}"), Some(&pod), &config).success();
        assert_eq!((node.allocations().len(), node.pod_links().len()), (0, 0));
    }
}

#[test]
fn f5_a_del_succeeds_whatever_is_missing() {
    let node = Node::new();
    let mut config = node.config(&["10.9.0.0/24"]);
    let pod = node.pod();
    node.del("never", Some(&pod), &config).success();
    node.add("c1", &pod, &config).success();
    config["prevResult"] = json!({"cniVersion": "9.9", "ips": "rubbish"});
    let bad = Call::new("DEL", "c1", None, &config).env("CNI_NETNS", Some("/does/not/exist"));
    bad.run().success();
    bad.run().success();
    assert!(node.allocations().is_empty() && node.pod_links().is_empty());
    let gone = node.pod();
    config["prevResult"] = json!(null);
    node.add("c3", &gone, &config).success();
    drop(gone);
    node.del("c3", None, &config).success();
    assert!(node.allocations().is_empty());
    Call::new("DEL", "c3", Some("/dev/null".as_ref()), &config).run().success();
}

#[test]
fn f6_a_stale_del_leaves_the_new_sandbox_alone() {
    let node = Node::new();
    let config = node.config(&["10.9.0.0/24"]);
    let (old, new) = (node.pod(), node.pod());
    node.add("old", &old, &config).success();
    node.add("new", &new, &config).success();
    node.del("old", Some(&old), &config).success();
    node.del("old", None, &config).success();
    assert_eq!(node.allocations(), [("10.9.0.3".to_owned(), "new\r\neth0".to_owned())]);
    assert_eq!(node.pod_links().len(), 1);
}

#[test]
fn f1_f2_an_add_killed_anywhere_is_undone_by_its_del() {
    let node = Node::new();
    let config = node.config(&["10.9.0.0/24", "fd00:9::/64"]);
    let (neighbour, pod) = (node.pod(), node.pod());
    node.add("neighbour", &neighbour, &config).success();
    let before = (node.allocations(), node.settled());
    for (round, at) in kills(&node, &config, 300).enumerate() {
        let id = format!("c{round}");
        kill_after(&Call::new("ADD", &id, Some(&path(&pod)), &config), at);
        node.del(&id, Some(&pod), &config).success();
        assert_eq!(node.allocations(), before.0, "killed after {at:?}");
        assert_eq!(node.pod_links().len(), 1, "killed after {at:?}");
        assert!(Netlink::open_in(&pod).unwrap().link("eth0").unwrap().is_none());
    }
    before.1.assert_unchanged();
    for (folder, records) in [("id", 1), ("intent", 0)] {
        assert_eq!(fs::read_dir(node.network().join(".weft").join(folder)).unwrap().count(), records);
    }
    assert!(!node.network().join(".weft/new").exists());
}

#[test]
fn f3_an_add_killed_anywhere_is_reclaimed_when_its_sandbox_is_gone() {
    let node = Node::new();
    let config = node.config(&["10.9.0.0/24"]);
    let pod = node.pod();
    node.add("first", &pod, &config).success();
    let mut finished = 1;
    for (round, at) in kills(&node, &config, 150).enumerate() {
        let id = format!("c{round}");
        let sandbox = node.pod();
        kill_after(&Call::new("ADD", &id, Some(&path(&sandbox)), &config), at);
        // An ADD that had ended before the kill is one that only a DEL frees.
        let record = node.network().join(".weft/id").join(mark::host_link_name(&id, "eth0"));
        finished += usize::from(record.exists());
    }
    // The kernel removes the links of the sandboxes that are gone a little later.
    eventually(SOON, "unfinished ADDs are reclaimed", || {
        let probe = node.pod();
        node.add("probe", &probe, &config).success();
        node.del("probe", Some(&probe), &config).success();
        node.allocations().len() == finished
    });
    node.del("first", Some(&pod), &config).success();
}

/// Moments from the start to the end of an ADD, drawn by a fixed sequence.
fn kills(node: &Node, config: &serde_json::Value, count: u64) -> impl Iterator<Item = Duration> + use<> {
    let pod = node.pod();
    let start = Instant::now();
    node.add("timed", &pod, config).success();
    let whole = start.elapsed().as_micros() as u64;
    node.del("timed", Some(&pod), config).success();
    (0..count).map(move |n| Duration::from_micros(n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % (whole * 5 / 4)))
}

fn kill_after(call: &Call, at: Duration) {
    let start = Instant::now();
    let mut child = call.start();
    while start.elapsed() < at {
        std::hint::spin_loop();
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn f10_on_a_full_disk_add_fails_whole_and_del_succeeds() {
    let node = Node::new();
    let disk = SmallDisk::new(256 * 1024);
    let config = common::config(disk.path(), &["10.9.0.0/24"]);
    let (pod, other) = (node.pod(), node.pod());
    node.add("c1", &pod, &config).success();
    let network = disk.path().join("net");
    let before = (allocations(&network), node.settled());
    let filler = disk.fill();
    let full = node.add("c2", &other, &config);
    assert_eq!(full.code(), 5, "{}", full.json);
    assert_eq!(allocations(&network), before.0);
    before.1.assert_unchanged();
    assert_eq!(fs::read_dir(network.join(".weft/intent")).unwrap().count(), 0);
    node.del("c1", Some(&pod), &config).success();
    assert!(allocations(&network).is_empty());
    fs::remove_file(filler).unwrap();
    node.add("c2", &other, &config).success();
}

#[test]
fn f13_after_a_reboot_the_old_reservations_are_void() {
    let node = Node::new();
    let config = node.config(&["10.9.0.0/29"]);
    let pods: Vec<Netns> = (0..5).map(|_| node.pod()).collect();
    for (n, pod) in pods.iter().enumerate() {
        node.add(&format!("c{n}"), pod, &config).success();
    }
    let full = node.add("more", &node.pod(), &config);
    assert!(full.code() == 11 && full.message().contains("5 of 5"), "{}", full.json);
    drop(pods);
    eventually(SOON, "the sandboxes are gone", || node.pod_links().is_empty());
    let record = node.network().join(".weft/boot");
    fs::remove_file(&record).unwrap();
    symlink("11111111-2222-3333-4444-555555555555", &record).unwrap();
    let pod = node.pod();
    node.add("after", &pod, &config).success();
    assert_eq!(node.allocations().len(), 1);
}

#[test]
fn f15_f14_status_and_gc_say_and_do_what_the_specification_wants() {
    let node = Node::new();
    let mut config = node.config(&["10.9.0.0/30"]);
    config["cniVersion"] = json!("1.1.0");
    let pod = node.pod();
    let status = |config: &serde_json::Value| Call::new("STATUS", "", None, config).run();
    status(&config).success();
    node.add("c1", &pod, &config).success();
    assert_eq!(status(&config).code(), 50);
    let gc = |config: &serde_json::Value| Call::new("GC", "", None, config).run();
    assert_eq!(gc(&config).code(), 7);
    assert_eq!(node.allocations().len(), 1);
    config["cni.dev/valid-attachments"] = json!([{"containerID": "c1", "ifname": "eth0"}]);
    gc(&config).success();
    assert_eq!((node.allocations().len(), node.pod_links().len()), (1, 1));
    config["cni.dev/valid-attachments"] = json!([]);
    gc(&config).success();
    assert_eq!((node.allocations().len(), node.pod_links().len()), (0, 0));
}

#[test]
fn f19_a_namespace_that_is_none_is_refused_before_any_change() {
    let node = Node::new();
    let config = node.config(&["10.9.0.0/24"]);
    let file = node.data.path().join("file");
    fs::write(&file, "x").unwrap();
    let fifo = node.data.path().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let socket = node.data.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let own = path(node.ns.ns());
    let before = node.settled();
    for (netns, code) in [
        (file.as_path(), 8),
        (&fifo, 8),
        (&socket, 8),
        (node.data.path(), 8),
        ("/proc/self/ns/uts".as_ref(), 8),
        ("/dev/zero".as_ref(), 8),
        (&own, 8),
        ("/no/such/file".as_ref(), 3),
    ] {
        let answer = Call::new("ADD", "c1", Some(netns), &config).run();
        assert_eq!(answer.code(), code, "{}: {}", netns.display(), answer.json);
        Call::new("DEL", "c1", Some(netns), &config).run().success();
    }
    assert!(!node.network().exists());
    before.assert_unchanged();
}

#[test]
fn a_failed_add_leaves_no_link_and_no_reservation() {
    let node = Node::new();
    let mut config = node.config(&["10.9.0.0/24"]);
    let (pod, first) = (node.pod(), node.pod());
    node.add("c1", &first, &config).success();
    let before = (node.allocations(), node.settled());
    config["ipam"]["routes"] = json!([{"dst": "192.0.2.0/24", "gw": "203.0.113.1"}]);
    let unreachable = node.add("c2", &pod, &config);
    assert_eq!(unreachable.code(), 5, "{}", unreachable.json);
    config["ipam"]["routes"] = json!([]);
    config["ipam"]["ranges"] = json!([[{"subnet": "10.8.0.0/24"}]]);
    let conflict = node.add("c2", &pod, &config);
    assert!(conflict.code() == 7 && conflict.message().contains("10.9.0.1/24"), "{}", conflict.json);
    assert_eq!(node.allocations(), before.0);
    before.1.assert_unchanged();
    config["forceAddress"] = json!(true);
    node.add("c2", &pod, &config).success();
}

#[test]
fn f7_a_hundred_and_ten_adds_at_once_all_succeed_with_distinct_addresses() {
    let node = Node::new();
    let config = node.config(&["10.9.0.0/24"]);
    let pods: Vec<Netns> = (0..110).map(|_| node.pod()).collect();
    let start =
        |(n, pod): (usize, &Netns)| Call::new("ADD", &format!("c{n}"), Some(&path(pod)), &config).start();
    let running: Vec<_> = pods.iter().enumerate().map(start).collect();
    for child in running {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    assert_eq!((node.allocations().len(), node.pod_links().len()), (110, 110));
    // They go while others come.
    let more: Vec<Netns> = (0..40).map(|_| node.pod()).collect();
    let del =
        |(n, pod): (usize, &Netns)| Call::new("DEL", &format!("c{n}"), Some(&path(pod)), &config).start();
    let add =
        |(n, pod): (usize, &Netns)| Call::new("ADD", &format!("d{n}"), Some(&path(pod)), &config).start();
    let running: Vec<_> = more.iter().enumerate().map(add).chain(pods.iter().enumerate().map(del)).collect();
    for child in running {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    assert_eq!((node.allocations().len(), node.pod_links().len()), (40, 40));
}
