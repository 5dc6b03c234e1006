//! `weft controller`: it gives Services addresses, and another goes on when it is killed or ends.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    reason = "a test fails by panicking and is one crate"
)]

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::eventually;
use serde_json::Value;
use tempfile::TempDir;
use weft_judge::{Kubernetes, Parts};

/// Longer than a Lease is kept.
const SOON: Duration = Duration::from_secs(60);
const POOL: &str = "
apiVersion: weft.dev/v1
kind: LoadBalancerPool
metadata: {name: public}
spec: {addresses: [192.0.2.0/29]}
";

/// A process, ended when it is dropped.
struct Process(Child);

impl Process {
    fn controller(kubeconfig: &Path) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
        command.args(["controller", "--service-cluster-ip-range", "10.96.0.0/16", "--kubeconfig"]);
        Process(command.arg(kubeconfig).stderr(Stdio::null()).spawn().unwrap())
    }

    fn end(mut self, signal: &str) {
        common::signal(i32::try_from(self.0.id()).unwrap(), signal);
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A cluster, as its administrator sees it.
struct Cluster {
    admin: PathBuf,
    dir: TempDir,
}

impl Cluster {
    fn kubectl(&self, args: &[&str]) -> Result<String, String> {
        let mut command = Command::new("/usr/bin/kubectl");
        command.arg("--kubeconfig").arg(&self.admin).arg("--cache-dir").arg(self.dir.path().join("cache"));
        let output = command.args(args).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    fn apply(&self, text: &str) {
        let file = self.dir.path().join("manifest.yaml");
        std::fs::write(&file, text).unwrap();
        self.kubectl(&["apply", "-f", file.to_str().unwrap()]).unwrap();
    }

    fn service(&self, name: &str) {
        self.apply(&format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n\
             spec: {{type: LoadBalancer, selector: {{app: x}}, ports: [{{port: 80}}]}}\n"
        ));
    }

    fn json(&self, args: &[&str]) -> Value {
        let text = self.kubectl(&[args, &["-o", "json"]].concat()).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    fn ip(&self, name: &str) -> String {
        let service = self.json(&["get", "service", name]);
        service["status"]["loadBalancer"]["ingress"][0]["ip"].as_str().unwrap_or_default().to_owned()
    }

    fn holder(&self) -> String {
        let lease = self.json(&["get", "lease", "weft-controller", "-n", "kube-system"]);
        lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
    }
}

/// Addresses are given by whoever has the Lease, whatever becomes of who had it before.
fn fails_over(cluster: &Cluster, own: &Path) {
    cluster.apply(POOL);
    let first = Process::controller(own);
    cluster.service("a");
    eventually(SOON, "an address", || cluster.ip("a") == "192.0.2.0");
    let holder = cluster.holder();
    let second = Process::controller(own);
    first.end("KILL");
    cluster.service("b");
    eventually(SOON, "the second goes on", || cluster.ip("b") == "192.0.2.1");
    assert_ne!(cluster.holder(), holder);
    let third = Process::controller(own);
    second.end("TERM");
    for i in 0..8 {
        cluster.service(&format!("late{i}"));
    }
    let all = || -> Vec<String> {
        let services = cluster.json(&["get", "services"]);
        let ingress = |service: &Value| {
            service["status"]["loadBalancer"]["ingress"][0]["ip"].as_str().map(str::to_owned)
        };
        services["items"].as_array().into_iter().flatten().filter_map(ingress).collect()
    };
    eventually(SOON, "the third gives all that there is", || all().len() == 8);
    assert_eq!(all().into_iter().collect::<BTreeSet<_>>().len(), 8, "each has its own");
    let pool = || cluster.json(&["get", "lbpool", "public"])["status"].clone();
    eventually(SOON, "the pool's counts", || pool()["assigned"] == 8 && pool()["available"] == 0);
    let events = || cluster.kubectl(&["get", "events", "-o", "jsonpath={.items[*].reason}"]).unwrap();
    eventually(SOON, "events", || events().contains("Assigned") && events().contains("PoolFull"));
    cluster.kubectl(&["delete", "service", "a"]).unwrap();
    eventually(SOON, "what was given back is given", || all().len() == 8);
    drop(third);
}

#[test]
fn another_goes_on_over_our_own_api_server() {
    let dir = TempDir::new().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let data = dir.path().join("data");
    let server = Command::new(env!("CARGO_BIN_EXE_weft"))
        .args(["apiserver", "--controllers=false", "--listen", &format!("127.0.0.1:{port}"), "--data-dir"])
        .arg(&data)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _server = Process(server);
    let cluster = Cluster { admin: data.join("admin.kubeconfig"), dir };
    eventually(SOON, "the server answers", || cluster.kubectl(&["get", "--raw", "/readyz"]).is_ok());
    eventually(SOON, "the kind", || cluster.kubectl(&["get", "lbpool"]).is_ok());
    fails_over(&cluster, &cluster.admin);
}

#[test]
#[ignore = "needs the real Kubernetes: scripts/test.sh kubernetes"]
fn another_goes_on_over_kubernetes_with_what_its_manifest_allows() {
    let binaries =
        Kubernetes::binaries().expect("WEFT_KUBERNETES names the folder that scripts/kubernetes.sh prints");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let kubernetes = runtime.block_on(Kubernetes::start(&binaries, Parts::WHOLE)).unwrap();
    let cluster = Cluster { admin: kubernetes.kubeconfig(), dir: TempDir::new().unwrap() };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let file = |name: &str| root.join(name).display().to_string();
    cluster.kubectl(&["apply", "-f", &file("crates/store/definitions")]).unwrap();
    cluster.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"]).unwrap();
    cluster.kubectl(&["apply", "-f", &file("deploy/weft.yaml")]).unwrap();
    let token = cluster.kubectl(&["create", "token", "weft-controller", "-n", "weft-system"]).unwrap();
    let own = cluster.dir.path().join("own.kubeconfig");
    std::fs::copy(&cluster.admin, &own).unwrap();
    for args in [
        &["config", "set-credentials", "weft", "--token", token.trim()][..],
        &["config", "set-context", "--current", "--user", "weft"],
    ] {
        let mut command = Command::new("/usr/bin/kubectl");
        assert!(command.arg("--kubeconfig").arg(&own).args(args).output().unwrap().status.success());
    }
    let refused = || {
        let metrics = cluster.kubectl(&["get", "--raw", "/metrics"]).unwrap();
        let refused =
            |line: &&str| line.starts_with("apiserver_request_total{") && line.contains("code=\"403\"");
        metrics.lines().filter(refused).map(str::to_owned).collect::<Vec<_>>()
    };
    let before = refused();
    fails_over(&cluster, &own);
    assert_eq!(refused(), before, "what the controller asked was refused");
}
