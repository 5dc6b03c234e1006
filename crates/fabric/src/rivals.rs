//! Routes of other programs that go before ours: to the same destination, with a lower metric.

use std::collections::BTreeMap;

use ipnet::IpNet;
use weft_kernel::{Route, TABLE_MAIN};
use weft_model::mark;

use crate::Error;
use crate::tables::{RouteKey, route_key};

/// The highest metric of a route of ours: what the kernel gives one of IPv6 that has none. With IPv4 ours
/// have the lowest there is.
const OURS: u32 = 1024;

/// Other programs' routes inside the cluster's CIDRs that could go before ours, and who made them.
#[derive(Debug, Default)]
pub(crate) struct Rivals(BTreeMap<RouteKey, u8>);

impl Rivals {
    /// Takes in all routes.
    pub(crate) fn read<'a>(&mut self, routes: impl Iterator<Item = &'a Route>, cluster: &[IpNet]) {
        self.0 = routes.filter(|r| could(r, cluster)).map(|r| (route_key(r), r.protocol)).collect();
    }

    /// Takes in one that came or went.
    pub(crate) fn observe(&mut self, new: bool, route: &Route, cluster: &[IpNet]) {
        if !could(route, cluster) {
            return;
        }
        match new {
            true => _ = self.0.insert(route_key(route), route.protocol),
            false => _ = self.0.remove(&route_key(route)),
        }
    }

    /// The one that goes before our route with this key.
    pub(crate) fn of(&self, (table, dst, metric): RouteKey) -> Option<Error> {
        let (key, protocol) = self.0.range((table, dst, 0)..(table, dst, metric)).next()?;
        Some(Error::RivalRoute { route: dst, metric: key.2, protocol: *protocol, ours: metric })
    }
}

fn could(route: &Route, cluster: &[IpNet]) -> bool {
    route.table == TABLE_MAIN
        && route.protocol != mark::ROUTE_PROTOCOL
        && route.metric < OURS
        && cluster.iter().any(|cidr| cidr.contains(&route.dst))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_lower_metric_in_the_cluster_is_a_rival() {
        let cluster: Vec<IpNet> = vec!["fd00:244::/48".parse().unwrap()];
        let route = |dst: &str, metric| Route { metric, ..Route::new(dst.parse().unwrap()) };
        let (near, far) = (route("fd00:244:0:1::/64", 20), route("2001:db8::/64", 20));
        let mut rivals = Rivals::default();
        rivals.read([&near, &far, &route("fd00:244:0:2::/64", 2048)].into_iter(), &cluster);
        let ours = (TABLE_MAIN, near.dst, OURS);
        let said = rivals.of(ours).unwrap().to_string();
        assert!(said.contains("fd00:244:0:1::/64") && said.contains("metric 20"), "{said}");
        for other in ["2001:db8::/64", "fd00:244:0:2::/64"] {
            assert!(rivals.of((TABLE_MAIN, other.parse().unwrap(), OURS)).is_none());
        }
        rivals.observe(false, &near, &cluster);
        assert!(rivals.of(ours).is_none());
    }
}
