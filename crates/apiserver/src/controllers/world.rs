//! What the controllers know: every object, who owns whom, and what must be looked at again.

mod marks;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value};

pub(super) use super::key::Key;
use super::known::{self, Objects};
use super::load_balancer::Claims;
use super::object;
use super::scheduler::{self, Load, Room};
use super::selection::{self, Selection};
use super::{endpoints, nodes};
use crate::resource::Resource;
use crate::storage::Object;

pub(super) const LEASES: &str = "leases.coordination.k8s.io";
/// Objects that are planned for at once.
const ROUND: usize = 4096;

/// The objects of the watched kinds, and what to look at again.
#[derive(Default)]
pub(super) struct World {
    objects: Objects,
    uids: HashMap<Arc<str>, Key>,
    dependents: HashMap<Arc<str>, BTreeSet<Key>>,
    /// Uids that our own deletion ended before the watch told so.
    gone: HashSet<Arc<str>>,
    /// Kinds and namespaces, each once for all keys.
    names: HashSet<Arc<str>>,
    /// What the pods that are not finished ask of each node.
    pub(super) load: Load,
    /// Pods that are bound to a node, by node.
    on_node: HashMap<Arc<str>, BTreeSet<Key>>,
    /// When nodes were heard of.
    pub(super) hearts: nodes::Hearts,
    /// The time now, for all planners.
    pub(super) now: Timestamp,
    /// How many nodes are ready.
    ready_nodes: usize,
    /// Which Services choose which pods.
    selection: Selection,
    /// Services that may have addresses of load balancers.
    pub(super) claims: Claims,
    /// Services whose endpoints are shared out by what all nodes have.
    spread: BTreeSet<Key>,
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
        self.keys(kind).filter_map(|key| Some((key, self.objects.get(key)?)))
    }

    /// The keys of all objects of a kind.
    pub(super) fn keys<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Key> {
        self.objects.keys(kind, None)
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

    /// Takes what must be looked at again, so much as is planned at once. Where a pod left its node, those
    /// that wait for one are among it; where one came to a node, those that wait for company.
    pub(super) fn take_dirty(&mut self) -> Vec<Key> {
        let (freed, settled) = (std::mem::take(&mut self.freed), std::mem::take(&mut self.settled));
        if freed || settled {
            let seeks = |key: &&Key| self.objects.get(key).is_some_and(|pod| scheduler::seeks(pod));
            let waiting = self.unscheduled.iter().filter(|key| freed || seeks(key)).cloned();
            self.dirty.extend(waiting);
        }
        let rest = self.dirty.iter().nth(ROUND).cloned().map(|first| self.dirty.split_off(&first));
        std::mem::replace(&mut self.dirty, rest.unwrap_or_default()).into_iter().collect()
    }

    /// Whether more is marked than is planned at once.
    pub(super) fn is_behind(&self) -> bool {
        self.dirty.len() > ROUND
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

    /// The objects of a kind in a namespace.
    pub(super) fn in_namespace<'a: 's, 's>(
        &'a self,
        kind: &'s str,
        namespace: &'s str,
    ) -> impl Iterator<Item = (&'a Key, &'a Arc<Value>)> + 's {
        let keys = self.objects.keys(kind, Some(namespace));
        keys.filter_map(move |key| Some((key, self.objects.get(key)?)))
    }

    /// Takes a whole list of a kind, as it was at version `at`.
    pub(super) fn replace(&mut self, resource: &Resource, objects: Vec<(Key, Arc<Object>)>, at: u64) {
        let kind = resource.qualified();
        self.kinds.insert((resource.api_version(), resource.kind.to_string()), kind.as_str().into());
        let present: HashMap<&Key, &Arc<Object>> =
            objects.iter().map(|(key, object)| (key, object)).collect();
        let missing = self.objects.keys(&kind, None).filter(|key| {
            let Some(known) = self.objects.known(key).filter(|known| known.stored.rv() <= at) else {
                return false;
            };
            let listed = present.get(key).filter(|listed| {
                listed.rv() == known.stored.rv() || object::uid(&known::tree(listed.json())) == &*known.uid
            });
            listed.is_none()
        });
        for key in missing.cloned().collect::<Vec<_>>() {
            self.remove(&key);
        }
        for (key, object) in objects {
            self.put(key, object);
        }
    }

    /// Takes what a write answered.
    pub(super) fn learn(&mut self, resource: &Resource, object: Arc<Value>) {
        let key = Key::of(resource, &object);
        let version = object::version(&object);
        // What could be written can be kept.
        if let Ok(stored) = Object::new(&key.name, &mut Arc::unwrap_or_clone(object), version) {
            self.put(key, Arc::new(stored));
        }
    }

    /// Takes an object as it is now; one that is older than what is known does not count.
    pub(super) fn put(&mut self, key: Key, stored: Arc<Object>) {
        let known = self.objects.known(&key).map_or(0, |known| known.stored.rv());
        if known > 0 && known == stored.rv() {
            // The store's own copy: then there is one.
            return self.objects.share(&key, stored);
        }
        let object = Arc::new(known::tree(stored.json()));
        if known > stored.rv() || self.gone.contains(object::uid(&object)) {
            return;
        }
        let key = self.interned(&key);
        let old = self.objects.get(&key).cloned();
        if let Some(old) = &old {
            self.unlink(&key, old);
        }
        let uid: Arc<str> = object::uid(&object).into();
        self.uids.insert(uid.clone(), key.clone());
        for owner in object::owners(&object).filter_map(|owner| owner["uid"].as_str()) {
            let owner = self.shared(owner);
            self.dependents.entry(owner).or_default().insert(key.clone());
        }
        self.index(&key, &object);
        self.objects.put(key.clone(), stored, uid, object.clone());
        self.touch(&key, old.as_deref(), Some(&object));
    }

    /// The key with the kind and the namespace that other keys have already.
    fn interned(&mut self, key: &Key) -> Key {
        let mut one = |name: &Arc<str>| match self.names.get(name) {
            Some(known) => known.clone(),
            None => {
                self.names.insert(name.clone());
                name.clone()
            }
        };
        Key { kind: one(&key.kind), namespace: one(&key.namespace), name: key.name.clone() }
    }

    /// A uid, without a copy of one that is known.
    fn shared(&self, uid: &str) -> Arc<str> {
        self.uids.get_key_value(uid).map_or_else(|| uid.into(), |(uid, _)| uid.clone())
    }

    /// An object is gone; one that was made again under its name is not.
    pub(super) fn end(&mut self, key: &Key, last: &Value) {
        let uid = object::uid(last);
        if !self.gone.remove(uid) && self.objects.known(key).is_some_and(|known| &*known.uid == uid) {
            self.remove(key);
        }
    }

    fn remove(&mut self, key: &Key) {
        if let Some(old) = self.objects.get(key).cloned() {
            self.objects.remove(key);
            self.unlink(key, &old);
            self.touch(key, Some(&old), None);
        }
    }

    /// As [`World::end`], before the watch tells it.
    pub(super) fn end_early(&mut self, resource: &Resource, last: &Value) {
        if self.uids.contains_key(object::uid(last)) {
            self.end(&Key::of(resource, last), last);
            self.gone.insert(object::uid(last).into());
        }
    }

    /// Between two plans: lets go of what is not read again soon.
    pub(super) fn rest(&mut self) {
        self.objects.rest();
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
            "services" => {
                self.selection.remove_service(old);
                self.spread.remove(key);
            }
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
                self.selection.put_pod(key, object);
                self.count(key, object);
            }
            "services" => {
                self.selection.put_service(key, object);
                if endpoints::spreads(object) {
                    self.spread.insert(key.clone());
                }
            }
            "nodes" if object::ready(object) => self.ready_nodes += 1,
            LEASES if &*key.namespace == nodes::LEASES => self.hearts.hear(object, self.now),
            _ => {}
        }
    }

    fn count(&mut self, key: &Key, pod: &Value) {
        if let Some(node) = object::node_of(pod) {
            self.on_node.entry(node.into()).or_default().insert(key.clone());
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
}
