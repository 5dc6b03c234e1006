//! Pods on nodes that are silent or taint them away.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::super::action::Action;
use super::super::alarms::Alarms;
use super::super::matching::tolerates;
use super::super::object;
use super::super::world::{Key, World};
use super::ready_status;
use crate::registry::Part;

/// Seconds that a pod stays on a node that is not ready or silent, if it says nothing itself.
const DEFAULT_SECONDS: i64 = 300;
/// The condition of a pod that is taken away.
const DISRUPTION: &str = "DisruptionTarget";

/// What to write about an active pod that is on this node.
pub(super) fn plan(
    world: &World,
    key: &Key,
    pod: &Value,
    node: &Value,
    alarms: &mut Alarms,
) -> Option<Action> {
    match leaves_at(world, pod, node) {
        Some(at) if at <= world.now && !told(pod) => return Some(tell(world, key, pod)),
        Some(at) if at <= world.now => {
            let uid = object::uid(pod).to_owned();
            return Some(Action::Delete { key: key.clone(), uid, grace: None });
        }
        Some(at) => alarms.set(key, at),
        None => {}
    }
    (ready_status(node) == "Unknown" && object::ready(pod)).then(|| not_ready(world, key, pod))
}

/// When the node's taints drive the pod away; None when it may stay for good.
fn leaves_at(world: &World, pod: &Value, node: &Value) -> Option<Timestamp> {
    let drives_out = |taint: &&Value| taint["effect"] == "NoExecute";
    let taints = object::list(&node["spec"]["taints"]).filter(drives_out);
    taints.filter_map(|taint| time_under(world, pod, taint)).min()
}

/// When one taint drives the pod away.
fn time_under(world: &World, pod: &Value, taint: &Value) -> Option<Timestamp> {
    let added = taint["timeAdded"].as_str().and_then(|text| text.parse().ok()).unwrap_or(world.now);
    let mut tolerations = object::list(&pod["spec"]["tolerations"])
        .filter(|toleration| tolerates(toleration, taint))
        .peekable();
    let by_default = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
    let seconds = if tolerations.peek().is_some() {
        tolerations.filter_map(|toleration| toleration["tolerationSeconds"].as_i64()).min()?
    } else if by_default.iter().any(|key| taint["key"] == *key) {
        DEFAULT_SECONDS
    } else {
        0
    };
    added.checked_add(SignedDuration::from_secs(seconds.max(0))).ok()
}

/// Whether the pod says already that it goes by no will of its own.
fn told(pod: &Value) -> bool {
    object::list(&pod["status"]["conditions"]).any(|c| c["type"] == DISRUPTION && c["status"] == "True")
}

/// Says in the pod why it goes, before it goes.
fn tell(world: &World, key: &Key, pod: &Value) -> Action {
    let message = "Taint manager: deleting due to NoExecute taint";
    let (old, now) = (&pod["status"]["conditions"], object::time(world.now));
    let conditions = object::with_condition(old, DISRUPTION, true, "DeletionByTaintManager", message, &now);
    conditions_patch(key, pod, conditions)
}

fn conditions_patch(key: &Key, pod: &Value, conditions: Value) -> Action {
    let meta = json!({"uid": object::uid(pod), "resourceVersion": pod["metadata"]["resourceVersion"]});
    let patch = json!({"metadata": meta, "status": {"conditions": conditions}});
    Action::Patch { key: key.clone(), part: Part::Status, patch }
}

fn not_ready(world: &World, key: &Key, pod: &Value) -> Action {
    let conditions = object::list(&pod["status"]["conditions"])
        .map(|condition| {
            let mut condition = condition.clone();
            if condition["type"] == "Ready" {
                condition["status"] = json!("False");
                condition["reason"] = json!("NodeNotReady");
                condition["message"] = json!("Node is not ready");
                condition["lastTransitionTime"] = json!(object::time(world.now));
            }
            condition
        })
        .collect();
    conditions_patch(key, pod, Value::Array(conditions))
}
