//! F11 of the faults: what a power cut may leave of the allocations. host-local is stopped at each
//! system call of an ADD and of a DEL; each file that is there then is as it was, empty, with
//! rubbish at its end, or missing, before the boot and within one. Nothing is given twice, and no
//! call is in the way of the next.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use common::strace::{killed_at, system_calls};
use common::{Call, Node, path};
use serde_json::{Value, json};
use weft_ipam::host_local::{Attachment, Store};
use weft_ipam::range::{Pool, RangeSpec};

const SUBNET: &str = "10.9.0.0/28";
/// The system calls that change what is on the disk.
const CHANGES: &[&str] = &[
    "openat",
    "write",
    "linkat",
    "unlinkat",
    "renameat",
    "renameat2",
    "rename",
    "ftruncate",
    "symlinkat",
    "mkdirat",
    "mkdir",
    "flock",
];

fn call(node: &Node, command: &str, id: &str) -> Call {
    let config = json!({
        "cniVersion": "1.0.0", "name": "net", "type": "host-local",
        "ipam": {"type": "host-local", "dataDir": node.data.path(), "ranges": [[{"subnet": SUBNET}]]},
    });
    Call::new(command, id, Some(&path(node.ns.ns())), &config)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    File,
    Link,
    Folder,
}

/// What is in a folder: a file's content, or where a link points.
type Tree = BTreeMap<PathBuf, (Kind, Vec<u8>)>;

fn tree(dir: &Path) -> Tree {
    let mut found = Tree::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let (kind, path) = (entry.file_type().unwrap(), entry.path());
            let name = path.strip_prefix(dir).unwrap().to_owned();
            if kind.is_dir() {
                folders.push(path);
                found.insert(name, (Kind::Folder, Vec::new()));
            } else if kind.is_symlink() {
                let target = fs::read_link(&path).unwrap();
                found.insert(name, (Kind::Link, target.into_os_string().into_encoded_bytes()));
            } else {
                found.insert(name, (Kind::File, fs::read(&path).unwrap()));
            }
        }
    }
    found
}

/// Writes it to a new place, all files older than this boot if `old`.
fn restored(tree: &Tree, old: bool) -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    for (name, (kind, content)) in tree {
        let path = place.path().join("net").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match kind {
            Kind::Folder => fs::create_dir_all(&path).unwrap(),
            Kind::Link => symlink(String::from_utf8(content.clone()).unwrap(), &path).unwrap(),
            Kind::File => {
                fs::write(&path, content).unwrap();
                if old {
                    fs::File::open(&path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
                }
            }
        }
    }
    place
}

/// What a cut may make of it, each with the file that is not as it was.
fn cuts(tree: &Tree) -> Vec<(String, Option<PathBuf>, Tree)> {
    let mut all = vec![("as it was".to_owned(), None, tree.clone())];
    for (name, (kind, content)) in tree {
        let mut with = |how: &str, content: Option<Vec<u8>>| {
            let mut cut = tree.clone();
            match content {
                Some(content) => cut.insert(name.clone(), (*kind, content)),
                None => cut.remove(name),
            };
            all.push((format!("{} {how}", name.display()), Some(name.clone()), cut));
        };
        with("missing", None);
        if *kind == Kind::File {
            with("empty", Some(Vec::new()));
            with("with rubbish", Some([content, &b"\0\xff rubbish\n"[..]].concat()));
            with("half", Some(content[..content.len() / 2].to_vec()));
            with("zeros", Some(vec![0; content.len()]));
        }
    }
    let without_index = |(name, _): &(&PathBuf, _)| !name.starts_with(".weft");
    let index_gone: Tree = tree.iter().filter(without_index).map(|(n, c)| (n.clone(), c.clone())).collect();
    all.push((".weft missing".into(), None, index_gone));
    let without_folders = |(_, (kind, _)): &(&PathBuf, &(Kind, Vec<u8>))| *kind != Kind::Folder;
    let no_folders: Tree = tree.iter().filter(without_folders).map(|(n, c)| (n.clone(), c.clone())).collect();
    all.push(("empty folders missing".into(), None, no_folders));
    all
}

fn eth0(container_id: &str) -> Attachment<'_> {
    Attachment { container_id, ifname: "eth0" }
}

/// The node goes on with what a cut left. `running` are addresses of containers that still run.
fn goes_on(place: &Path, what: &str, running: &[IpAddr]) {
    let spec = RangeSpec { subnet: SUBNET.into(), ..RangeSpec::default() };
    let pool = Pool::new(&[vec![spec]]).unwrap();
    let store = Store::open(place, "net").unwrap_or_else(|error| panic!("{what}: {error}"));
    let mut given: Vec<IpAddr> = running.to_vec();
    for id in ["next1", "next2", "next3"] {
        let made = store.reserve(eth0(id), &pool, &[], &|_| false);
        let made = made.unwrap_or_else(|error| panic!("{what}: {error}"));
        let ip = made.assignments()[0].address.addr();
        assert!(!given.contains(&ip), "{what}: {ip} of {given:?} is given twice");
        made.commit().unwrap();
        assert_eq!(store.held(eth0(id)).unwrap(), [ip], "{what}: CHECK");
        given.push(ip);
    }
    // The DEL of every container there was, the unknown one's too, and what it frees is free.
    for id in ["victim", "never", "next1", "next2", "next3"] {
        let freed = store.release(eth0(id), Some(&pool)).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(freed.iter().all(|ip| !running.contains(ip)), "{what}: {id} freed another's {freed:?}");
        assert!(store.held(eth0(id)).unwrap().is_empty(), "{what}");
    }
    let again = store.reserve(eth0("victim"), &pool, &[], &|_| false);
    again.unwrap_or_else(|error| panic!("{what}: {error}")).commit().unwrap();
}

fn cut_at_each_step(command: &str) {
    let node = Node::new();
    let call_of = |command: &str, id: &str| call(&node, command, id);
    let address = |made: Value| -> IpAddr {
        made["ips"][0]["address"].as_str().unwrap().split('/').next().unwrap().parse().unwrap()
    };
    let running: Vec<IpAddr> =
        ["one", "two"].iter().map(|id| address(call_of("ADD", id).run().success())).collect();
    let victim = call_of(command, "victim");
    let before = |node: &Node| match command {
        "ADD" => call(node, "DEL", "victim").run().success(),
        _ => {
            call(node, "DEL", "victim").run().success();
            call(node, "ADD", "victim").run().success()
        }
    };
    before(&node);
    let calls = system_calls(&node, &victim);
    let mut seen = std::collections::BTreeSet::new();
    for (name, count) in calls.iter().filter(|(name, _)| CHANGES.contains(&name.as_str())) {
        for nth in 1..=*count {
            before(&node);
            killed_at(&victim, name, nth);
            let left = tree(&node.network());
            if !seen.insert(left.clone()) {
                continue;
            }
            for (cut, changed, tree) in cuts(&left) {
                let what = format!("{command} stopped at {name} {nth}, {cut}");
                // Within a boot nothing is torn but by a death; what the running containers have
                // is looked at where their own files are whole.
                let torn =
                    changed.is_some_and(|name| running.iter().any(|ip| name == Path::new(&ip.to_string())));
                let here = restored(&tree, false);
                goes_on(here.path(), &what, if torn { &[] } else { &running });
                // After a cut nothing runs any more, and all of it is void.
                let mut rebooted = tree;
                if rebooted.contains_key(Path::new(".weft/boot")) {
                    let other = b"11111111-2222-3333-4444-555555555555".to_vec();
                    rebooted.insert(".weft/boot".into(), (Kind::Link, other));
                    let there = restored(&rebooted, true);
                    goes_on(there.path(), &format!("{what}, rebooted"), &[]);
                    assert_eq!(
                        common::allocations(&there.path().join("net")).len(),
                        1,
                        "{what}: void after a boot"
                    );
                }
            }
        }
    }
    assert!(seen.len() > 3, "{} states", seen.len());
}

#[test]
fn f11_an_add_cut_at_any_step_gives_nothing_twice() {
    cut_at_each_step("ADD");
}

#[test]
fn f11_a_del_cut_at_any_step_gives_nothing_twice() {
    cut_at_each_step("DEL");
}

#[test]
fn f11_an_empty_file_is_no_allocation_and_is_reported() {
    let node = Node::new();
    fs::create_dir(node.network()).unwrap();
    fs::write(node.network().join("10.9.0.2"), "").unwrap();
    let output = call(&node, "ADD", "c1").start().wait_with_output().unwrap();
    assert!(output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    let file = node.network().join("10.9.0.2").display().to_string();
    assert!(said.contains(&file) && said.contains("names no owner"), "{said}");
    assert_eq!(node.allocations(), [("10.9.0.2".to_owned(), "c1\r\neth0".to_owned())]);
    let output = call(&node, "ADD", "c2").start().wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty());
}
