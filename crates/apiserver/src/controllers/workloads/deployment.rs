//! Deployment: a ReplicaSet for each template, and a rolling change from the old ones to the new.

use std::cmp::Reverse;

use serde_json::{Value, json};

use super::super::action::Action;
use super::super::world::{Key, World};
use super::adoption::{fits, selector};
use super::{count, object, replicas, report, share, template};
use crate::registry::Part;

const HASH: &str = "pod-template-hash";
const REVISION: &str = "deployment.kubernetes.io/revision";

pub(super) fn plan(world: &World, key: &Key, deployment: &Value, now: &str) -> Vec<Action> {
    let (uid, selector) = (object::uid(deployment), selector(deployment));
    let sets = world.owned(uid, "replicasets.apps").map(|set| &**set);
    let sets: Vec<&Value> = sets
        .filter(|set| {
            object::controller(set) == Some(uid) && !object::terminating(set) && fits(&selector, set)
        })
        .collect();
    let (new, old): (Vec<&Value>, Vec<&Value>) = sets.iter().partition(|set| same_template(deployment, set));
    let mut actions = match new.first() {
        Some(new) => roll(deployment, new, &old),
        None if deployment["spec"]["paused"] == true => Vec::new(),
        None => vec![first(deployment, &old)],
    };
    actions.extend(forget(deployment, &old));
    actions.extend(report(key, deployment, status(deployment, new.first().copied(), &sets, now)));
    actions
}

/// Whether a set is of the deployment's template: by the hash that it was made with, or by
/// comparing, where another hash made it.
fn same_template(deployment: &Value, set: &Value) -> bool {
    if set["metadata"]["labels"][HASH] == template::hash(&deployment["spec"]["template"]) {
        return true;
    }
    let mut template = set["spec"]["template"].clone();
    if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
        labels.remove(HASH);
    }
    template == deployment["spec"]["template"]
}

fn revision(set: &Value) -> u64 {
    set["metadata"]["annotations"][REVISION].as_str().and_then(|v| v.parse().ok()).unwrap_or(0)
}

/// The set for a template that is new. It starts with what the strategy allows beside the old ones.
fn first(deployment: &Value, old: &[&Value]) -> Action {
    let spec = &deployment["spec"];
    let hash = template::hash(&spec["template"]);
    let total = old.iter().map(|set| replicas(set)).sum();
    let mut set = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {
            "name": format!("{}-{hash}", object::name(deployment)),
            "labels": spec["template"]["metadata"]["labels"],
            "annotations": {REVISION: (old.iter().map(|set| revision(set)).max().unwrap_or(0) + 1).to_string()},
            "ownerReferences": template::owned_by(deployment),
        },
        "spec": {"replicas": new_size(deployment, 0, total, old), "selector": spec["selector"],
            "template": spec["template"]},
    });
    for labels in ["/metadata", "/spec/template/metadata"] {
        if let Some(meta) = set.pointer_mut(labels) {
            meta["labels"][HASH] = json!(hash);
        }
    }
    set["spec"]["selector"]["matchLabels"][HASH] = json!(hash);
    let namespace = object::namespace(deployment).to_owned();
    Action::Create { kind: "replicasets.apps", namespace, object: set }
}

/// How many pods the new set may have, with `total` in all sets and `present` in it.
fn new_size(deployment: &Value, present: usize, total: usize, old: &[&Value]) -> usize {
    let wanted = replicas(deployment);
    if recreates(deployment) {
        let left =
            old.iter().any(|set| count(&set["status"]["replicas"]).unwrap_or(0) > 0 || replicas(set) > 0);
        return if left { present } else { wanted };
    }
    let most = wanted + limits(deployment).0;
    wanted.min(present + most.saturating_sub(total))
}

fn recreates(deployment: &Value) -> bool {
    deployment["spec"]["strategy"]["type"] == "Recreate"
}

/// How many pods there may be too many and too few.
fn limits(deployment: &Value) -> (usize, usize) {
    let rolling = &deployment["spec"]["strategy"]["rollingUpdate"];
    let wanted = replicas(deployment);
    let surge = share(&rolling["maxSurge"], wanted, true, "25%");
    let fewer = share(&rolling["maxUnavailable"], wanted, false, "25%").min(wanted);
    if surge == 0 && fewer == 0 { (0, wanted.min(1)) } else { (surge, fewer) }
}

/// The next step from the old sets to the new one.
fn roll(deployment: &Value, new: &Value, old: &[&Value]) -> Vec<Action> {
    let present = replicas(new);
    let total: usize = present + old.iter().map(|set| replicas(set)).sum::<usize>();
    let size = new_size(deployment, present, total, old);
    let mut actions: Vec<Action> = resize(new, size).into_iter().collect();
    let mut old: Vec<&Value> = old.iter().copied().filter(|set| replicas(set) > 0).collect();
    if recreates(deployment) {
        actions.extend(old.iter().filter_map(|set| resize(set, 0)));
        return actions;
    }
    let ready = |set: &Value| count(&set["status"]["readyReplicas"]).unwrap_or(0);
    let fewest = replicas(deployment) - limits(deployment).1;
    let not_yet = size.saturating_sub(ready(new).min(size));
    let mut spare = (total - present + size).saturating_sub(fewest + not_yet);
    let all_ready: usize = ready(new) + old.iter().map(|set| ready(set)).sum::<usize>();
    let mut spare_ready = all_ready.saturating_sub(fewest);
    old.sort_by_key(|set| revision(set));
    for set in old {
        // Pods that are not ready serve nobody: they go first and cost no readiness.
        let idle = replicas(set).saturating_sub(ready(set)).min(spare);
        let serving = (replicas(set) - idle).min(spare - idle).min(spare_ready);
        spare -= idle + serving;
        spare_ready -= serving;
        actions.extend(resize(set, replicas(set) - idle - serving));
    }
    actions
}

fn resize(set: &Value, size: usize) -> Option<Action> {
    if replicas(set) == size {
        return None;
    }
    let key = Key::new("replicasets.apps", object::namespace(set), object::name(set));
    let patch = json!({"metadata": {"uid": object::uid(set)}, "spec": {"replicas": size}});
    Some(Action::Patch { key, part: Part::Whole, patch })
}

/// Deletes the oldest empty sets beyond the history that is kept.
fn forget(deployment: &Value, old: &[&Value]) -> Vec<Action> {
    let kept = count(&deployment["spec"]["revisionHistoryLimit"]).unwrap_or(10);
    let empty = |set: &&&Value| replicas(set) == 0 && count(&set["status"]["replicas"]).unwrap_or(0) == 0;
    let mut empty: Vec<&Value> = old.iter().filter(empty).copied().collect();
    empty.sort_by_key(|set| Reverse(revision(set)));
    let gone = empty.into_iter().skip(kept);
    gone.map(|set| Action::Delete {
        key: Key::new("replicasets.apps", object::namespace(set), object::name(set)),
        uid: object::uid(set).to_owned(),
        grace: None,
    })
    .collect()
}

fn status(deployment: &Value, new: Option<&Value>, sets: &[&Value], now: &str) -> Value {
    let sum = |field: &str| sets.iter().filter_map(|set| count(&set["status"][field])).sum::<usize>();
    let wanted = replicas(deployment);
    let ready = sum("readyReplicas");
    let updated = new.and_then(|set| count(&set["status"]["replicas"])).unwrap_or(0);
    let enough = ready >= wanted - limits(deployment).1.min(wanted);
    let (reason, message) = match enough {
        true => ("MinimumReplicasAvailable", "Deployment has minimum availability."),
        false => ("MinimumReplicasUnavailable", "Deployment does not have minimum availability."),
    };
    let old = &deployment["status"]["conditions"];
    let conditions = object::with_condition(old, "Available", enough, reason, message, now);
    let done = updated == wanted && sum("replicas") == wanted && ready == wanted;
    let name = new.map_or("", object::name);
    let (reason, message) = match done {
        true => ("NewReplicaSetAvailable", format!("ReplicaSet \"{name}\" has successfully progressed.")),
        false => ("ReplicaSetUpdated", format!("ReplicaSet \"{name}\" is progressing.")),
    };
    let conditions = object::with_condition(&conditions, "Progressing", true, reason, &message, now);
    json!({
        "replicas": sum("replicas"), "updatedReplicas": updated, "readyReplicas": ready,
        "availableReplicas": ready, "unavailableReplicas": wanted.saturating_sub(ready), "conditions": conditions,
    })
}

#[cfg(test)]
#[path = "deployment_tests.rs"]
mod tests;
