//! StatefulSet: pods with names that stay. All are created at once, whatever podManagementPolicy says.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::action::Action;
use super::super::world::{Key, World};
use super::{count, delete, object, own_pods, pods, replicas, report, template};

const REVISION: &str = "controller-revision-hash";

pub(super) fn plan(world: &World, key: &Key, set: &Value) -> Vec<Action> {
    let pods = own_pods(world, set);
    let revision = format!("{}-{}", object::name(set), template::hash(&set["spec"]["template"]));
    let mut actions = scale(set, &pods, &revision);
    if actions.is_empty() {
        actions.extend(update(set, &pods, &revision));
    }
    actions.extend(report(key, set, status(&pods, &revision)));
    actions
}

/// The wanted pods' names by ordinal.
fn names(set: &Value) -> BTreeMap<String, usize> {
    let start = count(&set["spec"]["ordinals"]["start"]).unwrap_or(0);
    (start..start + replicas(set))
        .map(|ordinal| (format!("{}-{ordinal}", object::name(set)), ordinal))
        .collect()
}

fn scale(set: &Value, pods: &[&Value], revision: &str) -> Vec<Action> {
    let mut wanted = names(set);
    let mut actions = Vec::new();
    for pod in pods {
        // A pod that is still ending holds its name.
        let kept = wanted.remove(object::name(pod)).is_some() && !object::finished(pod);
        if !kept && !object::terminating(pod) {
            actions.push(delete(pod));
        }
    }
    actions.extend(
        wanted.iter().map(|(name, ordinal)| template::create(set, pod(set, name, *ordinal, revision))),
    );
    actions
}

fn pod(set: &Value, name: &str, ordinal: usize, revision: &str) -> Value {
    let labels = [
        ("statefulset.kubernetes.io/pod-name", name.to_owned()),
        ("apps.kubernetes.io/pod-index", ordinal.to_string()),
        (REVISION, revision.to_owned()),
    ];
    let mut pod = template::pod(set, name, &labels);
    pod["spec"]["hostname"] = json!(name);
    if let Some(service) = set["spec"]["serviceName"].as_str().filter(|service| !service.is_empty()) {
        pod["spec"]["subdomain"] = json!(service);
    }
    pod
}

/// The next pod of an old template to replace: the highest, once all others are ready.
fn update(set: &Value, pods: &[&Value], revision: &str) -> Option<Action> {
    let strategy = &set["spec"]["updateStrategy"];
    let rolls = strategy["type"] != "OnDelete";
    let partition = count(&strategy["rollingUpdate"]["partition"]).unwrap_or(0);
    let ordinals = names(set);
    let old = |pod: &&&Value| pod["metadata"]["labels"][REVISION] != revision;
    let ordinal = |pod: &Value| ordinals.get(object::name(pod)).copied().unwrap_or(0);
    let next =
        pods.iter().filter(old).filter(|pod| ordinal(pod) >= partition).max_by_key(|pod| ordinal(pod))?;
    // A pod that never became ready must not stop its own repair.
    let others_ready =
        pods.iter().filter(|pod| object::name(pod) != object::name(next)).all(|pod| object::ready(pod));
    (rolls && others_ready && !object::terminating(next)).then(|| delete(next))
}

fn status(pods: &[&Value], revision: &str) -> Value {
    let active: Vec<&Value> = pods.iter().copied().filter(|pod| object::active(pod)).collect();
    let ready = pods::ready(&active);
    let updated = active.iter().filter(|pod| pod["metadata"]["labels"][REVISION] == revision).count();
    let mut status = json!({"replicas": active.len(), "readyReplicas": ready, "availableReplicas": ready,
        "updatedReplicas": updated, "updateRevision": revision});
    if updated == active.len() {
        status["currentRevision"] = json!(revision);
        status["currentReplicas"] = json!(updated);
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(replicas: usize) -> Value {
        json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db", "namespace": "shop", "uid": "s"},
            "spec": {"replicas": replicas, "serviceName": "db-peers", "template": {"metadata": {"labels": {"app": "db"}}, "spec": {}}}})
    }

    fn created(actions: &[Action]) -> Vec<&Value> {
        let made = actions.iter().map(|action| match action {
            Action::Create { object, .. } => Some(object),
            _ => None,
        });
        made.flatten().collect()
    }

    fn ready(mut pod: Value) -> Value {
        pod["metadata"]["uid"] = pod["metadata"]["name"].clone();
        pod["status"] = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
        pod
    }

    #[test]
    fn pods_have_ordinal_names_a_hostname_and_a_subdomain() {
        let actions = scale(&set(2), &[], "db-r1");
        let pods = created(&actions);
        assert_eq!(pods.iter().map(|pod| object::name(pod)).collect::<Vec<_>>(), ["db-0", "db-1"]);
        assert_eq!(pods[1]["spec"], json!({"hostname": "db-1", "subdomain": "db-peers"}));
        assert_eq!(pods[1]["metadata"]["labels"]["apps.kubernetes.io/pod-index"], "1");
    }

    #[test]
    fn scaling_down_takes_the_highest_and_a_pod_that_ends_holds_its_name() {
        let actions = scale(&set(3), &[], "r");
        let mut pods: Vec<Value> = created(&actions).into_iter().cloned().map(ready).collect();
        let refs: Vec<&Value> = pods.iter().collect();
        let [Action::Delete { key, .. }] = &scale(&set(2), &refs, "r")[..] else { panic!() };
        assert_eq!(&*key.name, "db-2");
        pods[2]["metadata"]["deletionTimestamp"] = json!("now");
        assert!(scale(&set(3), &pods.iter().collect::<Vec<_>>(), "r").is_empty());
    }

    #[test]
    fn an_update_goes_from_the_highest_down_one_at_a_time() {
        let actions = scale(&set(3), &[], "old");
        let mut pods: Vec<Value> = created(&actions).into_iter().cloned().map(ready).collect();
        let next = |pods: &[Value]| match update(&set(3), &pods.iter().collect::<Vec<_>>(), "new") {
            Some(Action::Delete { key, .. }) => Some(key.name.to_string()),
            _ => None,
        };
        assert_eq!(next(&pods).as_deref(), Some("db-2"));
        pods[2]["metadata"]["labels"][REVISION] = json!("new");
        assert_eq!(next(&pods).as_deref(), Some("db-1"));
        pods[2]["status"] = json!({"phase": "Pending"});
        assert_eq!(next(&pods), None, "not while another is not ready");
    }
}
