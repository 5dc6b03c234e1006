//! Connections to Services, held against the oracle.

use std::net::{IpAddr, SocketAddr};

use super::probe::{NO_NEIGHBOUR, Observed, PATIENCE, Prober};
use super::report::Mismatch;
use super::world::World;
use crate::oracle::Proto;
use crate::oracle::outside::expect_from_outside;
use crate::oracle::services::{Door, Outcome, expect_door};

/// What came of one connection to a Service.
pub(super) struct Knocked {
    pub(super) retried: bool,
    /// What differs, if anything.
    pub(super) mismatch: Option<Mismatch>,
}

/// Every member at every door of a family that it has, by their places; and behind the members, every client outside
/// at every door that is announced to it.
pub(super) fn knocks(world: &World) -> Vec<(usize, usize)> {
    let mut all = Vec::new();
    for (from, member) in world.members.iter().enumerate() {
        for (at, door) in world.doors.iter().enumerate() {
            if member.party.ips.iter().any(|ip| ip.is_ipv4() == door.address.is_ipv4()) {
                all.push((from, at));
            }
        }
    }
    for (place, outsider) in world.outside.iter().enumerate() {
        for (at, door) in world.doors.iter().enumerate().filter(|(_, door)| door.announced) {
            if outsider.can_ask(door.address) {
                all.push((world.members.len() + place, at));
            }
        }
    }
    all
}

impl Prober<'_> {
    /// One member at one door.
    pub(super) async fn knock(&self, from: usize, door: usize) -> Knocked {
        let (world, door) = (self.world(), &self.world().doors[door]);
        let parties = self.parties();
        let source = &parties[from];
        let (expected, rule) = match from.checked_sub(world.members.len()) {
            None => expect_door(&world.nodes, parties, source, door, world.relayed),
            Some(at) => {
                let segment = &world.outside[at].nodes;
                expect_from_outside(&world.nodes, parties, source, segment, door, world.relayed)
            }
        };
        let to = SocketAddr::new(door.address, door.port);
        let mut observed = self.ask(from, door.proto, to, PATIENCE[0]).await;
        let retried = !as_it_should(world, door.proto, &expected, &observed)
            && matches!(observed, Observed::Lost { .. });
        if retried {
            observed = self.ask(from, door.proto, to, PATIENCE[1]).await;
        }
        let mismatch = (!as_it_should(world, door.proto, &expected, &observed)).then(|| Mismatch {
            from: source.name.clone(),
            to: format!("svc/{}", door.service),
            proto: door.proto,
            address: Some(door.address),
            port: Some(door.port),
            expected: expected_words(world, &expected, rule),
            observed: super::report::observed_words(&observed),
            why: why(door),
        });
        Knocked { retried, mismatch }
    }
}

fn as_it_should(world: &World, proto: Proto, expected: &Outcome, observed: &Observed) -> bool {
    match (expected, observed) {
        (Outcome::Answer(list), Observed::Answered { by: Some(by), source: Some(source) }) => list
            .iter()
            .any(|(party, sources)| world.members[*party].party.name == *by && sources.contains(source)),
        (Outcome::Refused, Observed::Refused) | (Outcome::Silence, Observed::Lost { .. }) => true,
        // Who ends connections himself can only reset what is not allowed.
        (Outcome::Silence, Observed::Failed(why)) => {
            why == NO_NEIGHBOUR || world.relayed && why.contains("reset by peer")
        }
        // Of a datagram only ICMP tells that it is refused, and the kernel sends one client few of those
        // (`net.ipv4.icmp_ratelimit`).
        (Outcome::Refused, Observed::Lost { .. }) => proto == Proto::Udp,
        _ => false,
    }
}

fn expected_words(world: &World, expected: &Outcome, rule: &str) -> String {
    match expected {
        Outcome::Refused => format!("refused ({rule})"),
        Outcome::Silence => format!("no answer ({rule})"),
        Outcome::Answer(list) => {
            let one = |(party, sources): &(usize, std::collections::BTreeSet<IpAddr>)| {
                let sources: Vec<String> = sources.iter().map(IpAddr::to_string).collect();
                format!("by {} seen from {}", world.members[*party].party.name, sources.join(" or "))
            };
            let shown: Vec<String> = list.iter().take(4).map(one).collect();
            let more = if list.len() > 4 { ", or others" } else { "" };
            format!("an answer {}{more} ({rule})", shown.join(", or "))
        }
    }
}

fn why(door: &Door) -> String {
    let proto = if door.proto == Proto::Udp { " (UDP)" } else { "" };
    format!("weft service show {}{proto} says what is planned for it", door.service)
}
