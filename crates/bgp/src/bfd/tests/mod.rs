mod pair;
mod properties;
mod states;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::*;
use pair::Pair;

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn address(number: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, number).into()
}

fn key(peer: u8) -> Key {
    Key { peer: address(peer), local: None, interface: None }
}

fn every(millis: u64, multiplier: u8) -> Intervals {
    let interval = Duration::from_millis(millis);
    Intervals { transmit: interval, receive: interval, multiplier }
}

fn one(peer: u8, intervals: Intervals) -> BTreeMap<Key, Intervals> {
    BTreeMap::from([(key(peer), intervals)])
}

fn arrival(from: u8) -> Arrival<'static> {
    Arrival { from: address(from), to: address(9), interface: None, hops: HOPS }
}

/// A packet of a peer that is down.
fn packet() -> Packet {
    Packet {
        diagnostic: Diagnostic::None,
        state: State::Down,
        poll: false,
        last: false,
        independent: false,
        demand: false,
        multiplier: 3,
        mine: 77,
        yours: 0,
        transmit: 100_000,
        receive: 100_000,
        echo: 0,
    }
}

fn changes(sessions: &mut Sessions) -> Vec<Change> {
    std::iter::from_fn(|| sessions.poll()).map(|(_, change)| change).collect()
}

fn sent(sessions: &mut Sessions) -> Vec<Packet> {
    std::iter::from_fn(|| sessions.poll_transmit()).map(|out| Packet::decode(&out.packet).unwrap()).collect()
}
