//! The lab's nodes, agents and pods as members of a real Kubernetes cluster: `scripts/test.sh kubernetes`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    reason = "a test fails by panicking and is one crate"
)]

mod common;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::{Labs, eventually, example, machine_dump};
use weft_judge::{Kubernetes, Parts};

const SOON: Duration = Duration::from_secs(60);

fn kubectl(kubeconfig: &Path, args: &[&str]) -> String {
    let mut command = Command::new("/usr/bin/kubectl");
    command.arg("--kubeconfig").arg(kubeconfig).arg("--cache-dir").arg(kubeconfig.with_file_name("cache"));
    let output =
        command.args(args).output().expect("kubectl is at /usr/bin/kubectl (Debian: kubernetes-client)");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "kubectl {args:?}: {told}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
#[ignore = "needs the real Kubernetes: scripts/test.sh kubernetes"]
fn the_lab_s_nodes_join_a_real_cluster_and_leave_it() {
    let binaries =
        Kubernetes::binaries().expect("WEFT_KUBERNETES names the folder that scripts/kubernetes.sh prints");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let cluster = runtime.block_on(Kubernetes::start(&binaries, Parts::WHOLE)).unwrap();
    let kubeconfig = cluster.kubeconfig();
    let before = machine_dump();
    let labs = Labs::new();
    let given = kubeconfig.to_str().unwrap();
    let shop = example("shop");
    labs.expect(0, &["lab", "up", "--name", "k", "--nodes", "3", "--kubeconfig", given, "-f", &shop]);

    // What Kubernetes' own controllers and scheduler decided is what the nodes run.
    let cidrs = kubectl(&kubeconfig, &["get", "nodes", "-o", "jsonpath={.items[*].spec.podCIDR}"]);
    assert_eq!(cidrs.split(' ').filter(|cidr| cidr.starts_with("10.244.")).count(), 3, "{cidrs}");
    let nodes = kubectl(&kubeconfig, &["get", "nodes"]);
    assert_eq!(nodes.matches(" Ready ").count(), 3, "{nodes}");
    let found = labs.json(&["lab", "check", "--name", "k", "-o", "json"]);
    assert_eq!(found["pairs"], found["matching"], "{found}");
    assert!(found["pairs"].as_u64().unwrap() > 200, "{found}");
    assert_eq!(before, machine_dump(), "while the lab is up");

    labs.expect(0, &["lab", "down", "--name", "k"]);
    assert!(labs.processes(&[]).is_empty(), "processes left behind");
    let gone = || kubectl(&kubeconfig, &["get", "nodes", "-o", "name"]).is_empty();
    eventually(SOON, "the nodes leave the cluster", gone);
    assert_eq!(before, machine_dump(), "after the lab went down");
}
