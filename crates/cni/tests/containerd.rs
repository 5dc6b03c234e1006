//! A real containerd starts a container with a network of these plugins, and takes it away.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::{Arguments, Trial};

fn main() {
    let needed = ["/usr/bin/containerd", "/usr/bin/ctr", "/usr/sbin/runc", "/bin/busybox"];
    let missing: Vec<&str> = needed.into_iter().filter(|path| !Path::new(path).exists()).collect();
    if !missing.is_empty() {
        eprintln!("skipped: {} missing: scripts/install-deps.sh test", missing.join(", "));
    }
    let client = std::env::var_os("WEFT_CRI").map(PathBuf::from);
    if client.is_none() {
        eprintln!("skipped: WEFT_CRI names no client of CRI: scripts/cri-client.sh builds one");
    }
    let (no_containerd, no_client) = (!missing.is_empty(), client.is_none());
    let by_ctr = Trial::test("a_container_of_ctr_is_reached_and_leaves_nothing", || {
        is_reached_and_leaves_nothing(None);
        Ok(())
    });
    let by_cri =
        Trial::test("a_sandbox_of_cri_is_reached_by_its_published_port_and_leaves_nothing", move || {
            let said = is_reached_and_leaves_nothing(client.as_deref());
            // containerd writes the keys of capabilities in another case than everybody else.
            assert!(said.contains("tbf") && said.contains("rate 10Mbit"), "{said}");
            Ok(())
        });
    let trials =
        vec![by_ctr.with_ignored_flag(no_containerd), by_cri.with_ignored_flag(no_containerd || no_client)];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn is_reached_and_leaves_nothing(client: Option<&Path>) -> String {
    let (work, bin) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    weft_cni::install::install(Path::new(env!("CARGO_BIN_EXE_weft-cni")), bin.path()).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/containerd.sh");
    let output = Command::new("timeout")
        .args(["120", "unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"])
        .args([Path::new("bash"), &script, work.path(), bin.path()])
        .args(client)
        .output()
        .unwrap();
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{errors}");
    assert!(said.contains("hello from a container"), "{said}\n{errors}");
    assert!(said.contains("rules while it runs: ") && !said.contains("rules while it runs: 0"), "{said}");
    let (before, left) = said.split_once("== left\n").unwrap();
    assert_eq!(left, "", "left behind\n{errors}");
    before.to_owned()
}
