//! Three-way merge: what was applied before, what is there, what is wanted.

use serde_json::{Map, Value, json};

/// Where kubectl keeps what was applied, so that a field left out later is removed.
pub(super) const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The longest text kept there, in bytes: all annotations of an object together may have 256 KiB.
const LAST_APPLIED_LIMIT: usize = 128 << 10;

/// The object to write: with its namespace, and with itself in the annotation.
pub(super) fn with_last_applied(object: &Value, namespace: Option<&str>) -> Value {
    let mut wanted = object.clone();
    if let Some(Value::Object(metadata)) = wanted.get_mut("metadata") {
        match namespace {
            Some(namespace) => metadata.insert("namespace".into(), json!(namespace)),
            None => metadata.remove("namespace"),
        };
        metadata.remove("resourceVersion");
        metadata.remove("uid");
        if let Some(Value::Object(annotations)) = metadata.get_mut("annotations") {
            annotations.remove(LAST_APPLIED);
        }
    }
    // As kubectl writes it: else its next apply would find every object changed.
    let mut applied = wanted.clone();
    if let Some(Value::Object(metadata)) = applied.get_mut("metadata") {
        metadata.entry("annotations").or_insert_with(|| json!({}));
    }
    let text = format!("{applied}\n");
    if text.len() > LAST_APPLIED_LIMIT {
        return wanted;
    }
    if let Some(Value::Object(metadata)) = wanted.get_mut("metadata") {
        let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
        if !annotations.is_object() {
            *annotations = json!({});
        }
        annotations[LAST_APPLIED] = json!(text);
    }
    wanted
}

/// The merge patch (RFC 7396) that turns `present` into `wanted`: what differs, and null for
/// what the last apply set and this one does not. What others set stays.
pub(super) fn patch(present: &Value, wanted: &Value) -> Value {
    let last = present.pointer(&format!("/metadata/annotations/{}", LAST_APPLIED.replace('/', "~1")));
    let last = last.and_then(Value::as_str).and_then(|text| serde_json::from_str(text).ok());
    let mut patch = difference(last.as_ref().unwrap_or(&Value::Null), present, wanted);
    if let Some(patch) = patch.as_object_mut() {
        patch.remove("status");
        patch.remove("apiVersion");
        patch.remove("kind");
    }
    patch
}

fn difference(last: &Value, present: &Value, wanted: &Value) -> Value {
    let empty = Map::new();
    let object = |value: &Value| value.as_object().cloned().unwrap_or_else(Map::new);
    let (last, present) = (object(last), object(present));
    let wanted = wanted.as_object().unwrap_or(&empty);
    let mut patch = Map::new();
    for (key, value) in wanted {
        let was = last.get(key).unwrap_or(&Value::Null);
        match present.get(key) {
            Some(there) if there == value => {}
            Some(there) if there.is_object() && value.is_object() => {
                let inner = difference(was, there, value);
                if inner.as_object().is_some_and(|inner| !inner.is_empty()) {
                    patch.insert(key.clone(), inner);
                }
            }
            None if value.is_null() => {}
            _ => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    for key in last.keys() {
        if !wanted.contains_key(key) && present.contains_key(key) {
            patch.insert(key.clone(), Value::Null);
        }
    }
    Value::Object(patch)
}
