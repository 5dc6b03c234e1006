//! A pod as an endpoint of a Service.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::super::object;
use super::super::world::{Key, World};

/// A slice's address type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) fn text(self) -> &'static str {
        match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Family::V4, Family::V6].into_iter().find(|family| family.text() == text)
    }

    pub(super) fn of_slice(slice: &Value) -> Option<Self> {
        Self::parse(slice["addressType"].as_str().unwrap_or_default())
    }

    pub(super) fn of(address: &str) -> Option<Self> {
        let address: IpAddr = address.parse().ok()?;
        Some(if address.is_ipv4() { Family::V4 } else { Family::V6 })
    }
}

/// One endpoint as a slice has it, and of which pod it is.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    pub(super) uid: String,
    pub(super) value: Value,
    /// When the pod became what it is, in Kubernetes' form.
    pub(super) since: Option<String>,
}

/// The families that a Service has endpoints of.
pub(super) fn families(service: &Value) -> Vec<Family> {
    let spec = &service["spec"];
    let named: Vec<Family> = object::list(&spec["ipFamilies"])
        .filter_map(|family| Family::parse(family.as_str().unwrap_or_default()))
        .collect();
    if !named.is_empty() {
        return named;
    }
    vec![spec["clusterIP"].as_str().and_then(Family::of).unwrap_or(Family::V4)]
}

/// The pod's addresses.
pub(super) fn addresses(pod: &Value) -> impl Iterator<Item = &str> {
    let status = &pod["status"];
    let many = object::list(&status["podIPs"]).filter_map(|each| each["ip"].as_str());
    let one = status["podIP"].as_str().filter(|_| object::list(&status["podIPs"]).next().is_none());
    many.chain(one).filter(|address| !address.is_empty())
}

pub(super) fn publishes_not_ready(service: &Value) -> bool {
    service["spec"]["publishNotReadyAddresses"] == true
}

/// The pod's endpoint in a family, if it has one.
pub(super) fn of(world: &World, service: &Value, pod: &Value, family: Family) -> Option<Endpoint> {
    let addresses: Vec<&str> = addresses(pod).filter(|a| Family::of(a) == Some(family)).collect();
    let node = object::node_of(pod).and_then(|node| world.get(&Key::new("nodes", "", node)));
    let publishes = publishes_not_ready(service);
    if addresses.is_empty() || object::finished(pod) || (node.is_none() && !publishes) {
        return None;
    }
    let (serving, terminating) = (object::ready(pod), object::terminating(pod));
    let mut value = json!({
        "addresses": addresses,
        "conditions": {"ready": publishes || (serving && !terminating), "serving": serving, "terminating": terminating},
        "targetRef": target(pod),
    });
    if let Some(name) = object::node_of(pod) {
        value["nodeName"] = json!(name);
    }
    if let Some(zone) = node.and_then(|node| object::zone(node)) {
        value["zone"] = json!(zone);
    }
    if let Some(hostname) = hostname(service, pod) {
        value["hostname"] = json!(hostname);
    }
    Some(Endpoint { uid: object::uid(pod).to_owned(), value, since: since(pod) })
}

pub(super) fn target(pod: &Value) -> Value {
    let meta = &pod["metadata"];
    json!({"kind": "Pod", "namespace": meta["namespace"], "name": meta["name"], "uid": meta["uid"]})
}

/// The name of its own that a pod has under a Service: that its `subdomain` names.
pub(super) fn hostname<'a>(service: &Value, pod: &'a Value) -> Option<&'a str> {
    let named = pod["spec"]["subdomain"] == service["metadata"]["name"];
    pod["spec"]["hostname"].as_str().filter(|hostname| named && !hostname.is_empty())
}

/// When the pod became ready or not ready, or began to end.
pub(super) fn since(pod: &Value) -> Option<String> {
    let ready = object::list(&pod["status"]["conditions"]).find(|c| c["type"] == "Ready");
    let changed = ready.and_then(|c| c["lastTransitionTime"].as_str());
    pod["metadata"]["deletionTimestamp"].as_str().or(changed).map(str::to_owned)
}

/// The Service's ports as this pod has them; a named port that the pod does not declare is not among them.
pub(super) fn ports(service: &Value, pod: &Value) -> Value {
    let ports = object::list(&service["spec"]["ports"]).filter_map(|port| {
        let number = number(port, pod)?;
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        let name = port["name"].as_str().unwrap_or_default();
        let mut own = json!({"name": name, "port": number, "protocol": protocol});
        if let Some(app) = port["appProtocol"].as_str() {
            own["appProtocol"] = json!(app);
        }
        Some(own)
    });
    Value::Array(ports.collect())
}

fn number(port: &Value, pod: &Value) -> Option<u64> {
    let target = &port["targetPort"];
    let Some(name) = target.as_str().filter(|name| !name.is_empty()) else {
        return target.as_u64().filter(|number| *number > 0).or_else(|| port["port"].as_u64());
    };
    let protocol = port["protocol"].as_str().unwrap_or("TCP");
    let sidecars =
        object::list(&pod["spec"]["initContainers"]).filter(|one| one["restartPolicy"] == "Always");
    let containers = object::list(&pod["spec"]["containers"]).chain(sidecars);
    let mut ports = containers.flat_map(|container| object::list(&container["ports"]));
    let named = |p: &&Value| p["name"] == name && p["protocol"].as_str().unwrap_or("TCP") == protocol;
    ports.find(named)?["containerPort"].as_u64()
}

/// Whether a pod shows its Services the same face as before: a change of anything else concerns them not.
pub(in super::super) fn face(pod: &Value) -> Value {
    let (meta, spec, status) = (&pod["metadata"], &pod["spec"], &pod["status"]);
    let ports: Vec<&Value> = object::list(&spec["containers"])
        .chain(object::list(&spec["initContainers"]))
        .flat_map(|container| object::list(&container["ports"]))
        .collect();
    let addresses: Vec<&str> = addresses(pod).collect();
    json!([
        meta["uid"],
        meta["labels"],
        object::terminating(pod),
        spec["nodeName"],
        spec["hostname"],
        spec["subdomain"],
        ports,
        addresses,
        object::finished(pod),
        object::ready(pod),
        status["hostIP"]
    ])
}
