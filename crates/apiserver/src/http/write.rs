//! Creating, replacing and patching.

use hyper::body::Incoming;
use serde_json::{Value, json};

use super::fields::Fields;
use super::list::object_reply;
use super::path::Target;
use super::{Call, Reply, body, manager, reply, yaml};
use crate::error::ApiError;
use crate::patch::Patch;
use crate::registry::Part;
use crate::resource::Resource;

const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const STRATEGIC_PATCH: &str = "application/strategic-merge-patch+json";
const APPLY_PATCH: &str = "application/apply-patch+yaml";

/// Which part of the object a path's subresource means.
pub(super) fn part_of(r: &Resource, part: Option<&str>) -> Result<Part, ApiError> {
    match part {
        None => Ok(Part::Whole),
        Some("status") if r.status => Ok(Part::Status),
        Some("ephemeralcontainers") if is_pod(r) => Ok(Part::Ephemeral),
        Some("resize") if is_pod(r) => Ok(Part::Resize),
        Some("finalize") if r.plural == "namespaces" && r.group.is_empty() => Ok(Part::Finalize),
        Some(_) => Err(ApiError::no_such_path()),
    }
}

fn is_pod(r: &Resource) -> bool {
    r.plural == "pods" && r.group.is_empty()
}

/// POST to a collection.
pub(super) async fn create(
    call: &Call,
    r: &Resource,
    target: &Target,
    body: Incoming,
) -> Result<Reply, ApiError> {
    if r.namespaced && target.namespace.is_none() {
        return Err(ApiError::bad_request(format!("a {} is created in a namespace's path", r.kind)));
    }
    let fields = Fields::of(call, r)?;
    let (mut object, repeated) = body::read_object(&call.headers, body).await?;
    fields.read(&mut object, &repeated)?;
    let made = call.registry.create_with(r, target.ns(), object, manager::write_options(call, "")?).await?;
    Ok(fields.warn(object_reply(call, r, 201, &made)))
}

/// PUT.
pub(super) async fn replace(
    call: &Call,
    r: &Resource,
    target: &Target,
    name: &str,
    part: Part,
    body: Incoming,
) -> Result<Reply, ApiError> {
    let fields = Fields::of(call, r)?;
    let (mut object, repeated) = body::read_object(&call.headers, body).await?;
    fields.read(&mut object, &repeated)?;
    let options = manager::write_options(call, subresource(part))?;
    let made = call.registry.replace(r, target.ns(), name, part, object, options).await?;
    Ok(fields.warn(object_reply(call, r, 200, &made)))
}

/// PATCH, by the body's media type.
pub(super) async fn patch(
    call: &Call,
    r: &Resource,
    target: &Target,
    name: &str,
    part: Part,
    body: Incoming,
) -> Result<Reply, ApiError> {
    if is_apply(call) {
        return apply(call, r, target, name, part, body).await;
    }
    let fields = Fields::of(call, r)?;
    let patch = read_patch(call, r, body).await?;
    let reader = fields.clone();
    let change = move |object: &mut Value| {
        // Only now: that there is no such object is told before the patch's own faults.
        let (patch, repeated) = patch.as_ref().map_err(Clone::clone)?;
        patch.apply(object)?;
        reader.read_patched(object, repeated)
    };
    let options = manager::write_options(call, subresource(part))?;
    let made = call.registry.modify_with(r, target.ns(), name, part, options, change).await?;
    Ok(fields.warn(object_reply(call, r, 200, &made)))
}

/// How owners of fields name a part.
fn subresource(part: Part) -> &'static str {
    match part {
        Part::Status => "status",
        Part::Finalize => "finalize",
        Part::Ephemeral => "ephemeralcontainers",
        Part::Resize => "resize",
        Part::Whole | Part::Both => "",
    }
}

/// Whether a patch is a server-side apply.
pub(super) fn is_apply(call: &Call) -> bool {
    body::media_type(&call.headers) == APPLY_PATCH
}

/// Server-side apply.
async fn apply(
    call: &Call,
    r: &Resource,
    target: &Target,
    name: &str,
    part: Part,
    body: Incoming,
) -> Result<Reply, ApiError> {
    let (options, force) = manager::apply_options(call, subresource(part))?;
    let mut config = yaml::parse(&body::read(body).await?)?;
    if !config.is_object() {
        return Err(ApiError::bad_request("error decoding patch: the configuration is no object"));
    }
    Fields::of(call, r)?.read_applied(&mut config)?;
    let (made, new) = call.registry.apply(r, target.ns(), name, part, config, force, options).await?;
    Ok(object_reply(call, r, if new { 201 } else { 200 }, &made))
}

/// Reads a patch of any known type but server-side apply, and the paths of the fields that it repeats. The
/// inner error is a fault of the patch's text.
pub(super) async fn read_patch(
    call: &Call,
    r: &Resource,
    body: Incoming,
) -> Result<Result<(Patch, Vec<String>), ApiError>, ApiError> {
    let media = body::media_type(&call.headers).to_owned();
    let custom = r.schema.is_some();
    match media.as_str() {
        MERGE_PATCH | JSON_PATCH => {}
        STRATEGIC_PATCH if !custom => {}
        _ => return Err(body::unsupported(&media, &patch_types(custom))),
    }
    manager::refuse_force(call)?;
    let bytes = body::read(body).await?;
    Ok(body::parse_strictly(&bytes).and_then(|(value, repeated)| {
        let patch = match media.as_str() {
            JSON_PATCH => Patch::operations(value)?,
            MERGE_PATCH => Patch::merge(value, false)?,
            _ => Patch::merge(value, true)?,
        };
        Ok((patch, repeated))
    }))
}

/// The patches that a kind takes.
fn patch_types(custom: bool) -> String {
    let all = [JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, APPLY_PATCH];
    let taken: Vec<&str> = all.into_iter().filter(|t| !custom || *t != STRATEGIC_PATCH).collect();
    taken.join(", ")
}

/// POST of a binding: the scheduler's word on which node a pod runs.
pub(super) async fn bind(
    call: &Call,
    r: &Resource,
    target: &Target,
    name: &str,
    body: Incoming,
) -> Result<Reply, ApiError> {
    let binding = body::read_json(&call.headers, body).await?;
    let Some(node) = binding["target"]["name"].as_str().filter(|n| !n.is_empty()) else {
        return Err(ApiError::bad_request("target.name of the binding is missing: the node's name"));
    };
    call.registry.bind(r, target.ns(), name, node).await?;
    Ok(reply::json(
        201,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
    ))
}
