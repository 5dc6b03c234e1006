//! The `scale` subresource: how many replicas, for kinds of any shape.

use std::sync::Arc;

use http::Method;
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::path::Target;
use super::{Call, Reply, body, manager, reply, write, yaml};
use crate::error::{ApiError, FieldError};
use crate::registry::Part;
use crate::resource::{Resource, Scale};
use crate::strategy;

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
            let kind = r.clone();
            let change = move |object: &mut Value| apply(&kind, object, &paths, &scale);
            let options = manager::write_options(call, "scale")?;
            registry.modify_with(r, target.ns(), name, Part::Whole, options, change).await?
        }
        Method::PATCH if write::is_apply(call) => apply_scale(call, r, target, name, &paths, body).await?,
        Method::PATCH => {
            let patch = write::read_patch(call, r, body).await?;
            let kind = r.clone();
            let change = move |object: &mut Value| {
                let mut scale = of(object, &paths);
                patch.as_ref().map_err(Clone::clone)?.0.apply(&mut scale)?;
                apply(&kind, object, &paths, &scale)
            };
            let options = manager::write_options(call, "scale")?;
            registry.modify_with(r, target.ns(), name, Part::Whole, options, change).await?
        }
        _ => return Err(super::not_allowed()),
    };
    let Some(paths) = &r.scale else { return Err(ApiError::no_such_path()) };
    Ok(reply::json(200, &of(&object, paths)))
}

/// Server-side apply of a scale: of the one field of the object that it stands for.
async fn apply_scale(
    call: &Call,
    r: &Resource,
    target: &Target,
    name: &str,
    paths: &Scale,
    body: Incoming,
) -> Result<Arc<Value>, ApiError> {
    let (options, force) = manager::apply_options(call, "scale")?;
    let scale = yaml::parse(&body::read(body).await?)?;
    if scale["kind"] != "Scale" {
        return Err(ApiError::bad_request("a Scale of autoscaling/v1 is applied to a scale"));
    }
    let registry = &call.registry;
    // With its uid it applies only to the object that is there: a scale makes none.
    let uid = registry.get(r, target.ns(), name).await?["metadata"]["uid"].clone();
    let meta = json!({"name": name, "uid": uid});
    let mut config = json!({"apiVersion": r.api_version(), "kind": r.kind, "metadata": meta});
    if !scale["spec"]["replicas"].is_null() {
        apply(r, &mut config, paths, &scale)?;
    }
    let (object, _) = registry.apply(r, target.ns(), name, Part::Whole, config, force, options).await?;
    Ok(object)
}

fn pointer(path: &str) -> String {
    path.replace('.', "/")
}

/// The scale of an object.
fn of(object: &Value, paths: &Scale) -> Value {
    let number = |path: &str| object.pointer(&pointer(path)).and_then(Value::as_i64).unwrap_or(0);
    let meta = &object["metadata"];
    let mut status = json!({"replicas": number(&paths.status_path)});
    let selector = Some(&paths.selector_path).filter(|path| !path.is_empty());
    match selector.and_then(|path| object.pointer(&pointer(path))) {
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
fn apply(r: &Resource, object: &mut Value, paths: &Scale, scale: &Value) -> Result<(), ApiError> {
    let name = strategy::name_of(object).to_owned();
    let given = strategy::name_of(scale);
    if !given.is_empty() && given != name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({name})"
        )));
    }
    let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
    // A custom object's own rules say what its replicas may be.
    if r.schema.is_none() && !(0..=i64::from(i32::MAX)).contains(&replicas) {
        let rule = "must be greater than or equal to 0";
        let error = FieldError::invalid("spec.replicas", &json!(replicas), rule);
        let of = Resource { group: "autoscaling".into(), kind: "Scale".into(), ..r.clone() };
        return Err(ApiError::invalid(&of, &name, &[error]));
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
