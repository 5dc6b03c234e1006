//! What one client cannot take from the others, what is told of writes, and tokens of ServiceAccounts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::time::{Duration, Instant};

use common::Running;
use common::raw::{connect, exchange, post, try_connect};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weft_apiserver::Limits;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// A server on which ann, by a token of her name, may edit.
fn server(limits: Limits) -> Running {
    let server = Running::start_with(|config| {
        let tokens = config.data_dir.with_file_name("tokens.csv");
        std::fs::write(&tokens, "ann,ann,1\n").unwrap();
        (config.token_auth_file, config.limits) = (Some(tokens), limits);
    });
    server.run(&["create", "clusterrolebinding", "e", "--clusterrole=edit", "--user=ann"], "");
    let can = ["auth", "can-i", "create", "configmaps", "--as=ann"];
    eventually("ann edits", || server.output(&can, "").status.success());
    server
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < end, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn head(token: &str, method: &str, path: &str, length: usize) -> Vec<u8> {
    format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n").into_bytes()
}

#[test]
fn requests_that_write_are_counted_and_end() {
    let server =
        server(Limits { mutating_requests: 1, request_time: Duration::from_secs(2), ..Limits::default() });
    block_on(async {
        let mut waiting = connect(&server).await;
        waiting.write_all(&head("ann", "POST", MAPS, 100)).await.unwrap();
        let end = Instant::now() + Duration::from_secs(10);
        let body = br#"{"metadata": {"generateName": "m-"}}"#;
        let ask = || async {
            let request = [head("ann", "POST", MAPS, body.len()), body.to_vec()].concat();
            exchange(&server, &request).await.0
        };
        // The first has its place as soon as its header is read.
        while ask().await != 429 {
            assert!(Instant::now() < end);
        }
        assert_eq!(exchange(&server, &head("ann", "GET", MAPS, 0)).await.0, 200, "reads have other places");
        assert_eq!(
            post(&server, MAPS, &json!({"metadata": {"name": "a"}})).await.0,
            201,
            "the administrator"
        );
        let mut answer = String::new();
        waiting.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 504") && answer.contains(r#""reason":"Timeout""#), "{answer}");
        assert_eq!(ask().await, 201, "the place is free again");
    });
}

#[test]
fn a_user_s_watches_are_counted() {
    let server = server(Limits { watches_per_user: 1, ..Limits::default() });
    let path = format!("{MAPS}?watch=1");
    block_on(async {
        let mut first = connect(&server).await;
        first.write_all(&head("ann", "GET", &path, 0)).await.unwrap();
        let mut start = [0; 12];
        first.read_exact(&mut start).await.unwrap();
        assert_eq!(&start, b"HTTP/1.1 200");
        assert_eq!(exchange(&server, &head("ann", "GET", &path, 0)).await.0, 429);
        drop(first);
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let short = format!("{path}&timeoutSeconds=1");
            if exchange(&server, &head("ann", "GET", &short, 0)).await.0 == 200 {
                break;
            }
            assert!(Instant::now() < end, "the place is not given back");
        }
    });
}

#[test]
fn streams_that_are_reset_at_once_end_the_connection() {
    use frames::{connect_h2, frame};
    let server = Running::start();
    block_on(async {
        let mut stream = connect_h2(&server).await;
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(frame(4, 0, 0, &[]));
        // :method GET, :scheme https, :path /, :authority x
        let headers = [0x82, 0x87, 0x84, 0x41, 0x01, b'x'];
        for n in 0..2000u32 {
            bytes.extend(frame(1, 5, 2 * n + 1, &headers));
            bytes.extend(frame(3, 0, 2 * n + 1, &8u32.to_be_bytes()));
        }
        // The server may close before it has read all.
        let _ = stream.write_all(&bytes).await;
        let mut answer = Vec::new();
        let all = stream.read_to_end(&mut answer);
        let _ = tokio::time::timeout(Duration::from_secs(20), all).await.expect("the connection ends");
        assert_eq!(common::raw::get(&server, MAPS).await.0, 200, "others are served");
    });
}

/// A client that reads its connection and takes nothing of its answers must not keep them for ever.
#[test]
fn an_answer_that_http_2_leaves_no_room_for_ends_the_connection() {
    use frames::{connect_h2, frame, get};
    let unread_time = Duration::from_secs(1);
    let server = Running::start_with(|config| config.limits.unread_time = unread_time);
    block_on(async {
        for n in 0..50 {
            let map = json!({"metadata": {"name": format!("m{n}")}, "data": {"fill": "x".repeat(10_000)}});
            assert_eq!(post(&server, MAPS, &map).await.0, 201);
        }
        for (path, window) in [(MAPS.to_owned(), 0), (MAPS.to_owned(), 1000), (format!("{MAPS}?watch=1"), 0)]
        {
            let mut stream = connect_h2(&server).await;
            let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
            // SETTINGS_INITIAL_WINDOW_SIZE
            bytes.extend(frame(4, 0, 0, &[&[0, 4][..], &u32::to_be_bytes(window)].concat()));
            bytes.extend(frame(1, 5, 1, &get(&path, &server.token)));
            stream.write_all(&bytes).await.unwrap();
            let mut answer = Vec::new();
            let all = stream.read_to_end(&mut answer);
            let _ = tokio::time::timeout(Duration::from_secs(20), all).await.expect("the connection ends");
            assert!(answer.len() < 3000, "{} bytes", answer.len());
        }
        assert_eq!(common::raw::get(&server, MAPS).await.0, 200, "others are served");
    });
}

#[test]
fn who_sends_its_headers_slowly_is_dropped() {
    let server = Running::start_with(|config| config.limits.idle_time = Duration::from_secs(1));
    block_on(async {
        let mut slow = connect(&server).await;
        let (mut answer, end) = (Vec::new(), Instant::now() + Duration::from_secs(20));
        let mut pieces = std::iter::repeat(&b"X-A: b\r\n"[..]);
        slow.write_all(b"GET /api/v1/pods HTTP/1.1\r\n").await.unwrap();
        // It never stops, and never ends.
        while slow.write_all(pieces.next().unwrap()).await.is_ok() {
            assert!(Instant::now() < end, "it is not dropped");
            let ended = slow.read_to_end(&mut answer);
            if tokio::time::timeout(Duration::from_millis(100), ended).await.is_ok() {
                break;
            }
        }
        assert_eq!(common::raw::get(&server, MAPS).await.0, 200);
    });
}

/// Frames of HTTP/2 by hand.
mod frames {
    use super::*;

    /// The fields of a GET, each with its length before it (RFC 7541, 6.2.2).
    pub(super) fn get(path: &str, token: &str) -> Vec<u8> {
        let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
        let fields = [&[0x82, 0x87, 0x04][..], &text(path), &[0x01, 1, b'x', 0x0f, 0x08]].concat();
        [fields, text(&format!("Bearer {token}"))].concat()
    }

    pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags];
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        frame
    }

    pub(super) async fn connect_h2(
        server: &Running,
    ) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
        common::raw::connect_with(server, &[b"h2"]).await
    }
}

#[test]
fn an_address_s_connections_are_counted() {
    let server = Running::start_with(|config| config.limits.connections_per_address = 2);
    block_on(async {
        let held = [connect(&server).await, connect(&server).await];
        assert!(try_connect(&server, &[]).await.is_err(), "closed at once");
        drop(held);
        let end = Instant::now() + Duration::from_secs(10);
        while try_connect(&server, &[]).await.is_err() {
            assert!(Instant::now() < end, "the places are not given back");
        }
    });
}

#[test]
fn writes_are_told_of_without_their_contents() {
    let server = Running::start();
    server.run(&["create", "secret", "generic", "s", "--from-literal=key=hidden-word"], "");
    server.run(&["get", "secret", "s"], "");
    assert!(!server.output(&["delete", "secret", "s", "--as=ann"], "").status.success());
    let path = server.dir.path().join("data/audit.log");
    let lines = || -> Vec<Value> {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains("hidden-word") && !text.contains("aGlkZGVu"));
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    let of = |verb: &str| {
        lines().into_iter().find(|e| e["verb"] == verb && e["objectRef"]["resource"] == "secrets")
    };
    eventually("both are told", || of("create").is_some() && of("delete").is_some());
    let (made, refused) = (of("create").unwrap(), of("delete").unwrap());
    assert_eq!(
        (&made["kind"], &made["apiVersion"], &made["stage"]),
        (&json!("Event"), &json!("audit.k8s.io/v1"), &json!("ResponseComplete"))
    );
    assert_eq!((&made["user"]["username"], &made["responseStatus"]["code"]), (&json!("admin"), &json!(201)));
    assert_eq!(
        (&made["sourceIPs"], &made["objectRef"]["namespace"]),
        (&json!(["127.0.0.1"]), &json!("default"))
    );
    assert_eq!(
        (&refused["impersonatedUser"]["username"], &refused["responseStatus"]["code"]),
        (&json!("ann"), &json!(403))
    );
    assert!(of("get").is_none());
    let unknown =
        [head("no-such-token", "POST", "/api/v1/namespaces/default/secrets", 2), b"{}".to_vec()].concat();
    assert_eq!(block_on(exchange(&server, &unknown)).0, 401);
    let failed = |e: &Value| e["verb"] == "create" && e["responseStatus"]["code"] == 401;
    eventually("who is not known is told too", || lines().iter().any(failed));
    assert_eq!(lines().iter().find(|e| failed(e)).unwrap()["user"]["username"], "");
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_service_account_has_tokens_as_long_as_it_is_there() {
    let server = Running::start();
    server.run(&["create", "serviceaccount", "web"], "");
    let token = server.run(&["create", "token", "web"], "");
    let ask = |token: &str| {
        let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
        let request = [head(token.trim(), "POST", path, 2), b"{}".to_vec()].concat();
        let (code, body) = block_on(exchange(&server, &request));
        (code, serde_json::from_str::<Value>(&body).unwrap()["status"]["userInfo"].clone())
    };
    let (code, user) = ask(&token);
    assert_eq!((code, &user["username"]), (201, &json!("system:serviceaccount:default:web")));
    assert_eq!(
        user["groups"],
        json!(["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"])
    );
    let other = server.run(&["create", "token", "web", "--audience=vault"], "");
    assert_eq!(ask(&other).0, 401, "it is for somebody else");
    let short = server.output(&["create", "token", "web", "--duration=60s"], "");
    assert!(String::from_utf8_lossy(&short.stderr).contains("less than 10 minutes"));
    server.run(&["delete", "serviceaccount", "web"], "");
    assert_eq!(ask(&token).0, 401);
    server.run(&["create", "serviceaccount", "web"], "");
    assert_eq!(ask(&token).0, 401, "another account of the same name");
}
