//! Answers.

use std::convert::Infallible;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::Call;
use crate::error::ApiError;

/// An answer, whole or as a stream.
pub(crate) type Reply = Response<UnsyncBoxBody<Bytes, Infallible>>;

pub(super) fn bytes(code: u16, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()).boxed_unsync());
    *reply.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

pub(super) fn json(code: u16, value: &Value) -> Reply {
    bytes(code, "application/json", value.to_string())
}

/// The same answer with its JSON in lines, for people.
pub(super) async fn pretty(reply: Reply) -> Reply {
    let (mut parts, body) = reply.into_parts();
    // The body is whole and cannot fail.
    let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let lines = serde_json::from_slice::<Value>(&bytes).ok().and_then(|v| serde_json::to_vec_pretty(&v).ok());
    let bytes = lines.map_or(bytes, Bytes::from);
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Full::new(bytes).boxed_unsync())
}

/// The same answer called YAML, which any JSON is.
pub(super) fn as_yaml(mut reply: Reply) -> Reply {
    if reply.headers().get(header::CONTENT_TYPE).is_some_and(|v| v == "application/json") {
        reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/yaml"));
    }
    reply
}

/// Bytes that clients may keep: with an ETag, and without a body where the client has them already.
pub(super) fn cached(call: &Call, content_type: &'static str, body: Vec<u8>) -> Reply {
    let etag = hex(&Sha256::digest(&body));
    with_etag(call, content_type, &etag, false, || body)
}

/// As [`cached`], where the ETag is known before the body; `forever` if the address names this very version.
pub(super) fn with_etag(
    call: &Call,
    content_type: &'static str,
    etag: &str,
    forever: bool,
    body: impl FnOnce() -> Vec<u8>,
) -> Reply {
    let quoted = format!("\"{etag}\"");
    let known = call.headers.get(header::IF_NONE_MATCH).is_some_and(|v| v.as_bytes() == quoted.as_bytes());
    let mut reply =
        if known { bytes(304, content_type, Vec::new()) } else { bytes(200, content_type, body()) };
    let headers = reply.headers_mut();
    if let Ok(etag) = HeaderValue::from_str(&quoted) {
        headers.insert(header::ETAG, etag);
    }
    headers.insert(header::VARY, HeaderValue::from_static("Accept"));
    let control = if forever { "public, immutable, max-age=31536000" } else { "public" };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(control));
    reply
}

/// 301: the answer is elsewhere now.
pub(super) fn moved(to: &str) -> Reply {
    let mut reply = bytes(301, "text/plain; charset=utf-8", Vec::new());
    if let Ok(to) = HeaderValue::from_str(to) {
        reply.headers_mut().insert(header::LOCATION, to);
    }
    reply
}

/// Bytes as hexadecimal text.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02X}")).collect()
}

pub(super) fn text(text: &'static str) -> Reply {
    bytes(200, "text/plain; charset=utf-8", text)
}

pub(super) fn error(error: &ApiError) -> Reply {
    if error.page {
        return bytes(error.code, "text/plain; charset=utf-8", error.message.clone());
    }
    let mut reply = json(error.code, &error.to_status());
    // A client tries again by itself, and in silence, when it is told so: where its user must know (503, or
    // an error with other details) it is not.
    let seconds = match error.details.get("retryAfterSeconds").and_then(Value::as_u64) {
        Some(seconds) => Some(seconds),
        None => (error.code == 429 && error.details.is_null()).then_some(1),
    };
    if let Some(seconds) = seconds {
        reply.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    reply
}
