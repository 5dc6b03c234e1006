//! ReplicaSet: so many pods of one template.

use serde_json::{Value, json};

use super::super::action::Action;
use super::super::world::{Key, World};
use super::{BURST, delete, object, own_pods, pods, replicas, report, template};

pub(super) fn plan(world: &World, key: &Key, set: &Value) -> Vec<Action> {
    let pods = own_pods(world, set);
    let mut actions = scale(set, &pods);
    actions.extend(report(key, set, status(&pods)));
    actions
}

/// The creations or deletions that bring the active pods to the wanted number.
fn scale(set: &Value, pods: &[&Value]) -> Vec<Action> {
    let mut active: Vec<&Value> = pods.iter().copied().filter(|pod| object::active(pod)).collect();
    let wanted = replicas(set);
    if active.len() > wanted {
        pods::least_worth_first(&mut active);
        return active[..active.len() - wanted].iter().map(|pod| delete(pod)).collect();
    }
    let name = format!("{}-", object::name(set));
    let create = || template::create(set, template::pod(set, &name, &[]));
    (active.len()..wanted).take(BURST).map(|_| create()).collect()
}

fn status(pods: &[&Value]) -> Value {
    let active: Vec<&Value> = pods.iter().copied().filter(|pod| object::active(pod)).collect();
    let ready = pods::ready(&active);
    json!({"replicas": active.len(), "fullyLabeledReplicas": active.len(), "readyReplicas": ready,
        "availableReplicas": ready})
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(replicas: usize) -> Value {
        json!({"apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {"name": "web-5d8f", "namespace": "shop", "uid": "s", "generation": 3},
            "spec": {"replicas": replicas, "template": {"metadata": {"labels": {"app": "web"}}, "spec": {}}}})
    }

    fn pod(name: &str, phase: &str, ready: bool, node: Option<&str>) -> Value {
        json!({"metadata": {"name": name, "namespace": "shop", "uid": name}, "spec": {"nodeName": node},
            "status": {"phase": phase, "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]}})
    }

    #[test]
    fn what_is_worth_least_goes_first() {
        let pods = [
            pod("good", "Running", true, Some("n")),
            pod("unready", "Running", false, Some("n")),
            pod("pending", "Pending", false, Some("n")),
            pod("homeless", "Pending", false, None),
            pod("done", "Succeeded", false, Some("n")),
        ];
        let pods: Vec<&Value> = pods.iter().collect();
        let deleted = |wanted: usize| -> Vec<String> {
            scale(&set(wanted), &pods)
                .into_iter()
                .map(|action| match action {
                    Action::Delete { key, .. } => key.name.to_string(),
                    other => panic!("{other:?}"),
                })
                .collect()
        };
        assert_eq!(deleted(1), ["homeless", "pending", "unready"]);
        assert!(deleted(4).is_empty());
        assert_eq!(scale(&set(6), &pods).len(), 2, "a finished pod is none");
        assert_eq!(status(&pods)["readyReplicas"], 1);
        let largest = usize::try_from(i32::MAX).unwrap();
        assert_eq!(scale(&set(largest), &pods).len(), BURST, "not all in memory at once");
    }

    proptest! {
        #[test]
        fn scaling_meets_the_number(wanted in 0..20usize, present in prop::collection::vec((any::<bool>(), any::<bool>()), 0..20)) {
            let pods: Vec<Value> = present.iter().enumerate().map(|(i, (running, ready))| {
                pod(&format!("p{i}"), if *running { "Running" } else { "Failed" }, *ready, Some("n"))
            }).collect();
            let pods: Vec<&Value> = pods.iter().collect();
            let active = present.iter().filter(|(running, _)| *running).count();
            let actions = scale(&set(wanted), &pods);
            let made = actions.iter().filter(|a| matches!(a, Action::Create { .. })).count();
            prop_assert_eq!(active + made - (actions.len() - made), wanted);
            prop_assert!(made == 0 || made == actions.len(), "never both");
        }
    }
}
