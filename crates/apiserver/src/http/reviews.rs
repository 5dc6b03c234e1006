//! Kinds that are answered and never stored: who am I, may I.

use http::Method;
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::path::Target;
use super::{Call, Reply, body, reply};
use crate::error::ApiError;
use crate::resource::Resource;
use crate::strategy;

/// POST of a review: the same object with its status.
pub(super) async fn answer(
    call: &Call,
    r: &Resource,
    target: &Target,
    method: &Method,
    body: Incoming,
) -> Result<Reply, ApiError> {
    if *method != Method::POST || target.name.is_some() {
        return Err(super::not_allowed());
    }
    let mut review = body::read_json(&call.headers, body).await?;
    strategy::identify(r, target.ns(), &mut review)?;
    review["status"] = match &*r.kind {
        "SelfSubjectReview" => json!({"userInfo": call.user.info()}),
        _ => return Err(ApiError::no_such_path()),
    };
    review["metadata"]["creationTimestamp"] = Value::Null;
    Ok(reply::json(201, &review))
}
