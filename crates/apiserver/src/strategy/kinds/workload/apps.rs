//! Kinds of the group `apps`, and ReplicationControllers.

use serde_json::{Value, json};

use super::{
    amount, at_most_all, int_or_percent, is_selector, selected, selector, template, template_defaults,
};
use crate::strategy::field::{Errors, Path};
use crate::strategy::value::{default, default_filled, inner, int, items, text, unset};
use crate::strategy::{format, meta};

/// Completes a Deployment.
pub(in super::super) fn deployment_defaults(object: &mut Value) {
    default(object, "spec", json!({}));
    let Some(spec) = inner(object, "spec") else { return };
    default(spec, "replicas", 1);
    default(spec, "revisionHistoryLimit", 10);
    default(spec, "progressDeadlineSeconds", 600);
    default(spec, "strategy", json!({}));
    if let Some(strategy) = inner(spec, "strategy") {
        rolling_defaults(strategy, &[("maxUnavailable", json!("25%")), ("maxSurge", json!("25%"))]);
    }
    template_defaults(spec);
}

fn rolling_defaults(strategy: &mut Value, fields: &[(&str, Value)]) {
    default_filled(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        default(strategy, "rollingUpdate", json!({}));
        let rolling = &mut strategy["rollingUpdate"];
        fields.iter().for_each(|(field, value)| default(rolling, field, value.clone()));
    }
}

/// Completes a ReplicaSet.
pub(in super::super) fn replica_set_defaults(object: &mut Value) {
    default(object, "spec", json!({}));
    let Some(spec) = inner(object, "spec") else { return };
    default(spec, "replicas", 1);
    template_defaults(spec);
}

/// Completes a ReplicationController.
pub(in super::super) fn replication_controller_defaults(object: &mut Value) {
    replica_set_defaults(object);
    let labels = object["spec"]["template"]["metadata"]["labels"].clone();
    if labels.is_null() {
        return;
    }
    if let Some(spec) = inner(object, "spec") {
        default_filled(spec, "selector", labels.clone());
    }
    if let Some(meta) = inner(object, "metadata") {
        default_filled(meta, "labels", labels);
    }
}

/// Completes a DaemonSet.
pub(in super::super) fn daemon_set_defaults(object: &mut Value) {
    default(object, "spec", json!({}));
    let Some(spec) = inner(object, "spec") else { return };
    default(spec, "revisionHistoryLimit", 10);
    default(spec, "updateStrategy", json!({}));
    if let Some(strategy) = inner(spec, "updateStrategy") {
        rolling_defaults(strategy, &[("maxUnavailable", json!(1)), ("maxSurge", json!(0))]);
    }
    template_defaults(spec);
}

/// Counts the templates that a DaemonSet had, in an annotation that tools of old read.
pub(in super::super) fn count_templates(object: &mut Value, old: Option<&Value>) {
    const ANNOTATION: &str = "deprecated.daemonset.template.generation";
    let counted = |object: &Value| text(&object["metadata"]["annotations"][ANNOTATION]).parse::<i64>();
    let count = match old {
        None => counted(object).unwrap_or(1).max(1),
        Some(old) => {
            let changed = old["spec"]["template"] != object["spec"]["template"];
            counted(old).unwrap_or(1) + i64::from(changed)
        }
    };
    let meta = &mut object["metadata"];
    default(meta, "annotations", json!({}));
    meta["annotations"][ANNOTATION] = json!(count.to_string());
}

/// Completes a StatefulSet.
pub(in super::super) fn stateful_set_defaults(object: &mut Value) {
    default(object, "spec", json!({}));
    let Some(spec) = inner(object, "spec") else { return };
    default(spec, "replicas", 1);
    default_filled(spec, "podManagementPolicy", "OrderedReady");
    default(spec, "revisionHistoryLimit", 10);
    default(spec, "serviceName", "");
    default(spec, "updateStrategy", json!({}));
    if let Some(strategy) = inner(spec, "updateStrategy") {
        if unset(&strategy["type"]) {
            default(strategy, "rollingUpdate", json!({}));
        }
        default_filled(strategy, "type", "RollingUpdate");
        if strategy["type"] == "RollingUpdate"
            && let Some(rolling) = inner(strategy, "rollingUpdate")
        {
            default(rolling, "partition", 0);
            default(rolling, "maxUnavailable", 1);
        }
    }
    default(spec, "persistentVolumeClaimRetentionPolicy", json!({}));
    if let Some(policy) = inner(spec, "persistentVolumeClaimRetentionPolicy") {
        ["whenDeleted", "whenScaled"].into_iter().for_each(|f| default_filled(policy, f, "Retain"));
    }
    for claim in items(spec, "volumeClaimTemplates") {
        default(claim, "apiVersion", "v1");
        default(claim, "kind", "PersistentVolumeClaim");
        inner(claim, "spec").into_iter().for_each(|s| default(s, "volumeMode", "Filesystem"));
        default(claim, "status", json!({}));
        inner(claim, "status").into_iter().for_each(|s| default_filled(s, "phase", "Pending"));
    }
    template_defaults(spec);
}

/// Checks a Deployment.
pub(in super::super) fn check_deployment(object: &Value, old: Option<&Value>, errors: &mut Errors) {
    let (spec, at) = (&object["spec"], Path::new("spec"));
    errors.not_negative(&at.field("replicas"), &spec["replicas"]);
    if selector(spec, "deployment", "invalid label selector", &at, errors) {
        selected(spec, &at, errors);
        template(spec, Some("ReplicaSet"), &at, errors);
    }
    strategy(&spec["strategy"], &at.field("strategy"), errors);
    for field in ["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
        errors.not_negative(&at.field(field), &spec[field]);
    }
    if int(&spec["progressDeadlineSeconds"]) <= int(&spec["minReadySeconds"]) {
        let at = at.field("progressDeadlineSeconds");
        errors.invalid(&at, &spec["progressDeadlineSeconds"], "must be greater than minReadySeconds");
    }
    keeps_selector(spec, old, errors);
}

fn keeps_selector(spec: &Value, old: Option<&Value>, errors: &mut Errors) {
    if let Some(old) = old {
        errors.immutable(&Path::new("spec.selector"), &old["spec"]["selector"], &spec["selector"]);
    }
}

fn strategy(strategy: &Value, at: &Path, errors: &mut Errors) {
    let (rolling, at_rolling) = (&strategy["rollingUpdate"], at.field("rollingUpdate"));
    match text(&strategy["type"]) {
        "Recreate" if !rolling.is_null() => {
            errors.forbidden(&at_rolling, "may not be specified when strategy `type` is 'Recreate'");
        }
        "Recreate" => {}
        "RollingUpdate" => {
            let at = at_rolling.field("maxUnavailable");
            int_or_percent(&rolling["maxUnavailable"], &at, errors);
            int_or_percent(&rolling["maxSurge"], &at_rolling.field("maxSurge"), errors);
            if amount(&rolling["maxUnavailable"]) == 0 && amount(&rolling["maxSurge"]) == 0 {
                errors.invalid(&at, &rolling["maxUnavailable"], "may not be 0 when `maxSurge` is 0");
            }
            at_most_all(&rolling["maxUnavailable"], &at, errors);
        }
        kind => {
            let shown = json!({"Type": kind, "RollingUpdate": null});
            errors.not_supported(at, &shown, &["Recreate", "RollingUpdate"]);
        }
    }
}

/// Checks a ReplicaSet.
pub(in super::super) fn check_replica_set(object: &Value, old: Option<&Value>, errors: &mut Errors) {
    let (spec, at) = (&object["spec"], Path::new("spec"));
    errors.not_negative(&at.field("replicas"), &spec["replicas"]);
    errors.not_negative(&at.field("minReadySeconds"), &spec["minReadySeconds"]);
    if selector(spec, "deployment", "invalid label selector", &at, errors) {
        selected(spec, &at, errors);
        template(spec, Some("ReplicaSet"), &at, errors);
    }
    keeps_selector(spec, old, errors);
}

/// Checks a ReplicationController, whose selector is a map of labels.
pub(in super::super) fn check_replication_controller(object: &Value, errors: &mut Errors) {
    let (spec, at) = (&object["spec"], Path::new("spec"));
    errors.not_negative(&at.field("minReadySeconds"), &spec["minReadySeconds"]);
    if unset(&spec["selector"]) {
        errors.required(&at.field("selector"), "");
    }
    meta::labels(&spec["selector"], &at.field("selector"), errors);
    errors.not_negative(&at.field("replicas"), &spec["replicas"]);
    let labels = &spec["template"]["metadata"]["labels"];
    let matches = spec["selector"].as_object().into_iter().flatten().all(|(k, v)| labels[k] == *v);
    if !matches {
        let at = at.field("template.metadata.labels");
        errors.invalid(&at, labels, "`selector` does not match template `labels`");
    }
    template(spec, Some("ReplicationController"), &at, errors);
}

/// Checks a DaemonSet.
pub(in super::super) fn check_daemon_set(object: &Value, old: Option<&Value>, errors: &mut Errors) {
    let (spec, at) = (&object["spec"], Path::new("spec"));
    keeps_selector(spec, old, errors);
    meta::selector(&spec["selector"], &at.field("selector"), errors);
    if is_selector(&spec["selector"]) {
        selected(spec, &at, errors);
    }
    let selector = &spec["selector"];
    let empty = unset(&selector["matchLabels"]) && unset(&selector["matchExpressions"]);
    if !selector.is_null() && empty {
        errors.invalid(&at.field("selector"), selector, "empty selector is invalid for daemonset");
    }
    template(spec, Some("DaemonSet"), &at, errors);
    errors.not_negative(&at.field("minReadySeconds"), &spec["minReadySeconds"]);
    daemon_strategy(&spec["updateStrategy"], &at.field("updateStrategy"), errors);
    errors.not_negative(&at.field("revisionHistoryLimit"), &spec["revisionHistoryLimit"]);
}

fn daemon_strategy(strategy: &Value, at: &Path, errors: &mut Errors) {
    let (rolling, at_rolling) = (&strategy["rollingUpdate"], at.field("rollingUpdate"));
    match text(&strategy["type"]) {
        "OnDelete" => {}
        "RollingUpdate" => {
            let fields = ["maxUnavailable", "maxSurge"];
            fields.iter().for_each(|f| int_or_percent(&rolling[*f], &at_rolling.field(f), errors));
            fields.iter().for_each(|f| at_most_all(&rolling[*f], &at_rolling.field(f), errors));
            match (amount(&rolling["maxUnavailable"]), amount(&rolling["maxSurge"])) {
                (0, 0) => {
                    let rule = "cannot be 0 when maxSurge is 0";
                    errors.required(&at_rolling.field("maxUnavailable"), rule);
                }
                (0, _) | (_, 0) => {}
                _ => {
                    let rule = "may not be set when maxUnavailable is non-zero";
                    errors.invalid(&at_rolling.field("maxSurge"), &rolling["maxSurge"], rule);
                }
            }
        }
        kind => {
            let shown = json!({"Type": kind, "RollingUpdate": null});
            errors.not_supported(at, &shown, &["RollingUpdate", "OnDelete"]);
        }
    }
}

/// Checks a StatefulSet.
pub(in super::super) fn check_stateful_set(object: &Value, old: Option<&Value>, errors: &mut Errors) {
    let (spec, at) = (&object["spec"], Path::new("spec"));
    let policy = &spec["podManagementPolicy"];
    if !matches!(text(policy), "OrderedReady" | "Parallel") {
        let rule = "must be 'OrderedReady' or 'Parallel'";
        errors.invalid(&at.field("podManagementPolicy"), policy, rule);
    }
    set_strategy(&spec["updateStrategy"], &at.field("updateStrategy"), errors);
    let at_policy = at.field("persistentVolumeClaimRetentionPolicy");
    for field in ["whenDeleted", "whenScaled"] {
        let value = &spec["persistentVolumeClaimRetentionPolicy"][field];
        if !matches!(text(value), "Retain" | "Delete") {
            errors.not_supported(&at_policy.field(field), value, &["Retain", "Delete"]);
        }
    }
    errors.not_negative(&at.field("replicas"), &spec["replicas"]);
    errors.not_negative(&at.field("minReadySeconds"), &spec["minReadySeconds"]);
    errors.not_negative(&at.field("ordinals.start"), &spec["ordinals"]["start"]);
    let name = text(&spec["serviceName"]);
    if old.is_none() && !name.is_empty() {
        errors.all(&at.field("serviceName"), &spec["serviceName"], format::dns_label(name));
    }
    if selector(spec, "statefulset", "", &at, errors) {
        selected(spec, &at, errors);
        template(&with_claims(spec), Some("StatefulSet"), &at, errors);
    }
    let Some(old) = old else { return };
    for field in ["selector", "volumeClaimTemplates", "serviceName", "podManagementPolicy"] {
        errors.immutable(&at.field(field), &old["spec"][field], &spec[field]);
    }
}

fn set_strategy(strategy: &Value, at: &Path, errors: &mut Errors) {
    let (rolling, at_rolling) = (&strategy["rollingUpdate"], at.field("rollingUpdate"));
    match text(&strategy["type"]) {
        "OnDelete" if !rolling.is_null() => {
            let rule = "only allowed for updateStrategy 'RollingUpdate'";
            errors.invalid(&at_rolling, rolling, rule);
        }
        "OnDelete" => {}
        "RollingUpdate" => {
            errors.not_negative(&at_rolling.field("partition"), &rolling["partition"]);
            let (most, at) = (&rolling["maxUnavailable"], at_rolling.field("maxUnavailable"));
            if !most.is_null() {
                int_or_percent(most, &at, errors);
                if amount(most) == 0 {
                    errors.invalid(&at, most, "cannot be 0");
                }
                at_most_all(most, &at, errors);
            }
        }
        kind => {
            let shown = json!({"Type": kind, "RollingUpdate": null});
            errors.invalid(at, &shown, "must be 'RollingUpdate' or 'OnDelete'");
        }
    }
}

/// The spec with the volumes that its claims make.
fn with_claims(spec: &Value) -> Value {
    let mut spec = spec.clone();
    let names: Vec<Value> =
        items(&mut spec, "volumeClaimTemplates").map(|c| c["metadata"]["name"].clone()).collect();
    let Some(pod) = spec.pointer_mut("/template/spec").filter(|p| p.is_object()) else { return spec };
    crate::strategy::value::drop_fields(pod, &["hostname", "subdomain"]);
    let mut volumes = pod["volumes"].as_array().cloned().unwrap_or_default();
    volumes.retain(|v| !names.contains(&v["name"]));
    let claim = |n: &Value| json!({"name": n, "persistentVolumeClaim": {"claimName": n}});
    volumes.extend(names.iter().map(claim));
    pod["volumes"] = json!(volumes);
    spec
}
