//! The status of PodDisruptionBudgets: how many of their pods are healthy, and how many may go.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::action::Action;
use super::object;
use super::workloads::share;
use super::world::{Key, World};
use crate::label_selector;
use crate::registry::Part;

pub(super) const BUDGETS: &str = "poddisruptionbudgets.policy";
/// Seconds after which a pod that was evicted and is still there counts again; as Kubernetes has it.
const FORGET: i64 = 120;

/// What of a pod its budget looks at.
pub(super) fn face(pod: &Value) -> [Value; 5] {
    let meta = &pod["metadata"];
    [
        meta["labels"].clone(),
        json!(object::terminating(pod)),
        json!(object::ready(pod)),
        meta["ownerReferences"].clone(),
        pod["status"]["phase"].clone(),
    ]
}

/// The write that brings a budget's status to what its pods are.
pub(super) fn plan(world: &World, key: &Key, budget: &Value, now: &str) -> Vec<Action> {
    if &*key.kind != BUDGETS || object::terminating(budget) {
        return Vec::new();
    }
    let selector = &budget["spec"]["selector"];
    let pods: Vec<&Value> = world
        .labelled(&key.namespace, selector["matchLabels"].as_object())
        .filter(|pod| label_selector::matches(selector, &pod["metadata"]["labels"]) && !object::finished(pod))
        .collect();
    let (expected, desired) = wanted(world, budget, &pods);
    let disrupted = still_going(&budget["status"]["disruptedPods"], &pods, now);
    let counts = |pod: &&&Value| {
        object::ready(pod) && object::active(pod) && !disrupted.contains_key(object::name(pod))
    };
    let healthy = pods.iter().filter(counts).count();
    let allowed = if expected == 0 { 0 } else { healthy.saturating_sub(desired) };
    let reason = if allowed > 0 { "SufficientPods" } else { "InsufficientPods" };
    let conditions = &budget["status"]["conditions"];
    let status = json!({
        "currentHealthy": healthy,
        "desiredHealthy": desired,
        "expectedPods": expected,
        "disruptionsAllowed": allowed,
        "observedGeneration": budget["metadata"]["generation"],
        "conditions": object::with_condition(conditions, "DisruptionAllowed", allowed > 0, reason, "", now),
    });
    write(key, budget, status, disrupted)
}

fn write(key: &Key, budget: &Value, mut status: Value, disrupted: Map<String, Value>) -> Vec<Action> {
    let before = budget["status"]["disruptedPods"].as_object();
    let forgotten = before.into_iter().flatten().filter(|(name, _)| !disrupted.contains_key(*name));
    let forgotten: Map<String, Value> = forgotten.map(|(name, _)| (name.clone(), Value::Null)).collect();
    if forgotten.is_empty() && object::has_all(&budget["status"], &status) {
        return Vec::new();
    }
    if !forgotten.is_empty() {
        status["disruptedPods"] = Value::Object(forgotten);
    }
    // With the version it was counted for, so that no eviction in between is forgotten.
    let meta = json!({"uid": object::uid(budget), "resourceVersion": budget["metadata"]["resourceVersion"]});
    vec![Action::Patch {
        key: key.clone(),
        part: Part::Status,
        patch: json!({"metadata": meta, "status": status}),
    }]
}

/// How many pods there should be, and how many of them must stay healthy.
fn wanted(world: &World, budget: &Value, pods: &[&Value]) -> (usize, usize) {
    let spec = &budget["spec"];
    if !spec["maxUnavailable"].is_null() {
        let expected = scale(world, pods);
        return (expected, expected.saturating_sub(share(&spec["maxUnavailable"], expected, true, "0")));
    }
    match &spec["minAvailable"] {
        Value::String(_) => {
            let expected = scale(world, pods);
            (expected, share(&spec["minAvailable"], expected, true, "0"))
        }
        least => (pods.len(), share(least, pods.len(), true, "1")),
    }
}

/// The replicas that the pods' controllers want.
fn scale(world: &World, pods: &[&Value]) -> usize {
    let uids: HashSet<&str> = pods.iter().filter_map(|pod| object::controller(pod)).collect();
    let mut seen = HashSet::new();
    let replicas = uids.into_iter().filter_map(|uid| {
        let owner = world.by_uid(uid)?;
        // A Deployment's pods are its ReplicaSets', of which there are two while it rolls.
        let top = object::controller(owner).and_then(|uid| world.by_uid(uid)).unwrap_or(owner);
        seen.insert(object::uid(top).to_owned()).then(|| top["spec"]["replicas"].as_u64().unwrap_or(0))
    });
    // A custom object's number may be any; more than this no budget's status can hold.
    let most = u64::from(i32::MAX.unsigned_abs());
    usize::try_from(replicas.fold(0, u64::saturating_add).min(most)).unwrap_or(0)
}

/// Of the evicted pods, those that are there and not being deleted yet.
fn still_going(evicted: &Value, pods: &[&Value], now: &str) -> Map<String, Value> {
    let fresh = |at: &Value| {
        let time = |text: &str| text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_second);
        let at = at.as_str().and_then(time);
        at.zip(time(now)).is_some_and(|(at, now)| now < at.saturating_add(FORGET))
    };
    let there = |name: &str| pods.iter().any(|pod| object::name(pod) == name && !object::terminating(pod));
    let evicted = evicted.as_object().into_iter().flatten();
    evicted
        .filter(|(name, at)| fresh(at) && there(name))
        .map(|(name, at)| (name.clone(), at.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::sim::Sim;
    use super::*;

    #[test]
    fn owners_may_want_any_number() {
        let mut sim = Sim::default();
        for name in ["a", "b"] {
            let owner = json!({"metadata": {"name": name, "uid": name}, "spec": {"replicas": u64::MAX}});
            sim.put("deployments.apps", owner);
            let owners = json!([{"kind": "Deployment", "name": name, "uid": name, "controller": true}]);
            let meta = json!({"name": name, "labels": {"app": "x"}, "ownerReferences": owners});
            sim.put("pods", json!({"metadata": meta, "status": {"phase": "Running"}}));
        }
        let selector = json!({"matchLabels": {"app": "x"}});
        let spec = json!({"selector": selector, "maxUnavailable": 1});
        sim.put(BUDGETS, json!({"metadata": {"name": "few"}, "spec": spec}));
        let (key, budget) = (Key::new(BUDGETS, "shop", "few"), sim.get(BUDGETS, "few"));
        let [Action::Patch { patch, .. }] = &plan(&sim.world, &key, &budget, "2026-01-01T00:00:00Z")[..]
        else {
            panic!("the status is written")
        };
        assert_eq!(patch["status"]["expectedPods"], i32::MAX, "as much as the status can hold");
    }
}
