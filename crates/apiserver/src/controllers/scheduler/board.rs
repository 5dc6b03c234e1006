//! The cluster as the scheduler sees it while it plans: what is there, and what it just placed.

use std::collections::HashMap;

use serde_json::Value;

use super::super::object;
use super::super::world::{Key, World};
use super::affinity::terms;
use super::room::{Load, Room, collide, host_ports};
use crate::label_selector::matches;

/// Nodes, what they hold, and the pods placed in this round.
pub(super) struct Board<'a> {
    world: &'a World,
    nodes: Vec<&'a Value>,
    load: Load,
    placed: HashMap<String, (&'a Value, &'a Value)>,
}

impl<'a> Board<'a> {
    pub(super) fn new(world: &'a World) -> Self {
        let nodes = world.of_kind("nodes").map(|(_, node)| &**node);
        let nodes = nodes.filter(|node| !object::terminating(node)).collect();
        Board { world, nodes, load: world.load.clone(), placed: HashMap::new() }
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = &'a Value> {
        self.nodes.iter().copied()
    }

    /// What the pods of a node ask together.
    pub(super) fn held(&self, node: &str) -> Room {
        self.load.get(node).copied().unwrap_or_default()
    }

    /// From now on the pod is on the node.
    pub(super) fn place(&mut self, pod: &'a Value, node: &'a Value) {
        self.load.entry(object::name(node).to_owned()).or_default().add(Room::asked(pod));
        self.placed.insert(object::uid(pod).to_owned(), (pod, node));
    }

    /// The node that a pod is on, or was just placed on.
    pub(super) fn node_of(&self, pod: &Value) -> Option<&'a Value> {
        match object::node_of(pod) {
            Some(node) => self.world.get(&Key::new("nodes", "", node)).map(|node| &**node),
            None => self.placed.get(object::uid(pod)).map(|(_, node)| *node),
        }
    }

    /// Whether a port of the host that the pod wants is taken on the node.
    pub(super) fn port_taken(&self, pod: &Value, node: &str) -> bool {
        let wanted = host_ports(pod);
        if wanted.is_empty() {
            return false;
        }
        let placed = self.placed.values().filter(|(_, at)| object::name(at) == node).map(|(pod, _)| *pod);
        let there = self.world.pods_on(node).map(|pod| &**pod).filter(|pod| !object::finished(pod));
        there.chain(placed).any(|other| collide(&wanted, &host_ports(other)))
    }

    /// Pods with required anti-affinity that are on nodes.
    pub(super) fn shunning(&self) -> impl Iterator<Item = &'a Value> {
        let placed = self.placed.values().map(|(pod, _)| *pod);
        self.world.shunning().chain(placed.filter(|pod| terms(pod, "podAntiAffinity").next().is_some()))
    }

    /// The pods that are not finished in one namespace, at least those that a selector chooses.
    pub(super) fn pods_of(&self, namespace: &str, selector: &Value) -> Vec<&'a Value> {
        let pods = self.world.labelled(namespace, selector["matchLabels"].as_object());
        pods.filter(|pod| !object::finished(pod)).collect()
    }

    /// As [`Board::pods_of`] in all namespaces that a term of `owner` is about.
    pub(super) fn pods_in(&self, term: &Value, owner: &Value) -> Vec<&'a Value> {
        let named: Vec<&str> = object::list(&term["namespaces"]).filter_map(Value::as_str).collect();
        let spaces: Vec<&str> = if term["namespaceSelector"].is_null() && named.is_empty() {
            vec![object::namespace(owner)]
        } else {
            let all = self.world.keys("namespaces").map(|key| &*key.name);
            all.filter(|name| self.namespace_chosen(term, owner, name)).collect()
        };
        spaces.into_iter().flat_map(|space| self.pods_of(space, &term["labelSelector"])).collect()
    }

    /// Whether a term of `owner` is about a namespace.
    pub(super) fn namespace_chosen(&self, term: &Value, owner: &Value, namespace: &str) -> bool {
        let selector = &term["namespaceSelector"];
        let mut named = object::list(&term["namespaces"]).peekable();
        if selector.is_null() && named.peek().is_none() {
            return object::namespace(owner) == namespace;
        }
        let labels = self.world.get(&Key::new("namespaces", "", namespace));
        named.any(|name| name == namespace)
            || labels.is_some_and(|space| matches(selector, &space["metadata"]["labels"]))
    }
}
