//! What the controllers know: every object, who owns whom, and what must be looked at again.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value};

pub(super) use super::key::Key;
use super::object;
use super::scheduler::{self, Load, Room};
use super::selection::{self, Selection};
use super::{basics, disruption, endpoints, nodes};
use crate::label_selector;
use crate::resource::Resource;

pub(super) const LEASES: &str = "leases.coordination.k8s.io";

/// The objects of the watched kinds, and what to look at again.
#[derive(Default)]
pub(super) struct World {
    objects: BTreeMap<Key, Arc<Value>>,
    uids: HashMap<String, Key>,
    dependents: HashMap<String, BTreeSet<Key>>,
    /// Uids that our own deletion ended before the watch told so.
    gone: HashSet<String>,
    /// What the pods that are not finished ask of each node.
    pub(super) load: Load,
    /// Pods that are bound to a node, by node.
    on_node: HashMap<String, BTreeSet<Key>>,
    /// When nodes were heard of.
    pub(super) hearts: nodes::Hearts,
    /// The time now, for all planners.
    pub(super) now: Timestamp,
    /// How many nodes are ready.
    ready_nodes: usize,
    /// Which Services choose which pods.
    selection: Selection,
    /// Pods that wait for a node.
    unscheduled: BTreeSet<Key>,
    /// Pods on nodes that keep others away by anti-affinity.
    shunning: BTreeSet<Key>,
    /// Whether a pod left its node since the last plan, and whether one came to one.
    freed: bool,
    settled: bool,
    /// Nodes that were deleted, until they return.
    pub(super) lost_nodes: BTreeSet<String>,
    /// Kinds of which every object is known, by apiVersion and kind.
    pub(super) kinds: HashMap<(String, String), Arc<str>>,
    /// What must be looked at again.
    pub(super) dirty: BTreeSet<Key>,
}

impl World {
    pub(super) fn get(&self, key: &Key) -> Option<&Arc<Value>> {
        self.objects.get(key)
    }

    pub(super) fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = (&'a Key, &'a Arc<Value>)> {
        self.objects.range(Key::new(kind, "", "")..).take_while(move |(key, _)| &*key.kind == kind)
    }

    pub(super) fn by_uid(&self, uid: &str) -> Option<&Arc<Value>> {
        self.objects.get(self.uids.get(uid)?)
    }

    /// The objects that name this owner.
    pub(super) fn dependents(&self, owner_uid: &str) -> impl Iterator<Item = (&Key, &Arc<Value>)> {
        let keys = self.dependents.get(owner_uid).into_iter().flatten();
        keys.filter_map(|key| Some((key, self.objects.get(key)?)))
    }

    /// Whether any node is ready.
    pub(super) fn any_node_ready(&self) -> bool {
        self.ready_nodes > 0
    }

    /// The pods that are bound to a node, finished or not.
    pub(super) fn pods_on<'a>(&'a self, node: &str) -> impl Iterator<Item = &'a Arc<Value>> {
        self.on_node.get(node).into_iter().flatten().filter_map(|key| self.objects.get(key))
    }

    /// The pods on nodes that keep others away by anti-affinity.
    pub(super) fn shunning(&self) -> impl Iterator<Item = &Value> {
        self.shunning.iter().filter_map(|key| self.objects.get(key)).map(|pod| &**pod)
    }

    /// Takes what must be looked at again. Where a pod left its node, those that wait for one are among it;
    /// where one came to a node, those that wait for company.
    pub(super) fn take_dirty(&mut self) -> Vec<Key> {
        let (freed, settled) = (std::mem::take(&mut self.freed), std::mem::take(&mut self.settled));
        if freed || settled {
            let seeks = |key: &&Key| self.objects.get(key).is_some_and(|pod| scheduler::seeks(pod));
            let waiting = self.unscheduled.iter().filter(|key| freed || seeks(key)).cloned();
            self.dirty.extend(waiting);
        }
        std::mem::take(&mut self.dirty).into_iter().collect()
    }

    /// Lets time pass.
    pub(super) fn advance(&mut self, now: Timestamp) {
        self.hearts.pass(self.now, now);
        self.now = now;
    }

    /// The objects of a kind that name this owner.
    pub(super) fn owned<'a>(
        &'a self,
        owner_uid: &str,
        kind: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Value>> {
        let keys = self.dependents.get(owner_uid).into_iter().flatten();
        keys.filter(move |key| &*key.kind == kind).filter_map(|key| self.objects.get(key))
    }

    /// The pods of a namespace that have all these labels.
    pub(super) fn selected<'a, 's>(
        &'a self,
        namespace: &'s str,
        selector: &'s Map<String, Value>,
    ) -> impl Iterator<Item = &'a Value> {
        let names = self.selection.pods(namespace, selector);
        let pods = names.filter_map(move |name| self.objects.get(&Key::new("pods", namespace, name)));
        pods.map(|pod| &**pod).filter(move |pod| selection::matches(selector, pod))
    }

    /// The pods of a namespace that have all these labels; all pods of it when there are none.
    pub(super) fn labelled<'a: 's, 's>(
        &'a self,
        namespace: &'s str,
        labels: Option<&'s Map<String, Value>>,
    ) -> Box<dyn Iterator<Item = &'a Value> + 's> {
        match labels.filter(|labels| !labels.is_empty()) {
            Some(labels) => Box::new(self.selected(namespace, labels)),
            None => Box::new(self.in_namespace("pods", namespace).map(|(_, pod)| &**pod)),
        }
    }

    fn in_namespace<'a, 's>(
        &'a self,
        kind: &'s str,
        namespace: &'s str,
    ) -> impl Iterator<Item = (&'a Key, &'a Arc<Value>)> {
        let all = self.objects.range(Key::new(kind, namespace, "")..);
        all.take_while(move |(key, _)| &*key.kind == kind && key.namespace == namespace)
    }

    /// Takes a whole list of a kind, as it was at version `at`.
    pub(super) fn replace(&mut self, resource: &Resource, objects: &[Arc<Value>], at: u64) {
        let kind = resource.qualified();
        self.kinds.insert((resource.api_version(), resource.kind.to_string()), kind.as_str().into());
        let present: HashSet<&str> = objects.iter().map(|o| object::uid(o)).collect();
        let missing = self.of_kind(&kind).map(|(_, object)| object);
        let missing = missing.filter(|o| object::version(o) <= at && !present.contains(object::uid(o)));
        for object in missing.cloned().collect::<Vec<_>>() {
            self.remove(resource, &object);
        }
        for object in objects {
            self.put(resource, object.clone());
        }
    }

    /// Takes an object as it is now; one that is older than what is known does not count.
    pub(super) fn put(&mut self, resource: &Resource, object: Arc<Value>) {
        let key = Key::of(resource, &object);
        let uid = object::uid(&object).to_owned();
        let old = self.objects.get(&key).cloned();
        let known = old.as_ref().is_some_and(|old| object::version(old) >= object::version(&object));
        if known || self.gone.contains(&uid) {
            return;
        }
        if let Some(old) = &old {
            self.unlink(&key, old);
        }
        self.uids.insert(uid, key.clone());
        for owner in object::owners(&object).filter_map(|owner| owner["uid"].as_str()) {
            self.dependents.entry(owner.to_owned()).or_default().insert(key.clone());
        }
        self.index(&key, &object);
        self.objects.insert(key.clone(), object.clone());
        self.touch(&key, old.as_deref(), Some(&object));
    }

    /// An object is gone.
    pub(super) fn remove(&mut self, resource: &Resource, last: &Value) {
        let key = Key::of(resource, last);
        let uid = object::uid(last);
        if self.gone.remove(uid) || self.objects.get(&key).is_none_or(|known| object::uid(known) != uid) {
            return;
        }
        if let Some(old) = self.objects.remove(&key) {
            self.unlink(&key, &old);
            self.touch(&key, Some(&old), None);
        }
    }

    /// As [`World::remove`], before the watch tells it.
    pub(super) fn remove_early(&mut self, resource: &Resource, last: &Value) {
        if self.uids.contains_key(object::uid(last)) {
            self.remove(resource, last);
            self.gone.insert(object::uid(last).to_owned());
        }
    }

    fn unlink(&mut self, key: &Key, old: &Value) {
        self.uids.remove(object::uid(old));
        for owner in object::owners(old).filter_map(|owner| owner["uid"].as_str()) {
            if let Some(keys) = self.dependents.get_mut(owner) {
                keys.remove(key);
                if keys.is_empty() {
                    self.dependents.remove(owner);
                }
            }
        }
        match &*key.kind {
            "services" => self.selection.remove_service(old),
            "nodes" if object::ready(old) => self.ready_nodes -= 1,
            "pods" => self.unlink_pod(key, old),
            _ => {}
        }
    }

    fn unlink_pod(&mut self, key: &Key, old: &Value) {
        self.selection.remove_pod(old);
        self.unscheduled.remove(key);
        self.shunning.remove(key);
        let Some(node) = object::node_of(old) else { return };
        if let Some(pods) = self.on_node.get_mut(node) {
            pods.remove(key);
            if pods.is_empty() {
                self.on_node.remove(node);
            }
        }
        if !object::finished(old) {
            self.load.entry(node.to_owned()).and_modify(|held| held.take(Room::asked(old)));
            self.freed = true;
        }
    }

    fn index(&mut self, key: &Key, object: &Value) {
        match &*key.kind {
            "pods" => {
                self.selection.put_pod(object);
                self.count(key, object);
            }
            "services" => self.selection.put_service(object),
            "nodes" if object::ready(object) => self.ready_nodes += 1,
            LEASES if key.namespace == nodes::LEASES => self.hearts.hear(object, self.now),
            _ => {}
        }
    }

    fn count(&mut self, key: &Key, pod: &Value) {
        if let Some(node) = object::node_of(pod) {
            self.on_node.entry(node.to_owned()).or_default().insert(key.clone());
        }
        match object::node_of(pod) {
            Some(node) if !object::finished(pod) => {
                self.load.entry(node.to_owned()).or_default().add(Room::asked(pod));
                self.settled = true;
                if scheduler::shuns(pod) {
                    self.shunning.insert(key.clone());
                }
            }
            None if object::active(pod) => drop(self.unscheduled.insert(key.clone())),
            _ => {}
        }
    }

    /// Marks what a change concerns: the object, who owns it, what it owned, its namespace.
    fn touch(&mut self, key: &Key, old: Option<&Value>, new: Option<&Value>) {
        self.dirty.insert(key.clone());
        for owner in [old, new].into_iter().flatten().filter_map(object::controller) {
            self.dirty.extend(self.uids.get(owner).cloned());
        }
        for owner in [old, new].into_iter().flatten().flat_map(object::owners) {
            let key = owner["uid"].as_str().and_then(|uid| self.uids.get(uid));
            let waits = |key: &&Key| self.objects.get(*key).is_some_and(|owner| object::terminating(owner));
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
        match &*key.kind {
            "nodes" => self.touch_node(&key.name, old, new),
            "pods" => {
                self.touch_services(key, old, new);
                self.touch_budgets(key, old, new);
            }
            LEASES if key.namespace == nodes::LEASES => {
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
            let services: Vec<Key> = self.of_kind("services").map(|(key, _)| key.clone()).collect();
            self.dirty.extend(services);
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
            let nodes: Vec<Key> = self.of_kind("nodes").map(|(key, _)| key.clone()).collect();
            self.dirty.extend(nodes);
        }
        let sets: Vec<Key> = self.of_kind("daemonsets.apps").map(|(key, _)| key.clone()).collect();
        self.dirty.extend(sets);
        self.dirty.extend(self.unscheduled.iter().cloned());
    }
}
