//! StatefulSet: pods with names that stay. All are created at once, whatever podManagementPolicy says.

use std::collections::BTreeSet;
use std::ops::Range;

use serde_json::{Value, json};

use super::super::action::Action;
use super::super::world::{Key, World};
use super::{BURST, count, delete, object, own_pods, pods, replicas, report, template};

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

/// The wanted pods' ordinals.
fn ordinals(set: &Value) -> Range<usize> {
    let start = count(&set["spec"]["ordinals"]["start"]).unwrap_or(0);
    start..start.saturating_add(replicas(set))
}

fn name(set: &Value, ordinal: usize) -> String {
    format!("{}-{ordinal}", object::name(set))
}

/// The ordinal of a pod with the name of a wanted one.
fn ordinal(set: &Value, pod: &Value) -> Option<usize> {
    let (_, digits) = object::name(pod).rsplit_once('-')?;
    let ordinal = digits.parse().ok()?;
    (ordinals(set).contains(&ordinal) && name(set, ordinal) == object::name(pod)).then_some(ordinal)
}

fn scale(set: &Value, pods: &[&Value], revision: &str) -> Vec<Action> {
    let (mut held, mut actions) = (BTreeSet::new(), Vec::new());
    for pod in pods {
        // A pod that is still ending holds its name.
        let ordinal = ordinal(set, pod);
        held.extend(ordinal);
        if (ordinal.is_none() || object::finished(pod)) && !object::terminating(pod) {
            actions.push(delete(pod));
        }
    }
    let missing = ordinals(set).filter(|ordinal| !held.contains(ordinal)).take(BURST);
    actions.extend(missing.map(|ordinal| template::create(set, pod(set, ordinal, revision))));
    actions
}

fn pod(set: &Value, ordinal: usize, revision: &str) -> Value {
    let name = name(set, ordinal);
    let labels = [
        ("statefulset.kubernetes.io/pod-name", name.clone()),
        ("apps.kubernetes.io/pod-index", ordinal.to_string()),
        (REVISION, revision.to_owned()),
    ];
    let mut pod = template::pod(set, &name, &labels);
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
    let old = |pod: &&&Value| pod["metadata"]["labels"][REVISION] != revision;
    let ordinal = |pod: &Value| ordinal(set, pod).unwrap_or(0);
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
    fn a_name_is_wanted_as_it_is_written() {
        let mut set = set(2);
        set["spec"]["ordinals"] = json!({"start": 9});
        for (name, expected) in [
            ("db-9", Some(9)),
            ("db-10", Some(10)),
            ("db-8", None),
            ("db-11", None),
            ("db-09", None),
            ("db-+9", None),
            ("other-9", None),
            ("db", None),
        ] {
            assert_eq!(ordinal(&set, &json!({"metadata": {"name": name}})), expected, "{name}");
        }
    }

    #[test]
    fn the_pods_of_the_largest_set_are_made_in_parts() {
        let mut largest = set(usize::try_from(i32::MAX).unwrap());
        largest["spec"]["ordinals"] = json!({"start": i32::MAX});
        let actions = scale(&largest, &[], "r");
        let pods = created(&actions);
        assert_eq!((pods.len(), object::name(pods[0])), (BURST, "db-2147483647"));
        let first = ready(pods[0].clone());
        assert_eq!(object::name(created(&scale(&largest, &[&first], "r"))[0]), "db-2147483648");
        assert!(update(&largest, &[&first], "new").is_some());
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
