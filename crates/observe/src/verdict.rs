//! How the exchange ended, and where a packet vanished: what the tables there say.

use std::net::IpAddr;

use weft_model::Mac;

use crate::collect::Dropped;
use crate::path::{Observation, bridge_of};
use crate::probe::{Place, Probe, Role};
use crate::report::{Direction, Finding, FindingKind, LastSeen, Lost, Outcome};
use crate::tables::{Tables, Way};

/// All that is known of an exchange.
pub(crate) struct Exchange<'a> {
    pub(crate) places: &'a [Place],
    pub(crate) from: usize,
    pub(crate) to: Option<usize>,
    pub(crate) probe: &'a Probe,
    pub(crate) forward: &'a [Observation],
    pub(crate) reply: &'a [Observation],
    pub(crate) dropped: &'a [Dropped],
}

pub(crate) fn judge(exchange: &Exchange<'_>, tables: &mut Tables) -> Outcome {
    let home = exchange.reply.iter().rfind(|o| arrived(o, exchange.from, tables));
    if let Some(o) = home {
        return match (&o.role, o.refused_by) {
            (Role::Refusal(what), Some(by)) => Outcome::Refused { by, said: said(*what, by) },
            _ => Outcome::Answered { us: elapsed(exchange, o) },
        };
    }
    if !exchange.reply.is_empty() {
        return Outcome::Lost(lost(exchange, exchange.reply, true, tables));
    }
    let there = |o: &Observation, tables: &mut Tables| match exchange.to {
        Some(to) => arrived(o, to, tables),
        None => arrived(o, o.place, tables),
    };
    if exchange.dropped.is_empty() && exchange.forward.iter().any(|o| there(o, tables)) {
        return Outcome::Unanswered;
    }
    Outcome::Lost(lost(exchange, exchange.forward, false, tables))
}

/// Whether this is the packet coming in where its own destination is.
fn arrived(o: &Observation, place: usize, tables: &mut Tables) -> bool {
    let here = o.place == place && o.direction == Direction::In && !o.for_other && o.outer.is_none();
    here && tables.get(place).is_some_and(|t| t.is_local(o.dst.0) && bridge_of(t, o.ifindex).is_none())
}

fn elapsed(exchange: &Exchange<'_>, last: &Observation) -> u64 {
    exchange.forward.first().map_or(0, |first| last.at.saturating_sub(first.at) / 1000)
}

fn said(what: Option<(u8, u8)>, by: IpAddr) -> String {
    let text = match (what, by.is_ipv4()) {
        (None, _) => "connection refused (TCP reset): nothing listens on that port",
        (Some((3, 0)), true) | (Some((1, 0)), false) => "no route to the network",
        (Some((3, 1)), true) | (Some((1, 3)), false) => "host unreachable",
        (Some((3, 2)), true) => "protocol unreachable",
        (Some((3, 3)), true) | (Some((1, 4)), false) => "port unreachable: nothing listens on that port",
        (Some((3, 4)), true) | (Some((2, 0)), false) => "packet too big",
        (Some((3, 9 | 10 | 13)), true) | (Some((1, 1)), false) => "administratively prohibited",
        (Some((11, 0)), true) | (Some((3, 0)), false) => "time to live exceeded",
        (Some((kind, code)), _) => return format!("ICMP type {kind} code {code}"),
    };
    text.into()
}

fn lost(exchange: &Exchange<'_>, seen: &[Observation], reply: bool, tables: &mut Tables) -> Lost {
    let name = |place: usize| exchange.places[place].name.clone();
    let mut findings: Vec<Finding> = Vec::new();
    for drop in exchange.dropped {
        let text = format!("{} was dropped {}", if reply { "the answer" } else { "the probe" }, drop.text);
        findings.push(Finding { place: name(drop.place), kind: FindingKind::NftDrop, guess: false, text });
    }
    let at = seen.iter().rfind(|o| !o.for_other || o.direction == Direction::Out).or(seen.last());
    let (place, facts, next) = match at {
        Some(last) => {
            let next = next(exchange, last, tables);
            (last.place, after(last, tables), next)
        }
        None => (exchange.from, before_first(exchange, tables), None),
    };
    let fact = |(kind, guess, text): Fact| Finding { place: name(place), kind, guess, text };
    // A drop that was seen needs no other explanation.
    if findings.is_empty() {
        findings.extend(facts.into_iter().map(fact));
    }
    if findings.is_empty() {
        let text = "nothing in the tables read explains it".to_string();
        findings.push(fact((FindingKind::Unexplained, true, text)));
    }
    let last = at.map(|o| LastSeen {
        place: name(o.place),
        device: tables.get(o.place).map(|t| t.name(o.ifindex)).unwrap_or_default(),
        direction: o.direction,
        us: exchange.forward.first().map_or(0, |first| o.at.saturating_sub(first.at) / 1000),
    });
    Lost { reply, last, next, findings }
}

type Fact = (FindingKind, bool, String);

/// Where the packet should have come in next, when that follows from the wiring.
fn next(exchange: &Exchange<'_>, last: &Observation, tables: &Tables) -> Option<String> {
    if last.direction == Direction::Out
        && let Some((place, link)) = tables.peer(last.place, last.ifindex)
    {
        return Some(format!("{} {}", exchange.places[place].name, link.name));
    }
    let to = if last.role == Role::Forward { exchange.to? } else { exchange.from };
    (to != last.place).then(|| exchange.places[to].name.clone())
}

/// What can have happened to a packet that was never seen.
fn before_first(exchange: &Exchange<'_>, tables: &mut Tables) -> Vec<Fact> {
    let mut facts = Vec::new();
    let probe = exchange.probe;
    route(exchange.from, probe.dst, probe.src, None, tables, &mut facts);
    facts
}

/// What can have happened to a packet after it was seen last.
fn after(last: &Observation, tables: &mut Tables) -> Vec<Fact> {
    let mut facts = Vec::new();
    let Some(place) = tables.get(last.place) else { return facts };
    let bridge = bridge_of(place, last.ifindex);
    match (last.direction, bridge) {
        (Direction::In, Some(bridge)) => bridged(bridge, last, tables, &mut facts),
        (Direction::In, None) => forwarded(last, tables, &mut facts),
        (Direction::Out, _) => left(last, tables, &mut facts),
    }
    facts
}

fn flooded(bridge: &str, mac: Mac) -> Fact {
    let text = format!(
        "bridge {bridge} has no FDB entry for {mac}: it sent copies to all ports, and nobody there took it"
    );
    (FindingKind::NoFdbEntry, false, text)
}

fn bridged(bridge: u32, last: &Observation, tables: &mut Tables, facts: &mut Vec<Fact>) {
    let Some((place, mac)) = tables.get(last.place).zip(last.mac()) else { return };
    let name = place.name(bridge);
    match place.bridge(bridge, mac).0 {
        None => facts.push(flooded(&name, mac)),
        Some(port) if !place.links.get(&port).is_some_and(|l| l.running) => {
            facts.push((
                FindingKind::LinkDown,
                false,
                format!("{} is down, where {mac} is", place.name(port)),
            ));
        }
        Some(port) if port == last.ifindex => facts.push((
            FindingKind::NoFdbEntry,
            false,
            format!("bridge {name} has {mac} on the port it came from, and sends nothing back there"),
        )),
        Some(port) if port == bridge => {
            forwarded(&Observation { ifindex: bridge, ..last.clone() }, tables, facts)
        }
        Some(_) => {}
    }
}

/// After it came in at the network layer.
fn forwarded(last: &Observation, tables: &mut Tables, facts: &mut Vec<Fact>) {
    let (src, dst) = last.routed();
    let Some(place) = tables.get(last.place) else { return };
    if place.is_local(dst) {
        let wrapped = last.outer.as_ref().map(|o| o.vni);
        if let Some(vni) = wrapped {
            let text = format!("no VXLAN device here took the packet with VNI {vni}");
            facts.push((FindingKind::Unexplained, true, text));
        }
        return;
    }
    if last.ttl <= 1 {
        facts.push((
            FindingKind::Ttl,
            false,
            format!("its time to live was {}: it may not be forwarded", last.ttl),
        ));
    }
    if !place.forwards(dst) {
        let name = if dst.is_ipv4() { "net.ipv4.ip_forward" } else { "net.ipv6.conf.all.forwarding" };
        facts.push((
            FindingKind::ForwardingOff,
            false,
            format!("{name} is 0: this namespace forwards nothing"),
        ));
    }
    route(last.place, dst, Some(src), Some(last.ifindex), tables, facts);
    reverse_path(last, src, tables, facts);
}

fn reverse_path(last: &Observation, src: IpAddr, tables: &mut Tables, facts: &mut Vec<Fact>) {
    let Some(place) = tables.get(last.place).filter(|t| src.is_ipv4() && t.checks_source(last.ifindex))
    else {
        return;
    };
    let (way, _) = place.way(src, None, None);
    let elsewhere = match way {
        Way::Out { device, .. } => device != last.ifindex,
        Way::Local => false,
        Way::Discard | Way::None(_) => true,
    };
    if elsewhere {
        let text = format!(
            "rp_filter is on and the way back to {src} is not by {}: the kernel may have dropped it for that",
            place.name(last.ifindex)
        );
        facts.push((FindingKind::ReversePath, true, text));
    }
}

/// After it left by a device.
fn left(last: &Observation, tables: &mut Tables, facts: &mut Vec<Fact>) {
    let far = tables.peer(last.place, last.ifindex).map(|(_, link)| (link.name.clone(), link.up));
    let Some(place) = tables.get(last.place) else { return };
    let name = place.name(last.ifindex);
    let mac = last.mac();
    let kind = place.links.get(&last.ifindex).and_then(|l| l.kind.clone());
    if kind.as_deref() == Some("bridge") {
        return bridged(last.ifindex, last, tables, facts);
    }
    if let Some((bridge, mac)) = bridge_of(place, last.ifindex).zip(mac)
        && place.bridge(bridge, mac).0.is_none()
    {
        facts.push(flooded(&place.name(bridge), mac));
    }
    match mac.and_then(|mac| Some((mac, place.tunnel(last.ifindex, mac)?))) {
        Some((mac, (None, _))) => facts.push((
            FindingKind::NoFdbEntry,
            false,
            format!("{name} has no FDB entry for {mac}: it does not know which node to wrap the packet for"),
        )),
        Some((_, (Some(remote), _))) => route(last.place, remote, None, None, tables, facts),
        None => {
            if let Some((far, false)) = far {
                facts.push((
                    FindingKind::LinkDown,
                    false,
                    format!("{far}, the other end of {name}, is down"),
                ));
            }
        }
    }
}

/// Asks the routing table and the neighbours, and says what is missing.
fn route(
    place: usize,
    dst: IpAddr,
    src: Option<IpAddr>,
    iif: Option<u32>,
    tables: &mut Tables,
    facts: &mut Vec<Fact>,
) {
    let Some(place) = tables.get(place) else { return };
    let (device, next_hop) = match place.way(dst, src, iif).0 {
        Way::Local => return,
        Way::Discard => {
            return facts.push((
                FindingKind::Discarded,
                false,
                format!("the route to {dst} discards packets"),
            ));
        }
        // EXDEV: the kernel looked the source up first and did not like it.
        Way::None(Some(18)) => {
            let text = format!("the routing table refuses the source {}: rp_filter", src.unwrap_or(dst));
            return facts.push((FindingKind::ReversePath, true, text));
        }
        Way::None(_) => return facts.push((FindingKind::NoRoute, false, format!("no route to {dst}"))),
        Way::Out { device, next_hop } => (device, next_hop),
    };
    let name = place.name(device);
    if !place.links.get(&device).is_some_and(|l| l.running) {
        facts.push((FindingKind::LinkDown, false, format!("{name} is down, by which {dst} is reached")));
    }
    if !place.has_neighbours(device) {
        return;
    }
    match place.resolved(device, next_hop) {
        (None, absent) => {
            let text = format!("no hardware address for {next_hop} on {name}: nobody there answers for it");
            facts.push((FindingKind::Neighbour, false, text));
            if absent {
                // The kernel makes an entry before it asks, so without one it had no room.
                let text = "there is not even an entry for it: the machine's neighbour table may be full \
                            (net.ipv4.neigh.default.gc_thresh3, or ipv6)";
                facts.push((FindingKind::Neighbour, true, text.into()));
            }
        }
        (Some(mac), _) => {
            if let Some((None, _)) = place.tunnel(device, mac) {
                let text = format!(
                    "{name} has no FDB entry for {mac}, the next hop {next_hop}: it does not know which node to wrap the packet for"
                );
                facts.push((FindingKind::NoFdbEntry, false, text));
            }
        }
    }
}
