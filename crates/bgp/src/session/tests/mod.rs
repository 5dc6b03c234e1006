mod alone;
mod pair;
mod properties;
mod restarts;
mod together;

use std::net::Ipv4Addr;
use std::time::Duration;

use super::*;
use crate::PerFamily;

const SECOND: Duration = Duration::from_secs(1);

/// A speaker of AS 65001 or 65002 with the last octet of its identifier.
fn config(number: u8) -> Config {
    let asn = 65000 + u32::from(number);
    Config::new(asn, Ipv4Addr::new(10, 0, 0, number), PeerAs::External)
}

/// The message by itself.
fn encoded(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut bytes);
    bytes
}

fn keepalive() -> Vec<u8> {
    encoded(message::keepalive)
}

/// What is left of events when they are told.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Dial,
    Close(Side, Vec<u8>),
    Up(Side),
    Down(Fall, PerFamily<bool>),
    Failed(Fall),
    LongLived(Family),
    Sweep(Family),
    Update(usize),
    EndOfRib(Family),
    Refresh(Family, RefreshKind),
    Fatal(Notification),
}

impl Seen {
    fn of(event: Event<'_>) -> Seen {
        match event {
            Event::Dial => Seen::Dial,
            Event::Close { side, last } => Seen::Close(side, last),
            Event::Up { side, .. } => Seen::Up(side),
            Event::Down { fall, kept } => Seen::Down(fall, kept),
            Event::Failed(fall) => Seen::Failed(fall),
            Event::LongLived(family) => Seen::LongLived(family),
            Event::Sweep(family) => Seen::Sweep(family),
            Event::Update(update) => match update.end_of_rib {
                Some(family) => Seen::EndOfRib(family),
                None => Seen::Update(update.into_announced().map(|(_, list)| list.iter().count()).sum()),
            },
            Event::Refresh(family, kind) => Seen::Refresh(family, kind),
            Event::Fatal(why) => Seen::Fatal(why),
        }
    }
}

/// All that there is to be told.
fn events(session: &mut Session, now: Duration) -> Vec<Seen> {
    std::iter::from_fn(|| session.poll(now).map(Seen::of)).collect()
}

/// All that there is to be sent.
fn sent(session: &mut Session, side: Side, now: Duration) -> Vec<u8> {
    std::iter::from_fn(|| session.poll_transmit(side, now)).flat_map(|bytes| bytes.to_vec()).collect()
}

/// A session of speaker 1 that speaker 2, who dialled, has brought up.
fn established(config: Config, peer: &Config) -> Session {
    let now = Duration::ZERO;
    let mut session = Session::new(Config { passive: true, ..config }, 1);
    session.start(now);
    assert!(session.handle_connected(Side::Accepted, now));
    session.handle_bytes(Side::Accepted, &encoded(|out| message::open(out, &peer.open())));
    session.handle_bytes(Side::Accepted, &keepalive());
    assert_eq!(events(&mut session, now), [Seen::Up(Side::Accepted)]);
    sent(&mut session, Side::Accepted, now);
    session
}
