//! Columns of pods and of what makes them.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{AGE, NAME, Spec};
use super::pod;
use super::values::{age, between, condition, labels, list, number, or, plain, selector};

pub(super) const PODS: &[Spec] = &[
    NAME,
    ("Ready", "string", false, |o, _| json!(pod::ready(o))),
    ("Status", "string", false, |o, _| json!(pod::status(o))),
    ("Restarts", "string", false, |o, now| json!(pod::restarts(o, now))),
    AGE,
    ("IP", "string", true, |o, _| or(&o["status"]["podIP"], "<none>")),
    ("Node", "string", true, |o, _| or(&o["spec"]["nodeName"], "<none>")),
    ("Nominated Node", "string", true, |o, _| or(&o["status"]["nominatedNodeName"], "<none>")),
    ("Readiness Gates", "string", true, |o, _| json!(pod::readiness_gates(o))),
];
pub(super) const DEPLOYMENTS: &[Spec] = &[
    NAME,
    ("Ready", "string", false, |o, _| ratio(&o["status"]["readyReplicas"], &o["spec"]["replicas"])),
    ("Up-to-date", "string", false, |o, _| number(&o["status"]["updatedReplicas"])),
    ("Available", "string", false, |o, _| number(&o["status"]["availableReplicas"])),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];
pub(super) const REPLICA_SETS: &[Spec] = &[
    NAME,
    ("Desired", "integer", false, |o, _| number(&o["spec"]["replicas"])),
    ("Current", "integer", false, |o, _| number(&o["status"]["replicas"])),
    ("Ready", "integer", false, |o, _| number(&o["status"]["readyReplicas"])),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];
pub(super) const REPLICATION_CONTROLLERS: &[Spec] = &[
    NAME,
    ("Desired", "integer", false, |o, _| number(&o["spec"]["replicas"])),
    ("Current", "integer", false, |o, _| number(&o["status"]["replicas"])),
    ("Ready", "integer", false, |o, _| number(&o["status"]["readyReplicas"])),
    AGE,
    CONTAINERS,
    IMAGES,
    ("Selector", "string", true, |o, _| json!(labels(&o["spec"]["selector"]))),
];
pub(super) const STATEFUL_SETS: &[Spec] = &[
    NAME,
    ("Ready", "string", false, |o, _| ratio(&o["status"]["readyReplicas"], &o["spec"]["replicas"])),
    AGE,
    CONTAINERS,
    IMAGES,
];
pub(super) const DAEMON_SETS: &[Spec] = &[
    NAME,
    ("Desired", "integer", false, |o, _| number(&o["status"]["desiredNumberScheduled"])),
    ("Current", "integer", false, |o, _| number(&o["status"]["currentNumberScheduled"])),
    ("Ready", "integer", false, |o, _| number(&o["status"]["numberReady"])),
    ("Up-to-date", "integer", false, |o, _| number(&o["status"]["updatedNumberScheduled"])),
    ("Available", "integer", false, |o, _| number(&o["status"]["numberAvailable"])),
    ("Node Selector", "string", false, |o, _| json!(labels(&o["spec"]["template"]["spec"]["nodeSelector"]))),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];
pub(super) const JOBS: &[Spec] = &[
    NAME,
    ("Status", "string", false, |o, _| json!(job_status(o))),
    ("Completions", "string", false, |o, _| json!(completions(o))),
    ("Duration", "string", false, |o, now| json!(job_duration(o, now))),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];
pub(super) const CRON_JOBS: &[Spec] = &[
    NAME,
    ("Schedule", "string", false, |o, _| or(&o["spec"]["schedule"], "")),
    ("Timezone", "string", false, |o, _| or(&o["spec"]["timeZone"], "<none>")),
    ("Suspend", "boolean", false, |o, _| json!(if o["spec"]["suspend"] == true { "True" } else { "False" })),
    ("Active", "integer", false, |o, _| json!(list(&o["status"]["active"]).len())),
    ("Last Schedule", "string", false, |o, now| {
        let last = &o["status"]["lastScheduleTime"];
        if last.is_null() { json!("<none>") } else { age(last, now) }
    }),
    AGE,
    ("Containers", "string", true, |o, _| json!(containers(&o["spec"]["jobTemplate"]["spec"], "name"))),
    ("Images", "string", true, |o, _| json!(containers(&o["spec"]["jobTemplate"]["spec"], "image"))),
    ("Selector", "string", true, |o, _| selector(&o["spec"]["jobTemplate"]["spec"]["selector"])),
];
pub(super) const CONTROLLER_REVISIONS: &[Spec] = &[
    NAME,
    ("Controller", "string", false, |o, _| json!(controller(o))),
    ("Revision", "string", false, |o, _| number(&o["revision"])),
    AGE,
];
pub(super) const DISRUPTION_BUDGETS: &[Spec] = &[
    NAME,
    ("Min Available", "string", false, |o, _| json!(plain(&o["spec"]["minAvailable"], "N/A"))),
    ("Max Unavailable", "string", false, |o, _| json!(plain(&o["spec"]["maxUnavailable"], "N/A"))),
    ("Allowed Disruptions", "integer", false, |o, _| number(&o["status"]["disruptionsAllowed"])),
    AGE,
];
pub(super) const AUTOSCALERS: &[Spec] = &[
    NAME,
    ("Reference", "string", false, |o, _| {
        let target = &o["spec"]["scaleTargetRef"];
        json!(format!("{}/{}", plain(&target["kind"], ""), plain(&target["name"], "")))
    }),
    ("Targets", "string", false, |o, _| json!(targets(o))),
    ("MinPods", "string", false, |o, _| json!(plain(&o["spec"]["minReplicas"], "<unset>"))),
    ("MaxPods", "string", false, |o, _| number(&o["spec"]["maxReplicas"])),
    ("Replicas", "string", false, |o, _| number(&o["status"]["currentReplicas"])),
    AGE,
];
const CONTAINERS: Spec = ("Containers", "string", true, |o, _| json!(containers(&o["spec"], "name")));
const IMAGES: Spec = ("Images", "string", true, |o, _| json!(containers(&o["spec"], "image")));
const SELECTOR: Spec = ("Selector", "string", true, |o, _| selector(&o["spec"]["selector"]));

fn ratio(part: &Value, whole: &Value) -> Value {
    json!(format!("{}/{}", part.as_i64().unwrap_or(0), whole.as_i64().unwrap_or(0)))
}

fn containers(spec: &Value, field: &str) -> String {
    let each = list(&spec["template"]["spec"]["containers"]);
    each.iter().filter_map(|c| c[field].as_str()).collect::<Vec<_>>().join(",")
}

fn job_status(job: &Value) -> &'static str {
    let is = |kind: &str| condition(job, kind) == Some("True");
    match () {
        () if is("Complete") => "Complete",
        () if is("Failed") => "Failed",
        () if !job["metadata"]["deletionTimestamp"].is_null() => "Terminating",
        () if is("Suspended") => "Suspended",
        () if is("FailureTarget") => "FailureTarget",
        () if is("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

fn completions(job: &Value) -> String {
    let done = job["status"]["succeeded"].as_i64().unwrap_or(0);
    match (job["spec"]["completions"].as_i64(), job["spec"]["parallelism"].as_i64().unwrap_or(0)) {
        (Some(wanted), _) => format!("{done}/{wanted}"),
        (None, parallel) if parallel > 1 => format!("{done}/1 of {parallel}"),
        (None, _) => format!("{done}/1"),
    }
}

fn job_duration(job: &Value, now: Timestamp) -> String {
    let time = |field: &str| job["status"][field].as_str().and_then(|t| t.parse::<Timestamp>().ok());
    time("startTime").map(|start| between(start, time("completionTime").unwrap_or(now))).unwrap_or_default()
}

fn controller(object: &Value) -> String {
    let owner = list(&object["metadata"]["ownerReferences"]).iter().find(|o| o["controller"] == true);
    let Some(owner) = owner else { return "<none>".into() };
    let group =
        owner["apiVersion"].as_str().and_then(|v| v.split_once('/')).map(|(group, _)| format!(".{group}"));
    let kind = plain(&owner["kind"], "").to_lowercase();
    format!("{kind}{}/{}", group.unwrap_or_default(), plain(&owner["name"], ""))
}

/// The metrics of an autoscaler: what is and what shall be.
fn targets(autoscaler: &Value) -> String {
    if let Some(target) = autoscaler["spec"]["targetCPUUtilizationPercentage"].as_i64() {
        let current = autoscaler["status"]["currentCPUUtilizationPercentage"].as_i64();
        let current = current.map_or_else(|| "<unknown>".to_owned(), |c| format!("{c}%"));
        return format!("cpu: {current}/{target}%");
    }
    let specs = list(&autoscaler["spec"]["metrics"]);
    let current = list(&autoscaler["status"]["currentMetrics"]);
    let all: Vec<String> =
        specs.iter().enumerate().map(|(i, s)| metric(s, current.get(i).unwrap_or(&Value::Null))).collect();
    match all.len() {
        0 => "<none>".into(),
        n if n > 2 => format!("{} + {} more...", all[..2].join(", "), n - 2),
        _ => all.join(", "),
    }
}

fn metric(spec: &Value, current: &Value) -> String {
    let field = match spec["type"].as_str() {
        Some("Resource") => "resource",
        Some("ContainerResource") => "containerResource",
        Some("Pods") => "pods",
        Some("Object") => "object",
        Some("External") => "external",
        _ => return "<unknown type>".into(),
    };
    let (target, now) = (&spec[field]["target"], &current[field]["current"]);
    let name =
        if field.ends_with("esource") { plain(&spec[field]["name"], "") + ": " } else { String::new() };
    let average = &target["averageValue"];
    if !average.is_null() {
        let mark = if matches!(field, "object" | "external") { " (avg)" } else { "" };
        return format!("{name}{}/{}{mark}", plain(&now["averageValue"], "<unknown>"), plain(average, ""));
    }
    if field.ends_with("esource") {
        let percent =
            |v: &Value, instead: &str| v.as_i64().map_or_else(|| instead.to_owned(), |n| format!("{n}%"));
        let (now, target) = (&now["averageUtilization"], &target["averageUtilization"]);
        return format!("{name}{}/{}", percent(now, "<unknown>"), percent(target, "<auto>"));
    }
    format!("{}/{}", plain(&now["value"], "<unknown>"), plain(&target["value"], ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_and_autoscalers() {
        let job = json!({"spec": {"parallelism": 3}, "status": {"succeeded": 1, "startTime": "2026-01-01T00:00:00Z",
            "completionTime": "2026-01-01T00:02:05Z", "conditions": [{"type": "Complete", "status": "True"}]}});
        assert_eq!((job_status(&job), completions(&job).as_str()), ("Complete", "1/1 of 3"));
        assert_eq!(job_duration(&job, Timestamp::now()), "2m5s");
        let resource = |name: &str| json!({"type": "Resource", "resource": {"name": name, "target": {"averageUtilization": 80}}});
        let autoscaler = json!({"spec": {"metrics": [resource("cpu"), resource("memory"), resource("x")]},
            "status": {"currentMetrics": [{"resource": {"current": {"averageUtilization": 12}}}]}});
        assert_eq!(targets(&autoscaler), "cpu: 12%/80%, memory: <unknown>/80% + 1 more...");
    }
}
