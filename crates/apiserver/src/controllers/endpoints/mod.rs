//! EndpointSlices and Endpoints of the Services that choose their pods by a selector, and the slices of the
//! Endpoints that users write for the others.

mod endpoint;
mod hints;
mod legacy;
mod mirror;
mod pack;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::action::Action;
use super::object;
use super::selection;
use super::world::{Key, World};
use crate::registry::Part;
use endpoint::{Endpoint, Family};

pub(super) use endpoint::face;
pub(super) use hints::spreads;

pub(super) const SLICES: &str = "endpointslices.discovery.k8s.io";
const NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// What Kubernetes' own controller writes there; clients tell these slices from others by it.
const MANAGER: &str = "endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";
const TRIGGER: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// The endpoints of one slice's kind: an address family, and ports as the slice shows them.
type Groups = BTreeMap<(Family, String), (Value, Vec<Endpoint>)>;

/// The writes that bring a Service's slices and Endpoints to what its pods are. For the key of
/// Endpoints: their removal when their Service is gone.
pub(super) fn plan(world: &World, key: &Key) -> Vec<Action> {
    match &*key.kind {
        "services" => {
            let mut actions = service(world, key);
            actions.extend(mirror::plan(world, key));
            actions
        }
        "endpoints" => legacy::without_service(world, key),
        _ => Vec::new(),
    }
}

fn service(world: &World, key: &Key) -> Vec<Action> {
    let Some(service) = world.get(key) else { return legacy::without_service(world, key) };
    if object::terminating(service) {
        return Vec::new();
    }
    let Some(selector) = selection::selector(service) else { return Vec::new() };
    let pods: Vec<&Value> = world.selected(&key.namespace, selector).collect();
    let mut actions = slices(world, service, &pods);
    actions.extend(legacy::plan(world, key, service, &pods));
    actions
}

fn slices(world: &World, service: &Value, pods: &[&Value]) -> Vec<Action> {
    let mut groups: Groups = BTreeMap::new();
    let families = endpoint::families(service);
    for pod in pods {
        let ports = endpoint::ports(service, pod);
        for family in &families {
            let Some(endpoint) = endpoint::of(world, service, pod, *family) else { continue };
            let group = groups.entry((*family, ports.to_string()));
            group.or_insert_with(|| (ports.clone(), Vec::new())).1.push(endpoint);
        }
    }
    // A Service without endpoints has one empty slice a family, so that its readers need not wait.
    for family in &families {
        if !groups.keys().any(|(other, _)| other == family) {
            groups.insert((*family, "[]".to_owned()), (json!([]), Vec::new()));
        }
    }
    hints::give(world, service, &mut groups);
    let own = world.owned(object::uid(service), SLICES).map(|slice| &**slice);
    let own: Vec<&Value> = own
        .filter(|slice| slice["metadata"]["labels"][MANAGED_BY] == MANAGER && !object::terminating(slice))
        .collect();
    write(service, &own, groups)
}

/// The writes from the slices that are there to those that should be.
fn write(service: &Value, own: &[&Value], mut groups: Groups) -> Vec<Action> {
    let (labels, mut actions) = (labels(service), Vec::new());
    let mut of_group: BTreeMap<(Family, String), Vec<&Value>> = BTreeMap::new();
    for slice in own {
        // No ports are stored as null.
        let ports = if slice["ports"].is_null() { "[]".to_owned() } else { slice["ports"].to_string() };
        let group = Family::of_slice(slice).map(|family| (family, ports));
        match group.filter(|group| groups.contains_key(group)) {
            Some(group) => of_group.entry(group).or_default().push(slice),
            None => actions.push(delete(slice)),
        }
    }
    while let Some((group, (ports, endpoints))) = groups.pop_first() {
        let existing = of_group.remove(&group).unwrap_or_default();
        let packed = pack::pack(&existing, endpoints);
        for slice in packed.kept {
            let same = slice.endpoints.is_none() && slice.old["metadata"]["labels"] == labels;
            if !same {
                actions.push(update(slice, &labels));
            }
        }
        actions.extend(packed.dropped.into_iter().map(delete));
        for endpoints in packed.new {
            actions.push(create(service, group.0, &ports, &labels, endpoints));
        }
    }
    actions
}

fn delete(slice: &Value) -> Action {
    let key = Key::new(SLICES, object::namespace(slice), object::name(slice));
    Action::Delete { key, uid: object::uid(slice).to_owned(), grace: None }
}

fn update(slice: pack::Kept<'_>, labels: &Value) -> Action {
    let meta = &slice.old["metadata"];
    let mut merged = labels.clone();
    for gone in meta["labels"].as_object().into_iter().flatten().filter(|(key, _)| labels[*key].is_null()) {
        merged[gone.0] = Value::Null;
    }
    let mut patch = json!({"metadata": {"uid": meta["uid"], "labels": merged}});
    if let Some(change) = slice.endpoints {
        patch["metadata"]["annotations"] = json!({TRIGGER: change.since});
        patch["endpoints"] = change.endpoints;
    }
    let key = Key::new(SLICES, object::namespace(slice.old), object::name(slice.old));
    Action::Patch { key, part: Part::Whole, patch }
}

fn create(service: &Value, family: Family, ports: &Value, labels: &Value, change: pack::Change) -> Action {
    let meta = &service["metadata"];
    let mut slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family.text(),
        "metadata": {
            "generateName": format!("{}-", object::name(service)), "labels": labels,
            "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": meta["name"], "uid": meta["uid"],
                "controller": true, "blockOwnerDeletion": true}],
        },
        "endpoints": change.endpoints, "ports": ports,
    });
    if let Some(since) = change.since {
        slice["metadata"]["annotations"] = json!({TRIGGER: since});
    }
    Action::Create { kind: SLICES, namespace: object::namespace(service).to_owned(), object: slice }
}

/// A slice's labels: the Service's own, and what tells whose it is.
fn labels(service: &Value) -> Value {
    let own = service["metadata"]["labels"].as_object().into_iter().flatten();
    let reserved = |key: &str| [NAME, MANAGED_BY, HEADLESS].contains(&key);
    let mut labels: Map<String, Value> =
        own.filter(|(key, _)| !reserved(key)).map(|(key, value)| (key.clone(), value.clone())).collect();
    labels.insert(NAME.to_owned(), service["metadata"]["name"].clone());
    labels.insert(MANAGED_BY.to_owned(), json!(MANAGER));
    if headless(service) {
        labels.insert(HEADLESS.to_owned(), json!(""));
    }
    Value::Object(labels)
}

fn headless(service: &Value) -> bool {
    service["spec"]["clusterIP"] == "None"
}
