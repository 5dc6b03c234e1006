//! Reading and completing JSON values as Kubernetes' types would: what is missing is empty.

use serde_json::{Map, Value};

/// The text, or nothing.
pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The items of a list; none when it is something else.
pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The items of a list with their places.
pub(super) fn numbered(value: &Value) -> impl Iterator<Item = (usize, &Value)> {
    list(value).iter().enumerate()
}

/// The entries of a map; none when it is something else.
pub(super) fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

/// The whole number, or 0.
pub(super) fn int(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

/// Whether a value says nothing: null, or an empty text, list or map.
pub(super) fn unset(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// Whether two values are the same; one that says nothing is as one that is missing.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let within = |x: &Map<String, Value>, y: &Map<String, Value>| {
                x.iter().all(|(k, v)| same(v, y.get(k).unwrap_or(&Value::Null)))
            };
            within(a, b) && within(b, a)
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(x, y)| same(x, y)),
        _ => a == b || (unset(a) && unset(b)),
    }
}

/// Sets a field that is missing or null.
pub(super) fn default(object: &mut Value, field: &str, value: impl Into<Value>) {
    if let Some(map) = object.as_object_mut() {
        let slot = map.entry(field).or_insert(Value::Null);
        if slot.is_null() {
            *slot = value.into();
        }
    }
}

/// Sets a text or number that is missing, null, empty or 0.
pub(super) fn default_filled(object: &mut Value, field: &str, value: impl Into<Value>) {
    if let Some(map) = object.as_object_mut() {
        let slot = map.entry(field).or_insert(Value::Null);
        if unset(slot) || *slot == 0 {
            *slot = value.into();
        }
    }
}

/// The items of a list in a field, to complete those that are objects.
pub(super) fn items<'a>(object: &'a mut Value, field: &str) -> impl Iterator<Item = &'a mut Value> {
    let list = object.get_mut(field).and_then(Value::as_array_mut);
    list.into_iter().flatten().filter(|item| item.is_object())
}

/// An object in a field, to complete it.
pub(super) fn inner<'a>(object: &'a mut Value, field: &str) -> Option<&'a mut Value> {
    object.get_mut(field).filter(|value| value.is_object())
}

/// Takes fields away.
pub(super) fn drop_fields(value: &mut Value, fields: &[&str]) {
    if let Some(map) = value.as_object_mut() {
        fields.iter().for_each(|f| drop(map.remove(*f)));
    }
}

/// Takes a field away that says nothing, as Kubernetes does not write it.
pub(super) fn drop_unset(value: &mut Value, fields: &[&str]) {
    if let Some(map) = value.as_object_mut() {
        for field in fields {
            if map.get(*field).is_some_and(|v| unset(v) || *v == 0) {
                map.remove(*field);
            }
        }
    }
}

/// Sets a field; null takes it away.
pub(super) fn put(object: &mut Value, field: &str, value: &Value) {
    match object.as_object_mut() {
        Some(map) if value.is_null() => drop(map.remove(field)),
        Some(map) => drop(map.insert(field.to_owned(), value.clone())),
        None => {}
    }
}

/// Takes away every field that is null: for Kubernetes' types it is as if it were not there.
pub(super) fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}
