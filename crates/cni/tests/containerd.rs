//! A real containerd starts a container with a network of these plugins, and takes it away.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::path::Path;
use std::process::Command;

use libtest_mimic::{Arguments, Trial};

fn main() {
    let needed = ["/usr/bin/containerd", "/usr/bin/ctr", "/usr/sbin/runc", "/bin/busybox"];
    let missing: Vec<&str> = needed.into_iter().filter(|path| !Path::new(path).exists()).collect();
    if !missing.is_empty() {
        eprintln!("skipped: {} missing: scripts/install-deps.sh test", missing.join(", "));
    }
    let trial = Trial::test("a_container_of_containerd_is_reached_and_leaves_nothing", || {
        a_container_of_containerd_is_reached_and_leaves_nothing();
        Ok(())
    });
    libtest_mimic::run(&Arguments::from_args(), vec![trial.with_ignored_flag(!missing.is_empty())]).exit();
}

fn a_container_of_containerd_is_reached_and_leaves_nothing() {
    let work = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/containerd.sh");
    let output = Command::new("timeout")
        .args([
            "120",
            "unshare",
            "--net",
            "--mount",
            "--pid",
            "--fork",
            "--mount-proc",
            "--kill-child",
            "bash",
        ])
        .args([&script, work.path(), Path::new(env!("CARGO_BIN_EXE_weft-cni"))])
        .output()
        .unwrap();
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{errors}");
    assert!(said.contains("hello from a container"), "{said}\n{errors}");
    assert!(said.contains("rules while it runs: ") && !said.contains("rules while it runs: 0"), "{said}");
    let (_, left) = said.split_once("== left\n").unwrap();
    assert_eq!(left, "", "left behind\n{errors}");
}
