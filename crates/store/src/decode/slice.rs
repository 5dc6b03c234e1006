//! discovery.k8s.io/v1 EndpointSlice.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde::Deserialize;
use weft_model::NamespacedName;
use weft_model::service::{Endpoint, EndpointPort, EndpointSlice, Hints, Protocol, SERVICE_NAME_LABEL};

use super::service::{Labelled, number};
use super::{Kind, Meta, NAME_LIMIT};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SliceWire {
    metadata: Labelled,
    #[serde(default)]
    address_type: String,
    #[serde(default)]
    endpoints: Option<Vec<EndpointWire>>,
    #[serde(default)]
    ports: Option<Vec<EndpointPortWire>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EndpointWire {
    #[serde(default)]
    addresses: Option<Vec<String>>,
    #[serde(default)]
    conditions: Option<ConditionsWire>,
    node_name: Option<Arc<str>>,
    hints: Option<HintsWire>,
}

#[derive(Deserialize, Default)]
struct ConditionsWire {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HintsWire {
    for_zones: Option<Vec<HintWire>>,
    for_nodes: Option<Vec<HintWire>>,
}

#[derive(Deserialize)]
struct HintWire {
    name: Arc<str>,
}

#[derive(Deserialize)]
struct EndpointPortWire {
    name: Option<Arc<str>>,
    protocol: Option<Protocol>,
    port: Option<i64>,
}

impl Kind for EndpointSlice {
    type Key = NamespacedName;
    const PATH: &'static str = "/apis/discovery.k8s.io/v1/endpointslices";
    const NAME: &'static str = "EndpointSlice";

    fn decode(meta: &Meta, json: &str) -> Result<Self, String> {
        let wire: SliceWire = serde_json::from_str(json).map_err(|e| e.to_string())?;
        let of_family = |ip: &IpAddr| match &*wire.address_type {
            "IPv4" => ip.is_ipv4(),
            "IPv6" => ip.is_ipv6(),
            _ => false,
        };
        let mut names = Names::default();
        let endpoints = wire.endpoints.unwrap_or_default().into_iter();
        let endpoints = endpoints.filter_map(|wire| endpoint(wire, &mut names));
        // A port without a number means all ports, which is for other consumers than proxies.
        let port = |wire: EndpointPortWire| {
            let name = wire.name.unwrap_or_default();
            let port = wire.port.and_then(number).filter(|_| name.len() <= NAME_LIMIT)?;
            Some(EndpointPort { name, protocol: wire.protocol.unwrap_or_default(), port })
        };
        Ok(EndpointSlice {
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            service: wire.metadata.label(SERVICE_NAME_LABEL).unwrap_or_default(),
            ports: wire.ports.unwrap_or_default().into_iter().filter_map(port).collect(),
            endpoints: endpoints.filter(|endpoint| of_family(&endpoint.address)).collect(),
        })
    }

    fn key(meta: &Meta) -> NamespacedName {
        NamespacedName::new(meta.namespace.clone(), meta.name.clone())
    }
}

/// What many endpoints of a slice have alike, kept once.
#[derive(Default)]
struct Names {
    nodes: BTreeMap<Arc<str>, Arc<str>>,
    hints: Vec<Arc<Hints>>,
}

fn endpoint(wire: EndpointWire, names: &mut Names) -> Option<Endpoint> {
    let address = wire.addresses?.first()?.parse().ok()?;
    let said = wire.conditions.unwrap_or_default();
    let ready = said.ready.unwrap_or(true);
    let node = wire.node_name.filter(|name| !name.is_empty());
    let node = node.map(|name| names.nodes.entry(name.clone()).or_insert(name).clone());
    let hints = wire.hints.and_then(|hints| {
        let list = |hints: Option<Vec<HintWire>>| -> Vec<Arc<str>> {
            hints.into_iter().flatten().map(|hint| hint.name).collect()
        };
        let hints = Hints { zones: list(hints.for_zones), nodes: list(hints.for_nodes) };
        if hints == Hints::default() {
            return None;
        }
        if let Some(known) = names.hints.iter().find(|known| ***known == hints) {
            return Some(known.clone());
        }
        names.hints.push(Arc::new(hints));
        names.hints.last().cloned()
    });
    Some(Endpoint {
        address,
        ready,
        serving: said.serving.unwrap_or(ready),
        terminating: said.terminating.unwrap_or(false),
        node,
        hints,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::meta;

    fn decode(json: &str) -> Result<EndpointSlice, String> {
        EndpointSlice::decode(&meta(json)?, json)
    }

    const SLICE: &str = r#"{"metadata":{"name":"web-x","namespace":"shop","labels":{"kubernetes.io/service-name":"web"}},
        "addressType":"IPv4","ports":[{"name":"http","protocol":"TCP","port":8080},{"name":"all"}],
        "endpoints":[{"addresses":["10.244.0.5","10.244.0.6"],"nodeName":"node1","zone":"a",
            "hints":{"forZones":[{"name":"a"}]}},
          {"addresses":["fd00::5"]},{"addresses":["x"]},{"addresses":[]},
          {"addresses":["10.244.1.5"],"nodeName":"node1","conditions":{"ready":false,"serving":true,"terminating":true},
            "hints":{"forZones":[{"name":"a"}]}}]}"#;

    #[test]
    fn a_slice_has_the_endpoints_of_its_family() {
        let slice = decode(SLICE).unwrap();
        assert_eq!(slice.owner().unwrap().to_string(), "shop/web");
        assert_eq!(slice.ports.len(), 1);
        let addresses: Vec<String> = slice.endpoints.iter().map(|e| e.address.to_string()).collect();
        assert_eq!(addresses, ["10.244.0.5", "10.244.1.5"]);
        let [first, second] = &slice.endpoints[..] else { panic!() };
        assert!(first.ready && first.serving && !first.terminating, "what is not said");
        assert!(!second.ready && second.serving && second.terminating);
        let (first, second) = (first.hints.as_ref().unwrap(), second.hints.as_ref().unwrap());
        assert!(Arc::ptr_eq(first, second), "what is alike is kept once");
        let named =
            r#"{"metadata":{"name":"a"},"addressType":"FQDN","endpoints":[{"addresses":["10.0.0.1"]}]}"#;
        let named = decode(named).unwrap();
        assert!(named.endpoints.is_empty() && named.owner().is_none());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(text in ".{0,200}", cut in 0..SLICE.len()) {
            let _ = (decode(&text), decode(&SLICE[..cut]));
        }
    }
}
