//! Deleting one object, many, and a pod by eviction.

use hyper::body::Incoming;
use serde_json::{Value, json};

use super::continuation::Continue;
use super::list::object_reply;
use super::path::Target;
use super::{Call, Reply, body, list, options, protobuf, reply, yaml};
use crate::error::{ApiError, FieldError};
use crate::options::{DeleteOptions, Propagation};
use crate::resource::Resource;
use crate::storage::Slice;
use crate::strategy;

/// Kinds of which a deletion answers with the object even when it is gone.
const ANSWERED: &[&str] = &[
    "pods",
    "services",
    "persistentvolumes",
    "persistentvolumeclaims",
    "resourcequotas",
    "serviceaccounts",
    "storageclasses",
];

/// DELETE of one object.
pub(super) async fn one(
    call: &Call,
    r: &Resource,
    target: &Target,
    name: &str,
    body: Incoming,
) -> Result<Reply, ApiError> {
    let given = read(call, body).await?;
    let options = delete_options(call, r, &given)?;
    let left = call.registry.delete(r, target.ns(), name, options).await?;
    if !left["metadata"]["deletionTimestamp"].is_null() || ANSWERED.contains(&&*r.plural) {
        // As Kubernetes has it, for those who asked in the old words.
        let accepted = given["orphanDependents"] == json!(false);
        return Ok(object_reply(call, r, if accepted { 202 } else { 200 }, &left));
    }
    let mut details = json!({"name": name, "kind": r.plural, "uid": left["metadata"]["uid"]});
    if !r.group.is_empty() {
        details["group"] = json!(r.group);
    }
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
    Ok(reply::json(200, &status))
}

/// DELETE of all that a selector selects, up to `limit`.
pub(super) async fn collection(
    call: &Call,
    r: &Resource,
    target: &Target,
    body: Incoming,
) -> Result<Reply, ApiError> {
    if r.namespaced && target.namespace.is_none() {
        return Err(super::not_allowed());
    }
    let selector = list::selector(call, r, target)?;
    let given = read(call, body).await?;
    let options = delete_options(call, r, &given)?;
    call.registry.current().await?;
    let limit = options::limit(&call.query)?;
    let slice = Slice { limit, node: selector.node(), ..Slice::default() };
    let page = call.registry.page(r, target.ns(), slice, selector.filter().as_ref().map(|f| f as _))?;
    let mut items = Vec::new();
    for object in page.objects {
        let object = object.parse();
        match call.registry.delete(r, target.ns(), strategy::name_of(&object), options.clone()).await {
            // As it was before.
            Ok(_) => items.push((*object).clone()),
            Err(e) if e.reason == "NotFound" => {}
            Err(e) => return Err(e),
        }
    }
    let mut metadata = json!({"resourceVersion": page.rv.to_string()});
    if let Some(after) = page.next {
        metadata["continue"] = json!(Continue { rv: Some(page.rv), after }.to_text());
    }
    let list = json!({"kind": format!("{}List", r.kind), "apiVersion": r.api_version(),
        "metadata": metadata, "items": items});
    Ok(reply::json(200, &list))
}

/// POST of an Eviction: a deletion that disruption budgets may refuse.
pub(super) async fn evict(
    call: &Call,
    r: &Resource,
    target: &Target,
    name: &str,
    body: Incoming,
) -> Result<Reply, ApiError> {
    let eviction = body::read_json(&call.headers, body).await?;
    let named = eviction["metadata"]["name"].as_str().unwrap_or_default();
    if !named.is_empty() && named != name {
        return Err(ApiError::bad_request("name in URL does not match name in Eviction object"));
    }
    let options = delete_options(call, r, &eviction["deleteOptions"])?;
    call.registry.evict(target.ns(), name, options).await?;
    Ok(reply::json(
        201,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
    ))
}

/// The body of a deletion; null when there is none.
async fn read(call: &Call, body: Incoming) -> Result<Value, ApiError> {
    let bytes = body::read(body).await?;
    match body::media_type(&call.headers) {
        _ if bytes.is_empty() => Ok(Value::Null),
        protobuf::MEDIA => {
            let options = protobuf::parse(&bytes);
            options.ok_or_else(|| body::unsupported(protobuf::MEDIA, "application/json"))
        }
        body::YAML => yaml::parse(&bytes),
        _ => body::parse(&bytes),
    }
}

/// `DeleteOptions` from the body, or where there is none from the query.
fn delete_options(call: &Call, r: &Resource, given: &Value) -> Result<DeleteOptions, ApiError> {
    if let Some(kind) = given["kind"].as_str().filter(|kind| *kind != "DeleteOptions") {
        let version = given["apiVersion"].as_str().unwrap_or_default();
        return Err(ApiError::bad_request(format!(
            "no kind {kind:?} is registered for version {version:?} as options of a deletion"
        )));
    }
    let text = |v: &Value| v.as_str().map(str::to_owned);
    let (seconds, dry_run) = if given.is_null() {
        (call.query.number("gracePeriodSeconds")?, call.dry_run()?)
    } else {
        (given["gracePeriodSeconds"].as_i64(), dry_run(call, &given["dryRun"])?)
    };
    Ok(DeleteOptions {
        uid: text(&given["preconditions"]["uid"]),
        resource_version: text(&given["preconditions"]["resourceVersion"]),
        // As Kubernetes has it: less than none is the least.
        grace_seconds: seconds.map(|s| if s < 0 { 1 } else { s }),
        propagation: propagation(call, r, given)?,
        dry_run,
    })
}

fn dry_run(call: &Call, given: &Value) -> Result<bool, ApiError> {
    let stages = given.as_array().map(Vec::as_slice).unwrap_or_default();
    match stages.iter().all(|stage| stage == "All") {
        true => Ok(!stages.is_empty()),
        false => Err(call.bad_option(FieldError::not_supported("dryRun", given, &["All".to_owned()]))),
    }
}

fn propagation(call: &Call, r: &Resource, given: &Value) -> Result<Option<Propagation>, ApiError> {
    let asked = call.query.get("orphanDependents").map(|_| call.query.flag("orphanDependents"));
    let (policy, orphan) = if given.is_null() {
        (call.query.get("propagationPolicy"), asked)
    } else {
        (given["propagationPolicy"].as_str(), given["orphanDependents"].as_bool())
    };
    match (policy, orphan) {
        (Some(policy), Some(_)) => {
            let rule = "orphanDependents and deletionPropagation cannot be both set";
            Err(invalid(FieldError::invalid("propagationPolicy", &json!(policy), rule)))
        }
        (Some("Orphan"), _) | (_, Some(true)) => Ok(Some(Propagation::Orphan)),
        (Some("Foreground"), _) => Ok(Some(Propagation::Foreground)),
        (Some("Background"), _) | (_, Some(false)) => Ok(Some(Propagation::Background)),
        (Some(other), _) => {
            let known = ["Foreground", "Background", "Orphan", "nil"].map(str::to_owned);
            Err(invalid(FieldError::not_supported("propagationPolicy", &json!(other), &known)))
        }
        (None, None) => Ok(by_kind(r)),
    }
}

/// What Kubernetes does, for reasons of its history, with the pods of two kinds when nothing is said.
fn by_kind(r: &Resource) -> Option<Propagation> {
    matches!(&*r.kind, "Job" | "ReplicationController").then_some(Propagation::Orphan)
}

fn invalid(error: FieldError) -> ApiError {
    ApiError::invalid_options("DeleteOptions", &[error])
}
