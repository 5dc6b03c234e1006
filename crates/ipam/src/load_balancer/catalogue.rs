//! The pools of a cluster: which of them give addresses, and to whom.

use std::sync::Arc;

use ipnet::IpNet;
use weft_model::load_balancer::{Claim, LoadBalancerPool, Range, is_buggy};
use weft_model::pools::Labels;

/// The pools, in the order in which they give.
pub(super) struct Catalogue<'a> {
    pub(super) pools: Vec<Entry<'a>>,
}

/// A pool, and why nothing is given out of it if so.
pub(super) struct Entry<'a> {
    pub(super) pool: &'a LoadBalancerPool,
    pub(super) fault: Option<String>,
}

impl<'a> Catalogue<'a> {
    /// Checks the pools against one another, the older first, and against networks that are something else.
    pub(super) fn of(
        pools: impl IntoIterator<Item = &'a LoadBalancerPool>,
        others: &[(IpNet, &str)],
    ) -> Catalogue<'a> {
        let mut by_age: Vec<&LoadBalancerPool> = pools.into_iter().collect();
        by_age.sort_by(|a, b| (&a.created, &a.name).cmp(&(&b.created, &b.name)));
        let mut taken: Vec<(Range, &str)> = Vec::new();
        let mut entries = Vec::new();
        for pool in by_age {
            let fault = match &pool.addresses {
                Err(why) => Some(why.clone()),
                Ok(ranges) => foreign(ranges, others).or_else(|| overlap(ranges, &taken)),
            };
            if fault.is_none() {
                taken.extend(pool.addresses.iter().flatten().map(|range| (*range, &*pool.name)));
            }
            entries.push(Entry { pool, fault });
        }
        let order = |entry: &Entry<'a>| (entry.pool.priority.unwrap_or(u32::MAX), entry.pool.name.clone());
        entries.sort_by_key(order);
        Catalogue { pools: entries }
    }

    pub(super) fn get(&self, name: &str) -> Option<&Entry<'a>> {
        self.pools.iter().find(|entry| &*entry.pool.name == name)
    }

    /// The pool that gives an address.
    pub(super) fn around(&self, ip: std::net::IpAddr) -> Option<&Entry<'a>> {
        self.pools.iter().find(|entry| entry.ranges().any(|range| range.contains(ip)))
    }
}

impl Entry<'_> {
    /// Its ranges; none where it gives nothing.
    pub(super) fn ranges(&self) -> impl Iterator<Item = &Range> {
        let good = self.fault.is_none().then_some(&self.pool.addresses);
        good.into_iter().flatten().flatten()
    }

    /// Whether a Service of a namespace with these labels may have its addresses.
    pub(super) fn chooses(&self, claim: &Claim, namespace: &Labels) -> bool {
        self.fault.is_none()
            && self.pool.namespaces.matches(namespace)
            && self.pool.services.matches(&claim.labels)
    }

    /// Whether it gives this address to anybody.
    pub(super) fn gives(&self, ip: std::net::IpAddr) -> bool {
        !(self.pool.avoid_buggy && is_buggy(ip))
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.pool.name
    }
}

fn foreign(ranges: &[Range], others: &[(IpNet, &str)]) -> Option<String> {
    let all = ranges.iter().flat_map(|range| others.iter().map(move |other| (range, other)));
    let (range, (net, what)) = all.into_iter().find(|(range, (net, _))| Range::of(net).overlaps(range))?;
    Some(format!("{range} overlaps {net}, {what}; give addresses that are nobody's"))
}

fn overlap(ranges: &[Range], taken: &[(Range, &str)]) -> Option<String> {
    let all = ranges.iter().flat_map(|range| taken.iter().map(move |other| (range, other)));
    let (range, (other, name)) = all.into_iter().find(|(range, (other, _))| other.overlaps(range))?;
    Some(format!("{range} overlaps {other} of the older pool {name}; take it out of one of them"))
}
