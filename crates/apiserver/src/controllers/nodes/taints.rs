//! The taints that follow from a node's conditions.

use serde_json::{Value, json};

use super::super::action::Action;
use super::super::object;
use super::super::world::{Key, World};
use super::ready_status;
use crate::registry::Part;

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Conditions that are bad when they are true, and their taints.
const TROUBLES: [(&str, &str); 4] = [
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
];

/// The write that brings a node's own taints in line with its conditions, if they are not.
pub(super) fn plan(world: &World, key: &Key, node: &Value) -> Option<Action> {
    let wanted = wanted(world, node);
    let present: Vec<&Value> = object::list(&node["spec"]["taints"]).collect();
    let same = |a: &Value, b: &Value| a["key"] == b["key"] && a["effect"] == b["effect"];
    let missing: Vec<&Value> =
        wanted.iter().filter(|taint| !present.iter().any(|other| same(other, taint))).collect();
    let stays = |taint: &Value| !is_ours(taint) || wanted.iter().any(|other| same(other, taint));
    if missing.is_empty() && present.iter().all(|taint| stays(taint)) {
        return None;
    }
    let kept = present.into_iter().filter(|taint| stays(taint));
    let taints: Vec<&Value> = kept.chain(missing).collect();
    // The version makes a concurrent writer of the list a conflict and not a loss.
    let meta = json!({"uid": object::uid(node), "resourceVersion": node["metadata"]["resourceVersion"]});
    let taints = if taints.is_empty() { Value::Null } else { json!(taints) };
    let patch = json!({"metadata": meta, "spec": {"taints": taints}});
    Some(Action::Patch { key: key.clone(), part: Part::Whole, patch })
}

fn is_ours(taint: &Value) -> bool {
    let own = [NOT_READY, UNREACHABLE, UNSCHEDULABLE];
    own.into_iter().chain(TROUBLES.map(|(_, key)| key)).any(|key| taint["key"] == key)
}

fn wanted(world: &World, node: &Value) -> Vec<Value> {
    let mut taints = Vec::new();
    let silent = match ready_status(node) {
        "False" => Some(NOT_READY),
        "Unknown" => Some(UNREACHABLE),
        _ => None,
    };
    if let Some(key) = silent {
        taints.push(json!({"key": key, "effect": "NoSchedule"}));
        // Where no node is ready there is nowhere to go: then the trouble is likely here.
        if world.any_node_ready() {
            let since = object::time(world.now);
            taints.push(json!({"key": key, "effect": "NoExecute", "timeAdded": since}));
        }
    }
    for (kind, key) in TROUBLES {
        if object::list(&node["status"]["conditions"]).any(|c| c["type"] == kind && c["status"] == "True") {
            taints.push(json!({"key": key, "effect": "NoSchedule"}));
        }
    }
    if node["spec"]["unschedulable"] == true {
        taints.push(
            json!({"key": UNSCHEDULABLE, "effect": "NoSchedule", "timeAdded": object::time(world.now)}),
        );
    }
    taints
}
