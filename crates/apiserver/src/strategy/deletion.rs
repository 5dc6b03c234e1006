//! What may be deleted, when, and what holds it until then.

use serde_json::{Value, json};

use super::{name_of, propagation};
use crate::error::ApiError;
use crate::registry::DeleteOptions;
use crate::resource::Resource;

/// Whether nothing holds an object that is being deleted.
pub(crate) fn may_vanish(r: &Resource, object: &Value) -> bool {
    let meta = &object["metadata"];
    let graceful = meta["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) > 0;
    !meta["deletionTimestamp"].is_null() && !graceful && !held(r, object)
}

fn held(r: &Resource, object: &Value) -> bool {
    let some = |v: &Value| v.as_array().is_some_and(|list| !list.is_empty());
    let namespace = r.kind == "Namespace" && r.group.is_empty();
    some(&object["metadata"]["finalizers"]) || (namespace && some(&object["spec"]["finalizers"]))
}

/// Namespaces without which a cluster is none.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// Refuses the deletion of what must stay.
pub(crate) fn may_delete(r: &Resource, name: &str) -> Result<(), ApiError> {
    let immortal = r.kind == "Namespace" && r.group.is_empty() && IMMORTAL.contains(&name);
    if immortal { Err(ApiError::forbidden(r, name, "this namespace may not be deleted")) } else { Ok(()) }
}

/// Whether the object is the one that the caller means.
pub(crate) fn check_preconditions(
    r: &Resource,
    old: &Value,
    options: &DeleteOptions,
) -> Result<(), ApiError> {
    let meta = &old["metadata"];
    let pairs = [
        ("UID", &options.uid, &meta["uid"]),
        ("ResourceVersion", &options.resource_version, &meta["resourceVersion"]),
    ];
    for (what, wanted, found) in pairs {
        if let Some(wanted) = wanted
            && *found != json!(wanted)
        {
            let found = found.as_str().unwrap_or_default();
            return Err(ApiError::precondition(r, name_of(old), what, wanted, found));
        }
    }
    Ok(())
}

/// The object as it is while something holds its deletion; None when it can go at once.
pub(crate) fn mark_deleted(r: &Resource, old: &Value, options: &DeleteOptions) -> Option<Value> {
    let grace = grace_seconds(r, old, options);
    let mut marked = old.clone();
    propagation::set_finalizers(&mut marked["metadata"], options.propagation);
    let graceful = r.kind == "Pod" && r.group.is_empty();
    if grace == 0 && !held(r, &marked) && !graceful {
        return None;
    }
    let namespace = r.kind == "Namespace" && r.group.is_empty();
    let meta = &mut marked["metadata"];
    let first = meta["deletionTimestamp"].is_null();
    let shorter = meta["deletionGracePeriodSeconds"].as_i64().is_some_and(|before| grace < before);
    if first || shorter {
        let at = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(grace);
        meta["deletionTimestamp"] = json!(at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        // A namespace has finalizers of its own, and no grace.
        if !namespace {
            meta["deletionGracePeriodSeconds"] = json!(grace);
        }
    }
    if first && let Some(generation) = meta["generation"].as_i64() {
        meta["generation"] = json!(generation + 1);
    }
    if namespace {
        marked["status"]["phase"] = json!("Terminating");
    }
    Some(marked)
}

/// A pod that runs on a node gets time to end; everything else goes at once.
fn grace_seconds(r: &Resource, old: &Value, options: &DeleteOptions) -> i64 {
    let ended = matches!(old["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if r.kind != "Pod"
        || !r.group.is_empty()
        || ended
        || old["spec"]["nodeName"].as_str().is_none_or(str::is_empty)
    {
        return 0;
    }
    let own = old["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(30);
    options.grace_seconds.unwrap_or(own).clamp(0, 31_536_000)
}
