//! The nftables backend against the kernel: history does not matter, what another program changes is put
//! back, what an agent before left is taken over, and a client stays with its backend.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod affinity;
mod history;
mod interrupted;
mod packets;
mod pairs;
mod repair;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::sync::Arc;

use ipnet::IpNet;
use weft_kernel::nft::{Element, Family, Nft, Outline, Set, SetKey, Table};
use weft_model::NamespacedName;
use weft_model::service::Protocol;
use weft_service::nftables::TABLE;
use weft_service::{Backend, Changed, Choice, Frontend, FrontendKey, Kind, Place, Policy, ServicePlan};

/// Pods of both families, and the node's addresses.
pub(crate) const PODS: [&str; 2] = ["10.244.0.0/16", "fd00:244::/48"];
pub(crate) const NODE: [&str; 2] = ["192.0.2.1", "fd00:50::1"];

pub(crate) fn key(place: &str, protocol: Protocol, port: u16) -> FrontendKey {
    let place = match place {
        "node" => Place::NodePort { ipv6: false },
        "node6" => Place::NodePort { ipv6: true },
        address => Place::Address(address.parse().unwrap()),
    };
    FrontendKey { place, protocol, port }
}

/// Backends, where those that begin with `!` are on this node; none at all refuses.
pub(crate) fn choice(backends: &[&str]) -> Choice {
    let backend = |text: &&str| Backend {
        address: text.trim_start_matches('!').parse::<SocketAddr>().unwrap(),
        here: text.starts_with('!'),
    };
    if backends.is_empty() {
        return Choice::Reject;
    }
    let all: BTreeSet<Backend> = backends.iter().map(backend).collect();
    Choice::Backends(all.into_iter().collect())
}

pub(crate) fn frontend(all: &[&str]) -> Frontend {
    Frontend {
        service: NamespacedName::new("shop", "web"),
        port_name: "http".into(),
        kind: Kind::ClusterIp,
        policy: Policy::Internal,
        all: choice(all),
        local: choice(all),
        affinity: None,
        sources: None,
    }
}

pub(crate) fn plan(frontends: impl IntoIterator<Item = (FrontendKey, Frontend)>) -> ServicePlan {
    let frontends: BTreeMap<_, _> = frontends.into_iter().map(|(at, f)| (at, Arc::new(f))).collect();
    let cluster = frontends.iter().filter(|(_, frontend)| frontend.kind == Kind::ClusterIp);
    let address = |at: &FrontendKey| match at.place {
        Place::Address(ip) => Some(ip),
        Place::NodePort { .. } => None,
    };
    let cluster_ips = cluster.filter_map(|(at, _)| Some((address(at)?, 1))).collect();
    ServicePlan {
        frontends,
        cluster_ips,
        pods: PODS.map(|net| net.parse().unwrap()).into(),
        node_addresses: NODE.map(|ip| IpNet::from(ip.parse::<IpAddr>().unwrap())).into(),
        ..ServicePlan::default()
    }
}

/// What differs between two plans.
pub(crate) fn changed(before: &ServicePlan, after: &ServicePlan) -> Changed {
    let mut changed = Changed { rest: true, ..Changed::default() };
    let keys = before.frontends.keys().chain(after.frontends.keys());
    changed.frontends =
        keys.filter(|at| before.frontends.get(at) != after.frontends.get(at)).copied().collect();
    let ips = before.cluster_ips.keys().chain(after.cluster_ips.keys());
    let one = |ip: &&IpAddr| before.cluster_ips.contains_key(ip) != after.cluster_ips.contains_key(ip);
    changed.cluster_ips = ips.filter(one).copied().collect();
    changed
}

/// All that is in the tables, but for what packets taught.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Dump {
    outline: Outline,
    elements: BTreeMap<String, BTreeSet<Element>>,
    nets: BTreeMap<String, Set>,
}

/// What the calling thread's namespace has.
pub(crate) fn dump() -> [Option<Dump>; 2] {
    let mut nft = Nft::open().unwrap();
    [(Family::Ip, SetKey::Ipv4), (Family::Ip6, SetKey::Ipv6)].map(|(family, key)| {
        let table = Table::new(family, TABLE);
        let outline = nft.outline(&table).unwrap()?;
        let mut dump = Dump { outline, elements: BTreeMap::new(), nets: BTreeMap::new() };
        for (name, shape) in &dump.outline.maps {
            if shape.interval {
                dump.nets.insert(name.clone(), nft.net_set(&table, name, key, true).unwrap());
            } else if !shape.dynamic {
                let found = dump.elements.entry(name.clone()).or_default();
                nft.elements(&table, name, |element| assert!(found.insert(element))).unwrap();
            }
        }
        Some(dump)
    })
}

pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
