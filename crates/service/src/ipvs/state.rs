//! What is wanted of virtual servers, addresses and tables, and what a change of the plan changes of it. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use weft_kernel::ipvs::{Scheduler, Server, ServerKey};
use weft_kernel::nft::{Bytes, Datum, Element, Expr, Rule, Set, SetKey};

use super::inner::Inner;
use super::tables::{self, Map};
use super::way::{Door, Way};
use crate::nftables::counts::Counts;
use crate::nftables::{chains, maps, way};
use crate::{Backend, Changed, Frontend, FrontendKey, Place, Policy, ServicePlan};

/// A virtual server that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) server: Server,
    pub(super) to: BTreeSet<SocketAddr>,
}

/// Elements to delete and to add of one map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Elements {
    pub(super) gone: Vec<Bytes>,
    pub(super) new: Vec<Element>,
}

/// What changes. The first of a key is whether it is of IPv6.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    /// Virtual servers that are new, different or gone.
    pub(super) servers: BTreeSet<ServerKey>,
    /// Addresses that are to be the node's, or not any more.
    pub(super) addresses: BTreeMap<IpAddr, bool>,
    /// Elements of maps.
    pub(super) elements: BTreeMap<(bool, Map), Elements>,
    /// Chains of who may connect: their rules, or none where they go.
    pub(super) chains: BTreeMap<(bool, String), Option<Vec<Rule>>>,
    /// Sets of networks with all their elements.
    pub(super) nets: BTreeMap<(bool, &'static str), Set>,
}

impl Difference {
    /// How many objects of the tables of a family it makes or removes.
    pub(super) fn writes(&self, ipv6: bool) -> usize {
        let elements = self.elements.iter().filter(|((of, _), _)| *of == ipv6);
        let elements: usize = elements.map(|(_, e)| e.gone.len() + e.new.len()).sum();
        let chains = self.chains.keys().filter(|(of, _)| *of == ipv6).count();
        elements + chains + self.nets.keys().filter(|(of, _)| *of == ipv6).count()
    }

    fn add(&mut self, ipv6: bool, map: Map, element: Element) {
        self.elements.entry((ipv6, map)).or_default().new.push(element);
    }

    fn delete(&mut self, ipv6: bool, map: Map, key: Bytes) {
        self.elements.entry((ipv6, map)).or_default().gone.push(key);
    }
}

/// What one frontend needs of its own.
#[derive(Default)]
struct Rendered {
    servers: BTreeMap<ServerKey, Wanted>,
    elements: BTreeMap<(Map, Bytes), Datum>,
}

/// What is wanted.
#[derive(Clone, Debug)]
pub(super) struct State {
    scheduler: Scheduler,
    /// The node's own addresses.
    own: BTreeSet<IpAddr>,
    frontends: BTreeMap<FrontendKey, Arc<Frontend>>,
    cluster_ips: BTreeSet<IpAddr>,
    inner: Inner,
    servers: BTreeMap<ServerKey, Wanted>,
    addresses: Counts<IpAddr>,
    hairpin: Counts<IpAddr>,
    sources: Counts<(bool, Arc<[IpNet]>)>,
    nets: BTreeMap<(bool, &'static str), Set>,
}

impl State {
    /// Nothing is wanted.
    pub(super) fn new(scheduler: Scheduler, own: BTreeSet<IpAddr>) -> State {
        State {
            scheduler,
            own,
            frontends: BTreeMap::new(),
            cluster_ips: BTreeSet::new(),
            inner: Inner::default(),
            servers: BTreeMap::new(),
            addresses: Counts::default(),
            hairpin: Counts::default(),
            sources: Counts::default(),
            nets: BTreeMap::new(),
        }
    }

    /// All of a plan, and what makes it of nothing.
    pub(super) fn whole(
        scheduler: Scheduler,
        own: BTreeSet<IpAddr>,
        plan: &ServicePlan,
    ) -> (State, Difference) {
        let mut state = State::new(scheduler, own);
        let changed = Changed {
            frontends: plan.frontends.keys().copied().collect(),
            cluster_ips: plan.cluster_ips.keys().copied().collect(),
            rest: true,
        };
        let difference = state.advance(plan, &changed);
        (state, difference)
    }

    /// The virtual servers.
    pub(super) fn servers(&self) -> &BTreeMap<ServerKey, Wanted> {
        &self.servers
    }

    /// The addresses that are to be the node's.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.needed().copied()
    }

    /// Whether an address is to be the node's.
    pub(super) fn has_address(&self, ip: IpAddr) -> bool {
        self.addresses.is_needed(&ip)
    }

    /// Whether it matters that the node has an address of its own, or (not `new`) has it no longer.
    pub(super) fn minds(&self, ip: IpAddr, new: bool) -> bool {
        new != self.own.contains(&ip) && (!new || self.has_address(ip))
    }

    /// Takes in a plan in which only `changed` is other than before.
    pub(super) fn advance(&mut self, plan: &ServicePlan, changed: &Changed) -> Difference {
        let mut out = Difference::default();
        for at in &changed.frontends {
            self.change(at, plan.frontends.get(at), &mut out);
        }
        for ip in &changed.cluster_ips {
            let wanted = plan.cluster_ips.contains_key(ip);
            if wanted && self.cluster_ips.insert(*ip) {
                self.count_address(*ip, true);
            } else if !wanted && self.cluster_ips.remove(ip) {
                self.count_address(*ip, false);
            }
        }
        self.settle(&mut out);
        for ipv6 in [false, true] {
            let key = if ipv6 { SetKey::Ipv6 } else { SetKey::Ipv4 };
            for (name, nets) in [(way::PODS, &plan.pods), (chains::NODE_ADDRESSES, &plan.node_addresses)] {
                let set = Set::nets(key, nets.iter().copied().filter(|net| net.addr().is_ipv6() == ipv6));
                if self.nets.get(&(ipv6, name)) != Some(&set) {
                    self.nets.insert((ipv6, name), set.clone());
                    out.nets.insert((ipv6, name), set);
                }
            }
        }
        out
    }

    fn change(&mut self, at: &FrontendKey, new: Option<&Arc<Frontend>>, out: &mut Difference) {
        let old = match new {
            Some(new) => self.frontends.insert(*at, new.clone()),
            None => self.frontends.remove(at),
        };
        // Counted first, so that what both need is not touched.
        if let Some(new) = new {
            self.count(at, new, true);
        }
        if let Some(old) = &old {
            self.count(at, old, false);
        }
        let mut before = old.map(|old| self.render(at, &old)).unwrap_or_default();
        let after = new.map(|new| self.render(at, new)).unwrap_or_default();
        let ipv6 = at.place.is_ipv6();
        for ((map, key), data) in after.elements {
            match before.elements.remove(&(map, key)) {
                Some(known) if known == data => continue,
                Some(_) => out.delete(ipv6, map, key),
                None => {}
            }
            out.add(ipv6, map, Element { key, data });
        }
        before.elements.into_keys().for_each(|(map, key)| out.delete(ipv6, map, key));
        for (key, wanted) in after.servers {
            if before.servers.remove(&key).as_ref() != Some(&wanted) {
                out.servers.insert(key);
                self.servers.insert(key, wanted);
            }
        }
        for key in before.servers.into_keys() {
            out.servers.insert(key);
            self.servers.remove(&key);
        }
        if new.is_none() {
            self.inner.forget(at);
        }
    }

    fn render(&mut self, at: &FrontendKey, frontend: &Frontend) -> Rendered {
        let mut out = Rendered::default();
        let own = matches!(at.place, Place::Address(ip) if self.own.contains(&ip));
        let way = Way::of(at, frontend, own);
        let node = matches!(at.place, Place::NodePort { .. });
        let protocol = at.protocol.number();
        let key = match at.place {
            Place::Address(address) => Bytes::EMPTY.address(address),
            Place::NodePort { .. } => Bytes::EMPTY,
        };
        let key = key.protocol(protocol).port(at.port);
        out.elements.insert((Map::frontends(node), key), tables::way_number(way.number()));
        if let Some(sources) = &frontend.sources {
            let chain = maps::sources_chain(sources);
            out.elements.insert((Map::Firewall, key), Datum::Jump(chain.into()));
        }
        let here = if frontend.policy == Policy::Local { frontend.local.backends() } else { &[] };
        for (backends, is_here) in [(frontend.all.backends(), false), (here, true)] {
            if backends.is_empty() {
                continue;
            }
            let address = match (at.place, way.door) {
                (Place::Address(ip), Door::Own) if !is_here => SocketAddr::new(ip, at.port),
                _ => {
                    let inner = self.inner.of(at, is_here);
                    let data = Bytes::EMPTY.address(inner.ip()).port(inner.port());
                    out.elements.insert((Map::servers(node, is_here), key), Datum::Fields(data));
                    inner
                }
            };
            let wanted = Wanted {
                server: Server::new(self.scheduler, frontend.affinity),
                to: backends.iter().map(|backend| backend.address).collect(),
            };
            out.servers.insert(ServerKey { at: address, protocol }, wanted);
        }
        out
    }

    /// Counts what frontends share.
    fn count(&mut self, at: &FrontendKey, frontend: &Frontend, more: bool) {
        if let Place::Address(ip) = at.place {
            self.count_address(ip, more);
        }
        if let Some(sources) = &frontend.sources {
            self.sources.step(&(at.place.is_ipv6(), sources.clone()), more);
        }
        let all: &[Backend] = frontend.all.backends();
        let here = all.iter().chain(frontend.local.backends()).filter(|backend| backend.here);
        let here: BTreeSet<IpAddr> = here.map(|backend| backend.address.ip()).collect();
        here.iter().for_each(|ip| self.hairpin.step(ip, more));
    }

    fn count_address(&mut self, ip: IpAddr, more: bool) {
        // One that the node has by itself is not made its own, nor are its other ports refused.
        if !self.own.contains(&ip) {
            self.addresses.step(&ip, more);
        }
    }

    fn settle(&mut self, out: &mut Difference) {
        let (new, gone) = self.addresses.settle();
        out.addresses.extend(new.into_iter().map(|ip| (ip, true)));
        out.addresses.extend(gone.into_iter().map(|ip| (ip, false)));
        let (new, gone) = self.sources.settle();
        for (ipv6, sources) in gone {
            out.chains.insert((ipv6, maps::sources_chain(&sources)), None);
        }
        for (ipv6, sources) in new {
            let mut rules = chains::sources(&sources);
            // The node's own come from the Service's address.
            if self.own.iter().any(|ip| sources.iter().any(|net| net.contains(ip))) {
                rules.insert(0, Rule::new("this node", [Expr::LocalSource, Expr::Return]));
            }
            out.chains.insert((ipv6, maps::sources_chain(&sources)), Some(rules));
        }
        let (new, gone) = self.hairpin.settle();
        gone.iter().for_each(|ip| out.delete(ip.is_ipv6(), Map::Hairpin, maps::hairpin(*ip).key));
        new.iter().for_each(|ip| out.add(ip.is_ipv6(), Map::Hairpin, maps::hairpin(*ip)));
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
