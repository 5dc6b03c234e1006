//! What a pod's status gets by default, and what makes it bad.

use serde_json::{Value, json};

use crate::strategy::field::{Errors, Path};
use crate::strategy::format;
use crate::strategy::value::{default, default_filled, inner, int, items, list, numbered, put, text, unset};

const ADDRESSES: [(&str, &str); 2] = [("podIP", "podIPs"), ("hostIP", "hostIPs")];
const CONTAINERS: [&str; 3] = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"];
/// Conditions without a domain; any other name is a qualified one.
const CONDITIONS: [&str; 3] = ["PodScheduled", "Ready", "Initialized"];

/// Completes a status: the pod's one address and the list of them say the same, and containers have states.
pub(in super::super) fn status_defaults(pod: &mut Value, old: &Value) {
    let quality = old["status"]["qosClass"].clone();
    let Some(status) = inner(pod, "status") else { return };
    if !quality.is_null() {
        default_filled(status, "qosClass", quality);
    }
    let first = status["podIPs"][0]["ip"].clone();
    if unset(&status["podIP"]) {
        put(status, "podIP", &first);
    } else if status["podIP"] != first {
        status["podIPs"] = json!([{"ip": status["podIP"]}]);
    }
    for field in CONTAINERS {
        for container in items(status, field) {
            for state in ["state", "lastState"] {
                default(container, state, json!({}));
                for (phase, time) in
                    [("running", "startedAt"), ("terminated", "startedAt"), ("terminated", "finishedAt")]
                {
                    let phase = inner(container, state).and_then(|s| inner(s, phase));
                    // Times that are not known are written, as null.
                    phase.and_then(Value::as_object_mut).map(|p| p.entry(time).or_insert(Value::Null));
                }
            }
        }
    }
}

/// Checks a status.
pub(in super::super) fn check_status(pod: &Value, old: &Value, errors: &mut Errors) {
    let (before, status, at) = (&old["status"], &pod["status"], Path::new("status"));
    for (index, condition) in numbered(&status["conditions"]) {
        let kind = text(&condition["type"]);
        if !CONDITIONS.contains(&kind) {
            let at = at.field("conditions").at(index).field("Type");
            errors.all(&at, &json!(kind), format::label_key(kind));
        }
    }
    errors.immutable(&at.field("qosClass"), &before["qosClass"], &status["qosClass"]);
    for (statuses, containers) in CONTAINERS.into_iter().zip(["containers", "initContainers", ""]) {
        ended(&before[statuses], &status[statuses], containers, &old["spec"], &at.field(statuses), errors);
    }
    for (one, many) in ADDRESSES {
        addresses(&before[many], status, one, many, &at.field(many), errors);
    }
}

/// A container that ended for good does not run again.
fn ended(old: &Value, new: &Value, of: &str, spec: &Value, at: &Path, errors: &mut Errors) {
    for (index, before) in numbered(old) {
        let end = &before["state"]["terminated"];
        if end.is_null() {
            continue;
        }
        let runs = |s: &&Value| s["name"] == before["name"] && s["state"]["terminated"].is_null();
        if list(new).iter().any(|s| runs(&s)) && !restarts(&spec[of], &before["name"], spec, end) {
            let rule = "may not be transitioned to non-terminated state";
            errors.forbidden(&at.at(index).field("state"), rule);
        }
    }
}

/// Whether a container is started again after this end.
fn restarts(containers: &Value, name: &Value, spec: &Value, end: &Value) -> bool {
    let Some(container) = list(containers).iter().find(|c| c["name"] == *name) else { return false };
    let code = int(&end["exitCode"]);
    let rule = list(&container["restartPolicyRules"]).iter().find(|rule| {
        let listed = list(&rule["exitCodes"]["values"]).iter().any(|v| int(v) == code);
        listed == (rule["exitCodes"]["operator"] == "In")
    });
    if let Some(rule) = rule {
        return text(&rule["action"]).starts_with("Restart");
    }
    let own = text(&container["restartPolicy"]);
    match if own.is_empty() { text(&spec["restartPolicy"]) } else { own } {
        "Always" => true,
        "OnFailure" => code != 0,
        _ => false,
    }
}

fn addresses(old: &Value, status: &Value, one: &str, many: &str, at: &Path, errors: &mut Errors) {
    let all: Vec<&str> = list(&status[many]).iter().map(|a| text(&a["ip"])).collect();
    for (index, address) in all.iter().enumerate() {
        if !list(old).iter().any(|a| a["ip"] == **address) {
            errors.all(&at.at(index), &json!(address), format::ip(address));
        }
    }
    let sixes = all.iter().filter(|a| a.contains(':')).count();
    if all.len() > 1 && (sixes != 1 || all.len() != 2) {
        let shown: Vec<Value> = all.iter().map(|a| json!({"IP": a})).collect();
        errors.invalid(at, &json!(shown), "may specify no more than one IP for each IP family");
    }
    if let Some(first) = all.first()
        && status[one] != **first
    {
        let rule = format!("must be equal to `{one}`");
        errors.invalid(&at.at(0).field("ip"), &json!(first), &rule);
    }
}
