//! The sandbox, made and entered by processes of one thread: this program starts itself for each
//! of them, as root and as an ordinary user.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use weft_kernel::process::{self, Process};
use weft_kernel::testing::{MachineDump, require_root};
use weft_kernel::{LinkKind, Netlink, Netns, NewLink, Op, sandbox, sysctl};

const NOBODY: u32 = 65534;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [_, "hold", user] => hold(user == "user"),
        [_, "first-process"] => first_process(),
        [_, "visit", user, pid] => visit(user == "user", pid.parse().unwrap()),
        _ => tests(),
    }
}

fn tests() {
    require_root();
    let before = MachineDump::take();
    for (user, uid) in [("root", 0), ("user", 0), ("user", NOBODY)] {
        a_sandbox_is_entered_and_leaves_nothing(user, uid);
        println!("test a_sandbox_is_entered_and_leaves_nothing ({user}, uid {uid}) ... ok");
    }
    before.assert_unchanged();
}

fn a_sandbox_is_entered_and_leaves_nothing(user: &str, uid: u32) {
    let mut holder = start(&["hold", user], uid, Stdio::piped());
    let mut line = String::new();
    BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(!line.is_empty(), "the sandbox of {user}, uid {uid}, was not made");
    let first: i32 = line.trim().parse().unwrap();
    let visit = start(&["visit", user, &first.to_string()], uid, Stdio::null()).wait().unwrap();
    assert!(visit.success(), "{user}, uid {uid}: {visit}");
    assert!(!Path::new("/tmp/weft-sandbox-test-mount/inside").exists());
    let first = Process::open(first).unwrap();
    drop(holder.stdin.take());
    assert!(holder.wait().unwrap().success());
    assert!(first.wait_exit(std::time::Duration::from_secs(10)).unwrap());
}

fn start(arguments: &[&str], uid: u32, stdout: Stdio) -> Child {
    // Another user cannot reach the build directory, but may run a descriptor of the program.
    let mut command = Command::new("/proc/self/exe");
    command.args(arguments).stdin(Stdio::piped()).stdout(stdout).uid(uid).gid(uid);
    command.spawn().unwrap()
}

/// Makes the sandbox and its first process, says that one's number and waits for the end of
/// standard input.
fn hold(user: bool) {
    process::become_subreaper().unwrap();
    sandbox::unshare_lab(user).unwrap_or_else(|e| panic!("{e}"));
    let mut first = Command::new("/proc/self/exe")
        .arg("first-process")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = String::new();
    BufReader::new(first.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    assert_eq!(ready, "ready\n");
    println!("{}", first.id());
    std::io::stdin().lines().for_each(drop);
    drop(first.stdin.take());
    assert!(first.wait().unwrap().success());
}

/// Furnishes the sandbox from within.
fn first_process() {
    assert_eq!(std::process::id(), 1);
    process::set_parent_death_signal(libc::SIGKILL).unwrap();
    sandbox::mount_tmpfs(Path::new("/tmp"), 1 << 20).unwrap();
    sandbox::mount_proc().unwrap();
    sandbox::mount_sysfs().unwrap();
    sandbox::set_hostname("node1").unwrap();
    std::fs::create_dir_all("/tmp/weft-sandbox-test-mount/copy").unwrap();
    std::fs::write("/tmp/weft-sandbox-test-mount/inside", "x").unwrap();
    std::fs::create_dir("/tmp/source").unwrap();
    std::fs::write("/tmp/source/file", "y").unwrap();
    sandbox::bind_mount(Path::new("/tmp/source"), Path::new("/tmp/weft-sandbox-test-mount/copy")).unwrap();
    let mut netlink = Netlink::open().unwrap();
    netlink.apply(&Op::LinkAdd(NewLink::new("weft0", LinkKind::Bridge))).unwrap();
    Netns::create(Path::new("/tmp/pinned")).unwrap();
    println!("ready");
    std::io::stdin().lines().for_each(drop);
}

/// Joins the sandbox and finds what its first process made.
fn visit(user: bool, pid: i32) {
    let first = Process::open(pid).unwrap();
    use std::os::fd::AsFd;
    sandbox::enter(first.as_fd(), user).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(std::fs::read_to_string("/tmp/weft-sandbox-test-mount/copy/file").unwrap(), "y");
    assert!(Netlink::open().unwrap().link("weft0").unwrap().is_some());
    assert!(Path::new("/sys/class/net/weft0").exists());
    let pinned = Netns::open(Path::new("/tmp/pinned")).unwrap();
    assert!(Netlink::open_in(&pinned).is_err(), "this process is not in /proc and could not come back");
    sysctl::set("net.ipv4.ip_forward", "1").unwrap();
    let child =
        Command::new("/bin/sh").args(["-c", "test $$ -gt 1 && test -d /proc/$$ && test -d /proc/1"]).status();
    assert!(child.unwrap().success());
}
