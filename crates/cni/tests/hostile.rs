//! Hostile surroundings: input without end, folders that are not as they should be, and others
//! who change the same things at the same time. An ADD gives a whole network or leaves nothing,
//! and a DEL always succeeds.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{Call, Node, allocations, path};
use serde_json::{Value, json};
use weft_kernel::testing::{SmallDisk, eventually};
use weft_kernel::{Netlink, Op};
use weft_model::mark;

const SOON: Duration = Duration::from_secs(10);

#[test]
fn a_hundred_mebibytes_of_input_are_refused_in_little_memory() {
    let node = Node::new();
    let config = node.config(&["10.9.0.0/24"]);
    let pod = node.pod();
    let add = Call::new("ADD", "c1", Some(&path(&pod)), &config);
    // 64 MiB of addresses, program and all.
    let script = format!("ulimit -v 65536; exec {}", add.program.display());
    let mut child = Command::new("sh")
        .args(["-c", &script])
        .envs(&add.env)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(&add.input).ok();
    let spaces = vec![b' '; 1 << 20];
    // The plugin does not read to the end.
    while (0..100).all(|_| input.write_all(&spaces).is_ok()) {}
    drop(input);
    let output = child.wait_with_output().unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["code"], 7, "{answer}");
    assert!(!node.network().exists() && node.pod_links().is_empty());
}

#[test]
fn standard_input_that_stays_open_and_silent_is_given_up() {
    let node = Node::new();
    let (config, pod) = (node.config(&["10.9.0.0/24"]), node.pod());
    // Nothing at all, and half of a configuration.
    let half = config.to_string().into_bytes();
    let calls = [("ADD", &b""[..]), ("DEL", b""), ("ADD", &half[..half.len() / 2]), ("VERSION", b"")];
    let children = calls.map(|(command, input)| {
        let call = Call::new(command, "c1", Some(&path(&pod)), &config);
        let piped =
            Command::new(&call.program).envs(&call.env).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = piped.unwrap();
        let mut open = child.stdin.take().unwrap();
        open.write_all(input).unwrap();
        (child, open)
    });
    for (child, open) in children {
        let output = child.wait_with_output().unwrap();
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(said["code"], 5, "{said}");
        assert!(said["msg"].as_str().unwrap().contains("standard input"), "{said}");
        drop(open);
    }
    assert!(!node.network().exists() && node.pod_links().is_empty());
}

#[test]
fn the_namespace_of_another_user_can_be_attached() {
    let node = Node::new();
    let config = node.config(&["10.9.0.0/24"]);
    let mut holder = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "unshare", "-Urn", "sleep", "60"])
        .spawn()
        .unwrap();
    let netns = format!("/proc/{}/ns/net", holder.id());
    let own = fs::read_link("/proc/thread-self/ns/net").unwrap();
    eventually(SOON, "the namespace is there", || fs::read_link(&netns).is_ok_and(|link| link != own));
    let call = |command: &str| Call::new(command, "c1", Some(netns.as_ref()), &config);
    call("ADD").run().success();
    assert_eq!((node.allocations().len(), node.pod_links().len()), (1, 1));
    call("DEL").run().success();
    assert_eq!((node.allocations().len(), node.pod_links().len()), (0, 0));
    holder.kill().unwrap();
    holder.wait().unwrap();
}

#[test]
fn a_folder_that_is_a_link_is_the_folder_that_it_names() {
    let node = Node::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let config = node.config(&["10.9.0.0/24"]);
    fs::create_dir(elsewhere.path().join("net")).unwrap();
    symlink(elsewhere.path().join("net"), node.network()).unwrap();
    let pod = node.pod();
    node.add("c1", &pod, &config).success();
    assert_eq!(allocations(&elsewhere.path().join("net")).len(), 1);
    node.del("c1", Some(&pod), &config).success();
    assert!(allocations(&elsewhere.path().join("net")).is_empty());
    // One that leads nowhere stops the ADD and not the DEL.
    fs::remove_file(node.network()).unwrap();
    symlink("/no/such/folder", node.network()).unwrap();
    let before = node.settled();
    let refused = node.add("c2", &pod, &config);
    assert!(refused.code() == 5 && refused.message().contains("net"), "{}", refused.json);
    node.del("c2", Some(&pod), &config).success();
    before.assert_unchanged();
}

#[test]
fn a_read_only_folder_stops_an_add_before_any_change() {
    let node = Node::new();
    let disk = SmallDisk::new(256 * 1024);
    let config = common::config(disk.path(), &["10.9.0.0/24"]);
    let pod = node.pod();
    let before = node.settled();
    let remount = |how: &str| {
        let how = format!("remount,{how}");
        assert!(Command::new("mount").args(["-o", &how]).arg(disk.path()).status().unwrap().success());
    };
    remount("ro");
    let refused = node.add("c1", &pod, &config);
    assert!(refused.code() == 5 && refused.message().contains("net"), "{}", refused.json);
    node.del("c1", Some(&pod), &config).success();
    before.assert_unchanged();
    remount("rw");
    node.add("c1", &pod, &config).success();
    node.del("c1", Some(&pod), &config).success();
}

#[test]
fn a_file_in_place_of_the_folder_is_named() {
    let node = Node::new();
    let config = node.config(&["10.9.0.0/24"]);
    fs::write(node.network(), "x").unwrap();
    let pod = node.pod();
    let refused = node.add("c1", &pod, &config);
    assert!(refused.code() == 5 && refused.message().contains("net"), "{}", refused.json);
    assert!(node.pod_links().is_empty());
    assert_eq!(fs::read(node.network()).unwrap(), b"x");
}

#[test]
fn rubbish_among_the_allocations_is_somebody_elses() {
    let node = Node::new();
    let config = node.config(&["10.9.0.0/24"]);
    fs::create_dir(node.network()).unwrap();
    for (address, content) in
        [("10.9.0.2", vec![0; 300]), ("10.9.0.3", b"\xff\xfe".to_vec()), ("10.9.0.4", vec![b'a'; 1 << 20])]
    {
        fs::write(node.network().join(address), content).unwrap();
    }
    fs::create_dir(node.network().join("10.9.0.5")).unwrap();
    symlink("/etc/hostname", node.network().join("10.9.0.6")).unwrap();
    fs::write(node.network().join("last_reserved_ip.0"), [0xff; 40]).unwrap();
    let pod = node.pod();
    let made = node.add("c1", &pod, &config).success();
    assert_eq!(made["ips"][0]["address"], "10.9.0.7/24");
    node.del("c1", Some(&pod), &config).success();
    assert!(!node.network().join("10.9.0.7").exists());
    assert_eq!(fs::read(node.network().join("10.9.0.2")).unwrap().len(), 300);
    assert!(node.network().join("10.9.0.5").is_dir());
    assert!(fs::symlink_metadata(node.network().join("10.9.0.6")).unwrap().is_symlink());
}

#[test]
fn a_del_during_the_add_wins_or_comes_first() {
    let node = Node::new();
    let config = node.config(&["10.9.0.0/24"]);
    for round in 0..30 {
        let (pod, id) = (node.pod(), format!("c{round}"));
        let call = |command: &str| Call::new(command, &id, Some(&path(&pod)), &config);
        let (add, del) = (call("ADD").start(), call("DEL").start());
        let del = del.wait_with_output().unwrap();
        assert!(del.status.success(), "{}", String::from_utf8_lossy(&del.stdout));
        let add = add.wait_with_output().unwrap();
        // Whichever of them came last, the network is whole or gone.
        let (addresses, links) = (node.allocations().len(), node.pod_links().len());
        assert!(addresses == links && (add.status.success() || links == 0), "{addresses} {links} {add:?}");
        call("DEL").run().success();
        assert_eq!((node.allocations().len(), node.pod_links().len()), (0, 0));
    }
}

#[test]
fn f14_a_gc_during_the_add_takes_all_of_it_or_nothing() {
    let node = Node::new();
    let mut config = node.config(&["10.9.0.0/24"]);
    config["cniVersion"] = json!("1.1.0");
    let mut collect = config.clone();
    collect["cni.dev/valid-attachments"] = json!([]);
    let gc = || Call::new("GC", "", None, &collect).start().wait_with_output().unwrap();
    for round in 0..20 {
        let (pod, id) = (node.pod(), format!("c{round}"));
        let mut add = Call::new("ADD", &id, Some(&path(&pod)), &config).start();
        while add.try_wait().unwrap().is_none() {
            let collected = gc();
            assert!(collected.status.success(), "{collected:?}");
        }
        let add = add.wait_with_output().unwrap();
        assert!(add.status.success(), "an unfinished ADD is none of GC's: {add:?}");
        assert_eq!(node.allocations().len(), node.pod_links().len(), "round {round}");
        assert!(gc().status.success());
        assert_eq!((node.allocations().len(), node.pod_links().len()), (0, 0));
    }
}

#[test]
fn an_interface_that_vanishes_during_the_add_leaves_nothing() {
    let node = Node::new();
    let config = node.config(&["10.9.0.0/24"]);
    let mut removed = 0;
    for round in 0..30 {
        let (pod, id) = (node.pod(), format!("c{round}"));
        let mut add = Call::new("ADD", &id, Some(&path(&pod)), &config).start();
        let mut netlink = Netlink::open().unwrap();
        let name = mark::host_link_name(&id, "eth0");
        while add.try_wait().unwrap().is_none() {
            if let Some(link) = netlink.link(&name).unwrap() {
                removed += u32::from(netlink.apply(&Op::LinkDel(link.index)).is_ok());
            }
        }
        let add = add.wait_with_output().unwrap();
        if !add.status.success() {
            assert_eq!((node.allocations().len(), node.pod_links().len()), (0, 0), "{add:?}");
        }
        node.del(&id, Some(&pod), &config).success();
        assert_eq!((node.allocations().len(), node.pod_links().len()), (0, 0));
    }
    assert!(removed > 0, "no interface was removed in time");
}

#[test]
fn an_address_that_somebody_on_the_network_has_is_not_used_where_duplicates_are_looked_for() {
    let node = Node::new();
    for scope in ["all", "default"] {
        weft_kernel::sysctl::set(&format!("net.ipv6.conf.{scope}.accept_dad"), "1").unwrap();
    }
    let mut config = node.config(&["fd00:9::/64"]);
    config["enabledad"] = json!(true);
    let (other, pod) = (node.pod(), node.pod());
    node.add("c1", &other, &config).success();
    let squat = "ip addr add fd00:9::3/64 dev eth0 nodad";
    assert!(other.run(|| Command::new("sh").args(["-c", squat]).status().unwrap()).unwrap().success());
    let refused = node.add("c2", &pod, &config);
    assert!(!refused.ok && refused.message().contains("fd00:9::3"), "{}", refused.json);
    assert_eq!((node.allocations().len(), node.pod_links().len()), (1, 1));
}

#[test]
fn f8_f9_without_an_agent_containers_come_and_go_and_it_is_told_later() {
    let node = Node::new();
    let mut config = node.config(&["10.9.0.0/24"]);
    config["cniVersion"] = json!("1.1.0");
    // Its folder is not there before it was ever started, and may go while it is not.
    let records = node.data.path().join("agent/attachments");
    config["weft"] = json!({"records": records});
    let (pod, other) = (node.pod(), node.pod());
    let told = || fs::read_dir(&records).into_iter().flatten().count();
    Call::new("STATUS", "", None, &config).run().success();
    let made = node.add("c1", &pod, &config).success();
    node.add("c2", &other, &config).success();
    assert_eq!(told(), 2);
    let mut check = config.clone();
    check["prevResult"] = made;
    Call::new("CHECK", "c1", Some(&path(&pod)), &check).run().success();
    node.del("c1", Some(&pod), &config).success();
    assert_eq!(told(), 1, "what the agent finds when it is back");
    fs::remove_dir_all(node.data.path().join("agent")).unwrap();
    node.del("c2", Some(&other), &config).success();
    assert_eq!((node.allocations().len(), node.pod_links().len()), (0, 0));
    // Where nothing can be told, nothing is made.
    fs::write(node.data.path().join("agent"), "").unwrap();
    let refused = node.add("c1", &pod, &config);
    assert!(refused.code() == 5 && refused.message().contains("weft.records"), "{}", refused.json);
    node.del("c1", Some(&pod), &config).success();
    assert_eq!((node.allocations().len(), node.pod_links().len()), (0, 0));
}
