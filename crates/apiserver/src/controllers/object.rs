//! Small questions about objects.

use serde_json::{Value, json};

/// `metadata.uid`, or nothing.
pub(super) fn uid(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap_or_default()
}

/// `metadata.name`, or nothing.
pub(super) fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// `metadata.namespace`, or nothing.
pub(super) fn namespace(object: &Value) -> &str {
    object["metadata"]["namespace"].as_str().unwrap_or_default()
}

/// `metadata.resourceVersion` as a number.
pub(super) fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse().ok()).unwrap_or(0)
}

/// A time as Kubernetes writes it: UTC, whole seconds.
pub(super) fn time(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The elements of a list, or none.
pub(super) fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// `metadata.ownerReferences`.
pub(super) fn owners(object: &Value) -> impl Iterator<Item = &Value> {
    list(&object["metadata"]["ownerReferences"])
}

/// The uid of the owner that controls the object.
pub(super) fn controller(object: &Value) -> Option<&str> {
    owners(object).find(|owner| owner["controller"] == true)?["uid"].as_str()
}

/// Whether the object is being deleted.
pub(super) fn terminating(object: &Value) -> bool {
    !object["metadata"]["deletionTimestamp"].is_null()
}

/// The zone of a node.
pub(super) fn zone(node: &Value) -> Option<&str> {
    node["metadata"]["labels"]["topology.kubernetes.io/zone"].as_str().filter(|zone| !zone.is_empty())
}

/// The node that a pod is bound to.
pub(super) fn node_of(pod: &Value) -> Option<&str> {
    pod["spec"]["nodeName"].as_str().filter(|node| !node.is_empty())
}

/// Whether all of a pod's containers ended.
pub(super) fn finished(pod: &Value) -> bool {
    matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
}

/// Whether a pod counts as one of its owner's replicas.
pub(super) fn active(pod: &Value) -> bool {
    !finished(pod) && !terminating(pod)
}

/// Whether a pod's or a node's Ready condition is true.
pub(super) fn ready(object: &Value) -> bool {
    list(&object["status"]["conditions"]).any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// The conditions of `old` with one set; its time changes only with its status.
pub(super) fn with_condition(
    old: &Value,
    kind: &str,
    status: bool,
    reason: &str,
    message: &str,
    now: &str,
) -> Value {
    let status = if status { "True" } else { "False" };
    let mut new = json!({"type": kind, "status": status, "lastTransitionTime": now});
    for (field, text) in [("reason", reason), ("message", message)] {
        if !text.is_empty() {
            new[field] = json!(text);
        }
    }
    let mut conditions: Vec<Value> = list(old).filter(|c| c["type"] != kind).cloned().collect();
    if let Some(before) = list(old).find(|c| c["type"] == kind && c["status"] == status) {
        new["lastTransitionTime"] = before["lastTransitionTime"].clone();
    }
    conditions.push(new);
    conditions.sort_by(|a, b| a["type"].as_str().cmp(&b["type"].as_str()));
    Value::Array(conditions)
}

/// Whether every field of `wanted` is in `present` as it is.
pub(super) fn has_all(present: &Value, wanted: &Value) -> bool {
    wanted.as_object().is_none_or(|fields| fields.iter().all(|(field, value)| present[field] == *value))
}
