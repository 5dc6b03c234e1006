use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use weft_kernel::{Delta, Nexthop, Route};
use weft_model::mark;

/// The next-hop objects that our IPv4 routes name, and which number each has.
#[derive(Debug, Default)]
pub(crate) struct Nexthops {
    pub(crate) delta: Delta<u32, Nexthop>,
    /// Numbers by device, gateway and whether it is on the link by our word alone.
    numbers: BTreeMap<(u32, IpAddr, bool), u32>,
    /// Numbers of our range that another program uses.
    foreign: BTreeSet<u32>,
    last: u32,
}

impl Nexthops {
    /// Lets `route` name an object for its gateway; its number, or none where it needs none:
    /// IPv6 does not look for a next hop that is alike.
    pub(crate) fn desire(&mut self, route: &mut Route) -> Option<u32> {
        let (oif, via) = (route.oif?, route.via.filter(IpAddr::is_ipv4)?);
        let way = (oif, via, route.onlink);
        let id = self.numbers.get(&way).copied().unwrap_or_else(|| self.number(way));
        let protocol = mark::ROUTE_PROTOCOL;
        self.delta.set_desired(id, Nexthop { id, via, oif, onlink: route.onlink, protocol });
        route.nexthop = Some(id);
        Some(id)
    }

    fn number(&mut self, way: (u32, IpAddr, bool)) -> u32 {
        loop {
            self.last = self.last.wrapping_add(1) & mark::NEXTHOP_MASK;
            let id = mark::NEXTHOPS | self.last;
            let taken = self.foreign.contains(&id)
                || self.delta.desired().contains_key(&id)
                || self.delta.actual().contains_key(&id);
            if !taken {
                self.numbers.insert(way, id);
                return id;
            }
        }
    }

    /// Takes in what the kernel has: ours keep their numbers, those of others are left alone.
    pub(crate) fn read(&mut self, found: Vec<Nexthop>) {
        let in_range = |id: u32| id & !mark::NEXTHOP_MASK == mark::NEXTHOPS;
        let (ours, others): (Vec<_>, Vec<_>) = found
            .into_iter()
            .filter(|nexthop| in_range(nexthop.id))
            .partition(|nexthop| nexthop.protocol == mark::ROUTE_PROTOCOL);
        self.foreign = others.iter().map(|nexthop| nexthop.id).collect();
        for nexthop in &ours {
            let way = (nexthop.oif, nexthop.via, nexthop.onlink);
            self.numbers.entry(way).or_insert(nexthop.id);
        }
        self.delta.replace_actual(ours.into_iter().map(|nexthop| (nexthop.id, nexthop)));
        let (desired, actual) = (self.delta.desired(), self.delta.actual());
        self.numbers.retain(|_, id| desired.contains_key(id) || actual.contains_key(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(via: &str) -> Route {
        let mut route = Route::new("10.244.1.0/24".parse().unwrap());
        (route.via, route.oif) = (Some(via.parse().unwrap()), Some(7));
        route
    }

    fn found(id: u32, via: &str, protocol: u8) -> Nexthop {
        Nexthop { id, via: via.parse().unwrap(), oif: 7, onlink: false, protocol }
    }

    #[test]
    fn one_way_has_one_number_which_a_restart_finds_again() {
        let mut nexthops = Nexthops::default();
        let (mut a, mut b) = (route("10.0.0.2"), route("10.0.0.3"));
        let first = nexthops.desire(&mut a).unwrap();
        assert_eq!(nexthops.desire(&mut route("10.0.0.2")), Some(first));
        assert_ne!(nexthops.desire(&mut b), Some(first));
        assert_eq!(nexthops.desire(&mut route("fd00::1")), None);
        let actual: Vec<Nexthop> = nexthops.delta.desired().values().cloned().collect();
        let mut restarted = Nexthops::default();
        restarted.read(actual);
        assert_eq!(restarted.desire(&mut route("10.0.0.3")), b.nexthop);
        assert_eq!(restarted.desire(&mut route("10.0.0.2")), a.nexthop);
        assert!(restarted.delta.in_sync());
    }

    #[test]
    fn numbers_of_others_are_left_alone() {
        let mut nexthops = Nexthops::default();
        nexthops.read(vec![found(mark::NEXTHOPS | 1, "10.0.0.9", 4), found(12, "10.0.0.8", 87)]);
        let id = nexthops.desire(&mut route("10.0.0.9")).unwrap();
        assert_eq!(id, mark::NEXTHOPS | 2);
        assert_eq!(nexthops.delta.pending_deletions().count(), 0);
    }
}
