//! The metrics by which a HorizontalPodAutoscaler scales.

use serde_json::{Value, json};

use super::resources;
use crate::strategy::field::{Errors, Path};
use crate::strategy::value::{int, numbered, text};

/// Types of metrics, and the field of each.
const TYPES: [(&str, &str); 5] = [
    ("ContainerResource", "containerResource"),
    ("External", "external"),
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
];

/// Checks the metrics of a spec.
pub(super) fn check(spec: &Value, at: &Path, errors: &mut Errors) {
    let at = at.field("metrics");
    for (index, metric) in numbered(&spec["metrics"]) {
        one(metric, &at.at(index), errors);
    }
    let outside = |m: &Value| matches!(text(&m["type"]), "Object" | "External");
    if spec["minReplicas"] == 0 && !numbered(&spec["metrics"]).any(|(_, m)| outside(m)) {
        let rule = "must specify at least one Object or External metric to support scaling to zero replicas";
        errors.forbidden(&at, rule);
    }
}

fn one(metric: &Value, at: &Path, errors: &mut Errors) {
    errors.one_of(&at.field("type"), &metric["type"], &TYPES.map(|(kind, _)| kind));
    let wanted = TYPES.iter().find(|(kind, _)| metric["type"] == *kind).map(|(_, field)| *field);
    for (_, field) in TYPES {
        let (source, here) = (&metric[field], at.field(field));
        if !source.is_null() && wanted != Some(field) {
            errors.forbidden(&here, "must populate the given metric source only");
        } else if wanted == Some(field) && source.is_null() {
            errors.required(&here, "must populate information for the given metric source");
        } else if !source.is_null() {
            self::source(field, source, &here, errors);
        }
    }
}

fn source(field: &str, source: &Value, at: &Path, errors: &mut Errors) {
    let (target, at_target) = (&source["target"], at.field("target"));
    if field == "containerResource" && text(&source["container"]).is_empty() {
        errors.required(&at.field("container"), "must specify a container");
    }
    if !field.ends_with("esource") {
        if text(&source["metric"]["name"]).is_empty() {
            errors.required(&at.field("metric").field("name"), "must specify a metric name");
        }
        check_target(target, &at_target, errors);
        return;
    }
    if text(&source["name"]).is_empty() {
        errors.required(&at.field("name"), "must specify a resource name");
    }
    check_target(target, &at_target, errors);
    match (target["averageUtilization"].is_null(), target["averageValue"].is_null()) {
        (true, true) => {
            let rule = "must set either a target raw value or a target utilization";
            errors.required(&at_target.field("averageUtilization"), rule);
        }
        (false, false) => {
            let rule = "may not set both a target raw value and a target utilization";
            errors.forbidden(&at_target.field("averageValue"), rule);
        }
        _ => {}
    }
}

fn check_target(target: &Value, at: &Path, errors: &mut Errors) {
    let kind = text(&target["type"]);
    if kind.is_empty() {
        errors.required(&at.field("type"), "must specify a metric target type");
    }
    if !matches!(kind, "Utilization" | "Value" | "AverageValue") {
        let rule = "must be either Utilization, Value, or AverageValue";
        errors.invalid(&at.field("type"), &json!(kind), rule);
    }
    for field in ["value", "averageValue"] {
        if resources::read(&target[field]).is_some_and(|amount| amount.nanos() <= 0) {
            errors.invalid(&at.field(field), &target[field], "must be positive");
        }
    }
    if !target["averageUtilization"].is_null() && int(&target["averageUtilization"]) < 1 {
        let at = at.field("averageUtilization");
        errors.invalid(&at, &target["averageUtilization"], "must be greater than 0");
    }
}
