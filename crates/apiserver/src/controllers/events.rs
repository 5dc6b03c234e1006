//! Events, for people who look at an object with `kubectl describe`.

use serde_json::{Value, json};

use super::action::Action;
use super::object;

/// An event about an object; `kind` is its kind, of the core group, and `severity` Normal or Warning.
pub(super) fn about(
    object: &Value,
    kind: &str,
    severity: &str,
    reason: &str,
    message: &str,
    now: &str,
) -> Action {
    let namespace = Some(object::namespace(object)).filter(|namespace| !namespace.is_empty());
    let event = body(object, kind, severity, reason, message, now);
    Action::Create { kind: "events", namespace: namespace.unwrap_or("default").to_owned(), object: event }
}

/// The same, for who writes it himself.
pub(crate) fn body(
    object: &Value,
    kind: &str,
    severity: &str,
    reason: &str,
    message: &str,
    now: &str,
) -> Value {
    let (name, namespace) = (object::name(object), object::namespace(object));
    let mut involved = json!({"kind": kind, "apiVersion": "v1", "name": name, "uid": object::uid(object)});
    if !namespace.is_empty() {
        involved["namespace"] = json!(namespace);
    }
    json!({
        "metadata": {"generateName": format!("{name}-")}, "involvedObject": involved,
        "reason": reason, "message": message, "type": severity, "count": 1,
        "source": {"component": "weft-apiserver"}, "firstTimestamp": now, "lastTimestamp": now,
    })
}
