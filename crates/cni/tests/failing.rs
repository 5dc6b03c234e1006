//! F10 and F12 of the faults: every system call of an ADD and of a DEL fails once, with the errors
//! of a full, a broken and a read-only disk and of a kernel without memory. An ADD is whole or
//! leaves nothing; the next DEL cleans up whatever is left.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::process::Output;

use common::strace::{injected, system_calls};
use common::{Call, Node, path};
use serde_json::{Value, json};
use weft_kernel::testing::SmallDisk;
use weft_kernel::{Netlink, Netns};

/// A program's memory, threads, signals and end: what fails there ends it, which the tests of
/// killed programs are about.
const OF_THE_PROCESS: &[&str] = &[
    "access",
    "arch_prctl",
    "close",
    "pread64",
    "brk",
    "clone",
    "clone3",
    "exit",
    "exit_group",
    "futex",
    "getrandom",
    "madvise",
    "mmap",
    "mprotect",
    "mremap",
    "munmap",
    "prlimit64",
    "rseq",
    "rt_sigaction",
    "rt_sigprocmask",
    "sched_getaffinity",
    "set_robust_list",
    "set_tid_address",
    "sigaltstack",
    "gettid",
    "getpid",
    "prctl",
    "clock_nanosleep",
    "nanosleep",
    "poll",
    "sched_yield",
    "restart_syscall",
];

/// The errors that a system call of this name may give, and only these: a plugin may rely on what
/// the kernel promises.
fn errors(name: &str) -> &'static [&'static str] {
    match name {
        "openat" | "open" | "mkdirat" | "mkdir" | "linkat" | "link" | "renameat" | "renameat2" | "rename"
        | "symlinkat" | "symlink" | "ftruncate" => &["ENOSPC", "EROFS", "EIO"],
        "write" | "pwrite64" | "writev" => &["ENOSPC", "EIO"],
        "unlinkat" | "unlink" | "utimensat" => &["EROFS", "EIO"],
        "fsync" | "fdatasync" | "read" | "getdents64" | "readlinkat" | "readlink" | "newfstatat"
        | "fstat" | "statx" => &["EIO"],
        "flock" => &["ENOLCK"],
        "socket" | "sendto" | "sendmsg" | "recvfrom" | "recvmsg" | "setsockopt" | "bind" => &["ENOMEM"],
        // A program that cannot return from a container's namespace ends, as if it were killed.
        "setns" => &[],
        "io_uring_setup" | "io_uring_register" => &["EPERM", "ENOSYS"],
        name if OF_THE_PROCESS.contains(&name) => &[],
        _ => &["EIO"],
    }
}

fn network(node: &Node) -> Value {
    let mut config = node.config(&["10.9.0.0/24", "fd00:9::/64"]);
    config["weft"] = json!({"records": node.data.path().join("records")});
    config["macspoofchk"] = json!(true);
    config
}

fn faults(calls: &BTreeMap<String, usize>) -> impl Iterator<Item = String> + use<'_> {
    calls.iter().flat_map(|(name, count)| {
        let each = move |error| (1..=*count).map(move |nth| format!("{name}:error={error}:when={nth}"));
        errors(name).iter().flat_map(each)
    })
}

/// What is there of the container, and of nothing else: addresses, links, records, rules.
fn made(node: &Node, pod: &Netns) -> [usize; 5] {
    let records = fs::read_dir(node.data.path().join("records")).into_iter().flatten().count();
    let rules = common::sh(node.ns.ns(), "nft list ruleset");
    let guards = rules.lines().filter(|line| line.contains("ether saddr")).count();
    let eth0 = Netlink::open_in(pod).unwrap().link("eth0").unwrap();
    [node.allocations().len(), node.pod_links().len(), records, guards, usize::from(eth0.is_some())]
}

/// Whether it failed before our program began: the loader's calls are none of ours.
fn not_loaded(output: &Output) -> bool {
    String::from_utf8_lossy(&output.stderr).contains("error while loading shared libraries")
}

/// The error object of a call that failed, which is all that it says.
#[track_caller]
fn refused(output: &Output, fault: &str) {
    assert_eq!(output.status.code(), Some(1), "{fault}: {output:?}");
    let said: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{fault}: {error}: {output:?}"));
    assert!(said["code"].as_u64().is_some_and(|code| code > 0), "{fault}: {said}");
    assert!(said["msg"].as_str().is_some_and(|text| text.len() > 10), "{fault}: {said}");
}

#[test]
fn f12_an_add_of_which_any_system_call_fails_is_whole_or_leaves_nothing() {
    let node = Node::new();
    let (config, pod) = (network(&node), node.pod());
    node.add("c0", &pod, &config).success();
    let whole = made(&node, &pod);
    node.del("c0", Some(&pod), &config).success();
    let nothing = made(&node, &pod);
    assert_eq!((whole, nothing), ([2, 1, 1, whole[3], 1], [0; 5]));
    let add = Call::new("ADD", "c1", Some(&path(&pod)), &config);
    let calls = system_calls(&node, &add);
    node.del("c1", Some(&pod), &config).success();
    let (mut failed, mut endured) = (0, Vec::new());
    for fault in faults(&calls) {
        let output = injected(&add, &fault);
        if not_loaded(&output) {
            continue;
        }
        if output.status.success() {
            assert_eq!(made(&node, &pod), whole, "{fault}: {output:?}");
            endured.push(fault.clone());
        } else {
            refused(&output, &fault);
            failed += 1;
            // The undoing itself met the error: the DEL has to do it.
            let undoing = fault.starts_with("unlink");
            assert!(undoing || made(&node, &pod) == nothing, "{fault}: {:?} {output:?}", made(&node, &pod));
        }
        node.del("c1", Some(&pod), &config).success();
        assert_eq!(made(&node, &pod), nothing, "{fault}");
    }
    assert!(failed > 60, "{failed} failed; endured {endured:?}");
    assert_eq!(fs::read_dir(node.network().join(".weft/intent")).unwrap().count(), 0);
}

#[test]
fn f12_after_a_del_of_which_any_system_call_fails_the_next_cleans_up() {
    let node = Node::new();
    let (config, pod) = (network(&node), node.pod());
    let del = Call::new("DEL", "c1", Some(&path(&pod)), &config);
    node.add("c1", &pod, &config).success();
    let calls = system_calls(&node, &del);
    let mut failed = 0;
    for fault in faults(&calls) {
        node.add("c1", &pod, &config).success();
        let output = injected(&del, &fault);
        if not_loaded(&output) {
            node.del("c1", Some(&pod), &config).success();
        } else if output.status.success() {
            assert_eq!(made(&node, &pod), [0; 5], "{fault}");
        } else {
            refused(&output, &fault);
            failed += 1;
            node.del("c1", Some(&pod), &config).success();
            assert_eq!(made(&node, &pod), [0; 5], "{fault}");
        }
    }
    assert!(failed > 20, "{failed} of {calls:?}");
}

/// A chained plugin has rules only: after a call that failed they are as before or, once the DEL came,
/// as without the container.
#[test]
fn f12_a_chained_plugin_of_which_any_system_call_fails_leaves_no_rule() {
    let previous = json!({
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "br0"}, {"name": "eth0", "sandbox": "/run/netns/x"}],
        "ips": [{"address": "10.9.0.2/24", "gateway": "10.9.0.1", "interface": 1}],
    });
    let ports = json!([{"hostPort": 8080, "containerPort": 80, "protocol": "udp"}]);
    for plugin in [
        json!({"type": "portmap", "backend": "iptables", "runtimeConfig": {"portMappings": ports}}),
        json!({"type": "portmap", "backend": "nftables", "runtimeConfig": {"portMappings": ports}}),
        json!({"type": "firewall", "backend": "iptables", "ingressPolicy": "same-bridge"}),
    ] {
        let node = Node::new();
        let pod = node.pod();
        let mut config = plugin.clone();
        config["cniVersion"] = json!("1.0.0");
        config["name"] = json!("net");
        config["prevResult"] = previous.clone();
        let call = |command: &str| Call::new(command, "c1", Some(&path(&pod)), &config);
        let rules = || common::sh(node.ns.ns(), "nft -s list ruleset");
        // The chains that all containers share stay.
        call("ADD").run().success();
        let whole = rules();
        call("DEL").run().success();
        let nothing = rules();
        assert_ne!(whole, nothing, "{plugin}");
        for (command, before, after) in [("ADD", &nothing, &whole), ("DEL", &whole, &nothing)] {
            let calls = system_calls(&node, &call(command));
            let undo = if command == "ADD" { "DEL" } else { "ADD" };
            call(undo).run().success();
            let mut failed = 0;
            for fault in faults(&calls) {
                let output = injected(&call(command), &fault);
                if output.status.success() {
                    assert_eq!(&rules(), after, "{plugin}: {command}: {fault}");
                } else if !not_loaded(&output) {
                    refused(&output, &fault);
                    failed += 1;
                    assert!(
                        command == "DEL" || &rules() == before,
                        "{plugin}: {command}: {fault}: {}",
                        rules()
                    );
                }
                call("DEL").run().success();
                assert_eq!(rules(), nothing, "{plugin}: {command}: {fault}");
                if command == "DEL" {
                    call("ADD").run().success();
                }
            }
            call("DEL").run().success();
            assert!(failed > 5, "{plugin}: {command}: {failed}");
        }
    }
}

/// Each step of an ADD is the one at which the disk gets full: the space ends after so many bytes,
/// and after so many files.
#[test]
fn f10_whenever_the_disk_gets_full_add_fails_whole_and_del_succeeds() {
    let node = Node::new();
    let pod = node.pod();
    // tmpfs counts pages of 4 KiB and files; from nothing to more than an ADD needs.
    let (mut full, mut enough) = (0, 0);
    for (limit, count) in [("size", 12), ("nr_inodes", 24)] {
        for room in 1..=count {
            let disk = SmallDisk::new(256 * 1024);
            let amount =
                if limit == "size" { format!("size={}k", 4 * room) } else { format!("nr_inodes={room}") };
            common::sh(node.ns.ns(), &format!("mount -o remount,{amount} {}", disk.path().display()));
            let mut config = common::config(disk.path(), &["10.9.0.0/24"]);
            config["weft"] = json!({"records": disk.path().join("records")});
            let answer = node.add("c1", &pod, &config);
            let network = disk.path().join("net");
            if answer.ok {
                enough += 1;
                assert_eq!((common::allocations(&network).len(), node.pod_links().len()), (1, 1), "{amount}");
                fs::write(disk.path().join("filler"), vec![0; 512 * 1024]).unwrap_err();
            } else {
                full += 1;
                assert_eq!(answer.code(), 5, "{amount}: {}", answer.json);
                assert!(answer.message().contains(&disk.path().display().to_string()), "{}", answer.json);
                assert_eq!((common::allocations(&network).len(), node.pod_links().len()), (0, 0), "{amount}");
            }
            node.del("c1", Some(&pod), &config).success();
            assert_eq!((common::allocations(&network).len(), node.pod_links().len()), (0, 0), "{amount}");
        }
    }
    assert!(full > 8 && enough > 8, "{full} {enough}");
}

#[test]
fn without_io_uring_add_and_del_work() {
    let node = Node::new();
    let mut config = node.config(&["10.9.0.0/24"]);
    config["ipMasq"] = json!(true);
    let pod = node.pod();
    for error in ["ENOSYS", "EPERM"] {
        for (command, count) in [("ADD", 1), ("DEL", 0)] {
            let call = Call::new(command, "c1", Some(&path(&pod)), &config);
            let output = injected(&call, &format!("io_uring_setup:error={error}"));
            assert!(output.status.success(), "{command} {error}: {output:?}");
            assert_eq!((node.allocations().len(), node.pod_links().len()), (count, count));
        }
    }
}
