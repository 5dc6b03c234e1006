//! What only one Service may have: cluster addresses and node ports, by number.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::Value;

/// Start of the keys of Services.
pub(crate) const SERVICES: &str = "core/services/";

/// An address or a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Claim {
    /// One of `spec.clusterIPs`.
    Address(IpAddr),
    /// A node port, or the port of the health check.
    Port(i64),
}

/// What an object has.
pub(super) fn of(key: &str, value: &Value) -> Box<[Claim]> {
    if !key.starts_with(SERVICES) {
        return Box::default();
    }
    let spec = &value["spec"];
    let list = |field: &str| spec[field].as_array().into_iter().flatten();
    let addresses = list("clusterIPs").filter_map(|address| address.as_str()?.parse().ok());
    let ports = list("ports").map(|port| &port["nodePort"]).chain([&spec["healthCheckNodePort"]]);
    let ports = ports.filter_map(Value::as_i64).filter(|port| *port != 0);
    addresses.map(Claim::Address).chain(ports.map(Claim::Port)).collect()
}

/// Who has what.
#[derive(Default)]
pub(super) struct Claims(BTreeSet<(Claim, Arc<str>)>);

impl Claims {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn add(&mut self, key: &Arc<str>, claims: &[Claim]) {
        self.0.extend(claims.iter().map(|claim| (*claim, key.clone())));
    }

    pub(super) fn remove(&mut self, key: &Arc<str>, claims: &[Claim]) {
        for claim in claims {
            self.0.remove(&(*claim, key.clone()));
        }
    }

    /// The keys of those that have it: one, unless something else than this server wrote them.
    pub(super) fn holders(&self, claim: Claim) -> impl Iterator<Item = &Arc<str>> {
        let all = self.0.range((claim, Arc::from(""))..);
        all.take_while(move |(other, _)| *other == claim).map(|(_, key)| key)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn services_have_addresses_and_ports_and_nobody_else_has() {
        let service = json!({"spec": {"clusterIPs": ["10.96.0.9", "fd00::9", "None"], "healthCheckNodePort": 30_003,
            "ports": [{"port": 80, "nodePort": 30_001}, {"port": 81}, {"port": 80, "nodePort": 30_001}]}});
        let address = |text: &str| Claim::Address(text.parse().unwrap());
        let expected = [address("10.96.0.9"), address("fd00::9")];
        let ports = [30_001, 30_001, 30_003].map(Claim::Port);
        assert_eq!(*of("core/services/shop/web", &service), [&expected[..], &ports].concat());
        assert!(of("core/pods/shop/web", &service).is_empty());
    }

    #[test]
    fn a_claim_is_held_until_its_last_holder_gives_it_up() {
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let (mut claims, port) = (Claims::default(), [Claim::Port(30_000)]);
        claims.add(&a, &port);
        claims.add(&b, &port);
        claims.add(&b, &[Claim::Port(30_001)]);
        claims.remove(&a, &port);
        let holders = |claims: &Claims, port| claims.holders(Claim::Port(port)).cloned().collect::<Vec<_>>();
        assert_eq!(holders(&claims, 30_000), vec![b.clone()]);
        claims.remove(&b, &port);
        assert!(holders(&claims, 30_000).is_empty());
        assert_eq!(holders(&claims, 30_001), [b]);
    }
}
