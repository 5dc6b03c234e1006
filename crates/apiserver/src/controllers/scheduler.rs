//! Which node a pod goes to: of those it may run on, the one with the fewest pods.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use super::action::Action;
use super::matching::obstacle;
use super::object;
use super::world::{Key, World};
use crate::registry::Part;

/// Binds the pods among `dirty` that wait for a node, or says on them why not.
pub(super) fn plan(world: &World, dirty: &[Key], now: &str) -> Vec<(Key, Action)> {
    let waiting = dirty.iter().filter(|key| &*key.kind == "pods").filter_map(|key| {
        let pod = world.get(key)?;
        waits(pod).then_some((key, pod))
    });
    let mut waiting: Vec<_> = waiting.collect();
    if waiting.is_empty() {
        return Vec::new();
    }
    // In the order of their names as people count, so that spreading is the same in every run.
    waiting.sort_by_key(|(key, _)| (&key.namespace, natural(&key.name)));
    let nodes: Vec<&Value> = world.of_kind("nodes").map(|(_, node)| &**node).collect();
    let mut load = world.load.clone();
    let mut planned = Vec::new();
    for (key, pod) in waiting {
        match choose(pod, &nodes, &load) {
            Ok(node) => {
                planned.extend(bind(key, pod, &node, now).map(|action| (key.clone(), action)));
                *load.entry(node).or_default() += 1;
            }
            Err(why) => planned.extend(refuse(key, pod, &why, now).map(|action| (key.clone(), action))),
        }
    }
    planned
}

fn waits(pod: &Value) -> bool {
    let spec = &pod["spec"];
    let ours =
        spec["schedulerName"].as_str().is_none_or(|name| name.is_empty() || name == "default-scheduler");
    object::node_of(pod).is_none()
        && object::active(pod)
        && ours
        && object::list(&spec["schedulingGates"]).next().is_none()
}

/// The node for a pod: the fewest pods, then the lowest name. The error is kube-scheduler's message.
pub(super) fn choose(pod: &Value, nodes: &[&Value], load: &HashMap<String, usize>) -> Result<String, String> {
    let mut obstacles: BTreeMap<String, usize> = BTreeMap::new();
    let mut best: Option<(usize, (String, u64), &str)> = None;
    for node in nodes.iter().filter(|node| !object::terminating(node)) {
        let name = object::name(node);
        let pods = load.get(name).copied().unwrap_or(0);
        let full = room(node).is_some_and(|room| pods >= room).then(|| "Too many pods".to_owned());
        match obstacle(pod, node, &[]).or(full) {
            Some(why) => *obstacles.entry(why).or_default() += 1,
            None => {
                let candidate = (pods, natural(name), name);
                if best.as_ref().is_none_or(|best| candidate < *best) {
                    best = Some(candidate);
                }
            }
        }
    }
    match best {
        Some((_, _, name)) => Ok(name.to_owned()),
        None if obstacles.is_empty() => Err("no nodes available to schedule pods".to_owned()),
        None => {
            let count: usize = obstacles.values().sum();
            let each: Vec<_> = obstacles.iter().map(|(why, count)| format!("{count} {why}")).collect();
            Err(format!("0/{count} nodes are available: {}.", each.join(", ")))
        }
    }
}

/// The pods that a node allows, when it says.
fn room(node: &Value) -> Option<usize> {
    match &node["status"]["allocatable"]["pods"] {
        Value::String(text) => text.parse().ok(),
        number => number.as_u64().and_then(|n| n.try_into().ok()),
    }
}

/// A name with its closing digits as a number: node2 comes before node10.
pub(super) fn natural(name: &str) -> (String, u64) {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    (stem.to_owned(), name[stem.len()..].parse().unwrap_or(0))
}

fn bind(key: &Key, pod: &Value, node: &str, now: &str) -> impl Iterator<Item = Action> {
    let uid = object::uid(pod);
    let to = json!({"metadata": {"uid": uid}, "spec": {"nodeName": node}});
    let bound = Action::Patch { key: key.clone(), part: Part::Whole, patch: to };
    // A pod that was told why it waits is told that it waits no longer.
    let told = object::list(&pod["status"]["conditions"]).any(|c| c["type"] == "PodScheduled");
    let cleared = told.then(|| condition(key, pod, true, "", "", now));
    [Some(bound), cleared].into_iter().flatten()
}

fn refuse(key: &Key, pod: &Value, why: &str, now: &str) -> Option<Action> {
    let said = object::list(&pod["status"]["conditions"])
        .any(|c| c["type"] == "PodScheduled" && c["status"] == "False" && c["message"] == why);
    (!said).then(|| condition(key, pod, false, "Unschedulable", why, now))
}

fn condition(key: &Key, pod: &Value, status: bool, reason: &str, message: &str, now: &str) -> Action {
    let old = &pod["status"]["conditions"];
    let conditions = object::with_condition(old, "PodScheduled", status, reason, message, now);
    let patch = json!({"metadata": {"uid": object::uid(pod)}, "status": {"conditions": conditions}});
    Action::Patch { key: key.clone(), part: Part::Status, patch }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(name: &str) -> Value {
        json!({"metadata": {"name": name}})
    }

    #[test]
    fn the_fewest_pods_win_and_then_the_lowest_name() {
        let nodes = [node("node10"), node("node2"), node("node1")];
        let nodes: Vec<&Value> = nodes.iter().collect();
        let load = |pairs: &[(&str, usize)]| pairs.iter().map(|(n, c)| ((*n).to_owned(), *c)).collect();
        assert_eq!(choose(&json!({}), &nodes, &HashMap::new()).unwrap(), "node1");
        assert_eq!(choose(&json!({}), &nodes, &load(&[("node1", 1)])).unwrap(), "node2");
        assert_eq!(choose(&json!({}), &nodes, &load(&[("node1", 1), ("node2", 2)])).unwrap(), "node10");
    }

    #[test]
    fn a_pod_without_a_node_says_why_as_kube_scheduler_does() {
        let mut tainted = node("a");
        tainted["spec"]["taints"] = json!([{"key": "gpu", "effect": "NoSchedule"}]);
        let mut full = node("c");
        full["status"]["allocatable"]["pods"] = json!("0");
        let (plain, nodes) = (node("b"), HashMap::new());
        let pod = json!({"spec": {"nodeSelector": {"disk": "ssd"}}});
        let why = choose(&pod, &[&tainted, &plain], &nodes).unwrap_err();
        assert_eq!(
            why,
            "0/2 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) had untolerated taint {gpu: }."
        );
        assert_eq!(
            choose(&json!({}), &[&full], &nodes).unwrap_err(),
            "0/1 nodes are available: 1 Too many pods."
        );
        assert_eq!(choose(&pod, &[], &nodes).unwrap_err(), "no nodes available to schedule pods");
    }

    proptest! {
        #[test]
        fn pods_spread_evenly(nodes in 1..20usize, pods in 0..200usize) {
            let nodes: Vec<Value> = (0..nodes).map(|i| node(&format!("n{i}"))).collect();
            let nodes: Vec<&Value> = nodes.iter().collect();
            let mut load = HashMap::new();
            for _ in 0..pods {
                *load.entry(choose(&json!({}), &nodes, &load).unwrap()).or_default() += 1;
            }
            let count = |node: &&Value| load.get(object::name(node)).copied().unwrap_or(0);
            let (least, most) = (nodes.iter().map(count).min().unwrap(), nodes.iter().map(count).max().unwrap());
            prop_assert!(most - least <= 1);
        }
    }
}
