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

/// Requests that the API server refused to whoever asked, since it was started.
fn forbidden(kubeconfig: &Path) -> f64 {
    let metrics = kubectl(kubeconfig, &["get", "--raw", "/metrics"]);
    let refused = |line: &&str| line.starts_with("apiserver_request_total{") && line.contains("code=\"403\"");
    metrics.lines().filter(refused).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// An agent without kubeconfig, as in a pod of its ServiceAccount: what kubelet mounts there is in its place.
fn in_a_pod(labs: &Labs, admin: &Path, token: &str) {
    let config = labs.state("r").join("node/node1/kubeconfig");
    let value = |config: &Path, path: &str| {
        let path = format!("jsonpath={{.clusters[0].cluster.{path}}}");
        kubectl(config, &["config", "view", "--raw", "-o", &path])
    };
    let server = value(&config, "server").replace("https://", "");
    let (authority, token) = (value(admin, "certificate-authority"), labs.file("token", token));
    let (state, weft) = (labs.path("in-pod"), common::built("weft"));
    let script = format!(
        "mount -t tmpfs none /run; secrets=/run/secrets/kubernetes.io/serviceaccount; mkdir -p $secrets
        cp {token} $secrets/token; cp {authority} $secrets/ca.crt; printf weft-system >$secrets/namespace
        socat TCP-LISTEN:6443,bind=127.0.0.1,fork,reuseaddr TCP:{server} &
        export KUBERNETES_SERVICE_HOST=localhost KUBERNETES_SERVICE_PORT=6443 NODE_NAME=node1
        exec {weft} agent --ipam pools --cluster-cidr 10.244.0.0/16 --state-dir {dir} --cni-conf-dir {dir}/net.d \
            --cni-data-dir {dir}/networks",
        weft = weft.display(),
        dir = state.display()
    );
    let mut command =
        labs.weft(&["lab", "exec", "--name", "r", "node/node1", "--", "unshare", "-m", "sh", "-ec", &script]);
    let quiet = || std::process::Stdio::null();
    let mut agent = command.env_remove("KUBECONFIG").stdout(quiet()).stderr(quiet()).spawn().unwrap();
    let status = state.join("status.json");
    eventually(SOON, "the agent in a pod is ready", || {
        std::fs::read_to_string(&status).is_ok_and(|text| text.contains("\"ready\": true"))
    });
    let host = std::fs::read_to_string(state.join("host-id")).unwrap();
    let path = "jsonpath={.metadata.annotations.weft\\.dev/host}";
    eventually(SOON, "it has written its node", || {
        kubectl(admin, &["get", "node", "node1", "-o", path]) == host.trim()
    });
    agent.kill().unwrap();
    agent.wait().unwrap();
}

#[test]
#[ignore = "needs the real Kubernetes: scripts/test.sh kubernetes"]
fn an_agent_does_all_it_must_with_what_its_manifest_allows() {
    let binaries =
        Kubernetes::binaries().expect("WEFT_KUBERNETES names the folder that scripts/kubernetes.sh prints");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let cluster = runtime.block_on(Kubernetes::start(&binaries, Parts::WHOLE)).unwrap();
    let admin = cluster.kubeconfig();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let file = |name: &str| root.join(name).display().to_string();
    kubectl(&admin, &["apply", "-f", &file("crates/store/definitions")]);
    kubectl(&admin, &["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"]);
    kubectl(&admin, &["apply", "-f", &file("deploy/weft.yaml")]);
    let pods = ["get", "daemonset", "weft", "-n", "weft-system", "-o", "jsonpath={.metadata.generation}"];
    assert_eq!(kubectl(&admin, &pods), "1");
    // The lab runs the agents itself.
    kubectl(&admin, &["delete", "daemonset/weft", "deployment/weft-controller", "-n", "weft-system"]);

    let labs = Labs::new();
    let pools = labs.file(
        "pools.yaml",
        "apiVersion: weft.dev/v1\nkind: IPPool\nmetadata: {name: all}\nspec: {cidr: 10.244.0.0/16, natOutgoing: true}\n",
    );
    let (given, two) = (admin.to_str().unwrap(), example("two-pods.yaml"));
    let up = ["lab", "up", "--name", "r", "--nodes", "2", "--kubeconfig", given, "--ipam", "pools"];
    labs.expect(0, &[&up[..], &["-f", &pools, "-f", &two]].concat());
    // From here on by the ServiceAccount, and node2 without a kubelet.
    let token = kubectl(&admin, &["create", "token", "weft", "-n", "weft-system"]);
    for node in ["node1", "node2"] {
        let config = labs.state("r").join("node").join(node).join("kubeconfig");
        kubectl(&config, &["config", "set-credentials", "weft", "--token", token.trim()]);
        kubectl(&config, &["config", "set-context", "--current", "--user", "weft"]);
    }
    let me = ["auth", "whoami", "--token", token.trim(), "-o", "jsonpath={.status.userInfo.username}"];
    assert_eq!(kubectl(&admin, &me), "system:serviceaccount:weft-system:weft");
    let bare = r#"{"status":{"nodeInfo":{"kubeletVersion":""}}}"#;
    kubectl(&admin, &["patch", "node", "node2", "--subresource=status", "--type=merge", "-p", bare]);
    let annotation = |key: &str| {
        let path = format!("jsonpath={{.items[*].metadata.annotations.weft\\.dev/{key}}}");
        kubectl(&admin, &["get", "nodes", "-o", &path])
    };
    for node in ["node1", "node2"] {
        kubectl(&admin, &["annotate", "node", node, "weft.dev/host-", "weft.dev/network-"]);
    }
    kubectl(&admin, &["delete", "leases", "-n", "kube-node-lease", "--all"]);
    let before = forbidden(&admin);
    let agents = labs.processes(&["agent", "--node-name"]);
    agents.iter().for_each(|pid| common::signal(*pid, "KILL"));
    eventually(SOON, "the agents write their nodes", || {
        annotation("host").split(' ').count() == 2 && annotation("network").matches("backend").count() == 2
    });
    eventually(SOON, "a node without kubelet lives", || {
        !kubectl(&admin, &["get", "leases", "-n", "kube-node-lease", "-o", "name"]).is_empty()
    });
    // Blocks are claimed, changed and given back.
    let blocks = || kubectl(&admin, &["get", "ipblocks", "-o", "name"]).lines().count();
    assert!(blocks() >= 2);
    kubectl(&admin, &["delete", "-f", &two, "--wait=false"]);
    eventually(SOON, "the pods are gone", || labs.pods("r").is_empty());
    kubectl(&admin, &["apply", "-f", &two]);
    labs.expect(0, &["lab", "status", "--name", "r", "--wait"]);
    labs.expect(0, &["lab", "check", "--name", "r"]);
    in_a_pod(&labs, &admin, token.trim());
    assert_eq!(forbidden(&admin), before, "what the agents asked was refused");
    let may = |verb: &str, what: &[&str]| {
        let who = "--as=system:serviceaccount:weft-system:weft";
        let args = [&["auth", "can-i", verb], what, &[who, "-q"]].concat();
        let mut command = Command::new("/usr/bin/kubectl");
        command.arg("--kubeconfig").arg(&admin).args(args).output().unwrap().status.success()
    };
    // What this lab has no use for, and what nobody needs.
    for (verb, what) in [
        ("create", &["pods"][..]),
        ("delete", &["pods"]),
        ("patch", &["pods", "--subresource=status"]),
        ("delete", &["ipblocks.weft.dev"]),
        ("update", &["ipblocks.weft.dev"]),
    ] {
        assert!(may(verb, what), "{verb} {what:?}");
    }
    for (verb, what) in [
        ("get", &["secrets"][..]),
        ("patch", &["nodes"]),
        ("delete", &["nodes"]),
        ("create", &["ippools.weft.dev"]),
        ("list", &["configmaps"]),
    ] {
        assert!(!may(verb, what), "{verb} {what:?}");
    }
}
