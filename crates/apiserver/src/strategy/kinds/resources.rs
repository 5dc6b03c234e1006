//! Amounts of resources.

use serde_json::{Value, json};

use crate::strategy::field::{Errors, Path};
use crate::strategy::format;
use crate::strategy::quantity::Quantity;
use crate::strategy::value::{default, drop_unset, entries, inner};

/// A quantity of either form that JSON has for it.
pub(super) fn read(value: &Value) -> Option<Quantity> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    Quantity::parse(&text).ok()
}

/// Writes the amounts of a resource list in their one canonical way.
pub(super) fn canonical(object: &mut Value, field: &str) {
    let Some(list) = inner(object, field).and_then(Value::as_object_mut) else { return };
    for amount in list.values_mut() {
        if let Some(quantity) = read(amount) {
            *amount = json!(quantity.in_millis().to_string());
        }
    }
}

/// Completes a container's `resources`: what is limited and not requested, is requested.
pub(super) fn defaults(container: &mut Value, alone: bool) {
    default(container, "resources", json!({}));
    let Some(resources) = inner(container, "resources") else { return };
    canonical(resources, "limits");
    canonical(resources, "requests");
    drop_unset(resources, &["limits", "requests"]);
    if alone && let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() {
        default(resources, "requests", json!({}));
        if let Some(requests) = inner(resources, "requests") {
            limits.into_iter().for_each(|(name, amount)| default(requests, &name, amount));
        }
    }
}

/// Whether only whole amounts of a resource make sense: pods, objects, and devices.
fn is_whole(name: &str) -> bool {
    let counted = ["pods", "services", "replicationcontrollers", "resourcequotas", "secrets", "configmaps"];
    let native =
        !name.contains('/') || name.starts_with("kubernetes.io/") || name.contains(".kubernetes.io/");
    counted.contains(&name)
        || matches!(name, "persistentvolumeclaims" | "services.nodeports" | "services.loadbalancers")
        || (!native && !name.starts_with("requests."))
}

/// Checks one amount.
pub(super) fn amount(name: &str, quantity: Quantity, at: &Path, errors: &mut Errors) {
    let shown = json!(quantity.to_string());
    if quantity.nanos() < 0 {
        errors.invalid(at, &shown, "must be greater than or equal to 0");
    }
    if is_whole(name) && !quantity.is_whole() {
        errors.invalid(at, &shown, "must be an integer");
    }
}

/// Whether a container may ask for it.
fn for_containers(name: &str) -> bool {
    matches!(name, "cpu" | "memory" | "ephemeral-storage")
        || name.starts_with("hugepages-")
        || name.contains('/')
}

fn resource_name(name: &str, at: &Path, errors: &mut Errors) {
    let broken = format::label_key(name);
    if !broken.is_empty() {
        errors.all(at, &json!(name), broken);
    } else if !for_containers(name) {
        let quota = ["requests.", "limits."].iter().any(|p| name.starts_with(p)) || is_whole(name);
        if !quota && name != "storage" {
            errors.invalid(at, &json!(name), "must be a standard resource type or fully qualified");
        }
        errors.invalid(at, &json!(name), "must be a standard resource for containers");
    }
}

/// Checks a container's `resources`.
pub(super) fn check(resources: &Value, at: &Path, errors: &mut Errors) {
    for field in ["limits", "requests"] {
        for (name, value) in entries(&resources[field]) {
            let here = at.field(field).key(name);
            resource_name(name, &here, errors);
            let Some(quantity) = read(value) else { continue };
            amount(name, quantity, &here, errors);
            if field == "requests" {
                below_limit(name, quantity, resources, at, errors);
            }
        }
    }
}

fn below_limit(name: &str, request: Quantity, resources: &Value, at: &Path, errors: &mut Errors) {
    let overcommit = !name.contains('/') && !name.starts_with("hugepages-");
    let Some(limit) = read(&resources["limits"][name]) else {
        if !overcommit {
            errors.required(&at.field("limits"), "Limit must be set for non overcommitable resources");
        }
        return;
    };
    let rule = if !overcommit && request.nanos() != limit.nanos() {
        "equal to"
    } else if request.nanos() > limit.nanos() {
        "less than or equal to"
    } else {
        return;
    };
    let rule = format!("must be {rule} {name} limit of {limit}");
    errors.invalid(&at.field("requests"), &json!(request.to_string()), &rule);
}
