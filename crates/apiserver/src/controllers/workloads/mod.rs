//! Workloads to pods: what to create, delete and report for each kind of workload.

mod adoption;
mod cron_job;
mod daemon_set;
mod deployment;
mod job;
mod pods;
mod replica_set;
mod stateful_set;
mod template;

use serde_json::{Value, json};

use super::action::Action;
use super::object;
use super::world::{Key, World};
use crate::registry::Part;

pub(super) use cron_job::plan as plan_cron_job;

/// Pods that one workload is given at once, as Kubernetes has it; more follow when these are there.
const BURST: usize = 500;

/// The writes that bring a workload's pods and status nearer to its spec. None for what is no workload.
pub(super) fn plan(world: &World, key: &Key, object: &Value, now: &str) -> Vec<Action> {
    if object::terminating(object) {
        return Vec::new();
    }
    let mut actions = match &*key.kind {
        "deployments.apps" => deployment::plan(world, key, object, now),
        "replicasets.apps" | "replicationcontrollers" => replica_set::plan(world, key, object),
        "statefulsets.apps" => stateful_set::plan(world, key, object),
        "daemonsets.apps" => daemon_set::plan(world, key, object),
        "jobs.batch" => job::plan(world, key, object, now),
        _ => return Vec::new(),
    };
    if actions.iter().any(|action| matches!(action, Action::Create { .. })) {
        let adopted = adoption::adopt(world, key, object);
        if !adopted.is_empty() {
            actions = adopted;
        }
    }
    actions.extend(adoption::release(world, key, object));
    actions
}

/// The pods that a workload controls and that fit its selector.
fn own_pods<'a>(world: &'a World, owner: &'a Value) -> Vec<&'a Value> {
    let (uid, selector) = (object::uid(owner), adoption::selector(owner));
    let pods = world.owned(uid, "pods").map(|pod| &**pod);
    pods.filter(|pod| object::controller(pod) == Some(uid) && adoption::fits(&selector, pod)).collect()
}

/// `spec.replicas`; one when it is absent.
fn replicas(workload: &Value) -> usize {
    count(&workload["spec"]["replicas"]).unwrap_or(1)
}

fn count(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|n| usize::try_from(n).ok())
}

/// A number or a percentage of `total`.
pub(super) fn share(value: &Value, total: usize, round_up: bool, default: &str) -> usize {
    if let Some(n) = count(value) {
        return n;
    }
    let text = value.as_str().unwrap_or(default);
    let percent: usize = text.trim_end_matches('%').parse().unwrap_or(0);
    if !text.ends_with('%') {
        return percent;
    }
    let product = total.saturating_mul(percent);
    if round_up { product.div_ceil(100) } else { product / 100 }
}

/// Deletes a pod that its owner does not want any more.
fn delete(pod: &Value) -> Action {
    let key = Key::new("pods", object::namespace(pod), object::name(pod));
    Action::Delete { key, uid: object::uid(pod).to_owned(), grace: None }
}

/// Writes the fields of a status that differ.
fn report(key: &Key, workload: &Value, mut status: Value) -> Option<Action> {
    status["observedGeneration"] = workload["metadata"]["generation"].clone();
    if object::has_all(&workload["status"], &status) {
        return None;
    }
    let patch = json!({"metadata": {"uid": object::uid(workload)}, "status": status});
    Some(Action::Patch { key: key.clone(), part: Part::Status, patch })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_number_or_a_percentage() {
        assert_eq!(share(&json!(3), 10, true, "25%"), 3);
        assert_eq!(share(&json!("30%"), 10, true, "25%"), 3);
        assert_eq!(share(&Value::Null, 10, true, "25%"), 3);
        assert_eq!(share(&Value::Null, 10, false, "25%"), 2);
        assert_eq!(share(&json!("2"), 10, false, "25%"), 2);
        assert_eq!(share(&json!("x%"), 10, false, "25%"), 0);
    }
}
