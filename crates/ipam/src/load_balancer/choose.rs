//! One Service's addresses, beside those that others have.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use weft_model::load_balancer::{Claim, Range};
use weft_model::pools::Labels;

use super::catalogue::{Catalogue, Entry};

/// Who has which address, and where the search for a free one goes on.
pub(super) struct Taken<'a> {
    /// Who should have it.
    pub(super) planned: BTreeMap<IpAddr, Vec<&'a Claim>>,
    /// Who has it by its status: it leads there until that is written anew.
    seen: BTreeMap<IpAddr, Vec<&'a Claim>>,
    /// Addresses that are nodes'.
    nodes: &'a BTreeSet<IpAddr>,
    /// Below these nothing of the range is free.
    cursors: BTreeMap<(Range, bool), IpAddr>,
}

/// Why a Service does not have what it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// One word.
    pub(super) reason: &'static str,
    /// A sentence that says what to do.
    pub(super) message: String,
}

impl Problem {
    pub(super) fn new(reason: &'static str, message: String) -> Problem {
        Problem { reason, message }
    }
}

impl<'a> Taken<'a> {
    pub(super) fn new(claims: impl Iterator<Item = &'a Claim>, nodes: &'a BTreeSet<IpAddr>) -> Taken<'a> {
        let mut seen: BTreeMap<IpAddr, Vec<&'a Claim>> = BTreeMap::new();
        for claim in claims {
            for ip in claim.ips() {
                seen.entry(ip).or_default().push(claim);
            }
        }
        Taken { planned: BTreeMap::new(), seen, nodes, cursors: BTreeMap::new() }
    }

    pub(super) fn give(&mut self, claim: &'a Claim, ip: IpAddr) {
        self.planned.entry(ip).or_default().push(claim);
    }

    /// Takes an address away that it was to have.
    pub(super) fn take(&mut self, claim: &Claim, ip: IpAddr) {
        if let Some(holders) = self.planned.get_mut(&ip) {
            holders.retain(|holder| holder.key != claim.key);
            if holders.is_empty() {
                self.planned.remove(&ip);
            }
        }
    }

    /// Whom among those that should have it the Service cannot share the address with.
    pub(super) fn rival(&self, claim: &Claim, ip: IpAddr) -> Option<&'a Claim> {
        rival(self.planned.get(&ip), claim)
    }

    /// The same among those that have it now.
    fn present(&self, claim: &Claim, ip: IpAddr) -> Option<&'a Claim> {
        self.rival(claim, ip).or_else(|| rival(self.seen.get(&ip), claim))
    }

    fn is_free(&self, entry: &Entry<'_>, ip: IpAddr) -> bool {
        !self.planned.contains_key(&ip)
            && !self.seen.contains_key(&ip)
            && !self.nodes.contains(&ip)
            && entry.gives(ip)
    }

    /// An address of the pool for the Service: one that it shares with another of its key, or the first free.
    pub(super) fn find(&mut self, entry: &Entry<'_>, claim: &Claim, v4: bool) -> Option<IpAddr> {
        let ranges: Vec<Range> = entry.ranges().filter(|range| range.is_ipv4() == v4).copied().collect();
        if claim.share.key.is_some() {
            let fits = |ip: &IpAddr| self.present(claim, *ip).is_none() && entry.gives(*ip);
            for range in &ranges {
                let shared = self.planned.range(range.first()..).map(|(ip, _)| *ip);
                if let Some(ip) = shared.take_while(|ip| range.contains(*ip)).find(fits) {
                    return Some(ip);
                }
            }
        }
        ranges.into_iter().find_map(|range| self.first_free(entry, range))
    }

    fn first_free(&mut self, entry: &Entry<'_>, range: Range) -> Option<IpAddr> {
        let cursor = (range, entry.pool.avoid_buggy);
        let mut at = Some(self.cursors.get(&cursor).copied().unwrap_or(range.first()));
        while let Some(ip) = at {
            self.cursors.insert(cursor, ip);
            if self.is_free(entry, ip) {
                return Some(ip);
            }
            at = range.after(ip);
        }
        None
    }

    /// An address that the Service asks for; its pool, or why it cannot have it.
    pub(super) fn asked(
        &self,
        catalogue: &Catalogue<'_>,
        claim: &Claim,
        namespace: &Labels,
        ip: IpAddr,
    ) -> Result<(), Problem> {
        let Some(entry) = catalogue.around(ip) else {
            let message =
                format!("{ip} is in no LoadBalancerPool that can be used; ask for an address of one");
            return Err(Problem::new("NotInPool", message));
        };
        let pool = entry.name();
        if claim.request.as_ref().is_ok_and(|request| request.pool.as_ref().is_some_and(|name| name != pool))
        {
            let message =
                format!("{ip} is of the pool {pool}, not of the one asked for; ask for either alone");
            return Err(Problem::new("NotInPool", message));
        }
        if !entry.chooses(claim, namespace) {
            let message = format!(
                "{ip} is of the pool {pool}, whose selectors do not choose this Service; label it, or ask for another"
            );
            return Err(Problem::new("NotAllowed", message));
        }
        if self.nodes.contains(&ip) || !entry.gives(ip) {
            let message = format!("the pool {pool} does not give {ip}; ask for another address");
            return Err(Problem::new("NotAllowed", message));
        }
        let Some(rival) = self.present(claim, ip) else { return Ok(()) };
        let message = format!(
            "{ip} is {}'s; ask for another address, or give both Services the same weft.dev/allow-shared-ip and different ports",
            rival.key
        );
        Err(Problem::new("AddressTaken", message))
    }

    /// Addresses of a pool that should be somebody's, and how many of these the pool would give.
    pub(super) fn used(&self, entry: &Entry<'_>) -> (u64, u64) {
        let (mut all, mut given) = (0, 0);
        for range in entry.pool.addresses.iter().flatten() {
            let planned = self.planned.range(range.first()..).map(|(ip, _)| *ip);
            for ip in planned.take_while(|ip| range.contains(*ip)) {
                all += 1;
                given += u64::from(entry.gives(ip) && !self.nodes.contains(&ip));
            }
        }
        (all, given)
    }

    /// How many addresses of a pool the nodes have of those that it would give.
    pub(super) fn at_nodes(&self, entry: &Entry<'_>) -> u128 {
        let of = |range: &Range| {
            let nodes = self.nodes.range(range.first()..).take_while(|ip| range.contains(**ip));
            nodes.filter(|ip| entry.gives(**ip)).count() as u128
        };
        entry.ranges().map(of).sum()
    }
}

fn rival<'a>(holders: Option<&Vec<&'a Claim>>, claim: &Claim) -> Option<&'a Claim> {
    let others = holders.into_iter().flatten().copied();
    others.into_iter().find(|holder| holder.key != claim.key && !holder.share.with(&claim.share))
}
