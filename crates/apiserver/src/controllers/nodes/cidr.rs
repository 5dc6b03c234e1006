//! Gives every node its part of the cluster's pod CIDRs.

use ipnet::IpNet;
use serde_json::{Value, json};

use super::super::ControllersConfig;
use super::super::action::Action;
use super::super::events;
use super::super::object;
use super::super::scheduler::natural;
use super::super::world::{Key, World};
use crate::registry::Part;

/// The condition of a node that gets no CIDR.
const CONDITION: &str = "PodCIDRAssigned";

/// CIDRs for the nodes among `dirty` that have none: the lowest free, nodes in the order of their names.
pub(in super::super) fn plan(
    world: &World,
    dirty: &[Key],
    config: &ControllersConfig,
    now: &str,
) -> Vec<(Key, Action)> {
    let nodes = dirty.iter().filter(|key| &*key.kind == "nodes");
    // A node that goes leaves its CIDRs to those that found none.
    let mut bare: Vec<&Key> = if nodes.clone().any(|key| world.get(key).is_none()) {
        world.keys("nodes").filter(|key| is_bare(world, key)).collect()
    } else {
        nodes.filter(|key| is_bare(world, key)).collect()
    };
    if bare.is_empty() || config.cluster_cidrs.is_empty() {
        return Vec::new();
    }
    bare.sort_by_key(|key| natural(&key.name));
    let mut taken: Vec<IpNet> = world.of_kind("nodes").flat_map(|(_, node)| cidrs(node)).collect();
    let mut planned = Vec::new();
    for key in bare {
        let Some(node) = world.get(key) else { continue };
        match assign(config, &taken) {
            Ok(own) => {
                taken.extend(&own);
                planned.extend(give(key, node, &own, now).map(|action| (key.clone(), action)));
            }
            Err(why) => {
                planned.extend(refuse(key, node, &why, now).into_iter().map(|action| (key.clone(), action)))
            }
        }
    }
    planned
}

fn is_bare(world: &World, key: &Key) -> bool {
    world.get(key).is_some_and(|node| cidrs(node).next().is_none() && !object::terminating(node))
}

/// A node's CIDRs; text that is none does not count.
fn cidrs(node: &Value) -> impl Iterator<Item = IpNet> {
    let spec = &node["spec"];
    let many = object::list(&spec["podCIDRs"]).chain(std::iter::once(&spec["podCIDR"]));
    many.filter_map(Value::as_str).filter_map(|text| text.parse().ok())
}

/// One CIDR of each of the cluster's, none overlapping what is taken.
fn assign(config: &ControllersConfig, taken: &[IpNet]) -> Result<Vec<IpNet>, String> {
    let one = |cluster: &IpNet| {
        let mask = match cluster {
            IpNet::V4(_) => config.node_cidr_mask,
            IpNet::V6(_) => config.node_cidr_mask_v6,
        };
        weft_ipam::node_cidr::allocate(cluster, mask, taken).map_err(|e| e.to_string())
    };
    config.cluster_cidrs.iter().map(one).collect()
}

fn give(key: &Key, node: &Value, own: &[IpNet], now: &str) -> impl Iterator<Item = Action> {
    let spec = json!({"podCIDR": own[0], "podCIDRs": own});
    let patch = json!({"metadata": {"uid": object::uid(node)}, "spec": spec});
    let given = Action::Patch { key: key.clone(), part: Part::Whole, patch };
    let told = object::list(&node["status"]["conditions"]).any(|c| c["type"] == CONDITION);
    let cleared = told.then(|| condition(key, node, true, "CIDRAssigned", "", now));
    [Some(given), cleared].into_iter().flatten()
}

fn refuse(key: &Key, node: &Value, why: &str, now: &str) -> Vec<Action> {
    let said = |c: &Value| c["type"] == CONDITION && c["message"] == why;
    if object::list(&node["status"]["conditions"]).any(said) {
        return Vec::new();
    }
    tracing::warn!("node {} gets no pod CIDR: {why}", key.name);
    let event = events::about(node, "Node", "Warning", "CIDRNotAvailable", why, now);
    vec![condition(key, node, false, "CIDRNotAvailable", why, now), event]
}

fn condition(key: &Key, node: &Value, status: bool, reason: &str, message: &str, now: &str) -> Action {
    let old = &node["status"]["conditions"];
    let conditions = object::with_condition(old, CONDITION, status, reason, message, now);
    let patch = json!({"metadata": {"uid": object::uid(node)}, "status": {"conditions": conditions}});
    Action::Patch { key: key.clone(), part: Part::Status, patch }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::kinds::NODES;

    fn world(nodes: &[(&str, &str)]) -> World {
        let mut world = World::default();
        for (i, (name, cidr)) in nodes.iter().enumerate() {
            let mut node = json!({"metadata": {"name": name, "uid": name, "resourceVersion": (i + 1).to_string()}, "spec": {}});
            if !cidr.is_empty() {
                node["spec"] = json!({"podCIDR": cidr, "podCIDRs": [cidr]});
            }
            world.learn(&NODES, Arc::new(node));
        }
        world
    }

    fn config(cidrs: &[&str], mask: u8) -> ControllersConfig {
        let cluster_cidrs = cidrs.iter().map(|c| c.parse().unwrap()).collect();
        ControllersConfig { cluster_cidrs, node_cidr_mask: mask, ..ControllersConfig::default() }
    }

    fn planned(world: &World, config: &ControllersConfig) -> Vec<(String, Value)> {
        let dirty: Vec<Key> = world.dirty.iter().cloned().collect();
        let patches =
            plan(world, &dirty, config, "now").into_iter().filter_map(|(key, action)| match action {
                Action::Patch { part: Part::Whole, patch, .. } => {
                    Some((key.name.to_string(), patch["spec"]["podCIDRs"].clone()))
                }
                _ => None,
            });
        patches.collect()
    }

    #[test]
    fn nodes_get_the_lowest_free_part_in_the_order_of_their_names() {
        let world = world(&[("node10", ""), ("node2", ""), ("node1", ""), ("old", "10.244.1.0/24")]);
        let expected = [("node1", "10.244.0.0/24"), ("node2", "10.244.2.0/24"), ("node10", "10.244.3.0/24")];
        let expected = expected.map(|(name, cidr)| (name.to_owned(), json!([cidr])));
        assert_eq!(planned(&world, &config(&["10.244.0.0/16"], 24)), expected);
        let both = planned(&world, &config(&["10.244.0.0/16", "fd00:10::/48"], 24));
        assert_eq!(both[0].1, json!(["10.244.0.0/24", "fd00:10::/64"]));
    }

    #[test]
    fn a_node_without_room_is_told_and_the_next_free_part_is_its() {
        let mut world = world(&[("a", ""), ("b", "")]);
        let config = config(&["10.244.0.0/24"], 24);
        let dirty: Vec<Key> = std::mem::take(&mut world.dirty).into_iter().collect();
        let plans = plan(&world, &dirty, &config, "now");
        let kinds: Vec<&str> = plans.iter().map(|(_, action)| action.kind()).collect();
        assert_eq!(kinds, ["nodes", "nodes", "events"]);
        let Action::Patch { patch, .. } = &plans[1].1 else { panic!("{:?}", plans[1]) };
        assert_eq!(patch["status"]["conditions"][0]["reason"], "CIDRNotAvailable");
        let a = world.get(&Key::new("nodes", "", "a")).unwrap().clone();
        world.end(&Key::of(&NODES, &a), &a);
        assert_eq!(planned(&world, &config), [("b".to_owned(), json!(["10.244.0.0/24"]))]);
    }

    proptest! {
        #[test]
        fn no_two_nodes_overlap(present in prop::collection::btree_set(0..40u8, 0..20), bare in 0..30usize) {
            let cidrs: Vec<(String, String)> = present.iter().map(|i| (format!("p{i}"), format!("10.0.{i}.0/24"))).collect();
            let mut nodes: Vec<(&str, &str)> = cidrs.iter().map(|(n, c)| (n.as_str(), c.as_str())).collect();
            let names: Vec<String> = (0..bare).map(|i| format!("b{i}")).collect();
            nodes.extend(names.iter().map(|name| (name.as_str(), "")));
            let given = planned(&world(&nodes), &config(&["10.0.0.0/18"], 24));
            let mut all: Vec<String> = given.iter().map(|(_, c)| c[0].as_str().unwrap().to_owned()).collect();
            all.extend(cidrs.into_iter().map(|(_, c)| c));
            let distinct: std::collections::BTreeSet<_> = all.iter().collect();
            prop_assert_eq!(distinct.len(), all.len());
            prop_assert_eq!(given.len(), bare.min(64 - present.len()));
        }
    }
}
