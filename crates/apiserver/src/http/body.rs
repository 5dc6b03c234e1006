//! Request bodies, bounded in size and time.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde_json::Value;

use super::{protobuf, yaml};
use crate::error::ApiError;
use crate::schema;

/// As kube-apiserver has it.
pub(crate) const MAX_BODY: usize = 3 * 1024 * 1024;
pub(super) const YAML: &str = "application/yaml";
const MAX_TIME: Duration = Duration::from_secs(30);

/// Reads a body whole.
pub(super) async fn read(body: Incoming) -> Result<Bytes, ApiError> {
    let collected = tokio::time::timeout(MAX_TIME, Limited::new(body, MAX_BODY).collect()).await;
    match collected {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(e)) if e.is::<LengthLimitError>() => Err(ApiError::new(
            413,
            "RequestEntityTooLarge",
            format!("Request entity too large: limit is {MAX_BODY}"),
        )),
        Ok(Err(e)) => Err(ApiError::bad_request(format!("the body cannot be read: {e}"))),
        Err(_) => Err(ApiError::new(408, "Timeout", "the body did not arrive within 30 s")),
    }
}

/// The body's media type, without its parameters.
pub(super) fn media_type(headers: &HeaderMap) -> &str {
    let value = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

/// Reads a body of JSON.
pub(super) async fn read_json(headers: &HeaderMap, body: Incoming) -> Result<Value, ApiError> {
    Ok(read_object(headers, body).await?.0)
}

/// Reads a body of JSON, and the paths of the fields that it repeats.
pub(super) async fn read_object(
    headers: &HeaderMap,
    body: Incoming,
) -> Result<(Value, Vec<String>), ApiError> {
    match media_type(headers) {
        "" | "application/json" => {}
        YAML => return Ok((yaml::parse(&read(body).await?)?, Vec::new())),
        protobuf::MEDIA => {
            let object = protobuf::parse(&read(body).await?);
            return object
                .map(|o| (o, Vec::new()))
                .ok_or_else(|| unsupported(protobuf::MEDIA, "application/json"));
        }
        other => return Err(unsupported(other, "application/json")),
    }
    parse_strictly(&read(body).await?)
}

/// Reads JSON, and the paths of the fields that it repeats.
pub(super) fn parse_strictly(bytes: &[u8]) -> Result<(Value, Vec<String>), ApiError> {
    schema::parse_strictly(bytes).map_err(|e| no_json(&e))
}

/// The error for a media type that the server does not take.
pub(super) fn unsupported(given: &str, wanted: &str) -> ApiError {
    let message = format!(
        "the body of the request was in an unknown format - accepted media types include: {wanted} (given: {given:?})"
    );
    ApiError::new(415, "UnsupportedMediaType", message)
}

/// Reads JSON; nested deeper than 128 levels it is refused.
pub(super) fn parse(bytes: &[u8]) -> Result<Value, ApiError> {
    serde_json::from_slice(bytes).map_err(|e| no_json(&e))
}

fn no_json(error: &serde_json::Error) -> ApiError {
    ApiError::bad_request(format!("the body is no JSON: {error}"))
}
