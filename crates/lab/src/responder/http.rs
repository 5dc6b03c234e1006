//! The answer to an HTTP/1 request.

use std::net::SocketAddr;

use serde_json::{Map, Value, json};

use super::{Identity, plain};

/// A longer head is refused.
pub(super) const LONGEST_HEAD: usize = 16 * 1024;

/// Where the head ends, once it has.
pub(super) fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n")
}

/// The whole response to the request with this head.
pub(super) fn answer(identity: &Identity, client: SocketAddr, head: &[u8]) -> Vec<u8> {
    let head = String::from_utf8_lossy(head);
    let mut lines = head.split("\r\n");
    let mut request = lines.next().unwrap_or_default().split(' ');
    let (method, path) = (request.next().unwrap_or_default(), request.next().unwrap_or_default());
    let body = json!({
        "pod": identity.pod, "namespace": identity.namespace, "node": identity.node,
        "client": plain(client), "method": method, "path": path, "headers": headers(lines),
    });
    response("200 OK", &format!("{body}\n"), method == "HEAD")
}

/// The response to a head that is too long.
pub(super) fn too_long() -> Vec<u8> {
    response("431 Request Header Fields Too Large", "{}\n", false)
}

fn response(status: &str, body: &str, head_only: bool) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    if head_only { head.into() } else { (head + body).into() }
}

/// Headers by their names in lower case; a repeated one has its values joined by commas.
fn headers<'a>(lines: impl Iterator<Item = &'a str>) -> Map<String, Value> {
    let mut headers = Map::new();
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
        let joined = match headers.get(&name).and_then(Value::as_str) {
            Some(before) => format!("{before}, {value}"),
            None => value.to_owned(),
        };
        headers.insert(name, joined.into());
    }
    headers
}
