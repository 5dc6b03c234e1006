//! Nodes.

use serde_json::{Value, json};

use crate::strategy::field::{Errors, Path};
use crate::strategy::format;
use crate::strategy::quantity::Quantity;
use crate::strategy::value::{default, drop_unset, entries, inner, list, numbered, same, text, unset};

const CIDRS_STAY: &str = "node updates may not change podCIDR except from \"\" to valid";
const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// Completes a node: `podCIDR` and `podCIDRs` say the same, and all that it can hold may be given away.
pub(super) fn defaults(node: &mut Value) {
    default(node, "spec", json!({}));
    default(node, "status", json!({}));
    if let Some(spec) = inner(node, "spec") {
        drop_unset(spec, &["podCIDR", "podCIDRs", "taints", "providerID"]);
        match (spec["podCIDR"].clone(), spec["podCIDRs"][0].clone()) {
            (Value::Null, Value::Null) => {}
            (Value::Null, first) => spec["podCIDR"] = first,
            (one, Value::Null) => spec["podCIDRs"] = json!([one]),
            (one, first) if one != first => spec["podCIDRs"] = json!([one]),
            _ => {}
        }
        spec.as_object_mut().into_iter().for_each(|s| s.retain(|_, v| !v.is_null()));
    }
    if let Some(status) = inner(node, "status") {
        super::resources::canonical(status, "capacity");
        super::resources::canonical(status, "allocatable");
        if !unset(&status["capacity"]) {
            let capacity = status["capacity"].clone();
            default(status, "allocatable", capacity);
        }
        status.as_object_mut().into_iter().for_each(|s| s.retain(|_, v| !v.is_null()));
    }
}

/// A new node takes no pods before a controller sees that it is ready.
pub(super) fn admit(node: &mut Value) {
    let Some(spec) = inner(node, "spec") else { return };
    default(spec, "taints", json!([]));
    let Some(taints) = spec["taints"].as_array_mut() else { return };
    let taint = json!({"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"});
    if !taints.iter().any(|t| t["key"] == taint["key"] && t["effect"] == taint["effect"]) {
        taints.push(taint);
    }
}

/// Checks a node.
pub(super) fn check(node: &Value, old: Option<&Value>, errors: &mut Errors) {
    taints(&node["spec"]["taints"], &Path::new("metadata.taints"), errors);
    check_status(node, errors);
    pod_cidrs(&node["spec"]["podCIDRs"], errors);
    if let Some(old) = old {
        changed(&old["spec"], &node["spec"], errors);
    }
    let addresses = list(&node["status"]["addresses"]);
    for (index, address) in addresses.iter().enumerate().filter(|_| old.is_some()) {
        if addresses[..index].contains(address) {
            let shown = json!({"Type": address["type"], "Address": address["address"]});
            errors.duplicate(&Path::new("status.addresses").at(index), &shown);
        }
    }
}

/// Checks what a node says that it can hold.
pub(super) fn check_status(node: &Value, errors: &mut Errors) {
    for field in ["capacity", "allocatable"] {
        for (name, amount) in entries(&node["status"][field]) {
            let at = Path::new("status").field(field).field(name);
            if let Ok(quantity) = Quantity::parse(text(amount)) {
                super::resources::amount(name, quantity, &at, errors);
            }
        }
    }
}

fn pod_cidrs(cidrs: &Value, errors: &mut Errors) {
    let at = Path::new("spec.podCIDRs");
    for (index, cidr) in numbered(cidrs) {
        errors.all(&at.at(index), cidr, format::cidr(text(cidr)));
    }
    let (count, sixes) = (list(cidrs).len(), list(cidrs).iter().filter(|c| text(c).contains(':')).count());
    if count > 2 || sixes > 1 || count - sixes > 1 {
        errors.invalid(&at, cidrs, "may specify no more than one CIDR for each IP family");
    }
}

fn changed(before: &Value, spec: &Value, errors: &mut Errors) {
    if !unset(&before["podCIDRs"]) && !same(&before["podCIDRs"], &spec["podCIDRs"]) {
        errors.forbidden(&Path::new("spec.podCIDRs"), CIDRS_STAY);
    }
    if !unset(&before["providerID"]) && !same(&before["providerID"], &spec["providerID"]) {
        let rule = if unset(&spec["providerID"]) { "cleared" } else { "modified" };
        let rule = format!("field cannot be {rule} once set");
        errors.invalid(&Path::new("spec.providerID"), &Value::Null, &rule);
    }
}

fn taints(taints: &Value, at: &Path, errors: &mut Errors) {
    let all = list(taints);
    for (index, taint) in all.iter().enumerate() {
        let at = at.at(index);
        let (key, value) = (text(&taint["key"]), text(&taint["value"]));
        errors.all(&at.field("key"), &json!(key), format::label_key(key));
        let broken = format::label_value(value);
        if !broken.is_empty() {
            errors.invalid(&at.field("value"), &json!(value), &broken.join(";"));
        }
        errors.one_of(&at.field("effect"), &taint["effect"], EFFECTS);
        let twice = |t: &Value| same(&t["key"], &taint["key"]) && same(&t["effect"], &taint["effect"]);
        if all[..index].iter().any(twice) {
            let shown = json!({"Key": key, "Value": value, "Effect": taint["effect"], "TimeAdded": taint["timeAdded"]});
            let shown = format!("{shown}: taints must be unique by key and effect pair");
            errors.duplicate_text(&at, &shown);
        }
    }
}
