//! The real kubectl against the server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use common::Running;

/// A ConfigMap of a name.
fn map(name: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}")
}

const SHOP: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop, labels: {app: web}}
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
metadata: {name: web, namespace: shop}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: shop}
data: {colour: green}
"#;

#[test]
fn apply_twice_change_and_delete() {
    let server = Running::start();
    let first = server.run(&["apply", "-f", "-"], SHOP);
    assert_eq!(first.lines().filter(|l| l.ends_with(" created")).count(), 4, "{first}");
    let second = server.run(&["apply", "-f", "-"], SHOP);
    assert_eq!(second.lines().filter(|l| l.ends_with(" unchanged")).count(), 4, "{second}");
    let third = server.run(&["apply", "-f", "-"], &SHOP.replace("side:1", "side:2"));
    assert!(third.contains("deployment.apps/web configured"), "{third}");
    let images = "jsonpath={.spec.template.spec.containers[*].image} {.metadata.generation}";
    assert_eq!(server.run(&["get", "deploy", "web", "-n", "shop", "-o", images], ""), "nginx:1 side:2 2");
    let removed = SHOP.replace("      - {name: side, image: \"side:1\"}\n", "");
    server.run(&["apply", "-f", "-"], &removed);
    assert_eq!(server.run(&["get", "deploy", "web", "-n", "shop", "-o", images], ""), "nginx:1 3");
    let gone = server.run(&["delete", "--wait=false", "-f", "-"], SHOP);
    assert_eq!(gone.lines().filter(|l| l.contains(" deleted")).count(), 4, "{gone}");
    assert_eq!(server.run(&["get", "deploy,svc,cm", "-n", "shop", "-o", "name"], ""), "");
}

#[test]
fn tables_print_as_users_know_them() {
    let server = Running::start();
    server.run(&["apply", "-f", "-"], SHOP);
    let services = server.run(&["get", "svc", "-n", "shop"], "");
    assert!(services.starts_with("NAME   TYPE        CLUSTER-IP"), "{services}");
    assert!(services.contains("10.96.") && services.contains("80/TCP"), "{services}");
    let deployments = server.run(&["get", "deployments", "-A", "-o", "wide"], "");
    assert!(deployments.contains("0/2") && deployments.contains("nginx:1,side:1"), "{deployments}");
    let namespaces = server.run(&["get", "ns"], "");
    assert!(namespaces.contains("kube-system") && namespaces.contains("Active"), "{namespaces}");
    assert!(server.run(&["get", "all", "-n", "shop"], "").contains("deployment.apps/web"));
}

#[test]
fn patch_scale_label_and_describe() {
    let server = Running::start();
    server.run(&["apply", "-f", "-"], SHOP);
    server.run(&["-n", "shop", "scale", "deploy/web", "--replicas=5"], "");
    server.run(&["-n", "shop", "label", "deploy/web", "tier=front"], "");
    server.run(&["-n", "shop", "set", "image", "deploy/web", "web=nginx:2"], "");
    let json = r#"[{"op":"replace","path":"/data/colour","value":"blue"}]"#;
    server.run(&["-n", "shop", "patch", "cm", "settings", "--type=json", "-p", json], "");
    server.run(&["-n", "shop", "patch", "cm", "settings", "--type=merge", "-p", r#"{"data":{"a":"b"}}"#], "");
    let path = "jsonpath={.spec.replicas} {.metadata.labels.tier} {.spec.template.spec.containers[0].image}";
    assert_eq!(
        server.run(
            &["-n", "shop", "get", "deploy", "-l", "tier=front", "-o", &path.replace("{.", "{.items[0].")],
            ""
        ),
        "5 front nginx:2"
    );
    assert_eq!(
        server.run(&["-n", "shop", "get", "cm", "settings", "-o", "jsonpath={.data}"], ""),
        r#"{"a":"b","colour":"blue"}"#
    );
    assert!(server.run(&["-n", "shop", "describe", "deploy", "web"], "").contains("nginx:2"));
    assert!(server.run(&["api-resources"], "").contains("endpointslices"));
}

#[test]
fn a_custom_kind_is_served() {
    let server = Running::start();
    let definition = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: boats.sea.example.com}
spec:
  group: sea.example.com
  scope: Namespaced
  names: {plural: boats, singular: boat, kind: Boat, shortNames: [bt]}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {sails: {type: integer}}}}}}
    additionalPrinterColumns: [{name: Sails, type: integer, jsonPath: .spec.sails}]
"#;
    server.run(&["apply", "-f", "-"], definition);
    server.run(&["wait", "--for=condition=Established", "crd/boats.sea.example.com", "--timeout=10s"], "");
    let boat = "apiVersion: sea.example.com/v1\nkind: Boat\nmetadata: {name: anna}\nspec: {sails: 3}";
    server.run(&["apply", "-f", "-"], boat);
    assert!(server.run(&["apply", "-f", "-"], &boat.replace("sails: 3", "sails: 4")).contains("configured"));
    let table = server.run(&["get", "bt"], "");
    assert!(table.contains("SAILS") && table.contains("anna   4"), "{table}");
    server.run(&["delete", "crd", "boats.sea.example.com"], "");
    assert!(!server.output(&["get", "boats"], "").status.success());
}

#[test]
fn create_by_name() {
    let server = Running::start();
    server.run(&["create", "ns", "shop"], "");
    server.run(&["-n", "shop", "create", "cm", "a", "--from-literal=x=1"], "");
    server.run(&["-n", "shop", "create", "secret", "generic", "s", "--from-literal=p=w"], "");
    server.run(&["-n", "shop", "create", "sa", "who"], "");
    server.run(&["-n", "shop", "create", "deploy", "web", "--image=nginx", "--replicas=2", "--port=80"], "");
    let get = |kind: &str, path: &str| {
        server.run(&["-n", "shop", "get", kind, "-o", &format!("jsonpath={path}")], "")
    };
    assert_eq!(get("cm/a", "{.data.x}"), "1");
    assert_eq!(get("secret/s", "{.type} {.data.p}"), "Opaque dw==");
    let path = "{.spec.replicas} {.spec.template.spec.containers[0].ports[0].containerPort}";
    assert_eq!(get("deploy/web", path), "2 80");
    server.run(&["-n", "shop", "rollout", "restart", "deploy/web"], "");
}

#[test]
fn watch_prints_changes() {
    let server = Running::start();
    server.run(&["create", "-f", "-"], &map("a"));
    let mut child = server
        .kubectl(&["get", "cm", "-w", "--output-watch-events", "--no-headers"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.next().unwrap().contains("ADDED"));
    server.run(&["create", "-f", "-"], &map("b"));
    assert!(lines.next().unwrap().split_whitespace().take(2).eq(["ADDED", "b"]));
    server.run(&["label", "cm", "b", "x=y"], "");
    assert!(lines.next().unwrap().split_whitespace().take(2).eq(["MODIFIED", "b"]));
    server.run(&["delete", "cm", "a"], "");
    assert!(lines.next().unwrap().split_whitespace().take(2).eq(["DELETED", "a"]));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn mistakes_are_explained() {
    let server = Running::start();
    let fails = |args: &[&str], input: &str| {
        let output = server.output(args, input);
        assert!(!output.status.success(), "{args:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let pod =
        "apiVersion: v1\nkind: Pod\nmetadata: {name: Bad_Name}\nspec: {containers: [{name: a, image: b}]}";
    let error = fails(&["create", "-f", "-"], pod);
    assert!(
        error.contains("metadata.name: Invalid value: \"Bad_Name\": a lowercase RFC 1123 subdomain"),
        "{error}"
    );
    let error = fails(&["create", "-n", "nowhere", "-f", "-"], &map("a"));
    assert!(error.contains("namespaces \"nowhere\" not found"), "{error}");
    server.run(&["create", "-f", "-"], &map("a"));
    assert!(fails(&["create", "-f", "-"], &map("a")).contains("configmaps \"a\" already exists"));
    assert!(fails(&["get", "pod", "nothing"], "").contains("pods \"nothing\" not found"));
}

#[test]
fn unknown_and_repeated_fields() {
    let server = Running::start();
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: i, imagee: b}], nodeNam: c}";
    let strict = server.output(&["apply", "-f", "-"], pod);
    let error = String::from_utf8(strict.stderr).unwrap();
    assert!(!strict.status.success());
    assert!(
        error.contains(
            "Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: unknown field \"spec.nodeNam\", unknown field \"spec.containers[0].imagee\""
        ),
        "{error}"
    );
    let warned = server.output(&["apply", "--validate=warn", "-f", "-"], pod);
    let error = String::from_utf8(warned.stderr).unwrap();
    assert!(warned.status.success(), "{error}");
    assert!(error.contains("Warning: unknown field \"spec.nodeNam\""), "{error}");
    let kept = server.run(&["get", "pod", "a", "-o", "jsonpath={.spec}"], "");
    assert!(!kept.contains("nodeNam") && !kept.contains("imagee"), "{kept}");
    let patch = ["patch", "pod", "a", "--type=merge", "-p", r#"{"metadata":{"labelz":{}}}"#];
    let warned = server.output(&patch, "");
    assert!(String::from_utf8(warned.stderr).unwrap().contains("unknown field \"metadata.labelz\""));
    let typed = server.output(&["create", "-f", "-"], &pod.replace("image: i, imagee: b", "image: 1"));
    let error = String::from_utf8(typed.stderr).unwrap();
    assert!(
        error.contains(
            "cannot unmarshal number into Go struct field Container.spec.containers.image of type string"
        ),
        "{error}"
    );
}
