//! One family's table as planned, and what a change of the plan changes of it. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use weft_kernel::nft::{Bytes, Datum, Element, Rule, Set, SetKey, Shape};

use super::counts::Counts;
use super::maps::{self, Map};
use super::way::Way;
use super::{chains, way};
use crate::{Changed, Frontend, FrontendKey, ServicePlan};

/// Elements to delete and to add of one map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Elements {
    pub(super) gone: Vec<Bytes>,
    pub(super) new: Vec<Element>,
}

/// What changes of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    /// Chains that only others jump to: their rules, or none where they go.
    pub(super) chains: BTreeMap<String, Option<Vec<Rule>>>,
    /// Chains that are there and have other rules now.
    pub(super) rewritten: BTreeMap<String, Vec<Rule>>,
    /// Maps of affinity: what they are, or none where they go.
    pub(super) affinity: BTreeMap<String, Option<Shape>>,
    /// By map and whether it is that of node ports.
    pub(super) elements: BTreeMap<(Map, bool), Elements>,
    /// Sets of networks with all their elements.
    pub(super) nets: BTreeMap<&'static str, Set>,
}

impl Difference {
    fn add(&mut self, map: Map, node: bool, element: Element) {
        self.elements.entry((map, node)).or_default().new.push(element);
    }

    fn delete(&mut self, map: Map, node: bool, key: Bytes) {
        self.elements.entry((map, node)).or_default().gone.push(key);
    }

    /// How many objects it makes or removes.
    pub(super) fn writes(&self) -> usize {
        let elements: usize = self.elements.values().map(|e| e.gone.len() + e.new.len()).sum();
        elements + self.chains.len() + self.rewritten.len() + self.affinity.len() + self.nets.len()
    }
}

/// What is in the table, but for its elements, which follow from it.
#[derive(Clone, Debug)]
pub(super) struct State {
    ipv6: bool,
    frontends: BTreeMap<FrontendKey, Arc<Frontend>>,
    cluster_ips: BTreeSet<IpAddr>,
    nets: BTreeMap<&'static str, Set>,
    ways: Counts<Way>,
    numbers: BTreeMap<u32, Way>,
    sources: Counts<Arc<[IpNet]>>,
    affinity: Counts<(bool, u32)>,
    hairpin: Counts<IpAddr>,
}

impl State {
    /// An empty table.
    pub(super) fn new(ipv6: bool) -> State {
        let mut ways = Counts::default();
        Way::common().for_each(|way| ways.add(&way));
        State {
            ipv6,
            frontends: BTreeMap::new(),
            cluster_ips: BTreeSet::new(),
            nets: BTreeMap::new(),
            ways,
            numbers: BTreeMap::new(),
            sources: Counts::default(),
            affinity: Counts::default(),
            hairpin: Counts::default(),
        }
    }

    /// All of a plan, and what makes it of an empty table.
    pub(super) fn whole(ipv6: bool, plan: &ServicePlan) -> (State, Difference) {
        let mut state = State::new(ipv6);
        let changed = Changed {
            frontends: plan.frontends.keys().copied().collect(),
            cluster_ips: plan.cluster_ips.keys().copied().collect(),
            rest: true,
        };
        let difference = state.advance(plan, &changed);
        (state, difference)
    }

    /// Takes in a plan in which only `changed` is other than before.
    pub(super) fn advance(&mut self, plan: &ServicePlan, changed: &Changed) -> Difference {
        let mut out = Difference::default();
        let ipv6 = self.ipv6;
        for at in changed.frontends.iter().filter(|at| at.place.is_ipv6() == ipv6) {
            self.change(at, plan.frontends.get(at), &mut out);
        }
        for ip in changed.cluster_ips.iter().filter(|ip| ip.is_ipv6() == ipv6) {
            let element = maps::cluster_ip(*ip);
            if plan.cluster_ips.contains_key(ip) {
                if self.cluster_ips.insert(*ip) {
                    out.add(Map::ClusterIps, false, element);
                }
            } else if self.cluster_ips.remove(ip) {
                out.delete(Map::ClusterIps, false, element.key);
            }
        }
        self.settle(&mut out);
        let key = if self.ipv6 { SetKey::Ipv6 } else { SetKey::Ipv4 };
        for (name, nets) in [(way::PODS, &plan.pods), (chains::NODE_ADDRESSES, &plan.node_addresses)] {
            let set = Set::nets(key, nets.iter().copied());
            if self.nets.get(name) != Some(&set) {
                self.nets.insert(name, set.clone());
                out.nets.insert(name, set);
            }
        }
        out
    }

    /// The number by which frontends name a way: always the same, unless another has it.
    fn number(&mut self, way: &Way) -> u32 {
        // FNV-1a.
        let hash = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        let mut number = way.chain().bytes().fold(0x811c_9dc5, hash);
        while self.numbers.get(&number).is_some_and(|other| other != way) {
            number = number.wrapping_add(1);
        }
        self.numbers.insert(number, *way);
        number
    }

    fn change(&mut self, at: &FrontendKey, new: Option<&Arc<Frontend>>, out: &mut Difference) {
        let old = match new {
            Some(new) => self.frontends.insert(*at, new.clone()),
            None => self.frontends.remove(at),
        };
        // Counted first, so that what both need is not touched.
        let mut fresh = Vec::new();
        let mut node = false;
        if let Some(new) = new {
            let way = self.count(at, new, true);
            let number = self.number(&way);
            node = is_node_port(at);
            match old {
                None => maps::elements(at, new, number, |map, element| out.add(map, node, element)),
                Some(_) => maps::elements(at, new, number, |map, element| fresh.push((map, element))),
            }
        }
        let Some(old) = old else { return };
        let way = self.count(at, &old, false);
        let number = self.number(&way);
        let mut stale: BTreeMap<(Map, Bytes), Datum> = BTreeMap::new();
        node |= is_node_port(at);
        maps::elements(at, &old, number, |map, element| {
            stale.insert((map, element.key), element.data);
        });
        for (map, element) in fresh {
            match stale.remove(&(map, element.key)) {
                Some(data) if data == element.data => continue,
                Some(_) => out.delete(map, node, element.key),
                None => {}
            }
            out.add(map, node, element);
        }
        stale.into_keys().for_each(|(map, key)| out.delete(map, node, key));
    }

    /// Counts what a frontend needs, or does not any more.
    fn count(&mut self, at: &FrontendKey, frontend: &Frontend, more: bool) -> Way {
        let way = Way::of(at, frontend);
        self.ways.step(&way, more);
        if let Some(seconds) = way.affinity {
            self.affinity.step(&(way.node, seconds), more);
        }
        if let Some(sources) = &frontend.sources {
            self.sources.step(sources, more);
        }
        let here = frontend.all.backends().iter().chain(frontend.local.backends()).filter(|b| b.here);
        let here: BTreeSet<IpAddr> = here.map(|backend| backend.address.ip()).collect();
        here.iter().for_each(|ip| self.hairpin.step(ip, more));
        way
    }

    fn settle(&mut self, out: &mut Difference) {
        let (new, gone) = self.ways.settle();
        for way in gone {
            let number = self.number(&way);
            self.numbers.remove(&number);
            out.delete(Map::Ways, false, maps::way(number, "").key);
            out.chains.insert(way.chain(), None);
        }
        for way in new {
            let number = self.number(&way);
            out.add(Map::Ways, false, maps::way(number, &way.chain()));
            out.chains.insert(way.chain(), Some(way.rules(self.ipv6)));
        }
        let (new, gone) = self.sources.settle();
        out.chains.extend(gone.iter().map(|sources| (maps::sources_chain(sources), None)));
        out.chains.extend(new.iter().map(|s| (maps::sources_chain(s), Some(chains::sources(s)))));
        let (new, gone) = self.affinity.settle();
        out.affinity.extend(gone.iter().map(|(node, seconds)| (maps::affinity(*node, *seconds), None)));
        for (node, seconds) in new {
            let shape = maps::affinity_shape(node, seconds, self.ipv6);
            out.affinity.insert(maps::affinity(node, seconds), Some(shape));
        }
        let (new, gone) = self.hairpin.settle();
        gone.iter().for_each(|ip| out.delete(Map::Hairpin, false, maps::hairpin(*ip).key));
        new.iter().for_each(|ip| out.add(Map::Hairpin, false, maps::hairpin(*ip)));
    }
}

fn is_node_port(at: &FrontendKey) -> bool {
    matches!(at.place, crate::Place::NodePort { .. })
}
