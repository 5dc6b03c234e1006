//! Which of too many pods go first.

use std::cmp::Reverse;

use serde_json::Value;

use super::object;

/// Pods in the order in which they are given up: without a node, not running, not ready, the
/// youngest; and by name, so that two runs choose the same.
pub(super) fn least_worth_first(pods: &mut [&Value]) {
    pods.sort_by_key(|pod| {
        let running = pod["status"]["phase"] == "Running";
        let born = pod["metadata"]["creationTimestamp"].as_str().unwrap_or_default();
        let name = object::name(pod);
        (object::node_of(pod).is_some(), running, object::ready(pod), Reverse((born, name)))
    });
}

/// How many are ready.
pub(super) fn ready(pods: &[&Value]) -> usize {
    pods.iter().filter(|pod| object::ready(pod)).count()
}
