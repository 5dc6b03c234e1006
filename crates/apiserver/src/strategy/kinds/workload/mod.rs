//! What makes pods from a template: Deployments, ReplicaSets, StatefulSets, DaemonSets, Jobs, CronJobs.

mod apps;
mod batch;

use serde_json::{Value, json};

use super::pod;
use crate::strategy::field::{Errors, Path};
use crate::strategy::value::{default, inner, int, text, unset};
use crate::strategy::{format, meta};

pub(super) use apps::{
    check_daemon_set, check_deployment, check_replica_set, check_replication_controller, check_stateful_set,
    count_templates, daemon_set_defaults, deployment_defaults, replica_set_defaults,
    replication_controller_defaults, stateful_set_defaults,
};
pub(super) use batch::{check_cron_job, check_job, complete_job, cron_job_defaults, job_defaults};

/// Completes the template of pods in a spec.
fn template_defaults(spec: &mut Value) {
    default(spec, "template", json!({}));
    let Some(template) = inner(spec, "template") else { return };
    default(template, "metadata", json!({}));
    default(template, "spec", json!({}));
    if let Some(meta) = template["metadata"].as_object_mut() {
        meta.retain(|_, v| !unset(v));
    }
    pod::spec_defaults(&mut template["spec"]);
}

/// Whether a label selector keeps to the rules; one that is missing does.
fn is_selector(selector: &Value) -> bool {
    let mut errors = Errors::default();
    meta::selector(selector, &Path::new(""), &mut errors);
    errors.0.is_empty()
}

/// Checks a selector that must be there; says whether it can be asked what it selects.
fn selector(spec: &Value, of: &str, broken: &str, at: &Path, errors: &mut Errors) -> bool {
    let selector = &spec["selector"];
    if selector.is_null() {
        errors.required(&at.field("selector"), "");
    } else {
        meta::selector(selector, &at.field("selector"), errors);
        if unset(&selector["matchLabels"]) && unset(&selector["matchExpressions"]) {
            let rule = format!("empty selector is invalid for {of}");
            errors.invalid(&at.field("selector"), selector, &rule);
        }
    }
    let good = is_selector(selector);
    if !good {
        errors.invalid(&at.field("selector"), selector, broken);
    }
    good
}

/// Checks that a good selector selects the template's pods; one that is missing selects none.
fn selected(spec: &Value, at: &Path, errors: &mut Errors) {
    let (selector, labels) = (&spec["selector"], &spec["template"]["metadata"]["labels"]);
    if selector.is_null() || !meta::selects(selector, labels) {
        let at = at.field("template").field("metadata").field("labels");
        errors.invalid(&at, labels, "`selector` does not match template `labels`");
    }
}

/// Checks a template; `of` is the kind, whose pods always restart.
fn template(spec: &Value, of: Option<&str>, at: &Path, errors: &mut Errors) {
    let (template, at) = (&spec["template"], at.field("template"));
    pod::check_template(template, &at, errors);
    let Some(of) = of else { return };
    let (policy, at) = (&template["spec"]["restartPolicy"], at.field("spec"));
    if policy != "Always" {
        errors.not_supported(&at.field("restartPolicy"), policy, &["Always"]);
    }
    if !template["spec"]["activeDeadlineSeconds"].is_null() {
        let rule = format!("activeDeadlineSeconds in {of} is not Supported");
        errors.forbidden(&at.field("activeDeadlineSeconds"), &rule);
    }
}

/// Checks a number or a share that is not below zero.
pub(super) fn int_or_percent(value: &Value, at: &Path, errors: &mut Errors) {
    match value.as_str() {
        Some(share) => errors.all(at, value, format::percent(share)),
        None => errors.not_negative(at, value),
    }
}

/// Checks that a share is not above the whole.
pub(super) fn at_most_all(value: &Value, at: &Path, errors: &mut Errors) {
    let share = text(value).strip_suffix('%').and_then(|n| n.parse::<u64>().ok());
    if share.is_some_and(|n| n > 100) {
        errors.invalid(at, value, "must not be greater than 100%");
    }
}

/// The number, or the number before the percent sign.
fn amount(value: &Value) -> i64 {
    value.as_str().map_or(int(value), |s| s.trim_end_matches('%').parse().unwrap_or(0))
}
