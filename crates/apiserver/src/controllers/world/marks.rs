//! What a change of one object makes worth another look.

use serde_json::Value;

use super::{Key, LEASES, World};
use crate::controllers::{basics, disruption, endpoints, load_balancer, nodes, object, selection};
use crate::label_selector;

impl World {
    /// Marks what a change concerns: the object, who owns it, what it owned, its namespace.
    pub(super) fn touch(&mut self, key: &Key, old: Option<&Value>, new: Option<&Value>) {
        self.dirty.insert(key.clone());
        for owner in [old, new].into_iter().flatten().filter_map(object::controller) {
            self.dirty.extend(self.uids.get(owner).cloned());
        }
        for owner in [old, new].into_iter().flatten().flat_map(object::owners) {
            let key = owner["uid"].as_str().and_then(|uid| self.uids.get(uid));
            let waits = |key: &&Key| self.objects.get(key).is_some_and(|owner| object::terminating(owner));
            self.dirty.extend(key.filter(waits).cloned());
        }
        let ending = new.is_none_or(object::terminating);
        if ending && let Some(object) = old.or(new) {
            self.dirty.extend(self.dependents.get(object::uid(object)).into_iter().flatten().cloned());
        }
        let namespace = Key::new("namespaces", "", &key.namespace);
        if self.objects.get(&namespace).is_some_and(|namespace| object::terminating(namespace)) {
            self.dirty.insert(namespace);
        }
        if let Some(namespace) = basics::concerns(key) {
            self.dirty.insert(Key::new("namespaces", "", namespace));
        }
        self.claims.stale |= load_balancer::concerns(key, old, new);
        match &*key.kind {
            "services" => self.claims.put(key, new),
            "nodes" => self.touch_node(&key.name, old, new),
            "pods" => {
                self.touch_services(key, old, new);
                self.touch_budgets(key, old, new);
            }
            LEASES if &*key.namespace == nodes::LEASES => {
                if new.is_none() {
                    self.hearts.forget(&key.name);
                }
                self.dirty.insert(Key::new("nodes", "", &key.name));
            }
            // Somebody may have changed what a Service has.
            "endpoints" => drop(self.dirty.insert(Key::new("services", &key.namespace, &key.name))),
            _ => {}
        }
    }

    /// Marks the Services to which a pod shows a new face.
    fn touch_services(&mut self, key: &Key, old: Option<&Value>, new: Option<&Value>) {
        if old.map(endpoints::face) == new.map(endpoints::face) {
            return;
        }
        for pod in [old, new].into_iter().flatten() {
            let services =
                self.selection.services(pod).map(|name| Key::new("services", &key.namespace, name));
            let services = services.filter(|key| {
                let selector = self.objects.get(key).and_then(|service| selection::selector(service));
                selector.is_some_and(|selector| selection::matches(selector, pod))
            });
            self.dirty.extend(services);
        }
    }

    /// Marks the disruption budgets to which a pod shows a new face.
    fn touch_budgets(&mut self, key: &Key, old: Option<&Value>, new: Option<&Value>) {
        if old.map(disruption::face) == new.map(disruption::face) {
            return;
        }
        let budgets = self.in_namespace(disruption::BUDGETS, &key.namespace).filter(|(_, budget)| {
            let pods = [old, new].into_iter().flatten();
            let mut labels = pods.map(|pod| &pod["metadata"]["labels"]);
            labels.any(|labels| label_selector::matches(&budget["spec"]["selector"], labels))
        });
        let budgets: Vec<Key> = budgets.map(|(key, _)| key.clone()).collect();
        self.dirty.extend(budgets);
    }

    /// Marks the Services that a node's coming, going or move concerns: those with pods on it, and those that
    /// look at all nodes.
    fn touch_spread(&mut self, node: &str) {
        self.dirty.extend(self.spread.iter().cloned());
        for key in self.on_node.get(node).into_iter().flatten() {
            let Some(pod) = self.objects.get(key) else { continue };
            let services = self.selection.services(pod);
            self.dirty.extend(services.map(|name| Key::new("services", &key.namespace, name)));
        }
    }

    fn touch_node(&mut self, name: &str, old: Option<&Value>, new: Option<&Value>) {
        let face = |node: &Value| {
            let (meta, spec, status) = (&node["metadata"], &node["spec"], &node["status"]);
            let ready = Value::from(nodes::ready_status(node));
            [&meta["labels"], &spec["taints"], &spec["unschedulable"], &status["allocatable"], &ready]
                .map(Clone::clone)
        };
        if old.map(face) == new.map(face) {
            return;
        }
        if old.and_then(object::zone) != new.and_then(object::zone) || old.is_none() != new.is_none() {
            self.touch_spread(name);
        }
        if new.is_some() {
            self.lost_nodes.remove(name);
        } else {
            self.lost_nodes.insert(name.to_owned());
        }
        self.dirty.extend(self.on_node.get(name).into_iter().flatten().cloned());
        let readiness = |node: Option<&Value>| node.is_some_and(object::ready);
        // The first ready node, and the end of the last, change what the others' silence means.
        if readiness(old) != readiness(new) && self.ready_nodes <= 1 {
            let nodes: Vec<Key> = self.keys("nodes").cloned().collect();
            self.dirty.extend(nodes);
        }
        let sets: Vec<Key> = self.keys("daemonsets.apps").cloned().collect();
        self.dirty.extend(sets);
        self.dirty.extend(self.unscheduled.iter().cloned());
    }
}
