//! Services in a lab, end to end: every kind of them, and what becomes of their connections.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    reason = "a test fails by panicking and is one crate"
)]

mod common;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use common::{Labs, eventually, signal};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);

const WEB: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: web
        ports: [{containerPort: 8080}, {containerPort: 5353, protocol: UDP}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}, {name: dns, port: 53, protocol: UDP, targetPort: 5353}]
"#;

const KINDS: &str = r#"
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: host}
spec:
  selector: {matchLabels: {app: host}}
  template:
    metadata: {labels: {app: host}}
    spec:
      hostNetwork: true
      containers: [{name: host, image: host, ports: [{containerPort: 9100}]}]
---
apiVersion: v1
kind: Service
metadata: {name: both}
spec:
  ipFamilyPolicy: RequireDualStack
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}, {name: dns, port: 53, protocol: UDP, targetPort: 5353}]
---
apiVersion: v1
kind: Service
metadata: {name: ports}
spec:
  type: NodePort
  ipFamilyPolicy: RequireDualStack
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080, nodePort: 30080}, {name: dns, port: 53, protocol: UDP, targetPort: 5353}]
---
apiVersion: v1
kind: Service
metadata: {name: local}
spec:
  type: NodePort
  externalTrafficPolicy: Local
  internalTrafficPolicy: Local
  externalIPs: [192.0.2.77]
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: sticky}
spec:
  type: NodePort
  sessionAffinity: ClientIP
  externalTrafficPolicy: Local
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}, {name: dns, port: 53, protocol: UDP, targetPort: 5353}]
---
apiVersion: v1
kind: Service
metadata: {name: host}
spec:
  type: NodePort
  selector: {app: host}
  ports: [{port: 80, targetPort: 9100}]
"#;

const NOBODY: &str = r#"
---
apiVersion: v1
kind: Service
metadata: {name: nobody}
spec:
  type: NodePort
  selector: {app: nobody}
  ports: [{name: http, port: 80}, {name: dns, port: 53, protocol: UDP}]
"#;

/// A lab with the Deployment and Service `web`.
struct Lab {
    labs: Labs,
    name: &'static str,
}

impl Lab {
    fn up(name: &'static str, manifests: &str, options: &[&str]) -> Lab {
        let labs = Labs::new();
        let file = labs.file("services.yaml", manifests);
        labs.expect(0, &[&["lab", "up", "--name", name, "-f", &file], options].concat());
        Lab { labs, name }
    }

    fn kubectl(&self, args: &[&str]) -> String {
        let kubeconfig = self.labs.expect(0, &["lab", "kubeconfig", "--name", self.name]);
        let mut kubectl = Command::new("kubectl");
        kubectl.args(args).env("KUBECONFIG", kubeconfig.trim()).env("HOME", self.labs.path(""));
        let output = kubectl.output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn ip(&self, service: &str) -> String {
        self.kubectl(&["get", "service", service, "-o", "jsonpath={.spec.clusterIP}"])
    }

    /// The check finds everything as it should be, soon.
    fn checks(&self) -> Value {
        let check = ["lab", "check", "--name", self.name, "-o", "json"];
        let mut last = Vec::new();
        let good = || {
            let output = self.labs.run(&check);
            last = output.stdout;
            output.status.success()
        };
        let passed =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| eventually(SOON, "the check", good)));
        let report: Value = serde_json::from_slice(&last).unwrap();
        assert!(passed.is_ok(), "{:#}", report["mismatches"]);
        report
    }

    /// A shell in a pod or on a node, with what it prints line by line.
    fn shell(&self, target: &str, line: &str) -> Shell {
        let args = ["lab", "exec", "--name", self.name, target, "--", "sh", "-c", line];
        let mut child = self.labs.weft(&args).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let (teller, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if teller.send(line).is_err() {
                    return;
                }
            }
        });
        Shell { child, lines }
    }

    /// Whether a new connection is answered.
    fn answers(&self, target: &str, to: &str) -> bool {
        let line = format!("echo weft-whoami | socat -t 2 -T 2 - {to}");
        let output = self.labs.run(&["lab", "exec", "--name", self.name, target, "--", "sh", "-c", &line]);
        String::from_utf8_lossy(&output.stdout).contains("default/web-")
    }
}

struct Shell {
    child: Child,
    lines: Receiver<String>,
}

impl Shell {
    /// The next line that is printed from now on.
    fn next(&self) -> String {
        while self.lines.try_recv().is_ok() {}
        self.lines.recv_timeout(SOON).expect("a line in time")
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks again and again over one flow.
fn asking(to: &str) -> String {
    format!("while echo weft-whoami; do sleep 0.1; done | socat -t 5 - {to}")
}

/// The same over one flow of UDP, also when an answer says that nobody listens.
fn one_flow(ip: &str) -> String {
    let ask = format!("socat -t 0.2 -T 0.2 - UDP:{ip}:53,sourceport=40000 2>/dev/null");
    format!("while :; do echo weft-whoami | {ask}; done")
}

#[test]
fn every_kind_of_service_from_everywhere_by_nftables() {
    let lab = every_kind("nftables", NOBODY);
    let tables = lab.labs.on_node("s", "node1", "nft list tables");
    assert!(
        tables.contains("table ip weft-services") && tables.contains("table ip6 weft-services"),
        "{tables}"
    );
}

#[test]
fn every_kind_of_service_from_everywhere_by_iptables() {
    // Its refusals are of ICMP also for TCP, as kube-proxy's are, of which the kernel sends one client few:
    // they have rows of their own in the tests of crates/service.
    let lab = every_kind("iptables", "");
    let rules = lab.labs.on_node("s", "node1", "iptables-save -t nat; nft list tables");
    assert!(rules.contains("KUBE-SVC-") && !rules.contains("weft-services"), "{rules}");
}

#[test]
fn every_kind_of_service_from_everywhere_by_the_userspace_proxy() {
    every_kind("userspace", NOBODY);
}

fn every_kind(mode: &str, more: &str) -> Lab {
    let families = ["--pod-cidr", "10.244.0.0/16", "--pod-cidr", "fd00:244::/48", "--proxy", mode];
    let lab = Lab::up("s", &format!("{WEB}{KINDS}{more}"), &families);
    let report = lab.checks();
    // Nine parties: three pods, as many of the host's network, the nodes.
    let count = report["services"].as_u64().unwrap();
    assert!(count >= 9 * 30, "{count} connections");
    assert_eq!(report["services"], report["services_matching"]);
    lab
}

#[test]
fn connections_outlive_the_agent_and_a_flush_and_new_ones_are_led_again() {
    let lab = Lab::up("f", WEB, &["--nodes", "2", "--backend", "vxlan"]);
    lab.checks();
    let ip = lab.ip("web");
    let long = lab.shell("node/node1", &asking(&format!("TCP:{ip}:80")));
    // Who answers says so once; then comes back what is sent.
    assert!(long.next().contains("default/web-"));
    let goes_on = |when: &str| assert_eq!(long.next(), "weft-whoami", "{when}");
    let state = lab.labs.state("f").join("node/node1/agent/services.json");
    let agent = lab.labs.processes(&["agent", "--node-name", "node1"])[0];
    signal(agent, "KILL");
    std::fs::remove_file(&state).unwrap();
    assert!(lab.answers("node/node1", &format!("TCP:{ip}:80")), "without the agent");
    goes_on("while no agent ran");
    let status = || -> Value {
        std::fs::read(&state).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    };
    eventually(SOON, "the agent is back", || status()["programmed"] == true);
    lab.labs.on_node("f", "node1", "nft flush ruleset");
    eventually(SOON, "new connections are led again", || lab.answers("node/node1", &format!("TCP:{ip}:80")));
    goes_on("after the flush");
    // One element, one chain.
    for broken in ["flush map ip weft-services endpoints", "flush chain ip weft-services services"] {
        lab.labs.on_node("f", "node1", &format!("nft {broken}"));
        eventually(SOON, broken, || lab.answers("node/node1", &format!("TCP:{ip}:80")));
    }
    eventually(SOON, "it says so", || status()["repaired"].as_u64() > Some(0));
    assert_eq!((&status()["programmed"], &status()["mode"]), (&Value::from(true), &Value::from("nftables")));
    lab.checks();
}

#[test]
fn a_client_of_udp_is_led_on_when_its_endpoint_goes() {
    let lab = Lab::up("u", WEB, &["--nodes", "2"]);
    lab.checks();
    let flow = lab.shell("node/node1", &one_flow(&lab.ip("web")));
    for _ in 0..2 {
        let answer = flow.next();
        let pod = answer.split_whitespace().next().unwrap().strip_prefix("default/").unwrap().to_owned();
        lab.kubectl(&["delete", "pod", &pod, "--now"]);
        eventually(SOON, "another endpoint answers", || !flow.next().contains(&pod));
    }
    // With nobody left it waits, and goes on when there is somebody again.
    lab.kubectl(&["scale", "deployment", "web", "--replicas", "0"]);
    let none = || lab.kubectl(&["get", "endpointslices", "-o", "jsonpath={.items[*].endpoints}"]);
    eventually(SOON, "nobody serves", || !none().contains("\"name\":\"web-"));
    lab.kubectl(&["scale", "deployment", "web", "--replicas", "1"]);
    flow.next();
}

#[test]
fn a_load_balancer_learns_where_endpoints_are_and_the_node_s_health() {
    let manifest = format!(
        "{WEB}---\napiVersion: v1\nkind: Service\nmetadata: {{name: lb}}\nspec:\n  type: LoadBalancer\n  \
         externalTrafficPolicy: Local\n  selector: {{app: web}}\n  ports: [{{port: 80, targetPort: 8080}}]\n"
    );
    let lab = Lab::up("h", &manifest, &["--nodes", "2"]);
    lab.kubectl(&["scale", "deployment", "web", "--replicas", "1"]);
    let port = lab.kubectl(&["get", "service", "lb", "-o", "jsonpath={.spec.healthCheckNodePort}"]);
    let node = lab.kubectl(&["get", "pods", "-l", "app=web", "-o", "jsonpath={.items[0].spec.nodeName}"]);
    let ask = |node: &str, port: &str, path: &str| {
        let get =
            format!("printf 'GET {path} HTTP/1.0\\r\\n\\r\\n' | socat -t 5 - TCP:127.0.0.1:{port} || true");
        lab.labs.on_node("h", node, &get)
    };
    for name in ["node1", "node2"] {
        let code = if name == node { "200 OK" } else { "503 " };
        eventually(SOON, name, || ask(name, &port, "/").contains(code));
        let told = ask(name, &port, "/");
        let count = usize::from(name == node);
        assert!(told.contains(&format!("x-load-balancing-endpoint-weight: {count}")), "{told}");
        assert!(told.contains("\"name\": \"lb\""), "{told}");
        let told = ask(name, "10256", "/healthz");
        assert!(told.contains("200 OK") && told.contains("\"nodeEligible\": true"), "{told}");
    }
}

#[test]
fn no_request_fails_while_a_deployment_is_rolled_by_nftables() {
    rolls("nftables");
}

#[test]
fn no_request_fails_while_a_deployment_is_rolled_by_iptables() {
    rolls("iptables");
}

#[test]
fn no_request_fails_while_a_deployment_is_rolled_by_the_userspace_proxy() {
    rolls("userspace");
}

fn rolls(mode: &str) {
    let graceful =
        WEB.replace("image: web\n", "image: web\n        lifecycle: {preStop: {sleep: {seconds: 2}}}\n");
    let graceful =
        graceful.replace("replicas: 3", "replicas: 3\n  strategy: {rollingUpdate: {maxUnavailable: 0}}");
    let lab = Lab::up("r", &graceful, &["--nodes", "2", "--proxy", mode]);
    lab.checks();
    let line = format!("wrk -t 1 -c 8 -d 12 -H 'Connection: close' http://{}/", lab.ip("web"));
    let load = lab.labs.weft(&["lab", "exec", "--name", "r", "node/node1", "--", "sh", "-c", &line]);
    let load = { load }.stdout(Stdio::piped()).spawn().unwrap();
    lab.kubectl(&["rollout", "restart", "deployment", "web"]);
    lab.kubectl(&["rollout", "status", "deployment", "web", "--timeout", "60s"]);
    let told = String::from_utf8(load.wait_with_output().unwrap().stdout).unwrap();
    assert!(told.contains("requests in"), "{told}");
    assert!(!told.contains("Socket errors") && !told.contains("Non-2xx"), "{told}");
}
