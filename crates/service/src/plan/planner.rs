use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use weft_model::service::{EndpointSlice, ServiceKey, ZONE_LABEL};
use weft_model::{Changes, Cluster, NamespacedName};

use super::endpoints::Viewpoint;
use super::frontends::{Wanted, wanted};
use super::reserved::Reserved;
use super::{Changed, FrontendKey, Refusal, ServiceConfig, ServicePlan};

/// Keeps a node's plan in step with the cluster, at a cost that follows the change.
#[derive(Debug, Default)]
pub struct Planner {
    config: ServiceConfig,
    zone: Option<Arc<str>>,
    reserved: Reserved,
    /// The slices of each Service, and the Service that each slice was counted to.
    slices: BTreeMap<ServiceKey, BTreeSet<NamespacedName>>,
    owners: BTreeMap<NamespacedName, ServiceKey>,
    /// What each Service wants.
    wanted: BTreeMap<ServiceKey, Wanted>,
    /// Who wants what more than one wants, or has wanted.
    rivals: BTreeMap<FrontendKey, BTreeSet<ServiceKey>>,
    plan: ServicePlan,
}

impl Planner {
    /// A plan of nothing.
    pub fn new(config: ServiceConfig) -> Planner {
        let pods: Vec<IpNet> = config.cluster_cidrs.iter().map(IpNet::trunc).collect();
        let plan = ServicePlan { pods: IpNet::aggregate(&pods), ..ServicePlan::default() };
        let reserved = Reserved { pods: plan.pods.clone(), ..Reserved::default() };
        Planner { config, reserved, plan, ..Planner::default() }
    }

    /// The plan as it is.
    pub fn plan(&self) -> &ServicePlan {
        &self.plan
    }

    /// How it was configured.
    pub fn config(&self) -> &ServiceConfig {
        &self.config
    }

    /// Takes in a new view of the cluster and the keys that may differ in it. The first time every key
    /// has to be named.
    pub fn update(&mut self, cluster: &Cluster, changes: &Changes) -> Changed {
        let mut changed = Changed::default();
        let mut affected = changes.services.clone();
        for key in &changes.slices {
            affected.extend(self.count_slice(cluster, key));
        }
        if self.look_around(cluster, changes, &mut changed) {
            affected.extend(cluster.services.keys().cloned());
        }
        for service in affected {
            self.replan(cluster, &service, &mut changed);
        }
        changed
    }

    /// Counts a slice to its Service; says whom that concerns.
    fn count_slice(&mut self, cluster: &Cluster, key: &NamespacedName) -> BTreeSet<ServiceKey> {
        let owner = cluster.slices.get(key).and_then(|slice| slice.owner());
        let before = self.owners.get(key).cloned();
        if before != owner {
            if let Some(before) = &before {
                self.owners.remove(key);
                if let Some(slices) = self.slices.get_mut(before) {
                    slices.remove(key);
                    if slices.is_empty() {
                        self.slices.remove(before);
                    }
                }
            }
            if let Some(owner) = &owner {
                self.owners.insert(key.clone(), owner.clone());
                self.slices.entry(owner.clone()).or_default().insert(key.clone());
            }
        }
        before.into_iter().chain(owner).collect()
    }

    /// Takes in what concerns all Services; says whether it is other than before.
    fn look_around(&mut self, cluster: &Cluster, changes: &Changes, changed: &mut Changed) -> bool {
        let mut all = false;
        for name in &changes.nodes {
            let addresses = cluster.nodes.get(name).map(|node| node.addresses.as_slice()).unwrap_or_default();
            all |= self.reserved.set_node(name, addresses);
        }
        let node = cluster.nodes.get(&self.config.node);
        let zone = node.and_then(|node| node.labels.get(ZONE_LABEL)).filter(|zone| !zone.is_empty()).cloned();
        all |= std::mem::replace(&mut self.zone, zone.clone()) != zone;
        let kubernetes = NamespacedName::new("default", "kubernetes");
        let slices = self.slices_of(cluster, &kubernetes);
        let api: BTreeSet<SocketAddr> = slices.iter().flat_map(|slice| sockets(slice)).collect();
        all |= std::mem::replace(&mut self.reserved.api, api.clone()) != api;
        let addresses = match &self.config.node_port_addresses[..] {
            [] => {
                node.map(|node| node.addresses.iter().copied().map(IpNet::from).collect()).unwrap_or_default()
            }
            configured => configured.iter().map(IpNet::trunc).collect::<Vec<_>>(),
        };
        let addresses = IpNet::aggregate(&addresses);
        changed.rest |= std::mem::replace(&mut self.plan.node_addresses, addresses.clone()) != addresses;
        all
    }

    fn slices_of<'a>(&self, cluster: &'a Cluster, service: &ServiceKey) -> Vec<&'a EndpointSlice> {
        let keys = self.slices.get(service).into_iter().flatten();
        keys.filter_map(|key| cluster.slices.get(key)).map(|slice| &**slice).collect()
    }

    fn replan(&mut self, cluster: &Cluster, key: &ServiceKey, changed: &mut Changed) {
        let slices = self.slices_of(cluster, key);
        let at = Viewpoint { node: &self.config.node, zone: self.zone.as_ref() };
        let new = cluster.services.get(key);
        let new = new.map(|service| wanted(service, &slices, &self.reserved, &self.config, at));
        let old = self.wanted.remove(key);
        if new == old {
            self.wanted.extend(new.map(|wanted| (key.clone(), wanted)));
            return;
        }
        let empty = Wanted::default();
        let (was, is) = (old.as_ref().unwrap_or(&empty), new.as_ref().unwrap_or(&empty));
        self.settle_addresses(was, is, changed);
        self.settle_check(key, was, is, changed);
        let aged = was.created != is.created;
        let gone = was.frontends.keys().filter(|frontend| !is.frontends.contains_key(frontend));
        let other = is.frontends.iter().filter(|(at, value)| aged || was.frontends.get(at) != Some(value));
        let concerned: Vec<FrontendKey> = gone.copied().chain(other.map(|(at, _)| *at)).collect();
        self.wanted.extend(new.map(|wanted| (key.clone(), wanted)));
        let mut others = BTreeSet::from([key.clone()]);
        for frontend in concerned {
            self.settle(key, frontend, &mut others);
            changed.frontends.insert(frontend);
        }
        for service in others {
            self.tell(&service);
        }
    }

    /// Decides who has a frontend that `key` wants, wanted or wants otherwise. Adds to `others` whose refusals
    /// that may concern.
    fn settle(&mut self, key: &ServiceKey, at: FrontendKey, others: &mut BTreeSet<ServiceKey>) {
        let wants =
            |service: &ServiceKey| self.wanted.get(service).is_some_and(|w| w.frontends.contains_key(&at));
        let mut candidates: BTreeSet<ServiceKey> = self.rivals.remove(&at).unwrap_or_default();
        candidates.extend(self.plan.frontends.get(&at).map(|frontend| frontend.service.clone()));
        candidates.insert(key.clone());
        others.extend(candidates.iter().cloned());
        candidates.retain(wants);
        let age =
            |service: &ServiceKey| self.wanted.get(service).map(|w| (w.created.clone(), service.clone()));
        let winner = candidates.iter().min_by_key(|service| age(service)).cloned();
        let frontend = winner.and_then(|winner| self.wanted.get(&winner)?.frontends.get(&at).cloned());
        match frontend {
            Some(frontend) => _ = self.plan.frontends.insert(at, frontend),
            None => _ = self.plan.frontends.remove(&at),
        }
        if candidates.len() > 1 {
            self.rivals.insert(at, candidates);
        }
    }

    fn settle_addresses(&mut self, was: &Wanted, is: &Wanted, changed: &mut Changed) {
        let before: BTreeSet<&IpAddr> = was.cluster_ips.iter().collect();
        let after: BTreeSet<&IpAddr> = is.cluster_ips.iter().collect();
        for address in before.difference(&after) {
            if let Some(count) = self.plan.cluster_ips.get_mut(address) {
                *count -= 1;
                if *count == 0 {
                    self.plan.cluster_ips.remove(address);
                    changed.cluster_ips.insert(**address);
                }
            }
        }
        for address in after.difference(&before) {
            let count = self.plan.cluster_ips.entry(**address).or_default();
            *count += 1;
            if *count == 1 {
                changed.cluster_ips.insert(**address);
            }
        }
    }

    /// A health check's port belongs to whom has it, until he gives it up.
    fn settle_check(&mut self, key: &ServiceKey, was: &Wanted, is: &Wanted, changed: &mut Changed) {
        if was.check == is.check {
            return;
        }
        changed.rest = true;
        if let Some((port, _)) = &was.check
            && self.plan.checks.get(port).is_some_and(|check| check.service == *key)
        {
            self.plan.checks.remove(port);
            let next = self.wanted.values().filter_map(|wanted| wanted.check.as_ref());
            if let Some((port, check)) =
                next.filter(|(other, _)| other == port).min_by_key(|(_, c)| &c.service)
            {
                self.plan.checks.insert(*port, check.clone());
            }
        }
        if let Some((port, check)) = &is.check {
            let held = self.plan.checks.get(port).is_some_and(|held| held.service < check.service);
            if !held {
                self.plan.checks.insert(*port, check.clone());
            }
        }
    }

    /// Writes down what of a Service is not done.
    fn tell(&mut self, key: &ServiceKey) {
        let Some(wanted) = self.wanted.get(key) else {
            self.plan.refused.remove(key);
            return;
        };
        let mut refused = wanted.refused.clone();
        for at in wanted.frontends.keys().filter(|at| self.rivals.contains_key(at)) {
            match self.plan.frontends.get(at) {
                Some(held) if held.service != *key => {
                    refused.push(Refusal::Taken { frontend: *at, by: held.service.clone() });
                }
                _ => {}
            }
        }
        if refused.is_empty() {
            self.plan.refused.remove(key);
        } else {
            self.plan.refused.insert(key.clone(), refused);
        }
    }
}

/// Where the endpoints of a slice answer.
fn sockets(slice: &EndpointSlice) -> impl Iterator<Item = SocketAddr> {
    let port = |address| move |port: u16| SocketAddr::new(address, port);
    let all = slice.endpoints.iter().map(|endpoint| endpoint.address);
    all.flat_map(move |address| slice.ports.iter().map(|p| p.port).map(port(address)))
}
