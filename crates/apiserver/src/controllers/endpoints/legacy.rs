//! The old Endpoints object of a Service, for clients that read no slices.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::action::Action;
use super::super::object;
use super::super::world::{Key, World};
use super::{HEADLESS, TRIGGER, endpoint, headless};
use crate::registry::Part;

/// Addresses in one object at most.
const ROOM: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
pub(super) const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";

/// The write that brings a Service's Endpoints to what its pods are, if they differ.
pub(super) fn plan(world: &World, key: &Key, service: &Value, pods: &[&Value]) -> Option<Action> {
    let key = Key::new("endpoints", &key.namespace, &key.name);
    let (subsets, since, truncated) = subsets(world, service, pods);
    let mut labels = service["metadata"]["labels"].clone();
    if !labels.is_object() {
        labels = json!({});
    }
    labels[MANAGED_BY] = json!(MANAGER);
    if headless(service) {
        labels[HEADLESS] = json!("");
    }
    let over = if truncated { json!("truncated") } else { Value::Null };
    let Some(old) = world.get(&key) else {
        let mut object = json!({"apiVersion": "v1", "kind": "Endpoints", "subsets": subsets,
            "metadata": {"name": key.name, "labels": labels, "annotations": {}}});
        for (name, value) in [(OVER_CAPACITY, over), (TRIGGER, json!(since))] {
            if !value.is_null() {
                object["metadata"]["annotations"][name] = value;
            }
        }
        return Some(Action::Create { kind: "endpoints", namespace: key.namespace.to_string(), object });
    };
    let meta = &old["metadata"];
    let same = meta["labels"] == labels && meta["annotations"][OVER_CAPACITY] == over;
    let before = if old["subsets"].is_null() { &json!([]) } else { &old["subsets"] };
    if same && *before == subsets {
        return None;
    }
    for gone in meta["labels"].as_object().into_iter().flatten() {
        if labels[gone.0].is_null() {
            labels[gone.0] = Value::Null;
        }
    }
    let patch = json!({"subsets": subsets, "metadata": {"uid": meta["uid"], "labels": labels,
        "annotations": {OVER_CAPACITY: over, TRIGGER: since}}});
    Some(Action::Patch { key, part: Part::Whole, patch })
}

/// Deletes Endpoints that a Service had that is gone.
pub(super) fn without_service(world: &World, key: &Key) -> Vec<Action> {
    let service = world.get(&Key::new("services", &key.namespace, &key.name));
    let key = Key::new("endpoints", &key.namespace, &key.name);
    let ours = |object: &&std::sync::Arc<Value>| object["metadata"]["labels"][MANAGED_BY] == MANAGER;
    match world.get(&key).filter(ours) {
        Some(object) if service.is_none() && !object::terminating(object) => {
            vec![Action::Delete { key, uid: object::uid(object).to_owned(), grace: None }]
        }
        _ => Vec::new(),
    }
}

/// The addresses of the Service's first family, by ports; when the last of their pods changed; and whether
/// there were too many.
fn subsets(world: &World, service: &Value, pods: &[&Value]) -> (Value, Option<String>, bool) {
    let family = endpoint::families(service).first().copied().unwrap_or(endpoint::Family::V4);
    let mut by_ports: BTreeMap<String, (Value, Vec<Value>, Vec<Value>)> = BTreeMap::new();
    let mut since: Option<String> = None;
    let publishes = endpoint::publishes_not_ready(service);
    let mut members: Vec<(bool, &Value, endpoint::Endpoint)> = Vec::new();
    for pod in pods.iter().filter(|pod| publishes || !object::terminating(pod)) {
        if let Some(endpoint) = endpoint::of(world, service, pod, family) {
            members.push((!(publishes || object::ready(pod)), pod, endpoint));
        }
    }
    // Ready addresses first, so that these are what is left of too many.
    members.sort_by_key(|(not_ready, ..)| *not_ready);
    let truncated = members.len() > ROOM;
    for (not_ready, pod, endpoint) in members.into_iter().take(ROOM) {
        since = since.max(endpoint.since);
        let value = &endpoint.value;
        let mut address = json!({"ip": value["addresses"][0], "targetRef": value["targetRef"]});
        for field in ["nodeName", "hostname"] {
            if !value[field].is_null() {
                address[field] = value[field].clone();
            }
        }
        let ports = endpoint::ports(service, pod);
        let subset = by_ports.entry(ports.to_string());
        let subset = subset.or_insert_with(|| (ports, Vec::new(), Vec::new()));
        if not_ready { subset.2.push(address) } else { subset.1.push(address) }
    }
    let subsets = by_ports.into_values().map(|(ports, ready, not_ready)| {
        let mut subset = json!({});
        for (field, values) in [("addresses", ready), ("notReadyAddresses", not_ready)] {
            if !values.is_empty() {
                subset[field] = json!(values);
            }
        }
        if let Some(ports) = ports.as_array().filter(|ports| !ports.is_empty()) {
            subset["ports"] = ports.iter().map(unnamed).collect();
        }
        subset
    });
    (Value::Array(subsets.collect()), since, truncated)
}

/// A port as Endpoints have it: an empty name is no name.
fn unnamed(port: &Value) -> Value {
    let mut port = port.clone();
    if port["name"] == ""
        && let Some(fields) = port.as_object_mut()
    {
        fields.remove("name");
    }
    port
}
