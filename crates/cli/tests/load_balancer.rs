//! Services of type LoadBalancer in a lab: their addresses out of pools, and clients outside of the cluster.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    reason = "a test fails by panicking and is one crate"
)]

mod common;

use std::process::Command;
use std::time::Duration;

use common::{Labs, eventually};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);
/// Pools, a Deployment, and two Services, one of which asks for its address.
const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/load-balancer.yaml");

const LATE: &str = "
apiVersion: v1
kind: Service
metadata: {name: late}
spec:
  type: LoadBalancer
  selector: {app: late}
  ports: [{port: 80, targetPort: 8080}]
";

/// The host outside hears nothing from this address.
const SILENT: &str = "nft add table ip cut; nft 'add chain ip cut in { type filter hook input priority 0; }'; \
     nft add rule ip cut in ip saddr 203.0.113.0 drop";

struct Lab(Labs);

impl Lab {
    fn kubectl(&self, args: &[&str]) -> String {
        let kubeconfig = self.0.expect(0, &["lab", "kubeconfig", "--name", "lb"]);
        let mut kubectl = Command::new("kubectl");
        kubectl.args(args).env("KUBECONFIG", kubeconfig.trim()).env("HOME", self.0.path(""));
        let output = kubectl.output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn ip(&self, service: &str) -> String {
        self.kubectl(&["get", "service", service, "-o", "jsonpath={.status.loadBalancer.ingress[*].ip}"])
    }

    /// What answers somebody outside of the cluster.
    fn answer(&self, to: &str) -> String {
        let line = format!("echo weft-whoami | socat -t 2 -T 2 - TCP:{to}");
        let output = self.0.run(&["lab", "exec", "--name", "lb", "underlay", "--", "sh", "-c", &line]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

#[test]
fn a_client_outside_reaches_a_service_by_an_address_of_a_pool() {
    let labs = Labs::new();
    labs.expect(0, &["lab", "up", "--name", "lb", "--nodes", "2"]);
    let lab = Lab(labs);
    lab.kubectl(&["apply", "-f", EXAMPLE]);
    eventually(SOON, "addresses", || {
        (lab.ip("web"), lab.ip("known")) == ("203.0.113.0".into(), "198.51.100.2".into())
    });
    let listed = lab.kubectl(&["get", "service", "web", "--no-headers"]);
    assert_eq!(listed.split_whitespace().nth(3), Some("203.0.113.0"), "{listed}");
    let pools = lab.kubectl(&["get", "lbpool"]);
    let head: Vec<&str> = pools.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(head, ["NAME", "ADDRESSES", "ASSIGNED", "AVAILABLE", "AGE"]);
    assert!(pools.lines().any(|line| line.contains("198.51.100.0/30") && line.contains(" 1 ")), "{pools}");
    let described = lab.kubectl(&["describe", "service", "web"]);
    assert!(described.contains("203.0.113.0 of the pool public"), "{described}");
    let list = ["service", "list", "--kubeconfig"];
    let kubeconfig = lab.0.expect(0, &["lab", "kubeconfig", "--name", "lb"]);
    let services = lab.0.expect(0, &[&list[..], &[kubeconfig.trim()]].concat());
    assert!(services.lines().any(|line| line.contains("web") && line.contains("203.0.113.0")), "{services}");
    // On the segment one node announces it; everybody is answered as the oracle says, also outside.
    let check = |what: &str| {
        let output = lab.0.run(&["lab", "check", "--name", "lb", "--sample", "400", "-o", "json"]);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let from_outside = |one: &&Value| one["from"].as_str().unwrap().starts_with("underlay/");
        let wrong = report["mismatches"].as_array().unwrap();
        println!("{what}: {} of {} as they should be", report["services_matching"], report["services"]);
        (output.status.code(), wrong.iter().filter(from_outside).count(), report["mismatches"].to_string())
    };
    let ready = || lab.kubectl(&["get", "deployment", "web", "-o", "jsonpath={.status.readyReplicas}"]);
    eventually(SOON, "three endpoints", || ready() == "3");
    let as_it_should = |what: &str| {
        eventually(SOON, what, || check(what).0 == Some(0));
    };
    as_it_should("policy Cluster");
    lab.kubectl(&["patch", "service", "web", "-p", r#"{"spec":{"externalTrafficPolicy":"Local"}}"#]);
    lab.kubectl(&[
        "patch",
        "service",
        "known",
        "-p",
        r#"{"spec":{"loadBalancerSourceRanges":["10.168.0.0/24"]}}"#,
    ]);
    as_it_should("policy Local, and a Service for the segment's hosts alone");
    lab.0.expect(0, &["lab", "exec", "--name", "lb", "underlay", "--", "sh", "-c", SILENT]);
    let (code, from_outside, all) = check("who hears no answer");
    assert!((code, from_outside) == (Some(1), 1), "{all}");
    lab.0
        .expect(0, &["lab", "exec", "--name", "lb", "underlay", "--", "nft", "delete", "table", "ip", "cut"]);
    // A route to a node is all that a client needs.
    let node = lab.kubectl(&["get", "node", "node1", "-o", "jsonpath={.status.addresses[0].address}"]);
    let route = format!("ip route add 203.0.113.0/24 via {node}");
    lab.0.expect(0, &["lab", "exec", "--name", "lb", "underlay", "--", "sh", "-c", &route]);
    eventually(SOON, "an answer", || lab.answer("203.0.113.0:80").contains("default/web-"));
    // What is given up belongs to whoever waits for it.
    lab.kubectl(&[
        "patch",
        "lbpool",
        "public",
        "--type=merge",
        "-p",
        r#"{"spec":{"addresses":["203.0.113.0/32"]}}"#,
    ]);
    let late = lab.0.file("late.yaml", LATE);
    lab.kubectl(&["apply", "-f", &late]);
    let reason = r"jsonpath={.status.conditions[?(@.type=='weft.dev/AddressesAssigned')].reason}";
    eventually(SOON, "no address is left", || {
        lab.kubectl(&["get", "service", "late", "-o", reason]) == "PoolFull"
    });
    lab.kubectl(&["patch", "service", "web", "-p", r#"{"spec":{"type":"ClusterIP"}}"#]);
    eventually(SOON, "the address moves on", || lab.ip("late") == "203.0.113.0" && lab.ip("web").is_empty());
    lab.kubectl(&["patch", "service", "late", "-p", r#"{"spec":{"selector":{"app":"web"}}}"#]);
    eventually(SOON, "an answer by the new Service", || {
        lab.answer("203.0.113.0:80").contains("default/web-")
    });
}
