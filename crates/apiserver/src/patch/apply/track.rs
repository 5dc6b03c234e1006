//! Owners after a write that is no apply.

use serde_json::Value;

use super::managers::{Managed, Manager};
use super::{Shape, disown, extract, without_managers};
use crate::resource::Resource;

/// The managers of an object after a write, as `metadata.managedFields`; null is none.
///
/// `old` is null for a new object. `given` is what the client sent as `managedFields`: a client may
/// edit them, or reset them with one empty entry. Nothing is tracked for an object that has no managers.
pub(crate) fn track(
    r: &Resource,
    old: &Value,
    new: &Value,
    given: &Value,
    manager: &Manager,
    now: &str,
) -> Value {
    if is_reset(given) {
        return Value::Null;
    }
    let before = &old["metadata"]["managedFields"];
    let mut managed = match Managed::read(given) {
        Some(managed) if !managed.0.is_empty() => managed,
        _ => Managed::read(before).unwrap_or_default(),
    };
    if managed.0.is_empty() && !old.is_null() {
        return Value::Null;
    }
    let none = serde_json::json!({});
    let (old, new) = (without_managers(if old.is_null() { &none } else { old }), without_managers(new));
    let mut difference = extract::compare(&old, &new, Shape::of(r), 0);
    disown(r, &mut difference.changed, &manager.subresource);
    let mut own = managed.fields(manager).cloned().unwrap_or_default();
    for entry in &mut managed.0 {
        entry.fields.subtract(&difference.removed);
        entry.fields.subtract(&difference.changed);
    }
    own.subtract(&difference.removed);
    own.add(&difference.changed);
    managed.set(manager, own, now);
    managed.cap();
    managed.to_json()
}

/// Puts `metadata.managedFields` into an object; null takes it out.
pub(crate) fn retain(object: &mut Value, managed: Value) {
    let Some(meta) = object["metadata"].as_object_mut() else { return };
    match managed {
        Value::Null => drop(meta.remove("managedFields")),
        managed => drop(meta.insert("managedFields".into(), managed)),
    }
}

fn is_reset(given: &Value) -> bool {
    matches!(given.as_array().map(Vec::as_slice), Some([Value::Object(only)]) if only.is_empty())
}
