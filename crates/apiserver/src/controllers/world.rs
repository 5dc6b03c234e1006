//! What the controllers know: every object, who owns whom, and what must be looked at again.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::disruption;
use super::endpoints;
use super::object;
use super::selection::{self, Selection};
use crate::label_selector;
use crate::resource::Resource;

/// One object: the kind as `deployments.apps`, namespace (or nothing) and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub(super) kind: Arc<str>,
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Key {
    pub(super) fn new(kind: impl Into<Arc<str>>, namespace: &str, name: &str) -> Self {
        Key { kind: kind.into(), namespace: namespace.to_owned(), name: name.to_owned() }
    }

    pub(super) fn of(resource: &Resource, object: &Value) -> Self {
        Key::new(resource.qualified(), object::namespace(object), object::name(object))
    }

    /// The namespace as the registry wants it.
    pub(super) fn scope(&self) -> Option<&str> {
        Some(self.namespace.as_str()).filter(|namespace| !namespace.is_empty())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scope() {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

/// The objects of the watched kinds, and what to look at again.
#[derive(Default)]
pub(super) struct World {
    objects: BTreeMap<Key, Arc<Value>>,
    uids: HashMap<String, Key>,
    dependents: HashMap<String, BTreeSet<Key>>,
    /// Uids that our own deletion ended before the watch told so.
    gone: HashSet<String>,
    /// Pods that are not finished, by node.
    pub(super) load: HashMap<String, usize>,
    /// Which Services choose which pods.
    selection: Selection,
    /// Pods that wait for a node.
    unscheduled: BTreeSet<Key>,
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
    pub(super) fn selected<'a>(
        &'a self,
        namespace: &'a str,
        selector: &'a Map<String, Value>,
    ) -> impl Iterator<Item = &'a Value> {
        let names = self.selection.pods(namespace, selector);
        let pods = names.filter_map(move |name| self.objects.get(&Key::new("pods", namespace, name)));
        pods.map(|pod| &**pod).filter(move |pod| selection::matches(selector, pod))
    }

    /// The pods of a namespace that have all these labels; all pods of it when there are none.
    pub(super) fn labelled<'a>(
        &'a self,
        namespace: &'a str,
        labels: Option<&'a Map<String, Value>>,
    ) -> Box<dyn Iterator<Item = &'a Value> + 'a> {
        match labels.filter(|labels| !labels.is_empty()) {
            Some(labels) => Box::new(self.selected(namespace, labels)),
            None => Box::new(self.in_namespace("pods", namespace).map(|(_, pod)| &**pod)),
        }
    }

    fn in_namespace<'a>(
        &'a self,
        kind: &'a str,
        namespace: &'a str,
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
        if &*key.kind == "services" {
            self.selection.remove_service(old);
        }
        if &*key.kind == "pods" {
            self.selection.remove_pod(old);
            self.unscheduled.remove(key);
            if let Some(count) = object::node_of(old).filter(|_| !object::finished(old)) {
                self.load.entry(count.to_owned()).and_modify(|count| *count = count.saturating_sub(1));
            }
        }
    }

    fn index(&mut self, key: &Key, object: &Value) {
        match &*key.kind {
            "pods" => {
                self.selection.put_pod(object);
                self.count(key, object);
            }
            "services" => self.selection.put_service(object),
            _ => {}
        }
    }

    fn count(&mut self, key: &Key, pod: &Value) {
        match object::node_of(pod) {
            Some(node) if !object::finished(pod) => *self.load.entry(node.to_owned()).or_default() += 1,
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
        match &*key.kind {
            "nodes" => self.touch_node(&key.name, old, new),
            "pods" => {
                self.touch_services(key, old, new);
                self.touch_budgets(key, old, new);
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
            [&meta["labels"], &spec["taints"], &spec["unschedulable"], &status["allocatable"]]
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
            let on = self.of_kind("pods").filter(|(_, pod)| object::node_of(pod) == Some(name));
            let on: Vec<Key> = on.map(|(key, _)| key.clone()).collect();
            self.dirty.extend(on);
        }
        let sets: Vec<Key> = self.of_kind("daemonsets.apps").map(|(key, _)| key.clone()).collect();
        self.dirty.extend(sets);
        self.dirty.extend(self.unscheduled.iter().cloned());
    }
}
