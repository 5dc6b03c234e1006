//! Which node a pod goes to: of those it may run on, the one with the fewest pods.

mod affinity;
mod board;
mod room;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::action::Action;
use super::matching::obstacle;
use super::object;
use super::world::{Key, World};
use crate::registry::Part;
use affinity::Neighbours;
use board::Board;
pub(super) use room::{Load, Room};

/// Whether other pods with required anti-affinity may shun one that comes later.
pub(super) fn shuns(pod: &Value) -> bool {
    affinity::terms(pod, "podAntiAffinity").next().is_some()
}

/// Whether a pod waits for the company of others.
pub(super) fn seeks(pod: &Value) -> bool {
    affinity::terms(pod, "podAffinity").next().is_some()
}

/// Binds the pods among `dirty` that wait for a node, or says on them why not.
pub(super) fn plan(world: &World, dirty: &[Key], now: &str) -> Vec<(Key, Action)> {
    let waiting = dirty.iter().filter(|key| &*key.kind == "pods").filter_map(|key| {
        let pod = world.get(key)?;
        waits(pod).then_some((key, &**pod))
    });
    let mut waiting: Vec<(&Key, &Value)> = waiting.collect();
    if waiting.is_empty() {
        return Vec::new();
    }
    // In the order of their names as people count, so that spreading is the same in every run.
    waiting.sort_by_key(|(key, _)| (&key.namespace, natural(&key.name)));
    let mut board = Board::new(world);
    let mut planned = Vec::new();
    for (key, pod) in waiting {
        let action = match choose(&board, pod) {
            Ok(node) => {
                board.place(pod, node);
                Some(bind(key, pod, object::name(node), now))
            }
            Err(why) => refuse(key, pod, &why, now),
        };
        planned.extend(action.map(|action| (key.clone(), action)));
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

/// A node's pods, and its name as people count: the lowest wins.
type Rank = (usize, (String, u64));

/// The node for a pod: the fewest pods, then the lowest name. The error is kube-scheduler's message.
fn choose<'a>(board: &Board<'a>, pod: &Value) -> Result<&'a Value, String> {
    let (asked, neighbours) = (Room::asked(pod), Neighbours::of(board, pod));
    let mut obstacles: BTreeMap<String, usize> = BTreeMap::new();
    let mut best: Option<(Rank, &'a Value)> = None;
    let mut count = 0;
    for node in board.nodes() {
        count += 1;
        let held = board.held(object::name(node));
        let why = obstacles_on(board, pod, node, (asked, held), &neighbours);
        if !why.is_empty() {
            why.into_iter().for_each(|why| *obstacles.entry(why).or_default() += 1);
            continue;
        }
        if best.as_ref().is_some_and(|((pods, _), _)| *pods < held.pods) {
            continue;
        }
        let rank = (held.pods, natural(object::name(node)));
        if best.as_ref().is_none_or(|(best, _)| rank < *best) {
            best = Some((rank, node));
        }
    }
    if let Some((_, node)) = best {
        return Ok(node);
    }
    if count == 0 {
        return Err("no nodes available to schedule pods".to_owned());
    }
    let mut each: Vec<_> = obstacles.iter().map(|(why, count)| format!("{count} {why}")).collect();
    each.sort();
    Err(format!("0/{count} nodes are available: {}.", each.join(", ")))
}

/// Why the pod may not go to the node: the first rule that forbids it.
fn obstacles_on(
    board: &Board<'_>,
    pod: &Value,
    node: &Value,
    (asked, held): (Room, Room),
    neighbours: &Neighbours,
) -> Vec<String> {
    if let Some(why) = obstacle(pod, node, &[]) {
        return vec![why];
    }
    if board.port_taken(pod, object::name(node)) {
        return vec!["node(s) didn't have free ports for the requested pod ports".to_owned()];
    }
    let lacks = asked.lacks(node, held);
    if !lacks.is_empty() {
        return lacks.into_iter().map(str::to_owned).collect();
    }
    neighbours.obstacle(node).map(str::to_owned).into_iter().collect()
}

/// A name with its closing digits as a number: node2 comes before node10.
pub(super) fn natural(name: &str) -> (String, u64) {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    (stem.to_owned(), name[stem.len()..].parse().unwrap_or(0))
}

/// One write: the node, and the condition that says that the pod waits no longer.
fn bind(key: &Key, pod: &Value, node: &str, now: &str) -> Action {
    let conditions = object::with_condition(&pod["status"]["conditions"], "PodScheduled", true, "", "", now);
    let patch = json!({"metadata": {"uid": object::uid(pod)}, "spec": {"nodeName": node},
        "status": {"conditions": conditions}});
    Action::Patch { key: key.clone(), part: Part::Both, patch }
}

fn refuse(key: &Key, pod: &Value, why: &str, now: &str) -> Option<Action> {
    let said = object::list(&pod["status"]["conditions"])
        .any(|c| c["type"] == "PodScheduled" && c["status"] == "False" && c["message"] == why);
    if said {
        return None;
    }
    let old = &pod["status"]["conditions"];
    let conditions = object::with_condition(old, "PodScheduled", false, "Unschedulable", why, now);
    let patch = json!({"metadata": {"uid": object::uid(pod)}, "status": {"conditions": conditions}});
    Some(Action::Patch { key: key.clone(), part: Part::Status, patch })
}
