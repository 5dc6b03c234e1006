//! What every cluster has: the default ServiceAccount and the CA's certificate in each namespace, and
//! the Service `kubernetes` that leads to the API server.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::{Value, json};

use super::ControllersConfig;
use super::action::Action;
use super::endpoints::SLICES;
use super::world::{Key, World};
use super::{object, servers};
use crate::registry::Part;

const ROOT_CA: &str = "kube-root-ca.crt";
const KUBERNETES: &str = "kubernetes";
/// The namespace that the Service is in.
const DEFAULT: &str = "default";

/// Which namespace must be looked at again when this object changes.
pub(super) fn concerns(key: &Key) -> Option<&str> {
    let own = match &*key.kind {
        "serviceaccounts" => &*key.name == "default",
        "configmaps" => &*key.name == ROOT_CA,
        "services" | "endpoints" | SLICES => &*key.namespace == DEFAULT && &*key.name == KUBERNETES,
        _ => return servers::is_one(key).then_some(DEFAULT),
    };
    own.then_some(&key.namespace)
}

/// What a namespace lacks of what it should have from the start.
pub(super) fn plan(world: &World, key: &Key, namespace: &Value, config: &ControllersConfig) -> Vec<Action> {
    if &*key.kind != "namespaces" || object::terminating(namespace) {
        return Vec::new();
    }
    let wants = Wants { world, namespace: &key.name };
    let mut actions = Vec::new();
    actions.extend(wants.object("serviceaccounts", json!({"metadata": {"name": "default"}})));
    if let Some(ca) = &config.root_ca {
        let note = "Contains a CA bundle that can be used to verify the API server of this cluster.";
        let meta = json!({"name": ROOT_CA, "annotations": {"kubernetes.io/description": note}});
        actions.extend(wants.object("configmaps", json!({"metadata": meta, "data": {"ca.crt": ca}})));
    }
    if &*key.name == DEFAULT {
        actions.extend(kubernetes(&wants, config));
    }
    actions
}

struct Wants<'a> {
    world: &'a World,
    namespace: &'a str,
}

impl Wants<'_> {
    /// The write that makes the object, or brings its fields to these.
    fn object(&self, kind: &'static str, wanted: Value) -> Option<Action> {
        let key = Key::new(kind, self.namespace, object::name(&wanted));
        let Some(present) = self.world.get(&key) else {
            return Some(Action::Create { kind, namespace: self.namespace.to_owned(), object: wanted });
        };
        let fields = wanted.as_object().into_iter().flatten();
        let differing: Vec<_> =
            fields.filter(|(field, value)| *field != "metadata" && present[*field] != **value).collect();
        if differing.is_empty() {
            return None;
        }
        let mut patch = json!({"metadata": {"uid": object::uid(present)}});
        for (field, value) in differing {
            patch[field] = value.clone();
        }
        Some(Action::Patch { key, part: Part::Whole, patch })
    }
}

/// The Service `kubernetes`, and its endpoints: where this API server and the others over the same store
/// are reached. A Service has one port, so those that listen on another are left out.
fn kubernetes(wants: &Wants<'_>, config: &ControllersConfig) -> Vec<Action> {
    let Some(first) = config.api_service_ip else { return Vec::new() };
    let others = servers::addresses(wants.world);
    let mut all = config.advertised.iter().copied().chain(others).peekable();
    if all.peek().is_none() {
        return Vec::new();
    }
    let fitting: Vec<SocketAddr> = all.filter(|address| address.is_ipv4() == first.is_ipv4()).collect();
    let port = fitting.first().map_or(6443, SocketAddr::port);
    let addresses: BTreeSet<SocketAddr> = fitting.into_iter().filter(|a| a.port() == port).collect();
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let mut actions = Vec::new();
    let service = Key::new("services", wants.namespace, KUBERNETES);
    if wants.world.get(&service).is_none() {
        let spec = json!({"type": "ClusterIP", "clusterIP": first,
            "ports": [{"name": "https", "port": 443, "targetPort": port, "protocol": "TCP"}]});
        let object = json!({"metadata": {"name": KUBERNETES, "labels": labels}, "spec": spec});
        let namespace = wants.namespace.to_owned();
        actions.push(Action::Create { kind: "services", namespace, object });
    }
    let family = if first.is_ipv4() { "IPv4" } else { "IPv6" };
    let ports = json!([{"name": "https", "port": port, "protocol": "TCP"}]);
    let ips: Vec<Value> = addresses.iter().map(|address| json!({"ip": address.ip()})).collect();
    let subsets = if ips.is_empty() { json!([]) } else { json!([{"addresses": ips, "ports": ports}]) };
    let skip = json!({"endpointslice.kubernetes.io/skip-mirror": "true"});
    let endpoints = json!({"metadata": {"name": KUBERNETES, "labels": skip}, "subsets": subsets});
    actions.extend(wants.object("endpoints", endpoints));
    let each: Vec<Value> = addresses
        .iter()
        .map(|address| json!({"addresses": [address.ip()], "conditions": {"ready": true}}))
        .collect();
    let named = json!({"name": KUBERNETES, "labels": {"kubernetes.io/service-name": KUBERNETES}});
    let slice = json!({"metadata": named, "addressType": family, "endpoints": each, "ports": ports});
    actions.extend(wants.object(SLICES, slice));
    actions
}

#[cfg(test)]
mod tests {
    use super::super::sim::Sim;
    use super::*;

    fn config() -> ControllersConfig {
        ControllersConfig {
            root_ca: Some("PEM".to_owned()),
            advertised: vec!["192.0.2.1:6443".parse().unwrap(), "[2001:db8::1]:6443".parse().unwrap()],
            api_service_ip: Some("10.96.0.1".parse().unwrap()),
            ..ControllersConfig::default()
        }
    }

    fn settle(sim: &mut Sim) -> usize {
        let plan = |world: &World, dirty: &[Key]| {
            let each = dirty.iter().filter_map(|key| Some((key, world.get(key)?)));
            each.flat_map(|(key, object)| plan(world, key, object, &config())).collect()
        };
        sim.settle(plan).len()
    }

    #[test]
    fn namespaces_get_what_they_have_from_the_start_and_get_it_back() {
        let mut sim = Sim::default();
        sim.put("namespaces", json!({"metadata": {"name": "shop"}}));
        assert_eq!(settle(&mut sim), 2);
        assert_eq!(sim.get("configmaps", ROOT_CA)["data"]["ca.crt"], "PEM");
        sim.remove("serviceaccounts", "default");
        let mut changed = sim.get("configmaps", ROOT_CA);
        changed["data"] = json!({"ca.crt": "other"});
        sim.put("configmaps", changed);
        assert_eq!(settle(&mut sim), 2);
        assert_eq!(sim.get("configmaps", ROOT_CA)["data"]["ca.crt"], "PEM");
        let leaving = json!({"metadata": {"name": "shop", "deletionTimestamp": "now"}});
        sim.put("namespaces", leaving);
        sim.remove("serviceaccounts", "default");
        assert_eq!(settle(&mut sim), 0);
    }

    #[test]
    fn the_api_server_has_a_service() {
        let mut sim = Sim::default();
        sim.put("namespaces", json!({"metadata": {"name": "default"}}));
        assert_eq!(settle(&mut sim), 5);
        let get = |kind: &str| sim.world.get(&Key::new(kind, "default", KUBERNETES)).unwrap().clone();
        assert_eq!(get("services")["spec"]["clusterIP"], "10.96.0.1");
        assert_eq!(get("endpoints")["subsets"][0]["addresses"], json!([{"ip": "192.0.2.1"}]));
        assert_eq!(get(SLICES)["endpoints"][0]["addresses"], json!(["192.0.2.1"]));
    }

    #[test]
    fn servers_over_the_same_store_are_its_endpoints_too() {
        let mut sim = Sim::default();
        let lease = |name: &str, addresses: &str| {
            let meta = json!({"namespace": servers::NAMESPACE, "name": format!("{}{name}", servers::PREFIX),
                "annotations": {servers::ADDRESSES: addresses}});
            json!({"metadata": meta, "spec": {"holderIdentity": name}})
        };
        let leases = "leases.coordination.k8s.io";
        sim.put("namespaces", json!({"metadata": {"name": "default"}}));
        settle(&mut sim);
        sim.put(leases, lease("a", "192.0.2.1:6443"));
        assert_eq!(settle(&mut sim), 0, "it is this one");
        sim.put(leases, lease("b", "192.0.2.9:6443,[2001:db8::9]:6443"));
        sim.put(leases, lease("c", "192.0.2.3:6443"));
        sim.put(leases, lease("d", "192.0.2.4:7443,nonsense,"));
        assert_eq!(settle(&mut sim), 2);
        let get =
            |sim: &Sim, kind: &str| sim.world.get(&Key::new(kind, DEFAULT, KUBERNETES)).unwrap().clone();
        let three = json!([{"ip": "192.0.2.1"}, {"ip": "192.0.2.3"}, {"ip": "192.0.2.9"}]);
        assert_eq!(get(&sim, "endpoints")["subsets"][0]["addresses"], three);
        assert_eq!(get(&sim, SLICES)["endpoints"].as_array().unwrap().len(), 3);
        let key = Key::new(leases, servers::NAMESPACE, &format!("{}b", servers::PREFIX));
        let gone = sim.world.get(&key).unwrap().clone();
        sim.world.end(&Key::of(&crate::kinds::LEASES, &gone), &gone);
        assert_eq!(settle(&mut sim), 2);
        let two = json!([{"ip": "192.0.2.1"}, {"ip": "192.0.2.3"}]);
        assert_eq!(get(&sim, "endpoints")["subsets"][0]["addresses"], two);
    }
}
