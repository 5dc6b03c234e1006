//! The rules about objects: what a create fills in, what an update may change, what holds a deletion.

mod definition;
mod deletion;
mod field;
mod format;
mod kinds;
mod meta;
mod names;
mod propagation;
mod quantity;
mod shape;
#[cfg(test)]
mod tests;
mod value;

use serde_json::{Map, Value, json};

use ipnet::IpNet;

use crate::error::{ApiError, FieldError};
use crate::kinds::NAMESPACES;
use crate::registry::Part;
use crate::resource::Resource;
use crate::storage::View;

pub(crate) use deletion::{check_preconditions, mark_deleted, may_delete, may_vanish};
use field::Errors;
pub(crate) use format::{label_key, label_value};
pub(crate) use names::{random_bytes, random_uid};
pub(crate) use propagation::{FOREGROUND, ORPHAN, has as has_finalizer};
use value::{drop_fields, put, text};

/// What the rules need beside the objects.
pub(crate) struct Context {
    pub(crate) service_cidrs: Vec<IpNet>,
}

/// Says that a node runs a pod whatever the API says, and only tells the API of it.
pub(crate) const MIRROR: &str = "kubernetes.io/config.mirror";

/// Whether a pod is a node's own.
pub(crate) fn is_mirror(pod: &Value) -> bool {
    pod["metadata"]["annotations"][MIRROR].is_string()
}

/// `metadata.name`, or nothing.
pub(crate) fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// `metadata.namespace`.
pub(crate) fn namespace_of(object: &Value) -> Option<&str> {
    object["metadata"]["namespace"].as_str()
}

/// The time now as Kubernetes writes it.
pub(crate) fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Checks that an object is of the kind and in the namespace that the path says, and fills both in.
pub(crate) fn identify(r: &Resource, ns: Option<&str>, obj: &mut Value) -> Result<(), ApiError> {
    let Some(map) = obj.as_object_mut() else {
        return Err(ApiError::bad_request(format!(
            "the body is no JSON object, but a {} is expected",
            r.kind
        )));
    };
    let version = r.api_version();
    let kind = map.entry("kind").or_insert_with(|| json!(r.kind)).clone();
    let given = map.entry("apiVersion").or_insert_with(|| json!(version)).clone();
    if kind != json!(r.kind) || given != json!(version) {
        let text = |v: &Value| v.as_str().unwrap_or("?").to_owned();
        let message = format!(
            "{} in version {:?} cannot be handled as a {} in version {version:?}",
            text(&kind),
            text(&given),
            r.kind
        );
        return Err(ApiError::bad_request(message));
    }
    let Some(meta) = map.entry("metadata").or_insert_with(|| json!({})).as_object_mut() else {
        return Err(ApiError::bad_request("metadata is no object"));
    };
    if let Some(wrong) = ["name", "generateName", "namespace", "uid", "resourceVersion"]
        .iter()
        .find(|f| meta.get(**f).is_some_and(|v| !v.is_string() && !v.is_null()))
    {
        return Err(ApiError::bad_request(format!("metadata.{wrong} is no string")));
    }
    place(r, ns, meta)
}

fn place(r: &Resource, ns: Option<&str>, meta: &mut Map<String, Value>) -> Result<(), ApiError> {
    let given = meta.get("namespace").and_then(Value::as_str).unwrap_or_default();
    if !r.namespaced {
        if !given.is_empty() {
            return Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        meta.remove("namespace");
        return Ok(());
    }
    let ns = ns.unwrap_or("default");
    if !given.is_empty() && given != ns {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    meta.insert("namespace".into(), json!(ns));
    Ok(())
}

/// Makes a new object complete and checks it.
pub(crate) fn create(
    r: &Resource,
    ns: Option<&str>,
    obj: &mut Value,
    view: &View<'_>,
    context: &Context,
) -> Result<(), ApiError> {
    let meta = &mut obj["metadata"];
    if meta["resourceVersion"].as_str().is_some_and(|v| !v.is_empty()) {
        return Err(ApiError::bad_request("resourceVersion should not be set on objects to be created"));
    }
    names::generate(r, ns, meta, view);
    if r.namespaced {
        check_namespace(r, ns.unwrap_or("default"), name_of(obj), view)?;
    }
    let meta = &mut obj["metadata"];
    meta["uid"] = json!(random_uid());
    meta["creationTimestamp"] = json!(now());
    drop_fields(meta, &["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "managedFields"]);
    if kinds::has_generation(r) {
        meta["generation"] = json!(1);
    }
    kinds::first_status(r, obj);
    settle(r, None, obj, Part::Whole, view, context)
}

/// A new object as its author is said to have written it: with the defaults, without what the server
/// gave it (addresses, ports, a status).
pub(crate) fn as_authored(r: &Resource, given: &Value, made: &Value) -> Value {
    let mut authored = given.clone();
    kinds::defaults(r, &mut authored);
    if let Some(schema) = &r.schema {
        schema.fill(&mut authored);
    }
    put(&mut authored["metadata"], "name", &made["metadata"]["name"]);
    authored
}

/// Defaults, then checks, of a new or changed object.
fn settle(
    r: &Resource,
    old: Option<&Value>,
    obj: &mut Value,
    part: Part,
    view: &View<'_>,
    context: &Context,
) -> Result<(), ApiError> {
    let refused = |obj: &Value, errors: &[FieldError]| Err(ApiError::invalid(r, name_of(obj), errors));
    let shapes = shape::check(r, obj);
    if !shapes.is_empty() {
        return refused(obj, &shapes);
    }
    if has_fixed_types(r) {
        value::drop_nulls(obj);
    }
    meta::tidy(&mut obj["metadata"]);
    kinds::defaults(r, obj);
    kinds::allocate(r, old, obj, view, context)?;
    let mut errors = Errors::default();
    match old {
        None => meta::check_new(r, &obj["metadata"], &mut errors),
        Some(old) => meta::check_changed(r, &old["metadata"], &obj["metadata"], &mut errors),
    }
    if let Some(schema) = &r.schema {
        schema.fill(obj);
        errors.0.extend(schema.check(obj, old));
        definition::check_scale(r, obj, &mut errors);
    }
    kinds::check(r, old, obj, part, &mut errors);
    if r.kind == "CustomResourceDefinition" {
        definition::settle(old, obj, &mut errors);
    }
    if errors.0.is_empty() { Ok(()) } else { refused(obj, &errors.0) }
}

/// Whether null is as if the field were not there: in all but the kinds that hold any JSON.
fn has_fixed_types(r: &Resource) -> bool {
    r.schema.is_none() && !matches!(&*r.kind, "CustomResourceDefinition" | "ControllerRevision")
}

/// Checks a status that was written alone.
fn settle_status(r: &Resource, old: &Value, obj: &mut Value) -> Result<(), ApiError> {
    let shapes = shape::check(r, obj);
    if !shapes.is_empty() {
        return Err(ApiError::invalid(r, name_of(obj), &shapes));
    }
    kinds::status_defaults(r, old, obj);
    let mut errors = Errors::default();
    meta::check_changed(r, &old["metadata"], &obj["metadata"], &mut errors);
    if let Some(schema) = &r.schema {
        schema.fill(obj);
        errors.0.extend(schema.check(obj, Some(old)));
    }
    kinds::check_status(r, old, obj, &mut errors);
    if r.kind == "CustomResourceDefinition" {
        definition::check_status(obj, &mut errors);
    }
    if r.schema.is_none() && obj["status"]["conditions"].as_array().is_some_and(Vec::is_empty) {
        drop_fields(&mut obj["status"], &["conditions"]);
    }
    if errors.0.is_empty() { Ok(()) } else { Err(ApiError::invalid(r, name_of(obj), &errors.0)) }
}

/// A new object needs a namespace that is there and is not being deleted.
fn check_namespace(r: &Resource, ns: &str, name: &str, view: &View<'_>) -> Result<(), ApiError> {
    let Some(namespace) = view.get(&NAMESPACES.key(None, ns)) else {
        return Err(ApiError::not_found(&NAMESPACES, ns));
    };
    if namespace["metadata"]["deletionTimestamp"].is_null() {
        return Ok(());
    }
    let why = format!("unable to create new content in namespace {ns} because it is being terminated");
    let mut error = ApiError::forbidden(r, name, &why);
    let message = format!("namespace {ns} is being terminated");
    error.details["causes"] =
        json!([{"reason": "NamespaceTerminating", "message": message, "field": "metadata.namespace"}]);
    Err(error)
}

/// Completes a changed object from the old one, by what the part may change, and checks it.
pub(crate) fn update(
    r: &Resource,
    old: &Value,
    new: &mut Value,
    part: Part,
    view: &View<'_>,
    context: &Context,
) -> Result<(), ApiError> {
    identify(r, namespace_of(old), new)?;
    let name = name_of(old);
    let (before, after) = (&old["metadata"], &new["metadata"]);
    if after["name"] != before["name"] {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({}) does not match the name on the URL ({name})",
            name_of(new)
        )));
    }
    let given = |v: &Value| v.as_str().filter(|s| !s.is_empty()).map(str::to_owned);
    if given(&after["uid"]).is_some_and(|uid| before["uid"] != json!(uid)) {
        let rule = FieldError::invalid("metadata.uid", &after["uid"], "field is immutable");
        return Err(ApiError::invalid(r, name, &[rule]));
    }
    if given(&after["resourceVersion"]).is_some_and(|rv| before["resourceVersion"] != json!(rv)) {
        return Err(ApiError::stale(r, name));
    }
    if part == Part::Whole && given(&after["resourceVersion"]).is_none() && kinds::needs_version(r) {
        let rule =
            FieldError::invalid("metadata.resourceVersion", &json!(0), "must be specified for an update");
        return Err(ApiError::invalid(&Resource { kind: r.plural.clone(), ..r.clone() }, name, &[rule]));
    }
    keep(r, old, new, part);
    match part {
        Part::Status => settle_status(r, old, new)?,
        Part::Finalize => {}
        _ => settle(r, Some(old), new, part, view, context)?,
    }
    let counts = matches!(part, Part::Whole | Part::Ephemeral | Part::Resize);
    let relabelled = r.kind == "EndpointSlice" && !value::same(&before["labels"], &new["metadata"]["labels"]);
    if counts && kinds::has_generation(r) && (relabelled || new_content(old) != new_content(new)) {
        new["metadata"]["generation"] = json!(before["generation"].as_i64().unwrap_or(0) + 1);
    }
    Ok(())
}

/// Refuses a replacement that was made from another object of that name.
pub(crate) fn same_uid(r: &Resource, old: &Value, new: &Value) -> Result<(), ApiError> {
    let (before, after) = (&old["metadata"]["uid"], text(&new["metadata"]["uid"]));
    if after.is_empty() || before == after {
        return Ok(());
    }
    let why =
        format!("Precondition failed: UID in precondition: {after}, UID in object meta: {}", text(before));
    Err(ApiError::conflict(r, name_of(old), &why))
}

/// Takes from the old object all that this part may not change.
fn keep(r: &Resource, old: &Value, new: &mut Value, part: Part) {
    if matches!(part, Part::Status | Part::Finalize) {
        let field = if part == Part::Status { "status" } else { "spec" };
        let (mut changed, given) = (new[field].take(), new["metadata"].take());
        if part == Part::Finalize && changed["finalizers"].as_array().is_some_and(Vec::is_empty) {
            drop_fields(&mut changed, &["finalizers"]);
        }
        *new = old.clone();
        put(new, field, &changed);
        if part == Part::Status {
            kinds::metadata_of_status(r).iter().for_each(|f| put(&mut new["metadata"], f, &given[*f]));
        }
        return;
    }
    if matches!(part, Part::Ephemeral | Part::Resize) {
        *new = kinds::pod_part(old, new, part);
        return;
    }
    for field in ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"]
    {
        put(&mut new["metadata"], field, &old["metadata"][field]);
    }
    put(&mut new["metadata"], "resourceVersion", &old["metadata"]["resourceVersion"]);
    drop_fields(&mut new["metadata"], &["managedFields", "selfLink"]);
    if r.status && part == Part::Whole {
        put(new, "status", &old["status"]);
    }
    if r.kind == "Namespace" && r.group.is_empty() {
        put(new, "spec", &old["spec"]);
    }
}

/// What counts for the generation: all but metadata and status.
fn new_content(object: &Value) -> Vec<(&String, &Value)> {
    let fields = object.as_object().into_iter().flatten();
    fields.filter(|(k, _)| *k != "metadata" && *k != "status" && *k != "apiVersion").collect()
}

/// Puts the node into a pod that has none.
pub(crate) fn bind(r: &Resource, pod: &mut Value, node: &str) -> Result<(), ApiError> {
    let name = name_of(pod).to_owned();
    let r = &Resource { plural: "pods/binding".into(), ..r.clone() };
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        return Err(ApiError::conflict(
            r,
            &name,
            &format!("pod {name} is being deleted, cannot be assigned to a host"),
        ));
    }
    if let Some(node) = pod["spec"]["nodeName"].as_str().filter(|n| !n.is_empty()) {
        let why = format!("pod {name} is already assigned to node {node:?}");
        return Err(ApiError::conflict(r, &name, &why));
    }
    pod["spec"]["nodeName"] = json!(node);
    let scheduled =
        json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now()});
    match &mut pod["status"]["conditions"] {
        Value::Array(all) => {
            all.retain(|c| c["type"] != "PodScheduled");
            all.push(scheduled);
        }
        other => *other = json!([scheduled]),
    }
    Ok(())
}
