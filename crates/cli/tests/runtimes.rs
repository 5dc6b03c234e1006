//! A node with a real API server, agent, containerd and podman: published ports, containers that
//! become Pods with their runtime's labels, and addresses of sandboxes that containerd lost.
//! Skipped, visibly, where a runtime or the client of CRI is missing.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::{Arguments, Trial};

fn main() {
    let needed = [
        "/usr/bin/containerd",
        "/usr/bin/ctr",
        "/usr/sbin/runc",
        "/usr/bin/podman",
        "/usr/bin/crun",
        "/bin/busybox",
        "/usr/bin/kubectl",
    ];
    let missing: Vec<&str> = needed.into_iter().filter(|path| !Path::new(path).exists()).collect();
    if !missing.is_empty() {
        eprintln!("skipped: {} missing: scripts/install-deps.sh test", missing.join(", "));
    }
    let client = std::env::var_os("WEFT_CRI").map(PathBuf::from);
    if client.is_none() {
        eprintln!("skipped: WEFT_CRI names no client of CRI: scripts/cri-client.sh builds one");
    }
    let cannot = !missing.is_empty() || client.is_none();
    let trial = Trial::test("containers_of_real_runtimes_on_the_agents_network", move || {
        containers_of_real_runtimes_on_the_agents_network(&client.unwrap_or_default());
        Ok(())
    });
    libtest_mimic::run(&Arguments::from_args(), vec![trial.with_ignored_flag(cannot)]).exit();
}

fn containers_of_real_runtimes_on_the_agents_network(client: &Path) {
    let weft = Path::new(env!("CARGO_BIN_EXE_weft"));
    let (work, bin) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let installed = Command::new(weft).args(["cni", "install"]).arg(bin.path()).output().unwrap();
    assert!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/runtimes.sh");
    let output = Command::new("timeout")
        .args(["500", "unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"])
        .args([Path::new("bash"), &script, work.path(), bin.path(), client, weft])
        .output()
        .unwrap();
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{errors}");
    assert_eq!(said.matches("hello from a container").count(), 2, "{said}\n{errors}");
    let (_, left) = said.split_once("== left\n").unwrap();
    assert_eq!(left, "", "left behind\n{said}\n{errors}");
}
