//! Jobs and CronJobs.

use serde_json::{Value, json};

use jiff::tz::TimeZone;

use super::{is_selector, selected, template, template_defaults};
use crate::cron::Schedule;
use crate::strategy::field::{Errors, Path};
use crate::strategy::value::{default, default_filled, inner, int, text, unset};
use crate::strategy::{format, meta};

const MOST_INDEXED: i64 = 100_000;
const LONGEST_CRON_NAME: usize = 52;

/// Completes a Job.
pub(in super::super) fn job_defaults(object: &mut Value) {
    default(object, "spec", json!({}));
    let labels = object["spec"]["template"]["metadata"]["labels"].clone();
    if !unset(&labels)
        && let Some(meta) = inner(object, "metadata")
    {
        default_filled(meta, "labels", labels);
    }
    let Some(spec) = inner(object, "spec") else { return };
    job_spec_defaults(spec);
}

fn job_spec_defaults(spec: &mut Value) {
    if spec["parallelism"].is_null() {
        default(spec, "completions", 1);
    }
    default(spec, "parallelism", 1);
    let limit = if spec["backoffLimitPerIndex"].is_null() { 6 } else { i64::from(i32::MAX) };
    default(spec, "backoffLimit", limit);
    default(spec, "completionMode", "NonIndexed");
    default(spec, "suspend", false);
    let replaced = if spec["podFailurePolicy"].is_null() { "TerminatingOrFailed" } else { "Failed" };
    default(spec, "podReplacementPolicy", replaced);
    default(spec, "manualSelector", false);
    template_defaults(spec);
    spec.as_object_mut().into_iter().for_each(|s| s.retain(|_, v| !v.is_null()));
}

/// Completes a CronJob; its Jobs get their defaults when they are made.
pub(in super::super) fn cron_job_defaults(object: &mut Value) {
    default(object, "spec", json!({}));
    let Some(spec) = inner(object, "spec") else { return };
    default_filled(spec, "concurrencyPolicy", "Allow");
    default(spec, "suspend", false);
    default(spec, "successfulJobsHistoryLimit", 3);
    default(spec, "failedJobsHistoryLimit", 1);
    default(spec, "jobTemplate", json!({}));
    if let Some(template) = inner(spec, "jobTemplate") {
        default(template, "metadata", json!({}));
        default(template, "spec", json!({}));
        template_defaults(&mut template["spec"]);
    }
}

/// A new Job's pods are told apart by the Job's uid, unless its author says otherwise.
pub(in super::super) fn complete_job(job: &mut Value) {
    let Some(spec) = job.get("spec").filter(|s| s["manualSelector"] != true && s.is_object()) else { return };
    if !spec["template"]["metadata"].is_object() {
        return;
    }
    let (uid, name) = (job["metadata"]["uid"].clone(), job["metadata"]["name"].clone());
    // What a Job has from its pods, it has from them with what is added here.
    let shared = job["metadata"]["labels"] == job["spec"]["template"]["metadata"]["labels"];
    let spec = &mut job["spec"];
    let meta = &mut spec["template"]["metadata"];
    default(meta, "labels", json!({}));
    let labels = &mut meta["labels"];
    for prefix in ["", "batch.kubernetes.io/"] {
        default(labels, &format!("{prefix}job-name"), name.clone());
        default(labels, &format!("{prefix}controller-uid"), uid.clone());
    }
    default(spec, "selector", json!({}));
    if let Some(selector) = inner(spec, "selector") {
        default(selector, "matchLabels", json!({}));
        default(&mut selector["matchLabels"], "batch.kubernetes.io/controller-uid", uid);
    }
    let labels = job["spec"]["template"]["metadata"]["labels"].clone();
    if shared || unset(&job["metadata"]["labels"]) {
        job["metadata"]["labels"] = labels;
    }
}

/// Checks a Job.
pub(in super::super) fn check_job(object: &Value, old: Option<&Value>, errors: &mut Errors) {
    let (spec, at) = (&object["spec"], Path::new("spec"));
    if old.is_none() {
        generated(object, errors);
    }
    check_job_spec(spec, &at, errors);
    if spec["selector"].is_null() {
        errors.required(&at.field("selector"), "");
    } else {
        meta::selector(&spec["selector"], &at.field("selector"), errors);
    }
    if is_selector(&spec["selector"]) {
        selected(spec, &at, errors);
    }
    match old {
        Some(old) => changed(&old["spec"], spec, &at, errors),
        None => pod_names(object, errors),
    }
}

/// The pods of an indexed Job are called after their index.
fn pod_names(object: &Value, errors: &mut Errors) {
    let (spec, name) = (&object["spec"], &object["metadata"]["name"]);
    let count = int(&spec["completions"]);
    if spec["completionMode"] != "Indexed" || count <= 0 {
        return;
    }
    let last = format!("{}-{}", text(name), count - 1);
    if !format::is_label(&last) {
        let rule = format!("will not able to create pod with invalid DNS label: {last}");
        errors.invalid(&Path::new("metadata.name"), name, &rule);
    }
}

/// The labels by which a Job knows its pods are its own.
fn generated(object: &Value, errors: &mut Errors) {
    let (spec, meta) = (&object["spec"], &object["metadata"]);
    if spec["manualSelector"] == true || spec["selector"].is_null() {
        return;
    }
    let labels = &spec["template"]["metadata"]["labels"];
    let at = Path::new("spec.template.metadata.labels");
    for prefix in ["", "batch.kubernetes.io/"] {
        for (name, wanted) in [("controller-uid", &meta["uid"]), ("job-name", &meta["name"])] {
            let key = format!("{prefix}{name}");
            let found = &labels[&key];
            if found != wanted {
                errors.invalid(&at.key(&key), found, &format!("must be '{}'", text(wanted)));
            }
        }
    }
    let expected = json!({
        "controller-uid": meta["uid"], "batch.kubernetes.io/controller-uid": meta["uid"],
        "job-name": meta["name"], "batch.kubernetes.io/job-name": meta["name"],
    });
    if !meta::selects(&spec["selector"], &expected) {
        errors.invalid(&Path::new("spec.selector"), &spec["selector"], "`selector` not auto-generated");
    }
}

fn check_job_spec(spec: &Value, at: &Path, errors: &mut Errors) {
    let numbers = [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ];
    numbers.iter().for_each(|f| errors.not_negative(&at.field(f), &spec[*f]));
    if !spec["maxFailedIndexes"].is_null() && spec["backoffLimitPerIndex"].is_null() {
        errors.required(&at.field("backoffLimitPerIndex"), "when maxFailedIndexes is specified");
    }
    completion(spec, at, errors);
    let replaced = &spec["podReplacementPolicy"];
    if !replaced.is_null() && !matches!(text(replaced), "Failed" | "TerminatingOrFailed") {
        let at = at.field("podReplacementPolicy");
        errors.not_supported(&at, replaced, &["Failed", "TerminatingOrFailed"]);
    }
    managed_by(&spec["managedBy"], &at.field("managedBy"), errors);
    template(spec, None, at, errors);
    let policy = &spec["template"]["spec"]["restartPolicy"];
    let at = at.field("template.spec.restartPolicy");
    match text(policy) {
        "Always" | "" => errors.required(&at, "valid values: \"OnFailure\", \"Never\""),
        "OnFailure" if !spec["podFailurePolicy"].is_null() => {
            let rule = "only \"Never\" is supported when podFailurePolicy is specified";
            errors.invalid(&at, policy, rule);
        }
        "OnFailure" | "Never" => {}
        _ => errors.not_supported(&at, policy, &["OnFailure", "Never"]),
    }
}

fn managed_by(name: &Value, at: &Path, errors: &mut Errors) {
    let Some(text) = name.as_str() else { return };
    match text.split_once('/') {
        Some((domain, path)) if !domain.is_empty() && !path.is_empty() => {
            errors.all(at, &json!(domain), format::dns_subdomain(domain));
        }
        _ if text.is_empty() => errors.required(at, ""),
        _ => errors.invalid(at, name, "must be a domain-prefixed path (such as \"acme.io/foo\")"),
    }
    if text.len() > 63 {
        errors.too_long(at, 63);
    }
}

fn completion(spec: &Value, at: &Path, errors: &mut Errors) {
    let mode = &spec["completionMode"];
    match text(mode) {
        "Indexed" => {
            if spec["completions"].is_null() {
                errors.required(&at.field("completions"), "when completion mode is Indexed");
            }
            if int(&spec["parallelism"]) > MOST_INDEXED {
                let rule = "must be less than or equal to 100000 when completion mode is Indexed";
                errors.invalid(&at.field("parallelism"), &spec["parallelism"], rule);
            }
            let (failed, all) = (&spec["maxFailedIndexes"], &spec["completions"]);
            if !all.is_null() && int(failed) > int(all) {
                let rule = "must be less than or equal to completions";
                errors.invalid(&at.field("maxFailedIndexes"), failed, rule);
            }
        }
        "NonIndexed" | "" => {
            for field in ["backoffLimitPerIndex", "maxFailedIndexes", "successPolicy"] {
                if !spec[field].is_null() {
                    errors.invalid(&at.field(field), &spec[field], "requires indexed completion mode");
                }
            }
        }
        _ => errors.not_supported(&at.field("completionMode"), mode, &["NonIndexed", "Indexed"]),
    }
}

fn changed(before: &Value, spec: &Value, at: &Path, errors: &mut Errors) {
    let elastic = spec["completionMode"] == "Indexed"
        && int(&spec["completions"]) == int(&spec["parallelism"])
        && int(&before["completions"]) == int(&before["parallelism"]);
    if !elastic {
        errors.immutable(&at.field("completions"), &before["completions"], &spec["completions"]);
    }
    errors.immutable(&at.field("selector"), &before["selector"], &spec["selector"]);
    if before["suspend"] != true {
        errors.immutable(&at.field("template"), &before["template"], &spec["template"]);
    }
    for field in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"]
    {
        errors.immutable(&at.field(field), &before[field], &spec[field]);
    }
}

/// Checks a CronJob.
pub(in super::super) fn check_cron_job(object: &Value, old: Option<&Value>, errors: &mut Errors) {
    let (spec, at) = (&object["spec"], Path::new("spec"));
    match text(&spec["schedule"]) {
        "" => errors.required(&at.field("schedule"), ""),
        schedule if schedule.contains("TZ") => {
            let rule = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
            errors.invalid(&at.field("schedule"), &spec["schedule"], rule);
        }
        schedule => {
            if let Err(why) = Schedule::parse(schedule) {
                errors.invalid(&at.field("schedule"), &spec["schedule"], &why);
            }
        }
    }
    errors.not_negative(&at.field("startingDeadlineSeconds"), &spec["startingDeadlineSeconds"]);
    if let Some(zone) = spec["timeZone"].as_str() {
        time_zone(zone, &at.field("timeZone"), errors);
    }
    errors.one_of(
        &at.field("concurrencyPolicy"),
        &spec["concurrencyPolicy"],
        &["Allow", "Forbid", "Replace"],
    );
    let (job, at_job) = (&spec["jobTemplate"], at.field("jobTemplate"));
    check_job_spec(&job["spec"], &at_job.field("spec"), errors);
    if job["spec"]["manualSelector"] == true {
        errors.not_supported(&at_job.field("spec.manualSelector"), &json!(true), &["nil", "false"]);
    }
    if !job["spec"]["selector"].is_null() {
        let rule = "`selector` will be auto-generated";
        errors.invalid(&at_job.field("spec.selector"), &job["spec"]["selector"], rule);
    }
    for field in ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        errors.not_negative(&at.field(field), &spec[field]);
    }
    let name = &object["metadata"]["name"];
    if old.is_none() && text(name).len() > LONGEST_CRON_NAME {
        errors.invalid(&Path::new("metadata.name"), name, "must be no more than 52 characters");
    }
}

fn time_zone(zone: &str, at: &Path, errors: &mut Errors) {
    let value = json!(zone);
    let good = |part: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b"_+-.".contains(&b);
        !part.is_empty() && part != "." && part != ".." && !part.starts_with('-') && part.bytes().all(inner)
    };
    let local = zone.eq_ignore_ascii_case("local");
    if zone.is_empty() {
        errors.invalid(at, &value, "timeZone must be nil or non-empty string");
    } else if !zone.split('/').all(good) || (!local && TimeZone::get(zone).is_err()) {
        errors.invalid(at, &value, &format!("unknown time zone {zone}"));
    } else if local {
        let rule = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        errors.invalid(at, &value, rule);
    }
}
