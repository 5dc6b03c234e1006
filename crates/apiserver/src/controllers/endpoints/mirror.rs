//! The slices of Endpoints that a user wrote, for a Service without a selector: clients of today read slices.

use serde_json::{Map, Value, json};

use super::super::action::Action;
use super::super::object;
use super::super::world::{Key, World};
use super::endpoint::Family;
use super::{MANAGED_BY, NAME, SLICES, TRIGGER, delete};
use crate::registry::Part;

/// What Kubernetes' own controller writes there.
const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Endpoints by which somebody of old elects a leader are no endpoints.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Addresses of one subset at most.
const ROOM: usize = 1000;

/// What one slice holds.
struct Wanted {
    family: Family,
    ports: Value,
    endpoints: Vec<Value>,
}

/// The writes that bring the slices of Endpoints to what these say; for the key of their Service.
pub(super) fn plan(world: &World, key: &Key) -> Vec<Action> {
    let Some(endpoints) = world.get(&Key::new("endpoints", &key.namespace, &key.name)) else {
        return Vec::new();
    };
    if object::terminating(endpoints) {
        return Vec::new();
    }
    let own = world.owned(object::uid(endpoints), SLICES).map(|slice| &**slice);
    let mut own: Vec<&Value> = own
        .filter(|slice| slice["metadata"]["labels"][MANAGED_BY] == MANAGER && !object::terminating(slice))
        .collect();
    let mut actions = Vec::new();
    let all = if is_mirrored(world, key, endpoints) { wanted(endpoints) } else { Vec::new() };
    for wanted in all {
        let fits = |slice: &&Value| {
            Family::of_slice(slice) == Some(wanted.family) && *list_of(&slice["ports"]) == wanted.ports
        };
        match own.iter().position(fits) {
            Some(place) => actions.extend(update(own.remove(place), endpoints, wanted)),
            None => actions.push(create(endpoints, wanted)),
        }
    }
    actions.extend(own.into_iter().map(delete));
    actions
}

fn is_mirrored(world: &World, key: &Key, endpoints: &Value) -> bool {
    let meta = &endpoints["metadata"];
    let service = world.get(&Key::new("services", &key.namespace, &key.name));
    let chooses = |s: &Value| s["spec"]["selector"].as_object().is_some_and(|labels| !labels.is_empty());
    meta["labels"][SKIP] != "true"
        && meta["labels"][super::legacy::MANAGED_BY].is_null()
        && meta["annotations"][LEADER].is_null()
        && service.is_some_and(|s| !object::terminating(s) && !chooses(s))
}

/// What is not there is as what is empty.
fn list_of(value: &Value) -> std::borrow::Cow<'_, Value> {
    if value.is_null() { std::borrow::Cow::Owned(json!([])) } else { std::borrow::Cow::Borrowed(value) }
}

/// One slice for each family and set of ports.
fn wanted(endpoints: &Value) -> Vec<Wanted> {
    let mut all: Vec<Wanted> = Vec::new();
    for subset in object::list(&endpoints["subsets"]) {
        let ports: Value = object::list(&subset["ports"]).map(port).collect();
        let ready = object::list(&subset["addresses"]).map(|address| (address, true));
        let others = object::list(&subset["notReadyAddresses"]).map(|address| (address, false));
        for (address, ready) in ready.chain(others).take(ROOM) {
            let Some(family) = address["ip"].as_str().and_then(Family::of) else { continue };
            let place = all.iter().position(|slice| slice.family == family && slice.ports == ports);
            let place = place.unwrap_or_else(|| {
                all.push(Wanted { family, ports: ports.clone(), endpoints: Vec::new() });
                all.len() - 1
            });
            all[place].endpoints.push(endpoint(address, ready));
        }
    }
    all
}

fn port(port: &Value) -> Value {
    let mut own = json!({"name": port["name"].as_str().unwrap_or_default(), "port": port["port"],
        "protocol": port["protocol"].as_str().unwrap_or("TCP")});
    if port["appProtocol"].is_string() {
        own["appProtocol"] = port["appProtocol"].clone();
    }
    own
}

fn endpoint(address: &Value, ready: bool) -> Value {
    let mut own = json!({"addresses": [address["ip"]], "conditions": {"ready": ready}});
    for field in ["hostname", "nodeName", "targetRef"] {
        if !address[field].is_null() {
            own[field] = address[field].clone();
        }
    }
    own
}

/// Labels and annotations: those of the Endpoints, and what tells whose the slice is.
fn marks(endpoints: &Value) -> (Value, Value) {
    let of = |field: &str| endpoints["metadata"][field].as_object().cloned().unwrap_or_default();
    let mut labels: Map<String, Value> = of("labels");
    labels.insert(NAME.to_owned(), endpoints["metadata"]["name"].clone());
    labels.insert(MANAGED_BY.to_owned(), json!(MANAGER));
    let mut annotations = of("annotations");
    annotations.retain(|key, _| key != TRIGGER && key != LAST_APPLIED);
    (labels.into(), annotations.into())
}

fn create(endpoints: &Value, wanted: Wanted) -> Action {
    let (labels, annotations) = marks(endpoints);
    let meta = &endpoints["metadata"];
    let owner = json!([{"apiVersion": "v1", "kind": "Endpoints", "name": meta["name"], "uid": meta["uid"],
        "controller": true, "blockOwnerDeletion": true}]);
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": wanted.family.text(),
        "metadata": {"generateName": format!("{}-", object::name(endpoints)), "labels": labels,
            "annotations": annotations, "ownerReferences": owner},
        "endpoints": wanted.endpoints, "ports": wanted.ports,
    });
    Action::Create { kind: SLICES, namespace: object::namespace(endpoints).to_owned(), object: slice }
}

fn update(slice: &Value, endpoints: &Value, wanted: Wanted) -> Option<Action> {
    let meta = &slice["metadata"];
    let (labels, annotations) = marks(endpoints);
    let marks = [("labels", labels), ("annotations", annotations)];
    let present = |field: &str| meta[field].as_object().cloned().unwrap_or_default();
    let same = marks.iter().all(|(field, value)| Value::from(present(field)) == *value);
    let wanted = Value::from(wanted.endpoints);
    if same && *list_of(&slice["endpoints"]) == wanted {
        return None;
    }
    let mut patch = json!({"metadata": {"uid": meta["uid"]}, "endpoints": wanted});
    for (field, mut value) in marks {
        for (gone, _) in present(field) {
            if value[&gone].is_null() {
                value[&gone] = Value::Null;
            }
        }
        patch["metadata"][field] = value;
    }
    let key = Key::new(SLICES, object::namespace(slice), object::name(slice));
    Some(Action::Patch { key, part: Part::Whole, patch })
}

#[cfg(test)]
mod tests {
    use super::super::super::sim::Sim;
    use super::*;

    fn settle(sim: &mut Sim) -> usize {
        let plan = |world: &World, dirty: &[Key]| {
            dirty.iter().flat_map(|key| super::super::plan(world, key)).collect()
        };
        sim.settle(plan).len()
    }

    fn shown(sim: &Sim) -> Vec<(String, String, bool)> {
        let slices = sim.world.of_kind(SLICES).flat_map(|(_, slice)| {
            let port = slice["ports"][0]["port"].to_string();
            object::list(&slice["endpoints"])
                .map(|e| {
                    (
                        e["addresses"][0].as_str().unwrap().to_owned(),
                        port.clone(),
                        e["conditions"]["ready"] == true,
                    )
                })
                .collect::<Vec<_>>()
        });
        let mut all: Vec<_> = slices.collect();
        all.sort();
        all
    }

    fn endpoints(labels: Value) -> Value {
        json!({"metadata": {"name": "web", "labels": labels}, "subsets": [
            {"addresses": [{"ip": "192.0.2.1"}, {"ip": "2001:db8::1"}], "notReadyAddresses": [{"ip": "192.0.2.2"}], "ports": [{"port": 80}]},
            {"addresses": [{"ip": "192.0.2.3"}], "ports": [{"port": 81}]}]})
    }

    #[test]
    fn what_a_user_wrote_is_in_slices_and_follows_it() {
        let mut sim = Sim::default();
        sim.put("services", json!({"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}}));
        sim.put("endpoints", endpoints(json!({"a": "b"})));
        settle(&mut sim);
        let row = |ip: &str, port: &str, ready| (ip.to_owned(), port.to_owned(), ready);
        let first = [
            row("192.0.2.1", "80", true),
            row("192.0.2.2", "80", false),
            row("192.0.2.3", "81", true),
            row("2001:db8::1", "80", true),
        ];
        assert_eq!(shown(&sim), first);
        let (_, slice) = sim.world.of_kind(SLICES).next().unwrap();
        assert_eq!(slice["metadata"]["labels"], json!({"a": "b", NAME: "web", MANAGED_BY: MANAGER}));
        sim.world.dirty.insert(Key::new("services", "shop", "web"));
        assert_eq!(settle(&mut sim), 0);

        let mut less = endpoints(Value::Null);
        less["subsets"] = json!([{"addresses": [{"ip": "192.0.2.9"}], "ports": [{"port": 80}]}]);
        sim.put("endpoints", less);
        settle(&mut sim);
        assert_eq!(shown(&sim), [row("192.0.2.9", "80", true)]);
    }

    #[test]
    fn only_for_services_that_choose_no_pods_and_not_where_it_is_refused() {
        let mut sim = Sim::default();
        sim.put("endpoints", endpoints(json!({})));
        settle(&mut sim);
        assert!(shown(&sim).is_empty(), "without a Service");
        sim.put("services", json!({"metadata": {"name": "web"}, "spec": {}}));
        settle(&mut sim);
        assert_eq!(shown(&sim).len(), 4);
        sim.put("endpoints", endpoints(json!({SKIP: "true"})));
        settle(&mut sim);
        assert!(shown(&sim).is_empty(), "not wanted");
    }
}
