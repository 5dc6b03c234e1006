//! What the server tells about itself, as the real kubectl reads it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use common::Running;
use serde_json::Value;

fn raw(server: &Running, path: &str) -> Value {
    serde_json::from_str(&server.run(&["get", "--raw", path], "")).unwrap()
}

#[test]
fn kinds_are_explained() {
    let server = Running::start();
    let pod = server.run(&["explain", "pod.spec.containers"], "");
    for text in [
        "KIND:       Pod",
        "FIELD: containers <[]Container>",
        "imagePullPolicy\t<string>",
        "List of containers belonging to the pod",
    ] {
        assert!(pod.contains(text), "{text}: {pod}");
    }
    let all = server.run(&["explain", "deploy", "--recursive"], "");
    assert!(all.contains("maxSurge\t<IntOrString>"), "{all}");
    let older = server.run(&["explain", "svc.spec.ports", "--output=plaintext-openapiv2"], "");
    assert!(older.contains("nodePort\t<integer>"), "{older}");
}

#[test]
fn a_custom_kind_is_explained_in_both_versions() {
    let server = Running::start();
    let crd = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: boats.sea.example.com}
spec:
  group: sea.example.com
  scope: Namespaced
  names: {plural: boats, kind: Boat, categories: [all]}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, properties: {sails: {type: integer, minimum: 1, description: Sails it has.}}}
"#;
    server.run(&["apply", "-f", "-"], crd);
    for output in ["plaintext", "plaintext-openapiv2"] {
        let text = server.run(&["explain", "boat.spec.sails", &format!("--output={output}")], "");
        assert!(text.contains("Sails it has."), "{text}");
    }
    let refused = server.output(
        &["apply", "-f", "-"],
        "apiVersion: sea.example.com/v1\nkind: Boat\nmetadata: {name: a}\nspec: {sails: 0}",
    );
    let error = String::from_utf8(refused.stderr).unwrap();
    let wanted = "The Boat \"a\" is invalid: spec.sails: Invalid value: 0: spec.sails in body should be greater than or equal to 1";
    assert!(error.contains(wanted), "{error}");
}

#[test]
fn discovery_in_one_answer_and_in_many() {
    let server = Running::start();
    let table = server.run(&["api-resources"], "");
    for line in ["endpointslices", "horizontalpodautoscalers", "networkpolicies"] {
        assert!(table.contains(line), "{table}");
    }
    let deploy = table.lines().find(|l| l.starts_with("deployments")).unwrap();
    let words: Vec<&str> = deploy.split_whitespace().collect();
    assert_eq!(words, ["deployments", "deploy", "apps/v1", "true", "Deployment"]);
    let versions = server.run(&["api-versions"], "");
    for version in
        ["v1", "apps/v1", "autoscaling/v2", "discovery.k8s.io/v1", "policy/v1", "storage.k8s.io/v1"]
    {
        assert!(versions.lines().any(|l| l == version), "{versions}");
    }
    assert_eq!(raw(&server, "/apis")["kind"], "APIGroupList");
    assert_eq!(raw(&server, "/api/v1")["kind"], "APIResourceList");
}

#[test]
fn every_kind_is_listed_and_told_by_its_own_document() {
    let server = Running::start();
    let names = server.run(&["api-resources", "--verbs=list", "-o", "name"], "");
    assert!(names.lines().count() > 34, "{names}");
    for name in names.lines() {
        server.run(&["get", name, "-A"], "");
        server.run(&["get", name, "-A", "-o", "wide"], "");
    }
    let index = raw(&server, "/openapi/v3");
    for (path, entry) in index["paths"].as_object().unwrap() {
        let document = raw(&server, entry["serverRelativeURL"].as_str().unwrap());
        assert!(!document["components"]["schemas"].as_object().unwrap().is_empty(), "{path}");
    }
    assert!(raw(&server, "/openapi/v2")["definitions"]["io.k8s.api.core.v1.Pod"].is_object());
}

#[test]
fn rules_of_a_custom_kind_are_asked() {
    let server = Running::start();
    let crd = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: boats.sea.example.com}
spec:
  group: sea.example.com
  scope: Namespaced
  names: {plural: boats, kind: Boat}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties: {kind: {type: string, default: sloop, enum: [sloop, 1]}, a: {type: integer}, b: {type: integer}}
            x-kubernetes-validations:
            - {rule: "!has(self.a) || !has(self.b) || self.a < self.b", message: "a must be below b"}
            - {rule: "self.kind == oldSelf.kind", message: "kind is immutable"}
            - {rule: "quantity(string(self.a)).isInteger()"}
"#;
    let boat = |spec: &str| {
        format!("apiVersion: sea.example.com/v1\nkind: Boat\nmetadata: {{name: x}}\nspec: {spec}")
    };
    let refused = |spec: &str| {
        let output = server.output(&["apply", "-f", "-"], &boat(spec));
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    server.run(&["apply", "-f", "-"], crd);
    let skipped = "{.status.conditions[?(@.type==\"ValidationRulesSkipped\")].message}";
    let skipped =
        server.run(&["get", "crd", "boats.sea.example.com", "-o", &format!("jsonpath={skipped}")], "");
    assert!(skipped.contains("the function") && skipped.contains("quantity"), "{skipped}");
    assert!(refused("{a: 2, b: 1}").contains("spec: Invalid value: a must be below b"));
    server.run(&["apply", "-f", "-"], &boat("{a: 1, b: 2}"));
    assert_eq!(server.run(&["get", "boat", "x", "-o", "jsonpath={.spec.kind}"], ""), "sloop");
    assert!(refused("{a: 1, b: 2, kind: 1}").contains("must be of type string"));
    server.run(&["apply", "-f", "-"], &crd.replace("[sloop, 1]", "[sloop, yawl]"));
    assert!(refused("{kind: yawl}").contains("kind is immutable"));
}

/// Objects whose tables have columns of their own.
const COLUMNS: &str = r#"
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 80, protocol: TCP}]
endpoints: [{addresses: [10.0.0.1]}, {addresses: [10.0.0.2]}]
---
apiVersion: coordination.k8s.io/v1
kind: Lease
metadata: {name: l}
spec: {holderIdentity: me}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: p}
spec: {minAvailable: 1, selector: {matchLabels: {app: web}}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: np}
spec: {podSelector: {matchLabels: {app: web}}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: i}
spec:
  ingressClassName: weft
  tls: [{hosts: [a.example.com]}]
  rules: [{host: a.example.com, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: h}
spec:
  minReplicas: 1
  maxReplicas: 5
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 80}}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader}
rules: [{apiGroups: [""], resources: [pods], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: r}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects: [{kind: User, name: anna, apiGroup: rbac.authorization.k8s.io}]
"#;

#[test]
fn tables_have_the_columns_of_their_kind() {
    let server = Running::start();
    server.run(&["apply", "-f", "-"], COLUMNS);
    let cases = [
        ("endpointslices", "web-1 IPv4 80 10.0.0.1,10.0.0.2"),
        ("lease", "l me"),
        ("pdb", "p 1 N/A 0"),
        ("netpol", "np app=web"),
        ("ing", "i weft a.example.com 80, 443"),
        ("hpa", "h Deployment/web cpu: <unknown>/80% 1 5 0"),
        ("rolebindings", "r Role/reader"),
    ];
    for (kind, wanted) in cases {
        let table = server.run(&["get", kind], "");
        let row = table.lines().last().unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(row.starts_with(wanted), "{kind}: {table}");
    }
    let wide = server.run(&["get", "rolebindings", "-o", "wide"], "");
    assert!(wide.contains("SERVICEACCOUNTS") && wide.contains("anna"), "{wide}");
    let sorted = server.run(&["get", "ns", "--sort-by=.metadata.name", "--no-headers"], "");
    let names: Vec<&str> = sorted.lines().filter_map(|l| l.split_whitespace().next()).collect();
    assert!(names.is_sorted() && names.len() > 3, "{sorted}");
    for kind in ["endpointslice/web-1", "pdb/p", "netpol/np", "ing/i", "hpa/h", "rolebinding/r"] {
        assert!(server.run(&["describe", kind], "").contains("Name:"), "{kind}");
    }
}
