//! What Kubernetes' admission plugins give a new pod: its account, tolerations and priority.

use std::sync::Arc;

use serde_json::{Value, json};

use super::defaults::quality;
use crate::error::ApiError;
use crate::kinds::{PODS, PRIORITY_CLASSES};
use crate::storage::View;
use crate::strategy::value::{default, default_filled, inner, int, list, text};
use crate::strategy::{is_mirror, now};

/// How long a pod stays on a node that is lost, in seconds.
const PATIENCE: i64 = 300;

/// Completes a new pod.
pub(in super::super) fn admit(pod: &mut Value, view: &View<'_>) -> Result<(), ApiError> {
    let (name, mirror) = (text(&pod["metadata"]["name"]).to_owned(), is_mirror(pod));
    let Some(spec) = inner(pod, "spec") else { return Ok(()) };
    // What a node runs of itself has no account.
    if !mirror {
        default_filled(spec, "serviceAccountName", "default");
        let account = spec["serviceAccountName"].clone();
        default_filled(spec, "serviceAccount", account);
    }
    tolerate_loss(spec);
    prioritise(spec, &name, view)?;
    let quality = quality(spec);
    let gated = !list(&spec["schedulingGates"]).is_empty();
    pod["status"] = json!({"phase": "Pending", "qosClass": quality});
    if gated {
        pod["status"]["conditions"] = json!([{
            "type": "PodScheduled", "status": "False", "lastProbeTime": null, "lastTransitionTime": now(),
            "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
        }]);
    }
    Ok(())
}

/// Completes a changed pod.
pub(in super::super) fn admit_update(pod: &mut Value) {
    inner(pod, "spec").into_iter().for_each(tolerate_loss);
}

fn tolerate_loss(spec: &mut Value) {
    for lost in ["not-ready", "unreachable"] {
        tolerate(spec, &format!("node.kubernetes.io/{lost}"));
    }
}

fn tolerate(spec: &mut Value, key: &str) {
    let covers = |t: &Value| {
        (t["key"] == key || text(&t["key"]).is_empty()) && matches!(text(&t["effect"]), "NoExecute" | "")
    };
    if list(&spec["tolerations"]).iter().any(covers) {
        return;
    }
    default(spec, "tolerations", json!([]));
    if let Some(all) = spec["tolerations"].as_array_mut() {
        all.push(
            json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": PATIENCE}),
        );
    }
}

fn prioritise(spec: &mut Value, name: &str, view: &View<'_>) -> Result<(), ApiError> {
    let class = text(&spec["priorityClassName"]).to_owned();
    let (value, policy) = match class.as_str() {
        "system-node-critical" => (2_000_001_000, json!("PreemptLowerPriority")),
        "system-cluster-critical" => (2_000_000_000, json!("PreemptLowerPriority")),
        "" => match global(view) {
            None => (0, json!("PreemptLowerPriority")),
            Some(class) => {
                spec["priorityClassName"] = class["metadata"]["name"].clone();
                described(&class)
            }
        },
        class => match view.get(&PRIORITY_CLASSES.key(None, class)) {
            Some(found) => described(&found),
            None => {
                let why = format!("no PriorityClass with name {class} was found");
                return Err(ApiError::forbidden(&PODS, name, &why));
            }
        },
    };
    if !spec["priority"].is_null() && int(&spec["priority"]) != value {
        let given = int(&spec["priority"]);
        let why = format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name"
        );
        return Err(ApiError::forbidden(&PODS, name, &why));
    }
    spec["priority"] = json!(value);
    if !spec["preemptionPolicy"].is_null() && spec["preemptionPolicy"] != policy {
        let why = format!(
            "the string value of PreemptionPolicy ({}) must not be provided in pod spec; priority admission controller computed {} from the given PriorityClass name",
            text(&spec["preemptionPolicy"]),
            text(&policy)
        );
        return Err(ApiError::forbidden(&PODS, name, &why));
    }
    spec["preemptionPolicy"] = policy;
    Ok(())
}

fn described(class: &Value) -> (i64, Value) {
    let policy = class["preemptionPolicy"].as_str().unwrap_or("PreemptLowerPriority");
    (int(&class["value"]), json!(policy))
}

/// The class of pods that name none: the lowest, if there are several.
fn global(view: &View<'_>) -> Option<Arc<Value>> {
    let classes = view.list(&PRIORITY_CLASSES.prefix()).into_iter();
    classes.filter(|c| c["globalDefault"] == true).min_by_key(|c| int(&c["value"]))
}
