//! Which pods a Service's selector chooses, and which Services choose a pod: by labels, so that
//! neither question looks at all objects.

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::key::Key;
use super::object;

/// The hash of one label in one namespace. Two labels with one hash cost a comparison, and no more.
type Label = u64;

/// The names of pods by each of their labels, and of Services by one label of their selector.
#[derive(Default)]
pub(super) struct Selection {
    pods: HashMap<Label, BTreeSet<Arc<str>>>,
    services: HashMap<Label, BTreeSet<Arc<str>>>,
}

fn label(namespace: &str, key: &str, value: &Value) -> Label {
    let mut hasher = DefaultHasher::new();
    (namespace, key, value.as_str().unwrap_or_default()).hash(&mut hasher);
    hasher.finish()
}

fn labels(object: &Value) -> impl Iterator<Item = Label> {
    let namespace = object::namespace(object);
    let labels = object["metadata"]["labels"].as_object().into_iter().flatten();
    labels.map(move |(key, value)| label(namespace, key, value))
}

/// `spec.selector` of a Service that has one and uses it.
pub(super) fn selector(service: &Value) -> Option<&Map<String, Value>> {
    let external = service["spec"]["type"] == "ExternalName";
    service["spec"]["selector"].as_object().filter(|selector| !external && !selector.is_empty())
}

/// Whether the pod has all labels of the selector.
pub(super) fn matches(selector: &Map<String, Value>, pod: &Value) -> bool {
    let labels = &pod["metadata"]["labels"];
    selector.iter().all(|(key, value)| labels[key] == *value)
}

fn insert(index: &mut HashMap<Label, BTreeSet<Arc<str>>>, label: Label, key: &Key) {
    index.entry(label).or_default().insert(key.name.clone());
}

fn remove(index: &mut HashMap<Label, BTreeSet<Arc<str>>>, label: Label, name: &str) {
    if let Some(names) = index.get_mut(&label) {
        names.remove(name);
        if names.is_empty() {
            index.remove(&label);
        }
    }
}

impl Selection {
    pub(super) fn put_pod(&mut self, key: &Key, pod: &Value) {
        labels(pod).for_each(|label| insert(&mut self.pods, label, key));
    }

    pub(super) fn remove_pod(&mut self, pod: &Value) {
        labels(pod).for_each(|label| remove(&mut self.pods, label, object::name(pod)));
    }

    pub(super) fn put_service(&mut self, key: &Key, service: &Value) {
        if let Some(label) = first(service) {
            insert(&mut self.services, label, key);
        }
    }

    pub(super) fn remove_service(&mut self, service: &Value) {
        if let Some(label) = first(service) {
            remove(&mut self.services, label, object::name(service));
        }
    }

    /// The names of the Services that may choose the pod: those that do, and a few others.
    pub(super) fn services<'a>(&'a self, pod: &'a Value) -> impl Iterator<Item = &'a str> {
        labels(pod).filter_map(|label| self.services.get(&label)).flatten().map(|name| &**name)
    }

    /// The names of the pods in a namespace that may have all these labels: those that do, and a few others.
    pub(super) fn pods(&self, namespace: &str, selector: &Map<String, Value>) -> impl Iterator<Item = &str> {
        let sets: Option<Vec<_>> =
            selector.iter().map(|(key, value)| self.pods.get(&label(namespace, key, value))).collect();
        let rarest = sets.into_iter().flatten().min_by_key(|names| names.len());
        rarest.into_iter().flatten().map(|name| &**name)
    }
}

/// The label under which a Service is found.
fn first(service: &Value) -> Option<Label> {
    let (key, value) = selector(service)?.iter().next()?;
    Some(label(object::namespace(service), key, value))
}
