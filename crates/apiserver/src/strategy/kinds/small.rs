//! Kinds with few rules: Lease, PodDisruptionBudget, PriorityClass, HorizontalPodAutoscaler, volumes.

use serde_json::{Value, json};

use super::workload::{at_most_all, int_or_percent};
use super::{metrics, resources};
use crate::strategy::field::{Errors, Path};
use crate::strategy::value::{default, default_filled, inner, int, text, unset};
use crate::strategy::{format, meta};

/// The highest priority that is not the system's.
const HIGHEST_PRIORITY: i64 = 1_000_000_000;

/// Checks a Lease.
pub(super) fn check_lease(lease: &Value, errors: &mut Errors) {
    let (spec, at) = (&lease["spec"], Path::new("spec"));
    let duration = &spec["leaseDurationSeconds"];
    if !duration.is_null() && int(duration) <= 0 {
        errors.invalid(&at.field("leaseDurationSeconds"), duration, "must be greater than 0");
    }
    errors.not_negative(&at.field("leaseTransitions"), &spec["leaseTransitions"]);
    let strategy = &spec["strategy"];
    match strategy.as_str() {
        None | Some("OldestEmulationVersion") => {}
        Some(name) if name.contains('/') => {
            errors.all(&at.field("strategy"), strategy, format::label_key(name));
        }
        Some(_) => errors.not_supported(&at.field("strategy"), strategy, &["OldestEmulationVersion"]),
    }
    if !unset(&spec["preferredHolder"]) && unset(strategy) {
        let rule = "may only be specified if `strategy` is defined";
        errors.forbidden(&at.field("preferredHolder"), rule);
    }
}

/// Checks a PodDisruptionBudget.
pub(super) fn check_budget(budget: &Value, errors: &mut Errors) {
    let (spec, at) = (&budget["spec"], Path::new("spec"));
    let fields = ["minAvailable", "maxUnavailable"];
    if fields.iter().all(|f| !spec[*f].is_null()) {
        let shown = json!({
            "MinAvailable": spec["minAvailable"], "Selector": spec["selector"],
            "MaxUnavailable": spec["maxUnavailable"],
            "UnhealthyPodEvictionPolicy": spec["unhealthyPodEvictionPolicy"],
        });
        errors.invalid(&at, &shown, "minAvailable and maxUnavailable cannot be both set");
    }
    for field in fields.iter().filter(|f| !spec[**f].is_null()) {
        int_or_percent(&spec[*field], &at.field(field), errors);
        at_most_all(&spec[*field], &at.field(field), errors);
    }
    meta::selector(&spec["selector"], &at.field("selector"), errors);
    let policy = &spec["unhealthyPodEvictionPolicy"];
    if !policy.is_null() && !matches!(text(policy), "AlwaysAllow" | "IfHealthyBudget") {
        let at = at.field("unhealthyPodEvictionPolicy");
        errors.not_supported(&at, policy, &["AlwaysAllow", "IfHealthyBudget"]);
    }
}

/// Completes a PriorityClass.
pub(super) fn priority_class_defaults(class: &mut Value) {
    default(class, "value", 0);
    default(class, "preemptionPolicy", "PreemptLowerPriority");
}

/// Checks a PriorityClass.
pub(super) fn check_priority_class(class: &Value, old: Option<&Value>, errors: &mut Errors) {
    let (name, value) = (text(&class["metadata"]["name"]), int(&class["value"]));
    let policy = &class["preemptionPolicy"];
    if let Some(old) = old {
        if int(&old["value"]) != value {
            errors.forbidden(&Path::new("value"), "may not be changed in an update.");
        }
        return errors.immutable(&Path::new("preemptionPolicy"), &old["preemptionPolicy"], policy);
    }
    let known = matches!(
        (name, value),
        ("system-node-critical", 2_000_001_000) | ("system-cluster-critical", 2_000_000_000)
    );
    if name.starts_with("system-") && !known {
        let rule = format!(
            "priority class names with 'system-' prefix are reserved for system use only. error: {name} is not a known system priority class"
        );
        errors.forbidden(&Path::new("metadata.name"), &rule);
    } else if !known && value > HIGHEST_PRIORITY {
        let rule = "maximum allowed value of a user defined priority is 1000000000";
        errors.forbidden(&Path::new("value"), rule);
    }
    errors.one_of(&Path::new("preemptionPolicy"), policy, &["PreemptLowerPriority", "Never"]);
}

/// Completes a HorizontalPodAutoscaler.
pub(super) fn autoscaler_defaults(scaler: &mut Value) {
    let first = scaler["apiVersion"] == "autoscaling/v1";
    default(scaler, "spec", json!({}));
    if !first && let Some(status) = inner(scaler, "status").and_then(Value::as_object_mut) {
        status.entry("currentMetrics").or_insert(Value::Null);
    }
    let Some(spec) = inner(scaler, "spec") else { return };
    default(spec, "minReplicas", 1);
    if first {
        return;
    }
    let target = json!({"type": "Utilization", "averageUtilization": 80});
    default_filled(
        spec,
        "metrics",
        json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]),
    );
    if let Some(behaviour) = inner(spec, "behavior") {
        let all = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
        let some = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
        scaling_defaults(behaviour, "scaleUp", json!([some, all]));
        default(&mut behaviour["scaleUp"], "stabilizationWindowSeconds", 0);
        scaling_defaults(behaviour, "scaleDown", json!([all]));
    }
}

fn scaling_defaults(behaviour: &mut Value, direction: &str, policies: Value) {
    default(behaviour, direction, json!({}));
    if let Some(rules) = inner(behaviour, direction) {
        default(rules, "selectPolicy", "Max");
        default(rules, "policies", policies);
    }
}

/// Checks a HorizontalPodAutoscaler.
pub(super) fn check_autoscaler(scaler: &Value, errors: &mut Errors) {
    let (spec, at) = (&scaler["spec"], Path::new("spec"));
    let (least, most) = (int(&spec["minReplicas"]), int(&spec["maxReplicas"]));
    metrics::check(spec, &at, errors);
    if least < 0 {
        let rule = "must be greater than or equal to 0";
        errors.invalid(&at.field("minReplicas"), &json!(least), rule);
    }
    let at_most = at.field("maxReplicas");
    if most == 0 {
        errors.required(&at_most, "must be set and greater than 0");
    } else if most < 0 {
        errors.invalid(&at_most, &json!(most), "must be greater than or equal to 1");
    }
    if most < least {
        errors.invalid(&at_most, &json!(most), "must be greater than or equal to `minReplicas`");
    }
    let at = at.field("scaleTargetRef");
    for field in ["kind", "name"] {
        match text(&spec["scaleTargetRef"][field]) {
            "" => errors.required(&at.field(field), ""),
            name => errors.all(&at.field(field), &json!(name), format::path_segment(name)),
        }
    }
}

/// Completes a PersistentVolumeClaim.
pub(super) fn claim_defaults(claim: &mut Value) {
    if let Some(spec) = inner(claim, "spec") {
        default(spec, "volumeMode", "Filesystem");
        if let Some(wanted) = inner(spec, "resources") {
            resources::canonical(wanted, "requests");
            resources::canonical(wanted, "limits");
        }
    }
}

/// Completes a PersistentVolume.
pub(super) fn volume_defaults(volume: &mut Value) {
    if let Some(spec) = inner(volume, "spec") {
        default_filled(spec, "persistentVolumeReclaimPolicy", "Retain");
        default(spec, "volumeMode", "Filesystem");
        resources::canonical(spec, "capacity");
    }
}

/// Completes a StorageClass.
pub(super) fn storage_class_defaults(class: &mut Value) {
    default(class, "reclaimPolicy", "Delete");
    default(class, "volumeBindingMode", "Immediate");
}

/// Completes a ResourceQuota.
pub(super) fn quota_defaults(quota: &mut Value) {
    inner(quota, "spec").into_iter().for_each(|s| resources::canonical(s, "hard"));
}
