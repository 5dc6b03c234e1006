//! Who may do what: roles, nodes, reviews, by raw HTTP and by kubectl.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::time::{Duration, Instant};

use common::Running;
use common::raw::{Answer, exchange, post};
use serde_json::{Value, json};

const TOKENS: &str = "ann,ann,1\nops,bob,2,\"ops\"\nn1,system:node:n1,3,\"system:nodes\"\n";

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// A server that knows ann, bob of ops, and the node n1, by tokens of their names.
fn server() -> Running {
    Running::start_with(|config| {
        let tokens = config.data_dir.with_file_name("tokens.csv");
        std::fs::write(&tokens, TOKENS).unwrap();
        config.token_auth_file = Some(tokens);
    })
}

fn as_user(server: &Running, token: &str, method: &str, path: &str, body: &Value) -> (u16, Value) {
    with_headers(server, &format!("Authorization: Bearer {token}\r\n"), method, path, body)
}

fn with_headers(server: &Running, headers: &str, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let media = match method {
        "PATCH" => "application/merge-patch+json",
        _ => "application/json",
    };
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}Content-Type: {media}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let (code, text): Answer = block_on(exchange(server, request.as_bytes()));
    (code, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

fn get(server: &Running, token: &str, path: &str) -> u16 {
    as_user(server, token, "GET", path, &Value::Null).0
}

/// Waits for what watches bring.
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < end, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn who_shows_nothing_sees_only_what_is_public() {
    let server = server();
    for (path, code) in [("/healthz", 200), ("/readyz", 200), ("/version", 200), ("/api", 401), ("/x", 401)] {
        assert_eq!(with_headers(&server, "", "GET", path, &Value::Null).0, code, "{path}");
    }
    assert_eq!(get(&server, "wrong", "/healthz"), 401);
    assert_eq!(get(&server, "ann", "/apis"), 200);
    let (code, status) = as_user(&server, "ann", "GET", "/metrics", &Value::Null);
    assert_eq!(
        (code, status["message"].as_str().unwrap()),
        (403, r#"forbidden: User "ann" cannot get path "/metrics""#)
    );
}

#[test]
fn all_objects_at_once_are_for_who_may_do_everything() {
    let server = server();
    let role = |name: &str, rules: Value| {
        let role = json!({"metadata": {"name": name}, "rules": rules});
        let roles = "/apis/rbac.authorization.k8s.io/v1";
        assert_eq!(block_on(post(&server, &format!("{roles}/clusterroles"), &role)).0, 201);
        let binding = json!({"metadata": {"name": name}, "subjects": [{"kind": "User", "name": "ann"}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}});
        assert_eq!(block_on(post(&server, &format!("{roles}/clusterrolebindings"), &binding)).0, 201);
    };
    assert_eq!(with_headers(&server, "", "GET", "/weft/backup", &Value::Null).0, 401);
    assert_eq!(get(&server, "ann", "/weft/backup"), 403);
    role("paths", json!([{"nonResourceURLs": ["*"], "verbs": ["*"]}]));
    eventually("she may ask for any path", || get(&server, "ann", "/metrics") == 404);
    assert_eq!(get(&server, "ann", "/weft/backup"), 403, "which Secrets are not");
    role("all", json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]));
    eventually("she may do everything", || get(&server, "ann", "/weft/backup") == 200);
    let (_, text) = as_user(&server, "ann", "GET", "/weft/backup", &Value::Null);
    assert!(text.as_str().unwrap().contains(r#""weftBackup":1"#));
    assert_eq!(as_user(&server, "ann", "POST", "/weft/backup", &json!({})).0, 405);
}

#[test]
fn roles_give_and_their_loss_takes() {
    let server = server();
    let pods = "/api/v1/namespaces/default/pods";
    let (code, status) = as_user(&server, "ann", "GET", pods, &Value::Null);
    assert_eq!(code, 403);
    assert_eq!(
        status["message"],
        r#"pods is forbidden: User "ann" cannot list resource "pods" in API group "" in the namespace "default""#
    );
    assert_eq!((&status["reason"], &status["details"]["kind"]), (&json!("Forbidden"), &json!("pods")));
    server.run(&["create", "rolebinding", "r", "--clusterrole=view", "--user=ann"], "");
    eventually("ann reads", || get(&server, "ann", pods) == 200);
    assert_eq!(get(&server, "ann", "/api/v1/namespaces/default/secrets"), 403, "view shows no Secrets");
    assert_eq!(get(&server, "ann", "/api/v1/pods"), 403, "nor other namespaces");
    server.run(&["create", "clusterrolebinding", "c", "--clusterrole=edit", "--group=ops"], "");
    eventually("bob edits", || {
        let map = json!({"metadata": {"generateName": "m-"}});
        as_user(&server, "ops", "POST", "/api/v1/namespaces/kube-public/configmaps", &map).0 == 201
    });
    let all = server.run(&["auth", "can-i", "--list", "--as=ann"], "");
    assert!(all.contains("endpointslices.discovery.k8s.io") && !all.contains("secrets"), "{all}");
    server.run(&["delete", "rolebinding", "r"], "");
    eventually("ann reads no more", || get(&server, "ann", pods) == 403);
}

#[test]
fn nobody_gives_more_than_it_has() {
    let server = server();
    server.run(
        &[
            "create",
            "clusterrole",
            "giver",
            "--verb=create,update,patch,get",
            "--resource=roles.rbac.authorization.k8s.io,rolebindings.rbac.authorization.k8s.io",
        ],
        "",
    );
    server.run(&["create", "clusterrolebinding", "g", "--clusterrole=giver", "--user=ann"], "");
    let roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles";
    let role = |verbs: Value| {
        json!({"metadata": {"name": "r"},
        "rules": [{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles"], "verbs": verbs}]})
    };
    eventually("ann makes a role of what she has", || {
        as_user(&server, "ann", "POST", roles, &role(json!(["get"]))).0 == 201
    });
    let (code, status) =
        as_user(&server, "ann", "PUT", &format!("{roles}/r"), &role(json!(["get", "delete"])));
    assert_eq!(code, 403);
    let said = status["message"].as_str().unwrap();
    assert!(said.starts_with(r#"roles.rbac.authorization.k8s.io "r" is forbidden: user "ann" (groups=["system:authenticated"]) is attempting to grant RBAC permissions not currently held:"#), "{said}");
    assert!(
        said.ends_with(r#"{APIGroups:["rbac.authorization.k8s.io"], Resources:["roles"], Verbs:["delete"]}"#),
        "{said}"
    );
    let patch = json!({"rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]});
    assert_eq!(as_user(&server, "ann", "PATCH", &format!("{roles}/r"), &patch).0, 403);
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    assert_eq!(as_user(&server, "ann", "PATCH", &format!("{roles}/r"), &label).0, 200);
    let bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
    let bind = |name: &str| {
        json!({"metadata": {"generateName": "b"},
        "subjects": [{"kind": "User", "name": "ann", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"kind": "ClusterRole", "name": name, "apiGroup": "rbac.authorization.k8s.io"}})
    };
    assert_eq!(as_user(&server, "ann", "POST", bindings, &bind("giver")).0, 201);
    assert_eq!(as_user(&server, "ann", "POST", bindings, &bind("cluster-admin")).0, 403);
    assert_eq!(as_user(&server, "ann", "POST", bindings, &bind("none")).0, 404);
    server.run(
        &[
            "create",
            "clusterrole",
            "binder",
            "--verb=bind",
            "--resource=clusterroles.rbac.authorization.k8s.io",
            "--resource-name=view",
        ],
        "",
    );
    server.run(&["create", "clusterrolebinding", "b", "--clusterrole=binder", "--user=ann"], "");
    eventually("ann binds view", || as_user(&server, "ann", "POST", bindings, &bind("view")).0 == 201);
    assert_eq!(as_user(&server, "ann", "POST", bindings, &bind("edit")).0, 403);
}

#[test]
fn to_apply_what_is_not_there_is_to_create_it() {
    let server = server();
    server.run(&["create", "clusterrole", "patcher", "--verb=patch,get", "--resource=configmaps"], "");
    server.run(&["create", "clusterrolebinding", "p", "--clusterrole=patcher", "--user=ann"], "");
    let can = ["auth", "can-i", "patch", "configmaps", "--as=ann"];
    eventually("ann patches", || server.output(&can, "").status.success());
    let map = r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"a": "1"}}"#;
    let apply = ["apply", "--server-side", "--as=ann", "-f", "-"];
    let refused = String::from_utf8(server.output(&apply, map).stderr).unwrap();
    assert!(refused.contains("cannot create resource \"configmaps\""), "{refused}");
    server.run(&["create", "-f", "-"], &map.replace("\"1\"", "\"0\""));
    server.run(&["apply", "--server-side", "--force-conflicts", "--as=ann", "-f", "-"], map);
}

#[test]
fn roles_gather_others() {
    let server = server();
    let view = || server.run(&["get", "clusterrole", "admin", "-o", "json"], "");
    assert!(
        view().contains("rolebindings") && view().contains("endpointslices"),
        "nested: view, edit, admin"
    );
    let manifest = r#"{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "things", "labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}},
        "rules": [{"apiGroups": ["example.com"], "resources": ["things"], "verbs": ["get"]}]}"#;
    server.run(&["create", "-f", "-"], manifest);
    eventually("gathered", || view().contains("example.com"));
    server.run(&["delete", "clusterrole", "things"], "");
    eventually("dropped", || !view().contains("example.com"));
}

#[test]
fn a_node_writes_what_is_its_own() {
    let server = server();
    let node = |name: &str| json!({"metadata": {"name": name}});
    let pod = |name: &str, node: &str| {
        json!({"metadata": {"name": name},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i", "envFrom": [{"secretRef": {"name": "mine"}}]}]}})
    };
    let pods = "/api/v1/namespaces/default/pods";
    assert_eq!(as_user(&server, "n1", "POST", "/api/v1/nodes", &node("n1")).0, 201);
    assert_eq!(as_user(&server, "n1", "POST", "/api/v1/nodes", &node("n2")).0, 403);
    block_on(async {
        post(&server, "/api/v1/nodes", &node("n2")).await;
        for (name, on) in [("own", "n1"), ("other", "n2")] {
            assert_eq!(post(&server, pods, &pod(name, on)).await.0, 201);
        }
        for name in ["mine", "theirs"] {
            post(&server, "/api/v1/namespaces/default/secrets", &node(name)).await;
        }
    });
    let mirror = |change: Value| {
        let mut pod = json!({
            "metadata": {"name": "mirror", "annotations": {"kubernetes.io/config.mirror": "x"}},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]},
        });
        for (key, value) in change.as_object().unwrap() {
            *pod.pointer_mut(key).unwrap() = value.clone();
        }
        pod
    };
    let on_another = mirror(json!({"/spec/nodeName": "n2"}));
    let with_secret = mirror(
        json!({"/spec/containers/0": {"name": "c", "image": "i", "envFrom": [{"secretRef": {"name": "mine"}}]}}),
    );
    let with_account = mirror(
        json!({"/spec": {"nodeName": "n1", "serviceAccountName": "default", "containers": [{"name": "c", "image": "i"}]}}),
    );
    let owner = json!([{"apiVersion": "v1", "kind": "Node", "name": "n2", "uid": "u"}]);
    let of_another = mirror(json!({"/metadata": {
        "name": "mirror", "annotations": {"kubernetes.io/config.mirror": "x"}, "ownerReferences": owner,
    }}));
    let status = json!({"status": {"phase": "Running"}});
    let conditions = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    let label = json!({"metadata": {"labels": {"node-restriction.kubernetes.io/x": "1"}}});
    let lease = json!({"metadata": {"name": "n1"}});
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "other"}});
    let none = Value::Null;
    for (method, path, body, code) in [
        ("PATCH", "/api/v1/nodes/n1/status", &conditions, 200),
        ("PATCH", "/api/v1/nodes/n2/status", &conditions, 403),
        ("PATCH", "/api/v1/nodes/n1", &label, 403),
        ("PATCH", &format!("{pods}/own/status"), &status, 200),
        ("PATCH", &format!("{pods}/other/status"), &status, 403),
        ("PATCH", &format!("{pods}/own"), &label, 403),
        ("POST", pods, &pod("new", "n1"), 403),
        ("POST", pods, &on_another, 403),
        ("POST", pods, &with_secret, 403),
        ("POST", pods, &with_account, 403),
        ("POST", pods, &of_another, 403),
        ("POST", pods, &mirror(json!({})), 201),
        ("PATCH", &format!("{pods}/mirror/status"), &status, 200),
        ("DELETE", &format!("{pods}/mirror?gracePeriodSeconds=0"), &none, 200),
        ("POST", leases, &lease, 201),
        ("POST", leases, &node("n2"), 403),
        ("GET", &format!("{leases}/n2"), &none, 403),
        ("GET", "/api/v1/pods", &none, 200),
        ("GET", "/api/v1/nodes", &none, 200),
        ("GET", "/apis/discovery.k8s.io/v1/endpointslices", &none, 200),
        ("GET", "/api/v1/namespaces/default/secrets", &none, 403),
        ("GET", "/api/v1/namespaces/default/secrets/mine", &none, 200),
        ("GET", "/api/v1/namespaces/default/secrets/theirs", &none, 403),
        ("DELETE", &format!("{pods}/other"), &none, 403),
        ("POST", &format!("{pods}/other/eviction"), &eviction, 403),
        ("DELETE", &format!("{pods}/own?gracePeriodSeconds=0"), &none, 200),
        ("GET", "/api/v1/namespaces/default/secrets/mine", &none, 403),
        ("DELETE", "/api/v1/nodes/n1", &none, 403),
    ] {
        let (got, answer) = as_user(&server, "n1", method, path, body);
        assert_eq!(got, code, "{method} {path}: {answer}");
    }
    let (_, answer) = as_user(&server, "n1", "PATCH", "/api/v1/nodes/n2/status", &conditions);
    assert_eq!(answer["message"], r#"nodes "n2" is forbidden: node "n1" is not allowed to modify node "n2""#);
}

#[test]
fn reviews_answer() {
    let server = server();
    let sar = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let ask = |spec: Value| block_on(post(&server, sar, &json!({"spec": spec})));
    let pods = json!({"verb": "list", "resource": "pods", "namespace": "default"});
    let (code, answer) = ask(json!({"user": "x", "groups": ["system:masters"], "resourceAttributes": pods}));
    assert_eq!((code, &answer["status"]["allowed"]), (201, &json!(true)));
    assert_eq!(ask(json!({"user": "x", "resourceAttributes": pods})).1["status"]["allowed"], false);
    let path = json!({"path": "/version", "verb": "get"});
    let (_, answer) = ask(json!({"groups": ["system:unauthenticated"], "nonResourceAttributes": path}));
    assert_eq!(answer["status"]["allowed"], true);
    assert_eq!(ask(json!({"user": "x"})).0, 422);
    assert_eq!(ask(json!({"resourceAttributes": pods})).0, 422);
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    let (code, answer) = block_on(post(&server, reviews, &json!({"spec": {"token": "ops"}})));
    assert_eq!((code, &answer["status"]["user"]["username"]), (201, &json!("bob")), "{answer}");
    let (_, answer) = block_on(post(&server, reviews, &json!({"spec": {"token": "none"}})));
    assert_ne!(answer["status"]["authenticated"], true);
    assert_eq!(as_user(&server, "ann", "POST", sar, &json!({"spec": {"user": "x"}})).0, 403);
    let own = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let (code, answer) = as_user(&server, "ann", "POST", own, &json!({"spec": {"resourceAttributes": pods}}));
    assert_eq!((code, &answer["status"]["allowed"]), (201, &json!(false)));
}

#[test]
fn acting_as_others_is_a_right() {
    let server = server();
    let who = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let ask = |token: &str, headers: &str| {
        let headers = format!("Authorization: Bearer {token}\r\n{headers}");
        with_headers(&server, &headers, "POST", who, &json!({}))
    };
    let admin = server.token.clone();
    let (_, answer) =
        ask(&admin, "Impersonate-User: ann\r\nImpersonate-Group: dev\r\nImpersonate-Extra-Scope%2fx: a\r\n");
    let user = &answer["status"]["userInfo"];
    assert_eq!(
        (&user["username"], &user["groups"]),
        (&json!("ann"), &json!(["dev", "system:authenticated"]))
    );
    assert_eq!(user["extra"]["scope/x"], json!(["a"]));
    let (_, answer) = ask(&admin, "Impersonate-User: system:serviceaccount:shop:web\r\n");
    assert_eq!(answer["status"]["userInfo"]["groups"][1], "system:serviceaccounts:shop");
    assert_eq!(ask(&admin, "Impersonate-Group: dev\r\n").0, 400);
    let (code, answer) = ask("ann", "Impersonate-User: bob\r\n");
    assert_eq!(code, 403);
    assert_eq!(
        answer["message"],
        r#"users "bob" is forbidden: User "ann" cannot impersonate resource "users" in API group "" at the cluster scope"#
    );
    server.run(
        &["create", "clusterrole", "actor", "--verb=impersonate", "--resource=users", "--resource-name=bob"],
        "",
    );
    server.run(&["create", "clusterrolebinding", "a", "--clusterrole=actor", "--user=ann"], "");
    eventually("ann acts as bob", || ask("ann", "Impersonate-User: bob\r\n").0 == 201);
    assert_eq!(ask("ann", "Impersonate-User: admin\r\n").0, 403);
    assert_eq!(ask("ann", "Impersonate-User: bob\r\nImpersonate-Group: system:masters\r\n").0, 403);
}
