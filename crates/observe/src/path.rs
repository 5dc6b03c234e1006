//! Observations to hops: in time order, without copies, each with what was decided there.

use std::collections::HashSet;
use std::net::IpAddr;

use weft_kernel::Link;
use weft_kernel::capture::PacketKind;
use weft_model::Mac;

use crate::collect::Sighting;
use crate::decode::Outer;
use crate::probe::{Place, Role, Signature};
use crate::report::{Decision, Direction, Encapsulation, Hop, Nat};
use crate::tables::{PlaceTables, Tables, Way};

/// An address and a port, where there is one.
pub(crate) type Endpoint = (IpAddr, Option<u16>);

/// One packet of ours on one device.
#[derive(Clone, Debug)]
pub(crate) struct Observation {
    pub(crate) place: usize,
    pub(crate) at: u64,
    pub(crate) ifindex: u32,
    pub(crate) direction: Direction,
    /// Not addressed to this device: seen because it is a bridge port, or promiscuous.
    pub(crate) for_other: bool,
    pub(crate) role: Role,
    pub(crate) src: Endpoint,
    pub(crate) dst: Endpoint,
    pub(crate) ttl: u8,
    pub(crate) outer: Option<Outer>,
    pub(crate) macs: Option<(Mac, Mac)>,
    /// Who refused, for a refusal.
    pub(crate) refused_by: Option<IpAddr>,
}

impl Observation {
    /// The addresses that routers on the way look at: the outer ones, where there are any.
    pub(crate) fn routed(&self) -> (IpAddr, IpAddr) {
        self.outer.as_ref().map_or((self.src.0, self.dst.0), |o| (o.ip.src, o.ip.dst))
    }

    /// The hardware address the frame goes to.
    pub(crate) fn mac(&self) -> Option<Mac> {
        self.macs.map(|(_, dst)| dst)
    }
}

/// The probe's packets among what was seen, in time order.
pub(crate) fn observe(sightings: &[Sighting], signature: &Signature) -> Vec<Observation> {
    let mut out: Vec<Observation> = sightings.iter().filter_map(|s| observation(s, signature)).collect();
    // Stable: where the kernel gave two devices one time, the order of the capture counts.
    out.sort_by_key(|o| o.at);
    out
}

fn observation(sighting: &Sighting, signature: &Signature) -> Option<Observation> {
    let packet = sighting.packet()?;
    let role = signature.role(&packet)?;
    let ports = packet.transport.ports();
    // On the loopback device everything is seen twice; both are kept, as out and in.
    let direction = if sighting.frame.kind == PacketKind::Outgoing { Direction::Out } else { Direction::In };
    Some(Observation {
        place: sighting.place,
        at: sighting.frame.at,
        ifindex: sighting.frame.ifindex,
        direction,
        for_other: sighting.frame.kind == PacketKind::OtherHost,
        refused_by: matches!(role, Role::Refusal(_)).then_some(packet.ip.src),
        role,
        src: (packet.ip.src, ports.map(|p| p.0)),
        dst: (packet.ip.dst, ports.map(|p| p.1)),
        ttl: packet.ip.ttl,
        outer: packet.outer.clone(),
        macs: packet.macs,
    })
}

/// Those of one part of the exchange; of repeats on one device (retransmissions) the first.
pub(crate) fn select(all: &[Observation], part: impl Fn(&Observation) -> bool) -> Vec<Observation> {
    let mut seen = HashSet::new();
    let fresh = |o: &&Observation| {
        let key = (o.place, o.ifindex, o.direction, o.ttl, o.outer.is_some(), o.refused_by.is_some());
        seen.insert(key)
    };
    all.iter().filter(|o| part(o)).filter(fresh).cloned().collect()
}

/// The hops of one part of the exchange.
pub(crate) fn hops(list: &[Observation], places: &[Place], tables: &mut Tables, start: u64) -> Vec<Hop> {
    let groups = without_copies(list, tables);
    let mut out = Vec::with_capacity(groups.len());
    for (i, (observation, copies)) in groups.iter().enumerate() {
        let before = i.checked_sub(1).map(|b| &groups[b].0);
        let begins = before.is_none_or(|b| b.role != observation.role);
        let peer = tables.peer(observation.place, observation.ifindex);
        let peer = peer.map(|(place, link)| format!("{} {}", places[place].name, link.name));
        let Some(place) = tables.get(observation.place) else { continue };
        let nat = before.filter(|_| !begins).map(|b| nat(b, observation)).unwrap_or_default();
        // The address it came for was only the translation's: it was not delivered there.
        if nat.iter().any(|n| n.side == "destination")
            && let Some(last) =
                out.last_mut().filter(|h: &&mut Hop| h.place == places[observation.place].name)
        {
            last.decisions.retain(|d| !matches!(d, Decision::Local { .. }));
        }
        let link = place.links.get(&observation.ifindex);
        out.push(Hop {
            us: observation.at.saturating_sub(start) / 1000,
            place: places[observation.place].name.clone(),
            device: place.name(observation.ifindex),
            device_kind: kind(link),
            bridge: bridge_of(place, observation.ifindex).map(|b| place.name(b)),
            direction: observation.direction,
            src: text(observation.src),
            dst: text(observation.dst),
            ttl: observation.ttl,
            outer: observation.outer.as_ref().map(encapsulation),
            peer,
            nat,
            flooded: copies.iter().map(|c| place.name(*c)).collect(),
            ignored: observation.for_other && bridge_of(place, observation.ifindex).is_none(),
            decisions: decisions(observation, begins, place),
        });
    }
    out
}

/// A bridge that does not know an address copies the frame to all ports. The copy that was seen
/// again elsewhere is the packet's way; the others are named with it.
fn without_copies(list: &[Observation], tables: &mut Tables) -> Vec<(Observation, Vec<u32>)> {
    let mut out: Vec<(Observation, Vec<u32>)> = Vec::new();
    for observation in list {
        let bridge = |o: &Observation, tables: &mut Tables| {
            (o.direction == Direction::Out).then_some(())?;
            bridge_of(tables.get(o.place)?, o.ifindex)
        };
        let this = bridge(observation, tables);
        let copied = out.iter().rposition(|(o, _)| {
            this.is_some()
                && o.place == observation.place
                && bridge(o, tables) == this
                && o.ttl == observation.ttl
        });
        match copied {
            None => out.push((observation.clone(), Vec::new())),
            Some(at) => {
                let leads = leads_on(observation, list, tables);
                let (kept, copies) = &mut out[at];
                if leads {
                    copies.push(kept.ifindex);
                    *kept = observation.clone();
                } else {
                    copies.push(observation.ifindex);
                }
            }
        }
    }
    // A flooded copy that came in elsewhere but was for nobody there is no hop.
    let ends: HashSet<(usize, u32)> = out
        .iter()
        .flat_map(|(o, copies)| copies.iter().map(|c| (o.place, *c)))
        .filter_map(|(place, copy)| tables.peer(place, copy).map(|(p, l)| (p, l.index)))
        .collect();
    out.retain(|(o, _)| !(o.for_other && ends.contains(&(o.place, o.ifindex))));
    out
}

fn leads_on(observation: &Observation, list: &[Observation], tables: &Tables) -> bool {
    let Some((place, link)) = tables.peer(observation.place, observation.ifindex) else { return false };
    list.iter().any(|o| o.place == place && o.ifindex == link.index && !o.for_other)
}

/// The bridge that a device is a port of.
pub(crate) fn bridge_of(place: &PlaceTables, ifindex: u32) -> Option<u32> {
    let master = place.links.get(&ifindex)?.master?;
    (place.links.get(&master)?.kind.as_deref() == Some("bridge")).then_some(master)
}

fn kind(link: Option<&Link>) -> String {
    let Some(link) = link else { return "device".into() };
    match link.kind.as_deref() {
        Some(kind) => kind.into(),
        None if link.name == "lo" => "loopback".into(),
        None => "device".into(),
    }
}

pub(crate) fn text((address, port): Endpoint) -> String {
    match (address, port) {
        (IpAddr::V4(a), Some(port)) => format!("{a}:{port}"),
        (IpAddr::V6(a), Some(port)) => format!("[{a}]:{port}"),
        (address, None) => address.to_string(),
    }
}

fn encapsulation(outer: &Outer) -> Encapsulation {
    Encapsulation {
        vni: outer.vni,
        src: outer.ip.src,
        dst: outer.ip.dst,
        port: outer.port,
        ttl: outer.ip.ttl,
    }
}

fn nat(before: &Observation, now: &Observation) -> Vec<Nat> {
    let sides = [("source", before.src, now.src), ("destination", before.dst, now.dst)];
    let changed = sides.into_iter().filter(|(_, from, to)| from != to);
    changed.map(|(side, from, to)| Nat { side, from: text(from), to: text(to) }).collect()
}

fn decisions(o: &Observation, begins: bool, place: &mut PlaceTables) -> Vec<Decision> {
    let mut out = Vec::new();
    let (src, dst) = o.routed();
    match (o.direction, bridge_of(place, o.ifindex)) {
        (Direction::In, Some(bridge)) => out.extend(o.mac().map(|mac| place.bridge(bridge, mac).1)),
        (Direction::In, None) if !o.for_other => route(place, dst, Some(src), Some(o.ifindex), &mut out),
        (Direction::In, None) => {}
        (Direction::Out, _) => {
            if begins {
                route(place, dst, Some(src), None, &mut out);
            }
            if place.links.get(&o.ifindex).is_some_and(|l| l.kind.as_deref() == Some("bridge")) {
                out.extend(o.mac().map(|mac| place.bridge(o.ifindex, mac).1));
            }
            if let Some((remote, tunnel)) = o.mac().and_then(|mac| place.tunnel(o.ifindex, mac)) {
                out.push(tunnel);
                if let Some(remote) = remote {
                    route(place, remote, None, None, &mut out);
                }
            }
        }
    }
    out
}

fn route(
    place: &mut PlaceTables,
    dst: IpAddr,
    src: Option<IpAddr>,
    iif: Option<u32>,
    out: &mut Vec<Decision>,
) {
    let (way, decision) = place.way(dst, src, iif);
    out.push(decision);
    if let Way::Out { device, next_hop } = way
        && place.has_neighbours(device)
    {
        out.push(place.neighbour(device, next_hop).1);
    }
}
