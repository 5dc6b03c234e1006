//! Whether a node lives: somebody on it renews its Lease. One that never had a Lease is not judged.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::super::action::Action;
use super::super::alarms::Alarms;
use super::super::events;
use super::super::object;
use super::super::world::{Key, World};
use crate::registry::Part;

/// How long a node may be silent, as Kubernetes has it.
const PATIENCE: SignedDuration = SignedDuration::from_secs(40);
/// A pause of the whole loop that is longer was a stopped process and not a quiet one.
const STOPPED: SignedDuration = SignedDuration::from_secs(15);

/// When nodes were last heard of, by our own clock: theirs may be wrong.
#[derive(Default)]
pub(in super::super) struct Hearts {
    nodes: HashMap<String, (Value, Timestamp)>,
}

impl Hearts {
    /// Takes a node's Lease.
    pub(in super::super) fn hear(&mut self, lease: &Value, now: Timestamp) {
        let renewed = &lease["spec"]["renewTime"];
        let name = object::name(lease);
        if self.nodes.get(name).is_none_or(|(before, _)| before != renewed) {
            self.nodes.insert(name.to_owned(), (renewed.clone(), now));
        }
    }

    pub(in super::super) fn forget(&mut self, node: &str) {
        self.nodes.remove(node);
    }

    /// While this process stood still it heard nobody: that time does not count.
    pub(in super::super) fn pass(&mut self, before: Timestamp, now: Timestamp) {
        let gap = now.duration_since(before);
        if gap > STOPPED {
            self.nodes.values_mut().for_each(|(_, heard)| *heard = heard.saturating_add(gap).unwrap_or(now));
        }
    }

    /// When the node is silent for too long if it is not heard again.
    fn patience_ends(&self, node: &str) -> Option<Timestamp> {
        self.nodes.get(node).map(|(_, heard)| *heard + PATIENCE)
    }
}

/// The status of a node's Ready condition; nothing when it has none.
pub(in super::super) fn ready_status(node: &Value) -> &str {
    let ready = object::list(&node["status"]["conditions"]).find(|c| c["type"] == "Ready");
    ready.and_then(|condition| condition["status"].as_str()).unwrap_or_default()
}

/// What to write about a node that is silent for too long.
pub(super) fn plan(world: &World, key: &Key, node: &Value, alarms: &mut Alarms) -> Vec<Action> {
    let Some(end) = world.hearts.patience_ends(&key.name) else { return Vec::new() };
    if world.now < end {
        alarms.set(key, end);
        return Vec::new();
    }
    if ready_status(node) == "Unknown" {
        return Vec::new();
    }
    tracing::warn!("node {} is silent since {}", key.name, end - PATIENCE);
    let now = object::time(world.now);
    let mut conditions: Vec<Value> = object::list(&node["status"]["conditions"]).cloned().collect();
    if ready_status(node).is_empty() {
        conditions.push(json!({"type": "Ready", "lastHeartbeatTime": null}));
    }
    let reported = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
    for condition in conditions.iter_mut().filter(|c| reported.iter().any(|kind| c["type"] == *kind)) {
        condition["status"] = json!("Unknown");
        condition["reason"] = json!("NodeStatusUnknown");
        condition["message"] = json!("Kubelet stopped posting node status.");
        condition["lastTransitionTime"] = json!(now);
    }
    let meta = json!({"uid": object::uid(node), "resourceVersion": node["metadata"]["resourceVersion"]});
    let patch = json!({"metadata": meta, "status": {"conditions": conditions}});
    let message = format!("Node {} status is now: NodeNotReady", key.name);
    vec![
        Action::Patch { key: key.clone(), part: Part::Status, patch },
        events::about(node, "Node", "Normal", "NodeNotReady", &message, &now),
    ]
}
