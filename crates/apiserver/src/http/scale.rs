//! The `scale` subresource: how many replicas, for kinds of any shape.

use http::Method;
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::path::Target;
use super::{Call, Reply, body, reply, write};
use crate::error::ApiError;
use crate::registry::Part;
use crate::resource::{Resource, Scale};

/// GET, PUT or PATCH of a scale.
pub(super) async fn answer(
    call: &Call,
    r: &Resource,
    target: &Target,
    name: &str,
    method: &Method,
    body: Incoming,
) -> Result<Reply, ApiError> {
    let Some(paths) = r.scale.clone() else { return Err(ApiError::no_such_path()) };
    let registry = &call.registry;
    let object = match *method {
        Method::GET | Method::HEAD => registry.get(r, target.ns(), name).await?,
        Method::PUT => {
            let scale = body::read_json(&call.headers, body).await?;
            let change = move |object: &mut Value| apply(object, &paths, &scale);
            registry.modify_with(r, target.ns(), name, Part::Whole, call.query.dry_run()?, change).await?
        }
        Method::PATCH => {
            let patch = write::read_patch(call, r, body).await?;
            let change = move |object: &mut Value| {
                let mut scale = of(object, &paths);
                patch.apply(&mut scale)?;
                apply(object, &paths, &scale)
            };
            registry.modify_with(r, target.ns(), name, Part::Whole, call.query.dry_run()?, change).await?
        }
        _ => return Err(super::not_allowed()),
    };
    let Some(paths) = &r.scale else { return Err(ApiError::no_such_path()) };
    Ok(reply::json(200, &of(&object, paths)))
}

fn pointer(path: &str) -> String {
    path.replace('.', "/")
}

/// The scale of an object.
fn of(object: &Value, paths: &Scale) -> Value {
    let number = |path: &str| object.pointer(&pointer(path)).and_then(Value::as_i64).unwrap_or(0);
    let meta = &object["metadata"];
    let mut status = json!({"replicas": number(&paths.status_path)});
    match object.pointer(&pointer(&paths.selector_path)) {
        Some(Value::String(text)) => status["selector"] = json!(text),
        Some(Value::Object(selector)) => {
            let labels = selector.get("matchLabels").and_then(Value::as_object).unwrap_or(selector);
            let pairs = labels.iter().filter_map(|(k, v)| Some(format!("{k}={}", v.as_str()?)));
            status["selector"] = json!(pairs.collect::<Vec<_>>().join(","));
        }
        _ => {}
    }
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {"name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"],
            "resourceVersion": meta["resourceVersion"], "creationTimestamp": meta["creationTimestamp"]},
        "spec": {"replicas": number(&paths.spec_path)},
        "status": status,
    })
}

/// Puts a scale's wish, and the version it was made for, into the object.
fn apply(object: &mut Value, paths: &Scale, scale: &Value) -> Result<(), ApiError> {
    let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
    if !(0..=i64::from(i32::MAX)).contains(&replicas) {
        return Err(ApiError::new(
            422,
            "Invalid",
            format!("spec.replicas: Invalid value: {replicas}: must be greater than or equal to 0"),
        ));
    }
    if let Some(version) = scale["metadata"]["resourceVersion"].as_str().filter(|v| !v.is_empty()) {
        object["metadata"]["resourceVersion"] = json!(version);
    }
    let parts: Vec<&str> = paths.spec_path.split('.').filter(|p| !p.is_empty()).collect();
    let mut place = object;
    for part in parts {
        if !place.is_object() {
            *place = json!({});
        }
        place = &mut place[part];
    }
    *place = json!(replicas);
    Ok(())
}
