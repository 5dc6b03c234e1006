//! DaemonSet: one pod on every node that it fits.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::action::Action;
use super::super::matching::obstacle;
use super::super::world::{Key, World};
use super::{delete, object, own_pods, report, share, template};

const REVISION: &str = "controller-revision-hash";
/// Taints that a daemon's pods tolerate, as Kubernetes adds to them.
const TOLERATED: &[&str] = &[
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
    "node.kubernetes.io/disk-pressure",
    "node.kubernetes.io/memory-pressure",
    "node.kubernetes.io/pid-pressure",
    "node.kubernetes.io/unschedulable",
];
/// One more that pods with the host's network tolerate.
const NETWORK: &str = "node.kubernetes.io/network-unavailable";

pub(super) fn plan(world: &World, key: &Key, set: &Value) -> Vec<Action> {
    let nodes: Vec<&Value> = world.of_kind("nodes").map(|(_, node)| &**node).collect();
    let pods = own_pods(world, set);
    let revision = template::hash(&set["spec"]["template"]);
    let tolerated = tolerated(set);
    let fits = |node: &&&Value| {
        !object::terminating(node) && obstacle(&set["spec"]["template"], node, &tolerated).is_none()
    };
    let eligible: Vec<&str> = nodes.iter().filter(fits).map(|node| object::name(node)).collect();
    let mut actions = place(set, &eligible, &pods, &revision, &tolerated);
    if actions.is_empty() {
        actions = update(set, eligible.len(), &pods, &revision);
    }
    actions.extend(report(key, set, status(&eligible, &pods, &revision)));
    actions
}

fn tolerated(set: &Value) -> Vec<&'static str> {
    let host = set["spec"]["template"]["spec"]["hostNetwork"] == true;
    TOLERATED.iter().copied().chain(host.then_some(NETWORK)).collect()
}

/// A pod for each eligible node without one; none on other nodes, and no second one.
fn place(set: &Value, eligible: &[&str], pods: &[&Value], revision: &str, tolerated: &[&str]) -> Vec<Action> {
    let mut wanted: BTreeMap<&str, bool> = eligible.iter().map(|node| (*node, false)).collect();
    let mut actions = Vec::new();
    for pod in pods {
        let place = object::node_of(pod).and_then(|node| wanted.get_mut(node));
        let first = place.is_some_and(|taken| !std::mem::replace(taken, true));
        if (!first || object::finished(pod)) && !object::terminating(pod) {
            actions.push(delete(pod));
        }
    }
    let bare = wanted.iter().filter(|(_, taken)| !**taken);
    actions.extend(bare.map(|(node, _)| template::create(set, pod_on(set, node, revision, tolerated))));
    actions
}

fn pod_on(set: &Value, node: &str, revision: &str, tolerated: &[&str]) -> Value {
    let name = format!("{}-", object::name(set));
    let mut pod = template::pod(set, &name, &[(REVISION, revision.to_owned())]);
    pod["spec"]["nodeName"] = json!(node);
    let own = object::list(&pod["spec"]["tolerations"]).cloned();
    let added = tolerated.iter().map(|key| {
        let evicts = key.ends_with("not-ready") || key.ends_with("unreachable");
        json!({"key": key, "operator": "Exists", "effect": if evicts { "NoExecute" } else { "NoSchedule" }})
    });
    let tolerations: Vec<Value> = own.chain(added).collect();
    pod["spec"]["tolerations"] = json!(tolerations);
    pod
}

/// Replaces pods of an old template, as many at a time as may be missing.
fn update(set: &Value, nodes: usize, pods: &[&Value], revision: &str) -> Vec<Action> {
    let strategy = &set["spec"]["updateStrategy"];
    if strategy["type"] == "OnDelete" {
        return Vec::new();
    }
    let may_miss = share(&strategy["rollingUpdate"]["maxUnavailable"], nodes, true, "1").max(1);
    let serving = pods.iter().filter(|pod| object::active(pod) && object::ready(pod)).count();
    let old = pods
        .iter()
        .copied()
        .filter(|pod| object::active(pod) && pod["metadata"]["labels"][REVISION] != revision);
    let (ready, idle): (Vec<&Value>, Vec<&Value>) = old.partition(|pod| object::ready(pod));
    let spare = may_miss.saturating_sub(nodes.saturating_sub(serving));
    idle.into_iter().chain(ready.into_iter().take(spare)).map(delete).collect()
}

fn status(eligible: &[&str], pods: &[&Value], revision: &str) -> Value {
    let placed = |pod: &&&Value| object::node_of(pod).is_some_and(|node| eligible.contains(&node));
    let active: Vec<&Value> = pods.iter().filter(|pod| object::active(pod)).filter(placed).copied().collect();
    let ready = super::pods::ready(&active);
    let updated = active.iter().filter(|pod| pod["metadata"]["labels"][REVISION] == revision).count();
    json!({"desiredNumberScheduled": eligible.len(), "currentNumberScheduled": active.len(),
        "numberMisscheduled": pods.iter().filter(|pod| object::active(pod)).count() - active.len(),
        "numberReady": ready, "numberAvailable": ready, "numberUnavailable": eligible.len().saturating_sub(ready),
        "updatedNumberScheduled": updated})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> Value {
        json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "log", "namespace": "shop", "uid": "d"},
            "spec": {"template": {"metadata": {"labels": {"app": "log"}}, "spec": {}}}})
    }

    fn pod(name: &str, node: &str, revision: &str, ready: bool) -> Value {
        json!({"metadata": {"name": name, "uid": name, "labels": {REVISION: revision}}, "spec": {"nodeName": node},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]}})
    }

    #[test]
    fn every_eligible_node_has_one_pod() {
        let pods = [pod("a", "n1", "r", true), pod("second", "n1", "r", true), pod("stray", "n9", "r", true)];
        let actions = place(&set(), &["n1", "n2"], &pods.iter().collect::<Vec<_>>(), "r", &[]);
        let [Action::Delete { key: a, .. }, Action::Delete { key: b, .. }, Action::Create { object, .. }] =
            &actions[..]
        else {
            panic!("{actions:?}")
        };
        assert_eq!((&*a.name, &*b.name), ("second", "stray"));
        assert_eq!(
            (object["spec"]["nodeName"].as_str(), &object["metadata"]["generateName"]),
            (Some("n2"), &json!("log-"))
        );
    }

    #[test]
    fn an_update_replaces_as_many_as_may_be_missing() {
        let pods = [pod("a", "n1", "old", true), pod("b", "n2", "old", true), pod("c", "n3", "old", false)];
        let refs: Vec<&Value> = pods.iter().collect();
        let deleted = |set: &Value| update(set, 3, &refs, "new").len();
        assert_eq!(deleted(&set()), 1, "only the one that is missing anyway");
        let mut more = set();
        more["spec"]["updateStrategy"] = json!({"rollingUpdate": {"maxUnavailable": "60%"}});
        assert_eq!(deleted(&more), 2);
        more["spec"]["updateStrategy"] = json!({"type": "OnDelete"});
        assert_eq!(deleted(&more), 0);
    }
}
