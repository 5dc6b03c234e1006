//! Server-side apply by the real kubectl.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeSet;

use common::Running;
use common::raw::send;
use serde_json::{Value, json};

const WEB: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: "nginx:1", ports: [{containerPort: 80}]}
      - {name: side, image: "side:1"}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}, {port: 80, protocol: UDP, name: u}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: green, size: big}
"#;

fn web(from: &str, to: &str) -> String {
    // Ports of one number need names.
    let named = WEB.replace("targetPort: 8080}", "targetPort: 8080, name: t}");
    assert!(named.contains(from), "{from}");
    named.replace(from, to)
}

fn field(server: &Running, object: &str, path: &str) -> String {
    server.run(&["get", object, "-o", &format!("jsonpath={path}")], "")
}

fn fails(server: &Running, args: &[&str], input: &str) -> String {
    let output = server.output(args, input);
    assert!(!output.status.success(), "{args:?}");
    String::from_utf8(output.stderr).unwrap()
}

const APPLY: [&str; 4] = ["apply", "--server-side", "-f", "-"];

#[test]
fn objects_go_in_change_and_lose_what_is_dropped() {
    let server = Running::start();
    let first = server.run(&APPLY, &web("", ""));
    assert_eq!(first.matches("serverside-applied").count(), 3, "{first}");
    let version = field(&server, "deploy/web", "{.metadata.resourceVersion}");
    server.run(&APPLY, &web("", ""));
    assert_eq!(field(&server, "deploy/web", "{.metadata.resourceVersion}"), version, "nothing to write");
    server.run(&APPLY, &web("nginx:1", "nginx:2"));
    let images = "{.spec.template.spec.containers[*].image}";
    assert_eq!(field(&server, "deploy/web", images), "nginx:2 side:1");
    server.run(&APPLY, &web("      - {name: side, image: \"side:1\"}\n", ""));
    assert_eq!(field(&server, "deploy/web", images), "nginx:1");
    server.run(&APPLY, &web(", size: big", ""));
    assert_eq!(field(&server, "cm/settings", "{.data}"), r#"{"colour":"green"}"#);
    let managers = "{.metadata.managedFields[*].manager}/{.metadata.managedFields[*].operation}";
    let output = server
        .run(&["get", "deploy/web", "--show-managed-fields", "-o", &format!("jsonpath={managers}")], "");
    assert_eq!(output, "kubectl/Apply");
    let shown = server.run(&["get", "deploy/web", "--show-managed-fields", "-o", "yaml"], "");
    assert!(shown.contains(r#"k:{"containerPort":80,"protocol":"TCP"}:"#), "{shown}");
}

#[test]
fn a_whole_application_goes_in_and_comes_again() {
    let server = Running::start();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/shop");
    let apply = ["apply", "--server-side", "-f", folder, "-o", "name"];
    // The namespace is in the first file, and kubectl sends the files in order.
    let first = server.run(&apply, "");
    let kinds: BTreeSet<&str> = first.lines().filter_map(|name| Some(name.split_once('/')?.0)).collect();
    let kinds = kinds.into_iter().collect::<Vec<_>>().join(",");
    let path = "jsonpath={.items[*].metadata.resourceVersion}";
    let versions = || server.run(&["get", "-A", "-o", path, &kinds], "");
    let before = versions();
    assert!(first.lines().count() > 5 && !before.is_empty(), "{first}");
    assert_eq!(server.run(&apply, ""), first);
    assert_eq!(versions(), before, "nothing to write the second time");
}

#[test]
fn conflicts_are_told_and_forced() {
    let server = Running::start();
    server.run(&APPLY, &web("", ""));
    server.run(&["scale", "deploy/web", "--replicas=5"], "");
    let error = fails(&server, &APPLY, &web("", ""));
    assert!(error.contains("Apply failed with 1 conflict: conflict with \"kubectl\" with subresource \"scale\" using apps/v1: .spec.replicas"), "{error}");
    let other = ["apply", "--server-side", "--field-manager=other", "-f", "-"];
    let error = fails(&server, &other, &web("green", "red"));
    assert!(error.contains("conflict with \"kubectl\": .data.colour"), "{error}");
    server.run(&["apply", "--server-side", "--force-conflicts", "-f", "-"], &web("", ""));
    assert_eq!(field(&server, "deploy/web", "{.spec.replicas}"), "2");
    server.run(&APPLY, &web("  replicas: 2\n", ""));
    assert_eq!(field(&server, "deploy/web", "{.spec.replicas}"), "1", "dropped, and the default again");
    let dry =
        ["apply", "--server-side", "--dry-run=server", "-f", "-", "-o", "jsonpath={.items[*].data.colour}"];
    assert_eq!(server.run(&dry, &web("green", "blue")), "blue");
    assert_eq!(field(&server, "cm/settings", "{.data.colour}"), "green");
}

#[test]
fn kubectls_client_side_objects_move_over() {
    let server = Running::start();
    server.run(&["apply", "-f", "-"], &web("", ""));
    server.run(&APPLY, &web("nginx:1", "nginx:3"));
    server.run(&APPLY, &web("nginx:1", "nginx:4").replace(", size: big", ""));
    assert_eq!(field(&server, "deploy/web", "{.spec.template.spec.containers[0].image}"), "nginx:4");
    assert_eq!(field(&server, "cm/settings", "{.data}"), r#"{"colour":"green"}"#);
    let output = server.run(&["apply", "-f", "-"], &web("nginx:1", "nginx:5"));
    assert!(output.contains("deployment.apps/web configured"), "{output}");
}

#[tokio::test]
async fn the_status_and_the_scale_have_owners_too() {
    let server = Running::start();
    let put = |path: &str, body: Value| {
        let (server, path) = (&server, format!("/apis/apps/v1/namespaces/default/deployments/{path}"));
        async move {
            let body = body.to_string();
            send(server, "PATCH", &path, "application/apply-patch+yaml", body.as_bytes()).await
        }
    };
    let head = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}});
    let with = |field: &str, value: Value| {
        let mut object = head.clone();
        object[field] = value;
        object
    };
    let spec = json!({"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "template": {
        "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "a", "image": "b"}]}}});
    assert_eq!(put("web", with("spec", spec.clone())).await.0, 422, "a manager must be named");
    assert_eq!(put("web/status?fieldManager=s", head.clone()).await.0, 404);
    assert_eq!(put("web?fieldManager=m", with("spec", spec.clone())).await.0, 201);
    let (code, object) = put("web/status?fieldManager=s", with("status", json!({"replicas": 7}))).await;
    assert_eq!((code, &object["status"]["replicas"]), (200, &json!(7)), "{object}");
    let managers = object["metadata"]["managedFields"].as_array().unwrap();
    assert!(managers.iter().any(|m| m["subresource"] == "status" && m["manager"] == "s"), "{object}");
    let scale = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web"}, "spec": {"replicas": 4}});
    let (code, error) = put("web/scale?fieldManager=h", scale.clone()).await;
    assert_eq!((code, &error["details"]["causes"][0]["field"]), (409, &json!(".spec.replicas")), "{error}");
    let (code, scale) = put("web/scale?fieldManager=h&force=true", scale).await;
    assert_eq!((code, &scale["spec"]["replicas"]), (200, &json!(4)), "{scale}");
    let error = put("web?fieldManager=m", with("spec", spec)).await.1;
    assert_eq!(
        error["message"],
        "Apply failed with 1 conflict: conflict with \"h\" with subresource \"scale\": .spec.replicas"
    );
    let cbor = send(
        &server,
        "PATCH",
        "/api/v1/namespaces/default/configmaps/a?fieldManager=x",
        "application/apply-patch+cbor",
        b"x",
    )
    .await;
    assert_eq!(cbor.0, 415);
}
