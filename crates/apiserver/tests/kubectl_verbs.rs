//! What operators do with the real kubectl beside apply: scale, roll out, replace, wait, cascade, drain.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use common::Running;
use serde_json::json;
use weft_apiserver::{Part, Patch, kinds};

const WEB: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: "nginx:1"}]}
"#;

fn get(server: &Running, object: &str, path: &str) -> String {
    server.run(&["get", object, "-o", &format!("jsonpath={path}")], "")
}

#[test]
fn objects_are_edited_replaced_and_waited_for() {
    let server = Running::start();
    server.run(&["create", "-f", "-"], WEB);
    server.run(&["scale", "deploy/web", "--replicas=4", "--current-replicas=2"], "");
    server.run(&["annotate", "deploy/web", "a/b=c"], "");
    server.run(&["label", "deploy/web", "x=y"], "");
    server.run(&["label", "deploy/web", "x-"], "");
    server.run(&["set", "env", "deploy/web", "A=1"], "");
    server.run(&["rollout", "pause", "deploy/web"], "");
    server.run(&["rollout", "resume", "deploy/web"], "");
    let paths = "{.spec.replicas} {.metadata.annotations.a/b} {.metadata.labels.x} {.spec.template.spec.containers[0].env[0].value}";
    assert_eq!(get(&server, "deploy/web", paths), "4 c  1");
    let mut edit = server.kubectl(&["edit", "deploy/web"]);
    edit.env("KUBE_EDITOR", "sed -i s/nginx:1/nginx:2/");
    assert!(edit.output().unwrap().status.success());
    assert_eq!(get(&server, "deploy/web", "{.spec.template.spec.containers[0].image}"), "nginx:2");
    server.run(&["replace", "-f", "-"], WEB);
    assert_eq!(get(&server, "deploy/web", "{.spec.replicas}"), "2");
    let uid = get(&server, "deploy/web", "{.metadata.uid}");
    server.run(&["replace", "--force", "-f", "-"], WEB);
    assert_ne!(get(&server, "deploy/web", "{.metadata.uid}"), uid);
    server.run(
        &[
            "patch",
            "deploy/web",
            "--subresource=status",
            "--type=merge",
            "-p",
            r#"{"status":{"replicas":3}}"#,
        ],
        "",
    );
    server.run(&["wait", "deploy/web", "--for=jsonpath={.status.replicas}=3", "--timeout=10s"], "");
    server.run(
        &[
            "patch",
            "deploy/web",
            "--subresource=scale",
            "--type=json",
            "-p",
            r#"[{"op":"replace","path":"/spec/replicas","value":7}]"#,
        ],
        "",
    );
    assert_eq!(get(&server, "deploy/web", "{.spec.replicas}"), "7");
    server.run(&["delete", "deploy/web", "--cascade=orphan", "--wait=false"], "");
    assert_eq!(get(&server, "deploy/web", "{.metadata.finalizers}"), r#"["orphan"]"#);
}

fn pod(server: &Running, name: &str) {
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: web}}}}\nspec: {{nodeName: n1, terminationGracePeriodSeconds: 0, containers: [{{name: a, image: b}}]}}"
    );
    server.run(&["create", "-f", "-"], &pod);
    let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    let patch = Patch::Merge(status);
    let set = server.registry.patch(&kinds::PODS, Some("default"), name, Part::Status, patch);
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(set).unwrap();
}

#[test]
fn a_node_is_cordoned_tainted_and_drained() {
    let server = Running::start();
    server.run(&["create", "-f", "-"], "apiVersion: v1\nkind: Node\nmetadata: {name: n1}");
    server.run(&["taint", "node", "n1", "a=b:NoSchedule", "c=d:NoSchedule"], "");
    server.run(&["taint", "node", "n1", "a-"], "");
    assert_eq!(get(&server, "node/n1", "{.spec.taints[*].key}"), "c node.kubernetes.io/not-ready");
    server.run(&["cordon", "n1"], "");
    assert_eq!(get(&server, "node/n1", "{.spec.unschedulable}"), "true");
    server.run(&["uncordon", "n1"], "");
    assert_eq!(get(&server, "node/n1", "{.spec.unschedulable}"), "");
    ["p1", "p2"].iter().for_each(|name| pod(&server, name));
    server.run(&["create", "pdb", "web", "--selector=app=web", "--min-available=1"], "");
    let allow = |left: u32| {
        let status = format!(
            r#"{{"status":{{"observedGeneration":1,"disruptionsAllowed":{left},"desiredHealthy":1,"currentHealthy":2}}}}"#
        );
        server.run(&["patch", "pdb", "web", "--subresource=status", "--type=merge", "-p", &status], "");
    };
    allow(1);
    let drain = ["drain", "n1", "--force", "--timeout=3s"];
    let output = server.output(&drain, "");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("violate the pod's disruption budget"), "{text}");
    assert_eq!(get(&server, "pods", "{.items[*].metadata.name}").split(' ').count(), 1, "one may go");
    allow(1);
    server.run(&drain, "");
    assert_eq!(get(&server, "pods", "{.items[*].metadata.name}"), "");
}
