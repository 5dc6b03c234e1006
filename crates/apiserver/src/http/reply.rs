//! Answers.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use serde_json::Value;

use crate::error::ApiError;

/// An answer, whole or as a stream.
pub(crate) type Reply = Response<UnsyncBoxBody<Bytes, Infallible>>;

pub(super) fn bytes(code: u16, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()).boxed_unsync());
    *reply.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    reply.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
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

pub(super) fn text(text: &'static str) -> Reply {
    bytes(200, "text/plain; charset=utf-8", text)
}

pub(super) fn error(error: &ApiError) -> Reply {
    let mut reply = json(error.code, &error.to_status());
    // A client tries again by itself when it is told so; an error with other details is for its user.
    let seconds = match error.details.get("retryAfterSeconds").and_then(Value::as_u64) {
        Some(seconds) => Some(seconds),
        None => (matches!(error.code, 429 | 503) && error.details.is_null()).then_some(1),
    };
    if let Some(seconds) = seconds {
        reply.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from(seconds));
    }
    reply
}
