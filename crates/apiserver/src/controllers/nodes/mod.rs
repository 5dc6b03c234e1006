//! Nodes: their pod CIDRs, whether they live, and what that means for their pods.

pub(super) mod cidr;
mod eviction;
mod life;
mod taints;
#[cfg(test)]
mod tests;

pub(super) use life::{Hearts, ready_status};

use serde_json::Value;

use super::action::Action;
use super::alarms::Alarms;
use super::object;
use super::world::{Key, World};

/// Where nodes' Leases are.
pub(super) const LEASES: &str = "kube-node-lease";

/// The writes for the nodes and the pods on them among `dirty`.
pub(super) fn plan(world: &World, dirty: &[Key], alarms: &mut Alarms) -> Vec<(Key, Action)> {
    let mut planned = Vec::new();
    for key in dirty.iter().filter(|key| &*key.kind == "nodes") {
        let Some(node) = world.get(key).filter(|node| !object::terminating(node)) else { continue };
        let actions = life::plan(world, key, node, alarms).into_iter().chain(taints::plan(world, key, node));
        planned.extend(actions.map(|action| (key.clone(), action)));
    }
    for key in dirty.iter().filter(|key| &*key.kind == "pods") {
        let Some(pod) = world.get(key).filter(|pod| object::active(pod)) else { continue };
        let Some(node) = node_of(world, pod) else { continue };
        let actions = eviction::plan(world, key, pod, node, alarms);
        planned.extend(actions.into_iter().map(|action| (key.clone(), action)));
    }
    planned
}

fn node_of<'a>(world: &'a World, pod: &Value) -> Option<&'a Value> {
    world.get(&Key::new("nodes", "", object::node_of(pod)?)).map(|node| &**node)
}
