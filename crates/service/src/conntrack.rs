//! Flows that lead where nobody is led any more: without this a client of UDP, which has no end, would send to
//! a removed endpoint for ever, or to an address that had no endpoint when he began.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use weft_kernel::conntrack::forget_flows;
use weft_kernel::nft::Family;
use weft_model::service::Protocol;

use crate::{Error, FrontendKey, Place, ServicePlan};

/// More ports than these are rather asked for in one question.
const MANY: usize = 32;

/// Forgets the flows of these frontends that the plan does not lead so. Those of TCP only with `tcp`: the
/// client's next packet then meets an endpoint that does not know it, and is answered by a reset. Says how many.
pub fn reconcile(plan: &ServicePlan, changed: &BTreeSet<FrontendKey>, tcp: bool) -> Result<usize, Error> {
    let mut asked: BTreeMap<(Protocol, bool), BTreeSet<u16>> = BTreeMap::new();
    for at in changed.iter().filter(|at| at.protocol != Protocol::Tcp || tcp) {
        asked.entry((at.protocol, at.place.is_ipv6())).or_default().insert(at.port);
    }
    let mut count = 0;
    for ((protocol, ipv6), ports) in asked {
        let family = if ipv6 { Family::Ip6 } else { Family::Ip };
        let stale = |to: SocketAddr, from: SocketAddr| {
            frontend(plan, changed, protocol, to).is_some_and(|at| is_stale(plan, at, to, from))
        };
        if ports.len() > MANY {
            count += forget_flows(family, protocol.number(), None, &stale)?;
            continue;
        }
        for port in ports {
            count += forget_flows(family, protocol.number(), Some(port), &stale)?;
        }
    }
    Ok(count)
}

/// The frontend among `changed` that a flow was opened to.
fn frontend(
    plan: &ServicePlan,
    changed: &BTreeSet<FrontendKey>,
    protocol: Protocol,
    to: SocketAddr,
) -> Option<FrontendKey> {
    let key = |place| FrontendKey { place, protocol, port: to.port() };
    let address = key(Place::Address(to.ip()));
    if changed.contains(&address) {
        return Some(address);
    }
    let node = plan.node_addresses.iter().any(|net| net.contains(&to.ip()));
    let node_port = key(Place::NodePort { ipv6: to.is_ipv6() });
    (node && changed.contains(&node_port)).then_some(node_port)
}

/// Whether a flow to a frontend that is answered by `from` is led otherwise now.
fn is_stale(plan: &ServicePlan, at: FrontendKey, to: SocketAddr, from: SocketAddr) -> bool {
    let translated = to != from;
    let Some(frontend) = plan.frontends.get(&at) else { return translated };
    let mut backends = frontend.all.backends().iter().chain(frontend.local.backends());
    let mut known = |from| backends.any(|backend| backend.address == from);
    match translated {
        true => !known(from),
        // It began when there was nobody to be led to.
        false => frontend.all.backends().len() + frontend.local.backends().len() > 0,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{Backend, Choice, Frontend, Kind, Policy};
    use weft_model::NamespacedName;

    #[test]
    fn what_is_stale() {
        let at = |place: &str, port| FrontendKey {
            place: place.parse().map_or(Place::NodePort { ipv6: false }, Place::Address),
            protocol: Protocol::Udp,
            port,
        };
        let backend = |ip: &str| Backend { address: format!("{ip}:5353").parse().unwrap(), here: false };
        let choice = |list: &[&str]| match list {
            [] => Choice::Reject,
            list => Choice::Backends(list.iter().map(|ip| backend(ip)).collect()),
        };
        let frontend = |all: &[&str]| {
            Arc::new(Frontend {
                service: NamespacedName::new("kube-system", "dns"),
                port_name: "dns".into(),
                kind: Kind::ClusterIp,
                policy: Policy::Internal,
                all: choice(all),
                local: choice(&[]),
                affinity: None,
                sources: None,
            })
        };
        let plan = ServicePlan {
            frontends: BTreeMap::from([
                (at("10.96.0.10", 53), frontend(&["10.244.0.5"])),
                (at("10.96.0.11", 53), frontend(&[])),
                (at("node", 30053), frontend(&["10.244.0.5"])),
            ]),
            node_addresses: vec!["10.168.0.2/32".parse().unwrap()],
            ..ServicePlan::default()
        };
        let mut changed: BTreeSet<FrontendKey> = plan.frontends.keys().copied().collect();
        changed.insert(at("10.96.0.12", 53));
        for (to, from, stale) in [
            ("10.96.0.10:53", "10.244.0.5:5353", Some(false)),
            ("10.96.0.10:53", "10.244.0.6:5353", Some(true)),
            ("10.96.0.10:53", "10.96.0.10:53", Some(true)),
            ("10.96.0.11:53", "10.244.0.5:5353", Some(true)),
            ("10.96.0.11:53", "10.96.0.11:53", Some(false)),
            ("10.96.0.12:53", "10.244.0.5:5353", Some(true)),
            ("10.96.0.12:53", "10.96.0.12:53", Some(false)),
            ("10.96.0.13:53", "10.244.0.5:5353", None),
            ("10.168.0.2:30053", "10.244.0.5:5353", Some(false)),
            ("10.168.0.2:30053", "10.244.0.9:5353", Some(true)),
            ("10.168.0.3:30053", "10.244.0.9:5353", None),
        ] {
            let (to, from) = (to.parse().unwrap(), from.parse().unwrap());
            let found = super::frontend(&plan, &changed, Protocol::Udp, to);
            assert_eq!(found.map(|at| is_stale(&plan, at, to, from)), stale, "{to} {from}");
        }
    }
}
