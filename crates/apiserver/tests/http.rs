//! The API by raw HTTP: who may ask, what is refused and how, and what clients rely on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use common::Running;
use common::raw::{connect, exchange, get, post, send, watch};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn map(name: &str, label: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"x": label}}, "data": {}})
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

#[test]
fn only_the_token_opens() {
    let server = Running::start();
    let ask = |path: &str, header: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}\r\n");
        block_on(exchange(&server, request.as_bytes()))
    };
    let bad = [
        "",
        "Authorization: Bearer \r\n",
        "Authorization: Bearer wrong\r\n",
        "Authorization: Basic eDp5\r\n",
    ];
    for header in bad {
        let (code, body) = ask("/api/v1/pods", header);
        let status: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            (code, &status["reason"], &status["kind"]),
            (401, &json!("Unauthorized"), &json!("Status"))
        );
    }
    assert_eq!(ask("/readyz", ""), (200, "ok".into()));
    let (code, _) = ask("/api/v1/pods", &format!("Authorization: bearer {}\r\n", server.token));
    assert_eq!(code, 200);
    use std::os::unix::fs::PermissionsExt;
    for file in ["admin.token", "admin.kubeconfig", "ca.key", "objects.redb"] {
        let mode = std::fs::metadata(server.dir.path().join("data").join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

#[test]
fn a_user_learns_who_it_is() {
    let server = Running::start();
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    block_on(async {
        let (code, review) = post(&server, path, &json!({})).await;
        let user = &review["status"]["userInfo"];
        assert_eq!((code, &user["username"]), (201, &json!("admin")), "{review}");
        assert_eq!(user["groups"], json!(["system:masters", "system:authenticated"]));
        assert_eq!(get(&server, path).await.0, 405);
    });
    assert!(server.run(&["auth", "whoami"], "").contains("system:masters"));
}

#[test]
fn bad_requests_get_a_status_and_the_server_lives() {
    let server = Running::start();
    block_on(async {
        let nested = [vec![b'['; 10_000], vec![b']'; 10_000]].concat();
        let json = "application/json";
        let huge = vec![b'x'; 100 * 1024 * 1024];
        let deep =
            |end: &str| format!("{}{end}{}", r#"{"data":"#.repeat(10_000), "}".repeat(10_000)).into_bytes();
        let (deep, deep_copy) = (
            deep("1"),
            br#"[{"op": "add", "path": "/data", "value": {"a": "1"}},
            {"op": "copy", "from": "", "path": "/data/b"}]"#,
        );
        let maps = json!({"metadata": {"name": "there"}, "data": {"a": "b"}});
        assert_eq!(post(&server, MAPS, &maps).await.0, 201);
        let cases: Vec<(&str, String, &str, &[u8], u16)> = vec![
            ("POST", MAPS.into(), json, b"{", 400),
            ("POST", MAPS.into(), json, b"[]", 400),
            ("POST", MAPS.into(), json, b"\xff\xfe", 400),
            (
                "POST",
                MAPS.into(),
                json,
                b"{\"metadata\": {\"name\": \"a\"}, \"data\": {\"b\": \"\xff\"}}",
                400,
            ),
            ("POST", MAPS.into(), json, br#"{"metadata": {"name": "a\ud800"}}"#, 400),
            ("POST", MAPS.into(), json, &nested, 400),
            ("POST", MAPS.into(), json, &deep, 400),
            ("PATCH", format!("{MAPS}/there"), "application/merge-patch+json", &deep, 400),
            ("PATCH", format!("{MAPS}/there"), "application/strategic-merge-patch+json", &deep, 400),
            ("PATCH", format!("{MAPS}/there?fieldManager=x"), "application/apply-patch+yaml", &deep, 400),
            ("PATCH", format!("{MAPS}/there"), "application/json-patch+json", deep_copy, 422),
            (
                "PATCH",
                format!("{MAPS}/there"),
                "application/merge-patch+json",
                br#"{"data": {"a": {}}}"#,
                422,
            ),
            (
                "PATCH",
                format!("{MAPS}/there"),
                "application/merge-patch+json",
                br#"{"data": {"a/b": ""}}"#,
                422,
            ),
            (
                "POST",
                format!("{MAPS}?fieldValidation=Strict"),
                json,
                br#"{"metadata": {"name": "a"}, "data": {"k": "1", "k": "2"}}"#,
                400,
            ),
            ("POST", MAPS.into(), json, &huge, 413),
            ("POST", MAPS.into(), "application/vnd.kubernetes.protobuf", b"k8s\0", 415),
            ("POST", MAPS.into(), json, br#"{"metadata": 1}"#, 400),
            ("POST", MAPS.into(), json, br#"{"kind": "Pod", "metadata": {"name": "a"}}"#, 400),
            ("POST", MAPS.into(), json, br#"{"metadata": {"name": "a/b"}}"#, 422),
            ("POST", MAPS.into(), json, br#"{"metadata": {"name": "a", "labels": 1}}"#, 400),
            ("POST", MAPS.into(), json, br#"{"metadata": {"name": "a", "namespace": "b"}}"#, 400),
            ("POST", PODS.into(), json, br#"{"metadata": {"name": "a"}, "spec": 1}"#, 400),
            ("POST", "/api/v1/pods".into(), json, b"{}", 405),
            ("PUT", MAPS.into(), json, b"{}", 405),
            ("PATCH", format!("{MAPS}/none"), "application/apply-patch+cbor", b"{}", 415),
            ("PATCH", format!("{MAPS}/none"), "application/json-patch+json", b"{}", 404),
            ("PATCH", format!("{MAPS}/none"), "application/merge-patch+json", b"{}", 404),
            ("GET", "/apis/apps/v9/things".into(), "", b"", 404),
            ("GET", format!("{MAPS}?labelSelector=a%20b"), "", b"", 400),
            ("GET", format!("{MAPS}?fieldSelector=data.x=1"), "", b"", 400),
            ("GET", format!("{MAPS}?limit=many"), "", b"", 400),
            ("GET", format!("{MAPS}?continue=%2A"), "", b"", 400),
            ("GET", format!("{MAPS}?watch=1&resourceVersion=x"), "", b"", 500),
            ("GET", format!("{MAPS}?watch=1&sendInitialEvents=true"), "", b"", 422),
            ("GET", format!("{MAPS}?resourceVersion=999999999"), "", b"", 504),
            ("GET", format!("{MAPS}?resourceVersion=99999999999999999999"), "", b"", 400),
            ("GET", format!("{MAPS}/%ff"), "", b"", 400),
            ("DELETE", "/api/v1/pods".into(), "", b"", 405),
            ("DELETE", format!("{MAPS}/a?gracePeriodSeconds=x"), "", b"", 400),
        ];
        for (method, path, media, body, code) in cases {
            let (got, status) = send(&server, method, &path, media, body).await;
            let text = String::from_utf8_lossy(&body[..body.len().min(60)]);
            assert_eq!(got, code, "{method} {path} {text}: {status}");
            assert_eq!(
                (&status["kind"], &status["code"]),
                (&json!("Status"), &json!(code)),
                "{method} {path}"
            );
        }
        for noise in [&b"\x00\x01\x02\r\n\r\n"[..], b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"] {
            exchange(&server, noise).await;
        }
        assert_eq!(get(&server, MAPS).await.0, 200);
    });
}

#[test]
fn lists_come_in_pages_and_by_selector() {
    let server = Running::start();
    block_on(async {
        for n in 0..7 {
            let made =
                post(&server, MAPS, &map(&format!("m{n}"), if n % 2 == 0 { "even" } else { "odd" })).await;
            assert_eq!(made.0, 201);
        }
        let (mut names, mut token, mut versions) = (Vec::new(), String::new(), Vec::new());
        loop {
            let (_, page) =
                get(&server, &format!("{MAPS}?limit=3&labelSelector=x=even&continue={token}")).await;
            names.extend(page["items"].as_array().unwrap().iter().map(|o| o["metadata"]["name"].clone()));
            versions.push(page["metadata"]["resourceVersion"].clone());
            // A write between two pages.
            post(&server, MAPS, &map("m3a", "odd")).await;
            match page["metadata"]["continue"].as_str() {
                Some(next) => token = next.to_owned(),
                None => break,
            }
        }
        assert_eq!(names, ["m0", "m2", "m4", "m6"]);
        assert!(versions.len() == 2 && versions[0] == versions[1], "{versions:?}");
        let (_, one) = get(&server, &format!("{MAPS}?fieldSelector=metadata.name%3Dm5")).await;
        assert_eq!(one["items"].as_array().unwrap().len(), 1);
        assert_eq!((&one["kind"], &one["apiVersion"]), (&json!("ConfigMapList"), &json!("v1")));
    });
}

#[test]
fn a_watch_follows_its_selector_and_ends_in_time() {
    let server = Running::start();
    block_on(async {
        let (_, list) = get(&server, MAPS).await;
        let rv = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
        let path = format!(
            "{MAPS}?watch=true&labelSelector=x=in&resourceVersion={rv}&timeoutSeconds=3&allowWatchBookmarks=true"
        );
        let mut events = watch(&server, &path).await;
        post(&server, MAPS, &map("a", "out")).await;
        let label = |to: &str| json!({"metadata": {"labels": {"x": to}}}).to_string();
        for to in ["in", "out"] {
            let path = format!("{MAPS}/a");
            send(&server, "PATCH", &path, "application/merge-patch+json", label(to).as_bytes()).await;
        }
        let mut kinds = Vec::new();
        while let Some(event) = events.recv().await {
            kinds.push(event["type"].as_str().unwrap().to_owned());
        }
        assert_eq!(kinds, ["ADDED", "DELETED", "BOOKMARK"]);
        let mut gone = watch(&server, &format!("{MAPS}?watch=true&resourceVersion=999999")).await;
        let event = gone.recv().await.unwrap();
        assert_eq!((&event["type"], &event["object"]["code"]), (&json!("ERROR"), &json!(410)));
    });
}

#[test]
fn a_pods_life() {
    let server = Running::start();
    block_on(async {
        let (code, made) = post(
            &server,
            PODS,
            &json!({"metadata": {"generateName": "web-"},
            "spec": {"containers": [{"name": "c", "image": "i"}]}, "status": {"phase": "Running"}}),
        )
        .await;
        assert_eq!(code, 201);
        assert_eq!(made["status"]["phase"], "Pending", "a status is not created");
        let name = made["metadata"]["name"].as_str().unwrap();
        assert!(name.starts_with("web-") && name.len() == 9, "{name}");
        let path = format!("{PODS}/{name}");
        let target = json!({"target": {"kind": "Node", "name": "node1"}});
        assert_eq!(post(&server, &format!("{path}/binding"), &target).await.0, 201);
        assert_eq!(post(&server, &format!("{path}/binding"), &target).await.0, 409);
        let status = br#"{"status": {"phase": "Running", "podIP": "10.0.0.1"}, "spec": {"nodeName": "x"}}"#;
        let merge = "application/merge-patch+json";
        let (code, object) = send(&server, "PATCH", &format!("{path}/status"), merge, status).await;
        assert_eq!((code, &object["spec"]["nodeName"]), (200, &json!("node1")));
        let (_, object) = send(&server, "PATCH", &path, merge, br#"{"status": {"phase": "Failed"}}"#).await;
        assert_eq!(object["status"]["phase"], "Running", "only the subresource writes it");
        let (code, _) = send(&server, "PATCH", &path, merge, br#"{"spec": {"hostNetwork": true}}"#).await;
        assert_eq!(code, 422);
        let (_, list) =
            get(&server, "/api/v1/pods?fieldSelector=spec.nodeName=node1,status.phase=Running").await;
        assert_eq!(list["items"].as_array().unwrap().len(), 1);
        let (_, marked) = send(&server, "DELETE", &path, "", b"").await;
        assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
        let wrong = br#"{"gracePeriodSeconds": 0, "preconditions": {"uid": "other"}}"#;
        assert_eq!(send(&server, "DELETE", &path, "application/json", wrong).await.0, 409);
        assert_eq!(
            send(&server, "DELETE", &path, "application/json", br#"{"gracePeriodSeconds": 0}"#).await.0,
            200
        );
        assert_eq!(get(&server, &path).await.0, 404);
    });
}

#[test]
fn finalizers_hold_and_dry_runs_write_nothing() {
    let server = Running::start();
    block_on(async {
        let held = json!({"metadata": {"name": "a", "finalizers": ["example.com/wait"]}});
        assert_eq!(post(&server, &format!("{MAPS}?dryRun=All"), &held).await.0, 201);
        assert_eq!(get(&server, &format!("{MAPS}/a")).await.0, 404);
        post(&server, MAPS, &held).await;
        let (_, marked) = send(&server, "DELETE", &format!("{MAPS}/a"), "", b"").await;
        assert!(marked["metadata"]["deletionTimestamp"].is_string());
        assert_eq!(get(&server, &format!("{MAPS}/a")).await.0, 200);
        let free = br#"{"metadata": {"finalizers": null}}"#;
        let (code, _) =
            send(&server, "PATCH", &format!("{MAPS}/a"), "application/merge-patch+json", free).await;
        assert_eq!((code, get(&server, &format!("{MAPS}/a")).await.0), (200, 404));
    });
}

#[test]
fn service_addresses_are_unique_and_stay() {
    let server = Running::start();
    block_on(async {
        let path = "/api/v1/namespaces/default/services";
        let service = |name: &str, ip: Value| json!({"metadata": {"name": name}, "spec": {"clusterIP": ip, "ports": [{"port": 80}]}});
        let (_, first) = post(&server, path, &service("a", Value::Null)).await;
        let ip = first["spec"]["clusterIP"].clone();
        assert!(ip.as_str().unwrap().starts_with("10.96."), "{first}");
        assert_eq!(post(&server, path, &service("b", ip.clone())).await.0, 422);
        assert_eq!(post(&server, path, &service("c", json!("192.0.2.1"))).await.0, 422);
        assert_eq!(post(&server, path, &service("d", json!("None"))).await.0, 201);
        let (code, same) = send(
            &server,
            "PUT",
            &format!("{path}/a"),
            "application/json",
            service("a", Value::Null).to_string().as_bytes(),
        )
        .await;
        assert_eq!((code, &same["spec"]["clusterIP"]), (200, &ip));
        let other = service("a", json!("10.96.99.99")).to_string();
        assert_eq!(
            send(&server, "PUT", &format!("{path}/a"), "application/json", other.as_bytes()).await.0,
            422
        );
        let node_port =
            json!({"metadata": {"name": "n"}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
        let (_, made) = post(&server, path, &node_port).await;
        assert!((30_000..32_768).contains(&made["spec"]["ports"][0]["nodePort"].as_u64().unwrap()));
        assert_eq!(post(&server, PODS, &pod("p")).await.0, 201);
    });
}

#[test]
fn a_silent_client_does_not_hold_the_others() {
    let server = Running::start();
    block_on(async {
        let mut silent = connect(&server).await;
        silent.write_all(b"GET /api/v1/pods HTTP/1.1\r\nHos").await.unwrap();
        assert_eq!(get(&server, MAPS).await.0, 200);
    });
}
