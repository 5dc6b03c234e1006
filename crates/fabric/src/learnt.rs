//! Routes that BGP has brought: which next hop each has, by which link that is reached, and what of them is in force.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use weft_kernel::{Netlink, Route, TABLE_MAIN};
use weft_model::mark;

use crate::Fabric;
use crate::tables::{Key, RouteKey, Tables, route_key};

/// The metric of what is learnt: whatever the host has to the same destination goes before it.
pub const LEARNT_METRIC: u32 = 87_000;
/// RTPROT_KERNEL: the network of an address.
const RTPROT_KERNEL: u8 = 2;

/// What BGP has brought.
#[derive(Debug, Default)]
pub(crate) struct Learnt {
    /// What is not told anew yet may be stale, and stays until all is told.
    pub(crate) awaited: bool,
    /// Next hops by prefix, the best first.
    wanted: BTreeMap<IpNet, Vec<IpAddr>>,
    /// Prefixes to look at.
    due: BTreeSet<IpNet>,
    /// By which gateway and link a next hop is reached.
    ways: BTreeMap<IpAddr, Option<(IpAddr, u32)>>,
    /// What is desired of it: a route, and the next-hop object that it names.
    routes: BTreeMap<IpNet, Route>,
    /// Networks of the host's own links.
    connected: Vec<IpNet>,
    /// Why a prefix is not in force.
    problems: BTreeMap<IpNet, String>,
}

impl Learnt {
    /// The key of the route to a prefix, where there is one.
    pub(crate) fn key(&self, prefix: &IpNet) -> Option<RouteKey> {
        self.routes.get(prefix).map(route_key)
    }

    /// Takes in where a prefix leads; nowhere without next hops.
    pub(crate) fn hear(&mut self, prefix: IpNet, next_hops: Vec<IpAddr>) {
        match next_hops.is_empty() {
            true => _ = self.wanted.remove(&prefix),
            false => _ = self.wanted.insert(prefix, next_hops),
        }
        self.due.insert(prefix);
    }

    /// Forgets all of it.
    pub(crate) fn clear(&mut self) {
        self.due.extend(std::mem::take(&mut self.wanted).into_keys());
    }

    pub(crate) fn is_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// Takes in the host's routes. Next hops may be reached by other ways now.
    pub(crate) fn read(&mut self, routes: &[Route]) {
        let of_a_link = |route: &&Route| route.table == TABLE_MAIN && route.protocol == RTPROT_KERNEL;
        let connected = routes.iter().filter(of_a_link).map(|route| route.dst);
        // Every IPv6 link has that one.
        self.connected = connected.filter(|net| !is_link_local(net)).collect();
        self.ways.clear();
        self.due.extend(self.wanted.keys());
    }

    /// Why prefixes are not in force.
    pub(crate) fn problems(&self) -> impl Iterator<Item = &String> {
        self.problems.values()
    }

    /// The route to a prefix, or why there is none.
    fn route(&mut self, netlink: &mut Netlink, prefix: IpNet) -> Option<Result<Route, String>> {
        let hops = self.wanted.get(&prefix)?;
        if let Some(net) = self.connected.iter().find(|net| net.contains(&prefix)) {
            return Some(Err(format!(
                "the route to {prefix} that BGP brings lies in {net}, which a link of this host has: it is not used"
            )));
        }
        let found = hops.iter().find_map(|hop| *self.ways.entry(*hop).or_insert_with(|| way(netlink, *hop)));
        let why = || format!("no link of this host leads to {}, the next hop to {prefix}", hops[0]);
        Some(found.ok_or_else(why).map(|(via, oif)| {
            let mut route = Route::new(prefix);
            (route.via, route.oif) = (Some(via), Some(oif));
            (route.protocol, route.metric) = (mark::ROUTE_PROTOCOL, LEARNT_METRIC);
            route.as_reported()
        }))
    }
}

fn is_link_local(net: &IpNet) -> bool {
    matches!(net, IpNet::V6(net) if net.addr().is_unicast_link_local())
}

/// The gateway and the link by which a next hop is reached.
fn way(netlink: &mut Netlink, hop: IpAddr) -> Option<(IpAddr, u32)> {
    let route = netlink.route_get(hop, None, None).ok()?;
    Some((route.via.unwrap_or(hop), route.oif?))
}

impl Tables {
    /// Brings what was learnt since to what is desired.
    pub(crate) fn follow_learnt(&mut self, netlink: &mut Netlink) {
        if !self.learnt.is_due() {
            return;
        }
        for prefix in std::mem::take(&mut self.learnt.due) {
            let new = match self.learnt.route(netlink, prefix) {
                Some(Err(why)) => {
                    self.learnt.problems.insert(prefix, why);
                    None
                }
                other => {
                    self.learnt.problems.remove(&prefix);
                    other.and_then(Result::ok)
                }
            };
            self.replace_learnt(prefix, new);
        }
        self.keep_learnt();
    }

    fn replace_learnt(&mut self, prefix: IpNet, new: Option<Route>) {
        let old = self.learnt.routes.remove(&prefix);
        if let Some(old) = &old {
            self.routes.remove_desired(&route_key(old));
        }
        if let Some(mut route) = new {
            self.nexthops.desire(&mut route);
            self.routes.set_desired(route_key(&route), route.clone());
            self.learnt.routes.insert(prefix, route);
        }
        if let Some(old) = old {
            self.disown(&Key::Route(route_key(&old)));
        }
    }

    /// Next hops are shared: what a route of these names is desired, whoever else gave it up.
    pub(crate) fn keep_learnt(&mut self) {
        let mut used = BTreeSet::new();
        let routes: Vec<Route> = self.learnt.routes.values().cloned().collect();
        for mut route in routes {
            used.extend(self.nexthops.desire(&mut route));
        }
        for id in std::mem::replace(&mut self.learnt_nexthops, used.clone()).difference(&used) {
            self.nexthops.delta.remove_desired(id);
        }
    }
}

impl Fabric {
    /// Takes in where BGP says that prefixes lead, the best next hop first; nowhere without next hops. `settled`: with
    /// this all is told, and what was learnt before a restart and is not among it may go.
    pub fn learn(&mut self, routes: impl IntoIterator<Item = (IpNet, Vec<IpAddr>)>, settled: bool) {
        routes.into_iter().for_each(|(prefix, hops)| self.tables.learnt.hear(prefix, hops));
        self.settled = settled;
        self.await_learnt();
    }

    /// Nothing is learnt any more: BGP is not spoken here.
    pub fn unlearn(&mut self) {
        self.tables.learnt.clear();
        self.settled = false;
    }

    /// Why what BGP brings is not in force.
    pub fn unused(&self) -> impl Iterator<Item = &String> {
        self.tables.learnt.problems()
    }

    pub(crate) fn await_learnt(&mut self) {
        self.tables.learnt.awaited = !self.settled && self.local.as_ref().is_some_and(|local| local.learns);
    }
}
