//! A pod's cells, which tell more than its phase.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::values::{between, condition, list};

/// Ready containers of all; init containers that keep running count too.
pub(super) fn ready(pod: &Value) -> String {
    let beside = list(&pod["spec"]["initContainers"]).iter().filter(|c| stays(c));
    let all = list(&pod["spec"]["containers"]).len() + beside.count();
    let inits = list(&pod["status"]["initContainerStatuses"]).iter();
    let ready_beside =
        inits.filter(|c| is_beside(pod, c) && c["started"] == true && c["ready"] == true).count();
    let running = |c: &&Value| c["ready"] == true && !c["state"]["running"].is_null();
    let statuses = list(&pod["status"]["containerStatuses"]);
    // A state that nobody told is taken for running.
    let untold = |c: &&Value| c["ready"] == true && c["state"].is_null();
    let ready = statuses.iter().filter(|c| running(c) || untold(c)).count();
    format!("{}/{all}", ready + ready_beside)
}

/// Whether an init container keeps running beside the others.
fn stays(container: &Value) -> bool {
    container["restartPolicy"] == "Always"
}

fn is_beside(pod: &Value, status: &Value) -> bool {
    list(&pod["spec"]["initContainers"]).iter().any(|c| c["name"] == status["name"] && stays(c))
}

/// The status that kubectl shows.
pub(super) fn status(pod: &Value) -> String {
    let deleted = !pod["metadata"]["deletionTimestamp"].is_null();
    let phase = pod["status"]["phase"].as_str().unwrap_or_default();
    if deleted && pod["status"]["reason"] == "NodeLost" {
        return "Unknown".into();
    }
    if deleted && !matches!(phase, "Succeeded" | "Failed") {
        return "Terminating".into();
    }
    let gated = |c: &Value| c["type"] == "PodScheduled" && c["reason"] == "SchedulingGated";
    let own = pod["status"]["reason"].as_str().filter(|r| !r.is_empty()).unwrap_or(phase);
    let own = if list(&pod["status"]["conditions"]).iter().any(gated) { "SchedulingGated" } else { own };
    match initializing(pod) {
        Some(reason) if condition(pod, "Initialized") != Some("True") => reason,
        _ => of_containers(pod, own),
    }
}

/// What an init container that is not done says.
fn initializing(pod: &Value) -> Option<String> {
    let count = list(&pod["spec"]["initContainers"]).len();
    for (index, container) in list(&pod["status"]["initContainerStatuses"]).iter().enumerate() {
        let state = &container["state"];
        let ended = &state["terminated"];
        let done = !ended.is_null() && ended["exitCode"].as_i64().unwrap_or(0) == 0;
        if done || (is_beside(pod, container) && container["started"] == true) {
            continue;
        }
        if !ended.is_null() {
            return Some(format!("Init:{}", how_ended(ended)));
        }
        return Some(match state["waiting"]["reason"].as_str() {
            Some(reason) if !reason.is_empty() && reason != "PodInitializing" => format!("Init:{reason}"),
            _ => format!("Init:{index}/{count}"),
        });
    }
    None
}

fn how_ended(ended: &Value) -> String {
    let signal = ended["signal"].as_i64().unwrap_or(0);
    match ended["reason"].as_str() {
        Some(reason) if !reason.is_empty() => reason.to_owned(),
        _ if signal != 0 => format!("Signal:{signal}"),
        _ => format!("ExitCode:{}", ended["exitCode"].as_i64().unwrap_or(0)),
    }
}

fn of_containers(pod: &Value, own: &str) -> String {
    let (mut reason, mut failed, mut running) = (own.to_owned(), None, false);
    for container in list(&pod["status"]["containerStatuses"]).iter().rev() {
        let state = &container["state"];
        let waiting = state["waiting"]["reason"].as_str().filter(|r| !r.is_empty());
        let ended = &state["terminated"];
        if let Some(waiting) = waiting {
            reason = waiting.to_owned();
        } else if !ended.is_null() {
            reason = how_ended(ended);
            if ended["exitCode"].as_i64().unwrap_or(0) != 0 {
                failed = Some(reason.clone());
            }
        } else if container["ready"] == true && !state["running"].is_null() {
            running = true;
        }
    }
    match (reason.as_str(), running, failed) {
        ("Completed", true, _) if condition(pod, "Ready") == Some("True") => "Running".into(),
        ("Completed", _, Some(failed)) => failed,
        ("Completed", true, None) => "NotReady".into(),
        ("Succeeded", ..) => "Completed".into(),
        ("", ..) => "Unknown".into(),
        _ => reason,
    }
}

/// How often containers were restarted, and when last.
pub(super) fn restarts(pod: &Value, now: Timestamp) -> String {
    let inits = list(&pod["status"]["initContainerStatuses"]).iter();
    let still = initializing(pod).is_some() && condition(pod, "Initialized") != Some("True");
    let counted: Vec<&Value> = if still {
        inits.collect()
    } else {
        let beside = inits.filter(|c| is_beside(pod, c));
        beside.chain(list(&pod["status"]["containerStatuses"])).collect()
    };
    let count: i64 = counted.iter().filter_map(|c| c["restartCount"].as_i64()).sum();
    let ended = |c: &&&Value| c["lastState"]["terminated"]["finishedAt"].as_str()?.parse::<Timestamp>().ok();
    match counted.iter().filter_map(|c| ended(&c)).max() {
        Some(last) if count != 0 => format!("{count} ({} ago)", between(last, now)),
        _ => count.to_string(),
    }
}

/// How many of a pod's own conditions for readiness are true.
pub(super) fn readiness_gates(pod: &Value) -> String {
    let gates = list(&pod["spec"]["readinessGates"]);
    let is = |gate: &&Value| gate["conditionType"].as_str().and_then(|t| condition(pod, t)) == Some("True");
    match gates.len() {
        0 => "<none>".into(),
        all => format!("{}/{all}", gates.iter().filter(is).count()),
    }
}

/// What tools that hide pods that ended go by.
pub(super) fn conditions(pod: &Value) -> Option<Value> {
    let (reason, message) = match pod["status"]["phase"].as_str()? {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return None,
    };
    Some(json!([{"type": "Completed", "status": "True", "reason": reason, "message": message}]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(states: Value) -> Value {
        json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]},
            "status": {"phase": "Running", "containerStatuses": states}})
    }

    #[test]
    fn what_containers_do_is_the_status() {
        let running = json!({"ready": true, "state": {"running": {}}});
        let crashed = json!({"restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"finishedAt": "2026-01-01T00:00:00Z"}}});
        let pod = with(json!([running, crashed]));
        assert_eq!((ready(&pod).as_str(), status(&pod).as_str()), ("1/2", "CrashLoopBackOff"));
        assert_eq!(restarts(&pod, "2026-01-01T00:01:00Z".parse().unwrap()), "3 (60s ago)");
        let done = json!({"state": {"terminated": {"reason": "Completed", "exitCode": 0}}});
        assert_eq!(status(&with(json!([done, running]))), "NotReady");
        let failed = json!({"state": {"terminated": {"exitCode": 2}}});
        assert_eq!(status(&with(json!([done, failed]))), "ExitCode:2");
        assert_eq!(status(&with(json!([]))), "Running");
    }

    #[test]
    fn a_pod_that_starts_or_ends() {
        let mut pod = json!({"spec": {"initContainers": [{"name": "i"}, {"name": "j"}], "containers": [{"name": "a"}]},
            "status": {"phase": "Pending", "initContainerStatuses": [
                {"name": "i", "state": {"terminated": {"exitCode": 0}}}, {"name": "j", "state": {"running": {}}}]}});
        assert_eq!(status(&pod), "Init:1/2");
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert_eq!(status(&pod), "Terminating");
        assert_eq!(status(&json!({"status": {"phase": "Succeeded"}})), "Completed");
    }
}
