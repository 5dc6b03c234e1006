//! What people are told.

use std::collections::BTreeMap;
use std::time::Duration;

use ipnet::IpNet;

use super::Status;
use super::peer::Peer;
use super::status::{Counts, Families, Filter, NeighbourStatus, Route, Terms};
use super::worker::Worker;
use crate::PerFamily;
use crate::message::Origin;
use crate::rib::{Path, PeerId, Refusal, Verdict};

const REFUSALS: [(Refusal, &str); 6] = [
    (Refusal::AsLoop, "ourAsInPath"),
    (Refusal::ReflectionLoop, "reflectionLoop"),
    (Refusal::FirstAs, "firstAs"),
    (Refusal::OwnNextHop, "ourNextHop"),
    (Refusal::Prefix, "prefix"),
    (Refusal::Policy, "policy"),
];

impl Worker {
    pub(super) fn status(&self, now: Duration) -> Status {
        let neighbours = self.peers.values().map(|peer| (peer.name.clone(), self.neighbour(peer, now)));
        Status {
            listens: self.listeners.bound(),
            held_back: self.hold.is_some(),
            prefixes: self.rib.len(),
            strangers: self.strangers,
            bfd: self.watch.status(),
            neighbours: neighbours.collect(),
        }
    }

    fn neighbour(&self, peer: &Peer, now: Duration) -> NeighbourStatus {
        let counters = self.rib.counters(peer.rib);
        let refused = REFUSALS.iter().filter_map(|(refusal, name)| {
            let count = *counters.refused.get(*refusal as usize)?;
            (count > 0).then_some(((*name).to_owned(), count))
        });
        let families = |of: PerFamily<bool>| Families { ipv4: of.ipv4, ipv6: of.ipv6 };
        let terms = peer.terms().map(|(local_address, terms)| Terms {
            peer_as: terms.peer_as,
            peer_id: terms.peer_id,
            local_address,
            hold: terms.hold,
            families: families(terms.families),
            graceful_restart: terms.graceful_restart.map(|graceful| graceful.time),
        });
        NeighbourStatus {
            address: peer.address,
            state: peer.state().to_owned(),
            since: now.saturating_sub(peer.since).as_secs(),
            established: peer.established,
            last_fall: peer.last_fall.clone(),
            bfd: self.watch.of(peer),
            last_error: peer.last_error.clone(),
            terms,
            received: Counts { ipv4: counters.paths.ipv4, ipv6: counters.paths.ipv6 },
            refused: refused.collect(),
            updates: peer.updates,
            malformed: peer.malformed.clone(),
            stale: families(peer.stale),
        }
    }

    pub(super) fn routes(&self, filter: &Filter) -> Vec<Route> {
        let within = |prefix: &IpNet| filter.within.is_none_or(|net| net.contains(prefix));
        let mut prefixes: Vec<IpNet> = self.rib.routes().map(|(prefix, _)| *prefix).filter(within).collect();
        prefixes.sort();
        let of = |route: &Route| filter.neighbour.is_none() || route.neighbour == filter.neighbour;
        let names = self.names();
        let routes = prefixes.iter().flat_map(|prefix| self.paths(prefix, &names)).filter(of);
        if filter.limit > 0 { routes.take(filter.limit).collect() } else { routes.collect() }
    }

    pub(super) fn explain(&self, prefix: &IpNet) -> Vec<Route> {
        self.paths(&prefix.trunc(), &self.names())
    }

    fn names(&self) -> BTreeMap<PeerId, &Peer> {
        self.peers.values().map(|peer| (peer.rib, peer)).collect()
    }

    fn paths(&self, prefix: &IpNet, names: &BTreeMap<PeerId, &Peer>) -> Vec<Route> {
        let paths = self.rib.explain(prefix).into_iter();
        paths.map(|(path, verdict)| route(*prefix, path, verdict, names)).collect()
    }
}

fn route(prefix: IpNet, path: &Path, verdict: Verdict, names: &BTreeMap<PeerId, &Peer>) -> Route {
    let of = &*path.attributes;
    let lost_by = match verdict {
        Verdict::Best => None,
        Verdict::Multipath(step) | Verdict::Lost(step) => Some(step.to_string()),
    };
    Route {
        prefix,
        neighbour: names.get(&path.peer).map(|peer| peer.name.clone()),
        next_hop: of.next_hop.address(),
        as_path: of.as_path.to_string(),
        origin: match of.origin {
            Origin::Igp => "igp",
            Origin::Egp => "egp",
            Origin::Incomplete => "incomplete",
        }
        .to_owned(),
        local_pref: of.local_pref,
        med: of.med,
        communities: of.communities.iter().map(ToString::to_string).collect(),
        large_communities: of.large_communities.iter().map(ToString::to_string).collect(),
        originator: of.originator,
        cluster_list: of.cluster_list.to_vec(),
        stale: path.stale,
        best: verdict == Verdict::Best,
        used: !matches!(verdict, Verdict::Lost(_)),
        lost_by,
    }
}
