use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use weft_kernel::{Address, Delta, FdbEntry, Neighbour, Op, Route};
use weft_model::{Mac, mark};

use crate::learnt::Learnt;
use crate::links::Devices;
use crate::nexthops::Nexthops;
use crate::own::device_route;
use crate::{Path, PeerPlan, Via, host_gw, ipip, vxlan};

/// What makes two routes the same route to the kernel: table, destination, metric.
pub(crate) type RouteKey = (u32, IpNet, u32);

/// The key of a route.
pub(crate) fn route_key(route: &Route) -> RouteKey {
    (route.table, route.dst, route.metric)
}

/// Desired and actual entries of every kind, and which desired ones each peer brought.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    pub(crate) addresses: Delta<(u32, IpNet), Address>,
    pub(crate) neighbours: Delta<(u32, IpAddr), Neighbour>,
    pub(crate) fdb: Delta<(u32, Mac), FdbEntry>,
    pub(crate) nexthops: Nexthops,
    pub(crate) routes: Delta<RouteKey, Route>,
    peers: BTreeMap<Arc<str>, Entries>,
    /// What does not depend on peers.
    own: Vec<Key>,
    /// What BGP has brought.
    pub(crate) learnt: Learnt,
    /// Numbers of the next hops of that.
    pub(crate) learnt_nexthops: BTreeSet<u32>,
}

/// What one peer's paths need.
#[derive(Debug, Default)]
struct Entries {
    keys: Vec<Key>,
    /// Whether every device that they go by is there.
    placed: bool,
    /// The CIDRs whose routes BGP brings.
    learnt: Vec<IpNet>,
}

/// One pending change and where its outcome is noted.
#[derive(Clone, Debug)]
pub(crate) enum Key {
    Address(u32, IpNet),
    Neighbour(u32, IpAddr),
    Fdb(u32, Mac),
    Nexthop(u32),
    Route(RouteKey),
}

impl Tables {
    /// Takes the named peers' plans as desired. All their old entries go first: one that moved
    /// from a peer to another must survive.
    pub(crate) fn desire(
        &mut self,
        plans: &BTreeMap<Arc<str>, PeerPlan>,
        changed: &BTreeSet<Arc<str>>,
        devices: &Devices,
    ) {
        let old: Vec<Key> =
            changed.iter().filter_map(|name| self.peers.remove(name)).flat_map(|e| e.keys).collect();
        old.iter().for_each(|key| self.forget(key));
        for (name, plan) in changed.iter().filter_map(|name| plans.get_key_value(name)) {
            let mut entries = Entries { placed: true, ..Entries::default() };
            for path in &plan.paths {
                entries.learnt.extend((path.via == Via::Learnt).then_some(path.cidr));
                match self.desire_path(path, devices) {
                    Some(keys) => entries.keys.extend(keys),
                    None => entries.placed = false,
                }
            }
            self.peers.insert(name.clone(), entries);
        }
        old.iter().for_each(|key| self.disown(key));
        if !changed.is_empty() {
            self.keep_learnt();
        }
    }

    /// Takes the routes that do not depend on peers as desired, and no others.
    pub(crate) fn desire_own(&mut self, routes: impl IntoIterator<Item = Route>) {
        let old = std::mem::take(&mut self.own);
        old.iter().for_each(|key| self.forget(key));
        self.own = routes.into_iter().flat_map(|route| self.desire_route(route)).collect();
        old.iter().for_each(|key| self.disown(key));
    }

    /// The entries of a path; none while the device that it needs is not there.
    fn desire_path(&mut self, path: &Path, devices: &Devices) -> Option<Vec<Key>> {
        let cidr = path.cidr;
        let device = |name| devices.get(name).copied();
        Some(match path.via {
            Via::Direct { gateway, link } => self.desire_route(host_gw::route(cidr, gateway, link)),
            Via::Vxlan { gateway, mac, endpoint } => {
                let second = device(mark::VXLAN6).filter(|_| endpoint.is_ipv6());
                let device = second.or_else(|| device(mark::VXLAN))?;
                let (neighbour, fdb, route) = vxlan::entries(device, cidr, gateway, mac, endpoint);
                self.neighbours.set_desired((device, gateway), neighbour);
                self.fdb.set_desired((device, mac), fdb);
                let mut keys = vec![Key::Neighbour(device, gateway), Key::Fdb(device, mac)];
                keys.extend(self.desire_route(route));
                keys
            }
            Via::Ipip { endpoint } => {
                let name = if endpoint.is_ipv4() { mark::IPIP } else { mark::IP6TNL };
                self.desire_route(ipip::route(device(name)?, cidr, endpoint))
            }
            // What is lent lies in its owner's block, which goes another way, on the owner itself nowhere.
            Via::Udp { .. } if cidr.prefix_len() == cidr.max_prefix_len() => {
                self.desire_route(device_route(device(mark::UDP)?, cidr))
            }
            // One route for the whole cluster leads to the device; the tunnel itself knows peers.
            Via::Udp { .. } => device(mark::UDP).map(|_| Vec::new())?,
            Via::Learnt => Vec::new(),
        })
    }

    pub(crate) fn desire_route(&mut self, mut route: Route) -> Vec<Key> {
        let nexthop = self.nexthops.desire(&mut route).map(Key::Nexthop);
        let key = route_key(&route);
        self.routes.set_desired(key, route);
        nexthop.into_iter().chain([Key::Route(key)]).collect()
    }

    fn forget(&mut self, key: &Key) {
        match key {
            Key::Address(..) => {}
            Key::Neighbour(index, ip) => self.neighbours.remove_desired(&(*index, *ip)),
            Key::Fdb(index, mac) => self.fdb.remove_desired(&(*index, *mac)),
            Key::Nexthop(id) => self.nexthops.delta.remove_desired(id),
            Key::Route(key) => self.routes.remove_desired(key),
        }
    }

    /// Another program's route that took the place of ours is not ours to delete.
    pub(crate) fn disown(&mut self, key: &Key) {
        let Key::Route(key) = key else { return };
        let foreign = self.routes.actual().get(key).is_some_and(|r| r.protocol != mark::ROUTE_PROTOCOL);
        if foreign && !self.routes.desired().contains_key(key) {
            self.routes.unobserve(key);
        }
    }

    /// Whether every entry of the named peer is in the kernel.
    pub(crate) fn programmed(&self, name: &str) -> bool {
        let is = |key: &Key| match key {
            Key::Address(i, n) => same(&self.addresses, &(*i, *n)),
            Key::Neighbour(i, ip) => same(&self.neighbours, &(*i, *ip)),
            Key::Fdb(i, mac) => same(&self.fdb, &(*i, *mac)),
            Key::Nexthop(id) => same(&self.nexthops.delta, id),
            Key::Route(key) => same(&self.routes, key),
        };
        let learnt = |cidr: &IpNet| self.learnt.key(cidr).is_some_and(|key| is(&Key::Route(key)));
        let whole = |entries: &Entries| {
            entries.placed
                && entries.keys.iter().chain(&self.own).all(is)
                && entries.learnt.iter().all(learnt)
        };
        self.peers.get(name).is_some_and(whole)
    }

    /// The keys of the routes that the named peer's paths need, and of those they share.
    pub(crate) fn routes_of(&self, name: &str) -> impl Iterator<Item = RouteKey> {
        let own = self.own.iter().filter(|_| self.peers.contains_key(name));
        let keys = self.peers.get(name).into_iter().flat_map(|entries| &entries.keys).chain(own);
        keys.filter_map(|key| if let Key::Route(key) = key { Some(*key) } else { None })
    }

    /// Every peer with an entry.
    pub(crate) fn peers(&self) -> BTreeSet<Arc<str>> {
        self.peers.keys().cloned().collect()
    }

    pub(crate) fn in_sync(&self) -> bool {
        self.addresses.in_sync()
            && self.neighbours.in_sync()
            && self.fdb.in_sync()
            && (self.nexthops.delta.in_sync() || self.learnt.awaited && !has_updates(&self.nexthops.delta))
            && (self.routes.in_sync() || self.learnt.awaited && !has_updates(&self.routes))
    }

    /// The whole difference in the order in which it must be applied: addresses, neighbours,
    /// forwarding entries, next hops, then the routes that use them; deletions last and in reverse.
    pub(crate) fn pending(&self) -> Vec<(Key, Op)> {
        let mut ops = Vec::new();
        ops.extend(
            self.addresses
                .pending_updates()
                .map(|((i, n), a)| (Key::Address(*i, *n), Op::AddrAdd(a.clone()))),
        );
        ops.extend(
            self.neighbours
                .pending_updates()
                .map(|((i, ip), n)| (Key::Neighbour(*i, *ip), Op::NeighReplace(n.clone()))),
        );
        ops.extend(
            self.fdb.pending_updates().map(|((i, mac), f)| (Key::Fdb(*i, *mac), Op::FdbReplace(f.clone()))),
        );
        let nexthops = &self.nexthops.delta;
        ops.extend(
            nexthops.pending_updates().map(|(id, n)| (Key::Nexthop(*id), Op::NexthopReplace(n.clone()))),
        );
        ops.extend(
            self.routes
                .pending_updates()
                .flat_map(|(key, route)| self.route_ops(key, route).map(|op| (Key::Route(*key), op))),
        );
        // What was learnt before a restart leads on until all is learnt anew.
        if !self.learnt.awaited {
            let routes = self.routes.pending_deletions();
            ops.extend(routes.map(|(key, r)| (Key::Route(*key), Op::RouteDel(r.clone()))));
            // Only now: with a next hop go the routes that still name it.
            let gone = nexthops.pending_deletions();
            ops.extend(gone.map(|(id, _)| (Key::Nexthop(*id), Op::NexthopDel(*id))));
        }
        ops.extend(
            self.fdb.pending_deletions().map(|((i, mac), f)| (Key::Fdb(*i, *mac), Op::FdbDel(f.clone()))),
        );
        ops.extend(
            self.neighbours
                .pending_deletions()
                .map(|((i, ip), n)| (Key::Neighbour(*i, *ip), Op::NeighDel(n.clone()))),
        );
        ops.extend(
            self.addresses
                .pending_deletions()
                .map(|((i, n), a)| (Key::Address(*i, *n), Op::AddrDel(a.clone()))),
        );
        ops
    }

    /// A route that was ours is replaced; one that was not is only added, so that another
    /// program's route to the same destination is never overwritten.
    fn route_ops(&self, key: &RouteKey, route: &Route) -> impl Iterator<Item = Op> + use<> {
        let old = self.routes.actual().get(key);
        // IPv6 takes no next hop on a link that another link's route leads to, be it this very route.
        let moved = old.filter(|old| route.onlink && route.dst.addr().is_ipv6() && old.oif != route.oif);
        let (first, then) = match (old, moved) {
            (_, Some(moved)) => (Some(Op::RouteDel(moved.clone())), Op::RouteAdd(route.clone())),
            (Some(_), None) => (None, Op::RouteReplace(route.clone())),
            (None, None) => (None, Op::RouteAdd(route.clone())),
        };
        first.into_iter().chain([then])
    }

    /// Notes that the pending change of `key` was made.
    pub(crate) fn applied(&mut self, key: Key) {
        match key {
            Key::Address(i, n) => settle(&mut self.addresses, (i, n)),
            Key::Neighbour(i, ip) => settle(&mut self.neighbours, (i, ip)),
            Key::Fdb(i, mac) => settle(&mut self.fdb, (i, mac)),
            Key::Nexthop(id) => settle(&mut self.nexthops.delta, id),
            Key::Route(key) => settle(&mut self.routes, key),
        }
    }
}

fn has_updates<K: Ord + Clone, V: Eq + Clone>(delta: &Delta<K, V>) -> bool {
    delta.pending_updates().next().is_some()
}

fn same<K: Ord + Clone, V: Eq + Clone>(delta: &Delta<K, V>, key: &K) -> bool {
    delta.desired().get(key) == delta.actual().get(key)
}

fn settle<K: Ord + Clone, V: Eq + Clone>(delta: &mut Delta<K, V>, key: K) {
    match delta.desired().get(&key).cloned() {
        Some(value) => delta.observe(key, value),
        None => delta.unobserve(&key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tunnelled(cidr: &str, mac: u8, endpoint: &str) -> PeerPlan {
        let cidr: IpNet = cidr.parse().unwrap();
        let via =
            Via::Vxlan { gateway: cidr.network(), mac: Mac([mac; 6]), endpoint: endpoint.parse().unwrap() };
        PeerPlan { paths: vec![Path { cidr, via }], ..PeerPlan::default() }
    }

    fn devices() -> Devices {
        [(mark::VXLAN, 9)].into()
    }

    fn kinds(ops: &[(Key, Op)]) -> Vec<&'static str> {
        let kind = |op: &Op| match op {
            Op::AddrAdd(_) => "+address",
            Op::AddrDel(_) => "-address",
            Op::NeighReplace(_) => "+neighbour",
            Op::NeighDel(_) => "-neighbour",
            Op::FdbReplace(_) => "+fdb",
            Op::FdbDel(_) => "-fdb",
            Op::NexthopReplace(_) => "+nexthop",
            Op::NexthopDel(_) => "-nexthop",
            Op::RouteAdd(_) => "+route",
            Op::RouteReplace(_) => "=route",
            Op::RouteDel(_) => "-route",
            other => panic!("{other:?}"),
        };
        ops.iter().map(|(_, op)| kind(op)).collect()
    }

    fn apply_all(tables: &mut Tables) -> Vec<&'static str> {
        let ops = tables.pending();
        ops.iter().for_each(|(key, _)| tables.applied(key.clone()));
        assert!(tables.in_sync() && tables.pending().is_empty());
        kinds(&ops)
    }

    #[test]
    fn what_a_route_needs_comes_before_it_and_goes_after_it() {
        let mut tables = Tables::default();
        let address = Address::new(9, "10.244.0.0/32".parse().unwrap());
        tables.addresses.set_desired((9, address.net), address.clone());
        let mut plans: BTreeMap<Arc<str>, PeerPlan> =
            [("b".into(), tunnelled("10.244.1.0/24", 1, "10.0.0.3"))].into();
        tables.desire(&plans, &["b".into()].into(), &devices());
        assert_eq!(apply_all(&mut tables), ["+address", "+neighbour", "+fdb", "+nexthop", "+route"]);
        plans.clear();
        tables.desire(&plans, &["b".into()].into(), &devices());
        tables.addresses.remove_desired(&(9, address.net));
        assert_eq!(apply_all(&mut tables), ["-route", "-nexthop", "-fdb", "-neighbour", "-address"]);
    }

    #[test]
    fn only_what_is_lent_has_a_route_of_its_own_to_the_tunnel_in_user_space() {
        let mut tables = Tables::default();
        let path = |cidr: &str| {
            let via = Via::Udp { endpoint: "10.0.0.3".parse().unwrap() };
            Path { cidr: cidr.parse().unwrap(), via }
        };
        let paths = vec![path("10.9.0.16/28"), path("10.9.0.5/32"), path("fd00::5/128")];
        let plans = [("b".into(), PeerPlan { paths, ..PeerPlan::default() })].into();
        tables.desire(&plans, &["b".into()].into(), &[(mark::UDP, 9)].into());
        assert_eq!(apply_all(&mut tables), ["+route", "+route"]);
        tables.desire(&BTreeMap::new(), &["b".into()].into(), &[(mark::UDP, 9)].into());
        assert_eq!(apply_all(&mut tables), ["-route", "-route"]);
    }

    #[test]
    fn a_cidr_that_moves_between_peers_is_replaced_and_never_missing() {
        for (from, to) in [("b", "c"), ("c", "b")] {
            let mut tables = Tables::default();
            let mut plans: BTreeMap<Arc<str>, PeerPlan> =
                [(from.into(), tunnelled("10.244.1.0/24", 1, "10.0.0.3"))].into();
            tables.desire(&plans, &[from.into()].into(), &devices());
            apply_all(&mut tables);
            plans = [(to.into(), tunnelled("10.244.1.0/24", 2, "10.0.0.4"))].into();
            tables.desire(&plans, &["b".into(), "c".into()].into(), &devices());
            assert_eq!(
                apply_all(&mut tables),
                ["+neighbour", "+fdb", "-fdb"],
                "the route itself is the same"
            );
        }
    }
    #[test]
    fn an_ipv6_route_leaves_one_link_before_it_takes_another() {
        let cidr: IpNet = "fd00::/64".parse().unwrap();
        let direct = Path { cidr, via: Via::Direct { gateway: "fd01::3".parse().unwrap(), link: 7 } };
        let mut tables = Tables::default();
        let mut plans: BTreeMap<Arc<str>, PeerPlan> =
            [("b".into(), PeerPlan { paths: vec![direct], ..PeerPlan::default() })].into();
        tables.desire(&plans, &["b".into()].into(), &devices());
        assert_eq!(apply_all(&mut tables), ["+route"]);
        plans = [("b".into(), tunnelled("fd00::/64", 1, "10.0.0.3"))].into();
        tables.desire(&plans, &["b".into()].into(), &devices());
        assert_eq!(apply_all(&mut tables), ["+neighbour", "+fdb", "-route", "+route"]);
    }
}
