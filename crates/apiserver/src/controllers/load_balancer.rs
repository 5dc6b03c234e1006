//! Addresses of Services of type LoadBalancer, out of pools.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde_json::Value;
use weft_ipam::load_balancer::{Input, pool_patch, service_patch};
use weft_model::load_balancer::{Claim, LoadBalancerPool};
use weft_model::service::ServiceKey;

use super::ControllersConfig;
use super::action::Action;
use super::world::{Key, World};
use super::{events, object};
use crate::registry::Part;

pub(super) const POOLS: &str = "loadbalancerpools.weft.dev";
const IP_POOLS: &str = "ippools.weft.dev";

/// The Services that may have such addresses, and whether their plan is of before.
#[derive(Default)]
pub(super) struct Claims {
    known: BTreeMap<ServiceKey, Arc<Claim>>,
    pub(super) stale: bool,
}

impl Claims {
    /// Takes a Service as it is; nothing of one that is gone.
    pub(super) fn put(&mut self, key: &Key, service: Option<&Value>) {
        let key = ServiceKey::new(key.namespace.clone(), key.name.clone());
        let claim = service.and_then(|service| Claim::read(service).ok()).filter(Claim::matters);
        let old = match claim {
            Some(claim) => self.known.insert(key.clone(), Arc::new(claim)),
            None => self.known.remove(&key),
        };
        self.stale |= old.as_ref() != self.known.get(&key);
    }
}

/// Whether a change of such an object makes other plans than before; Services are told by [`Claims`].
pub(super) fn concerns(key: &Key, old: Option<&Value>, new: Option<&Value>) -> bool {
    let differs = |path: &str| {
        let part = |object: Option<&'_ Value>| object.and_then(|object| object.pointer(path)).cloned();
        part(old) != part(new)
    };
    match &*key.kind {
        POOLS | IP_POOLS => true,
        "namespaces" => differs("/metadata/labels"),
        "nodes" => differs("/status/addresses") || differs("/spec/podCIDRs"),
        _ => false,
    }
}

/// The writes that bring all statuses to the plan, each with its object.
pub(super) fn plan(world: &World, config: &ControllersConfig, now: &str) -> Vec<(Key, Action)> {
    let pools: Vec<Arc<LoadBalancerPool>> = world
        .of_kind(POOLS)
        .filter_map(|(_, pool)| LoadBalancerPool::read(&**pool).ok())
        .map(Arc::new)
        .collect();
    let claims = &world.claims.known;
    if pools.is_empty() && claims.is_empty() {
        return Vec::new();
    }
    let namespaces: BTreeSet<&Arc<str>> = claims.keys().map(|key| &key.namespace).collect();
    let labels = |name: &Arc<str>| {
        let namespace = world.get(&Key::new("namespaces", "", name))?;
        Some((name.clone(), serde_json::from_value(namespace["metadata"]["labels"].clone()).ok()?))
    };
    let planned = weft_ipam::load_balancer::plan(Input {
        claims,
        pools: &pools,
        namespaces: &namespaces.into_iter().filter_map(labels).collect(),
        others: &others(world, config),
        nodes: &nodes(world),
    });
    let mut writes = Vec::new();
    for (name, outcome) in &planned.services {
        let Some(patch) = claims.get(name).and_then(|claim| service_patch(claim, outcome, now)) else {
            continue;
        };
        let key = Key::new("services", &name.namespace, &name.name);
        let event = patch.told.zip(world.get(&key)).map(|(told, service)| {
            events::about(service, "Service", told.severity(), &told.reason, &told.message, now)
        });
        writes
            .push((key.clone(), Action::Patch { key: key.clone(), part: Part::Status, patch: patch.patch }));
        writes.extend(event.map(|event| (key, event)));
    }
    for pool in &pools {
        let status = planned.pools.get(&pool.name);
        let Some(patch) = status.and_then(|status| pool_patch(pool, status, now)) else { continue };
        if let Some(told) = patch.told.filter(|told| !told.good) {
            tracing::warn!("LoadBalancerPool {} gives no addresses: {}", pool.name, told.message);
        }
        let key = Key::new(POOLS, "", &pool.name);
        writes.push((key.clone(), Action::Patch { key, part: Part::Status, patch: patch.patch }));
    }
    writes
}

/// Networks that are something else.
fn others(world: &World, config: &ControllersConfig) -> Vec<(IpNet, &'static str)> {
    let pods = config.cluster_cidrs.iter().map(|cidr| (*cidr, "where pods have their addresses"));
    let services = config.service_cidrs.iter().map(|cidr| (*cidr, "where cluster IPs come from"));
    let pools = world.of_kind(IP_POOLS).filter_map(|(_, pool)| pool["spec"]["cidr"].as_str()?.parse().ok());
    let pools = pools.map(|cidr| (cidr, "an IPPool, whose addresses pods have"));
    let nodes = world.of_kind("nodes").flat_map(|(_, node)| object::list(&node["spec"]["podCIDRs"]));
    let nodes = nodes.filter_map(|cidr| cidr.as_str()?.parse().ok());
    pods.chain(services)
        .chain(pools)
        .chain(nodes.map(|cidr| (cidr, "the addresses of a node's pods")))
        .collect()
}

fn nodes(world: &World) -> BTreeSet<IpAddr> {
    let all = world.of_kind("nodes").flat_map(|(_, node)| object::list(&node["status"]["addresses"]));
    all.filter_map(|address| address["address"].as_str()?.parse().ok()).collect()
}
