//! F43: kube-proxy runs on the host too, and hands its Services over.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    reason = "a test fails by panicking and is one crate"
)]

mod common;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{Labs, built, eventually, signal};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);
const NAME: &str = "k";

const WEB: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: web, image: web, ports: [{containerPort: 8080}]}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
"#;

/// A process on node1 that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Host {
    labs: Labs,
    ip: String,
}

impl Host {
    /// A lab of one node whose own agent leaves Services to others.
    fn up() -> Host {
        let labs = Labs::new();
        let file = labs.file("web.yaml", WEB);
        labs.expect(0, &["lab", "up", "--name", NAME, "--nodes", "1", "--proxy", "none", "-f", &file]);
        let kubeconfig = labs.expect(0, &["lab", "kubeconfig", "--name", NAME]);
        let mut kubectl = Command::new("kubectl");
        kubectl.args(["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"]);
        let output =
            kubectl.env("KUBECONFIG", kubeconfig.trim()).env("HOME", labs.path("")).output().unwrap();
        Host { ip: String::from_utf8(output.stdout).unwrap(), labs }
    }

    fn start(&self, argv: &[&str]) -> Running {
        let args = [&["lab", "exec", "--name", NAME, "node/node1", "--"], argv].concat();
        Running(
            self.labs
                .weft(&args)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap(),
        )
    }

    fn kubeconfig(&self) -> String {
        self.labs.state(NAME).join("node/node1/kubeconfig").display().to_string()
    }

    /// Whether a new connection is answered.
    fn answers(&self) -> bool {
        let ask = format!("echo weft-whoami | socat -t 2 -T 2 - TCP:{}:80", self.ip);
        let output = self.labs.run(&["lab", "exec", "--name", NAME, "node/node1", "--", "sh", "-c", &ask]);
        String::from_utf8_lossy(&output.stdout).contains("default/web-")
    }

    /// The agent that is to have the Services, with files of its own and this host's number.
    fn agent(&self, files: &Path) -> Running {
        std::fs::create_dir_all(files.join("agent")).unwrap();
        let number = self.labs.state(NAME).join("node/node1/agent/host-id");
        std::fs::copy(number, files.join("agent/host-id")).unwrap();
        let path = |name: &str| files.join(name).display().to_string();
        let weft = built("weft").display().to_string();
        let cluster = ["--kubeconfig", &self.kubeconfig(), "--cluster-cidr", "10.244.0.0/16"];
        let (conf, data, subnet, state) =
            (path("net.d"), path("networks"), path("subnet.env"), path("agent"));
        let files = [
            "--cni-conf-dir",
            &conf,
            "--cni-data-dir",
            &data,
            "--subnet-file",
            &subnet,
            "--state-dir",
            &state,
        ];
        self.start(&[&[&*weft, "agent", "--node-name", "node1"], &cluster[..], &files].concat())
    }
}

fn hands_over(mode: &str) {
    let proxy = std::env::var("WEFT_KUBERNETES").expect("the real kube-proxy") + "/kube-proxy";
    let host = Host::up();
    let kubeconfig = host.kubeconfig();
    let _kube_proxy = host.start(&[
        &proxy,
        "--kubeconfig",
        &kubeconfig,
        "--proxy-mode",
        mode,
        "--hostname-override",
        "node1",
        "--cluster-cidr",
        "10.244.0.0/16",
        "--conntrack-max-per-core",
        "0",
        "--conntrack-tcp-timeout-established",
        "0",
        "--conntrack-tcp-timeout-close-wait",
        "0",
    ]);
    eventually(SOON, "kube-proxy serves", || host.answers());
    let lines = host.labs.path("long.txt").display().to_string();
    let long =
        format!("while echo weft-whoami; do sleep 0.1; done | socat -t 5 - TCP:{}:80 > {lines}", host.ip);
    let _long = host.start(&["sh", "-c", &long]);
    let count = || std::fs::read_to_string(&lines).unwrap_or_default().lines().count();
    eventually(SOON, "the connection is there", || count() > 2);

    // Beside kube-proxy the agent does nothing, and says why.
    let files = host.labs.path("second");
    let _agent = host.agent(&files);
    let state = files.join("agent").display().to_string();
    let status = || -> Value {
        let text = std::fs::read(files.join("agent/services.json")).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    };
    let said = || status()["errors"][0].as_str().unwrap_or_default().to_owned();
    eventually(SOON, "the agent refuses", || said().contains("migrate-from kube-proxy"));
    let tables = || host.labs.on_node(NAME, "node1", "nft list tables");
    assert!(!tables().contains("weft-services"));
    let weft = built("weft").display().to_string();
    let migrate = |code: i32| {
        let args = [&weft, "service", "migrate-from", "kube-proxy", "--state-dir", &state];
        host.labs.expect(code, &[&["lab", "exec", "--name", NAME, "node/node1", "--"][..], &args].concat())
    };
    migrate(3);

    let processes = || host.labs.processes(&[&proxy]);
    processes().into_iter().for_each(|pid| signal(pid, "KILL"));
    eventually(SOON, "kube-proxy has ended", || processes().is_empty());
    assert!(host.answers(), "by the rules that kube-proxy left");
    let before = count();
    assert!(migrate(0).contains("kube-proxy's rules are removed"));
    assert!(host.answers(), "by the agent");
    assert_eq!(status()["programmed"], true);
    let left = host.labs.on_node(NAME, "node1", "nft list tables; iptables-save; ip6tables-save");
    assert!(
        left.contains("weft-services") && !left.contains("kube-proxy") && !left.contains("KUBE-SVC"),
        "{left}"
    );
    eventually(SOON, "the connection goes on", || count() > before + 5);
    assert!(migrate(0).contains("nothing of kube-proxy"));
}

#[test]
#[ignore = "needs the real kube-proxy: scripts/test.sh kubernetes"]
fn f43_services_pass_from_kube_proxy_of_mode_nftables() {
    hands_over("nftables");
}

#[test]
#[ignore = "needs the real kube-proxy: scripts/test.sh kubernetes"]
fn f43_services_pass_from_kube_proxy_of_mode_iptables() {
    hands_over("iptables");
}
