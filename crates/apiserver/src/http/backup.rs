//! All objects at one moment, while the server runs.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream;
use http::Response;
use http::header::{self, HeaderValue};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;

use super::{Call, Reply};
use crate::auth::{Attributes, Place};
use crate::error::ApiError;

/// GET of `/weft/backup`: the text that `weft apiserver restore` reads. It holds Secrets, so it is for who
/// may do everything.
pub(super) async fn answer(call: &Call) -> Result<Reply, ApiError> {
    let all = || "*".to_owned();
    let everything = Place { group: all(), resource: all(), ..Place::default() };
    call.app.auth.require(&call.user, &Attributes::object("*", everything))?;
    let parts = call.registry.backup().await?.into_parts();
    let frames = parts.map(|part| Ok::<_, Infallible>(Frame::data(Bytes::from(part))));
    let mut reply = Response::new(StreamBody::new(stream::iter(frames)).boxed_unsync());
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    Ok(reply)
}
