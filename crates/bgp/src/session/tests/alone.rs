//! One session, and a peer that keeps to no rules.

use super::*;
use crate::message::{Attributes, NextHop, Nlri};

const NOW: Duration = Duration::ZERO;
const SIDE: Side = Side::Accepted;

fn open() -> Vec<u8> {
    encoded(|out| message::open(out, &config(2).open()))
}

fn update(attributes: &[u8], nlri: &[u8]) -> Vec<u8> {
    let mut bytes = vec![u8::MAX; 16];
    bytes.extend((23 + (attributes.len() + nlri.len()) as u16).to_be_bytes());
    bytes.extend([2, 0, 0]);
    bytes.extend((attributes.len() as u16).to_be_bytes());
    bytes.extend(attributes);
    bytes.extend(nlri);
    bytes
}

fn fallen(seen: &[Seen]) -> Reason {
    match seen {
        [.., Seen::Close(..), Seen::Down(Fall::Sent(why), _) | Seen::Failed(Fall::Sent(why))] => why.reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn messages_out_of_place_end_it() {
    let end = encoded(|out| message::end_of_rib(out, Family::Ipv4));
    let refresh = encoded(|out| message::refresh(out, Family::Ipv4, RefreshKind::Request));
    let (sent, confirm, up) = (Reason::IN_OPEN_SENT, Reason::IN_OPEN_CONFIRM, Reason::IN_ESTABLISHED);
    let cases = [
        (vec![keepalive()], sent),
        (vec![end.clone()], sent),
        (vec![refresh.clone()], sent),
        (vec![open(), open()], confirm),
        (vec![open(), end], confirm),
        (vec![open(), refresh], confirm),
        (vec![open(), keepalive(), open()], up),
        (vec![vec![0; 19]], Reason::NOT_SYNCHRONISED),
        (vec![open(), keepalive(), vec![0xff; 19]], Reason::BAD_TYPE),
    ];
    for (messages, reason) in cases {
        let mut session = Session::new(Config { passive: true, ..config(1) }, 1);
        session.start(NOW);
        assert!(session.handle_connected(SIDE, NOW));
        messages.iter().for_each(|bytes| assert_eq!(session.handle_bytes(SIDE, bytes), bytes.len()));
        assert_eq!(fallen(&events(&mut session, NOW)), reason);
        // What comes after the end is nobody's, and so is who comes again at once.
        assert_eq!(session.handle_bytes(SIDE, &[0; 99]), 99);
        assert_eq!(events(&mut session, NOW), []);
        assert!(!session.handle_connected(SIDE, NOW));
        assert!(session.handle_connected(SIDE, SECOND));
    }
}

#[test]
fn what_rfc_7606_forgives_does_not_end_it() {
    let mut session = established(config(1), &config(2));
    let good = [0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xea, 0x40, 3, 4, 192, 0, 2, 1];
    // Without an origin; with an aggregator of 3 bytes; good.
    session.handle_bytes(SIDE, &update(&good[4..], &[8, 10]));
    session.handle_bytes(SIDE, &update(&[&good[..], &[0xc0, 7, 3, 1, 1, 1]].concat(), &[8, 11]));
    session.handle_bytes(SIDE, &update(&good, &[8, 12, 8, 13]));
    assert_eq!(events(&mut session, NOW), [Seen::Update(0), Seen::Update(1), Seen::Update(2)]);
    // And what it does not forgive does.
    session.handle_bytes(SIDE, &update(&good, &[33, 10]));
    session.handle_bytes(SIDE, &update(&good, &[8, 12]));
    let seen = events(&mut session, NOW);
    assert_eq!(seen[0], Seen::Fatal(Reason::NETWORK.into()));
    assert_eq!(fallen(&seen), Reason::NETWORK);
    assert_eq!(seen.len(), 3, "nothing is read after it");
}

#[test]
fn bytes_may_come_one_by_one() {
    let mut session = Session::new(Config { passive: true, ..config(1) }, 1);
    session.start(NOW);
    session.handle_connected(SIDE, NOW);
    let mut seen = Vec::new();
    let end = encoded(|out| message::end_of_rib(out, Family::Ipv6));
    for (second, byte) in [open(), keepalive(), end].concat().into_iter().enumerate() {
        let now = SECOND * second as u32;
        session.handle_timeout(now);
        session.handle_bytes(SIDE, &[byte]);
        seen.extend(events(&mut session, now));
    }
    assert_eq!(seen, [Seen::Up(SIDE), Seen::EndOfRib(Family::Ipv6)]);
    // But a message that takes longer than the hold time is none.
    let mut now = SECOND * 200;
    session.handle_bytes(SIDE, &keepalive());
    events(&mut session, now);
    for byte in vec![0xff; 16].into_iter().chain([16, 0, 2]).chain([0; 100]) {
        now += SECOND;
        session.handle_timeout(now);
        session.handle_bytes(SIDE, &[byte]);
        let seen = events(&mut session, now);
        if !seen.is_empty() {
            assert_eq!(fallen(&seen), Reason::HOLD_TIMER);
            assert_eq!(now, SECOND * 290);
            return;
        }
    }
    panic!("it still stands");
}

#[test]
fn more_than_there_is_room_for_stays_outside() {
    let mut session = established(config(1), &config(2));
    let flood = encoded(|out| message::end_of_rib(out, Family::Ipv4)).repeat(10_000);
    let taken = session.handle_bytes(SIDE, &flood);
    assert_eq!(taken, INPUT);
    assert_eq!(session.handle_bytes(SIDE, &flood[taken..]), 0);
    assert_eq!(events(&mut session, NOW).len(), INPUT / 23);
    assert_eq!(session.handle_bytes(SIDE, &flood[taken..]), flood.len() - taken);
}

#[test]
fn who_connects_a_hundred_times_a_second_is_made_to_rest() {
    let mut session = Session::new(config(1), 1);
    session.start(NOW);
    let (mut taken, mut told) = (0, 0);
    for tick in 0..60_000_u32 {
        let now = Duration::from_millis(10) * tick;
        session.handle_timeout(now);
        for seen in events(&mut session, now) {
            told += 1;
            if seen == Seen::Dial {
                session.handle_unreachable(now);
            }
        }
        if session.handle_connected(SIDE, now) {
            taken += 1;
            session.handle_closed(SIDE, now);
        }
    }
    // Of ten minutes.
    assert!(taken < 40 && told < 80, "{taken} taken, {told} told");
}

#[test]
fn a_second_connection_does_not_disturb_the_first() {
    let mut session = established(config(1), &config(2));
    assert!(!session.handle_connected(SIDE, SECOND * 10));
    assert!(!session.handle_connected(Side::Dialled, SECOND), "its own comes too late");
    // Without graceful restart a peer that comes again is refused until the hold time is over.
    let mut session = established(config(1), &config(2));
    session.connections.dialled = session.connections.accepted.take();
    session.established = Some((Side::Dialled, NOW));
    assert!(session.handle_connected(SIDE, SECOND * 10));
    session.handle_bytes(SIDE, &open());
    let seen = events(&mut session, SECOND * 10);
    assert!(matches!(&seen[..], [Seen::Close(Side::Accepted, last)] if last.ends_with(&[6, 7])), "{seen:?}");
    assert_eq!(session.state(), State::Established);
}

#[test]
fn routes_fit_into_what_is_sent_at_once() {
    let mut session = established(config(1), &config(2));
    let terms = session.terms().unwrap().clone();
    let attributes = Attributes::new(NextHop::V4(Ipv4Addr::new(192, 0, 2, 1)));
    let route = Nlri { prefix: "10.0.0.0/8".parse().unwrap(), path: 0 };
    let mut bytes = Vec::new();
    message::announce(&mut bytes, &terms, &attributes, Family::Ipv4, [route]).unwrap();
    let before = session.room();
    assert!(session.send(bytes.clone().into(), NOW));
    assert_eq!(session.room(), before - bytes.len());
    assert_eq!(sent(&mut session, SIDE, NOW), bytes);
    assert_eq!(session.room(), OUTPUT);
}

/// Both dialled, and ours is spoken on.
fn two_connections() -> Session {
    let mut session = Session::new(config(1), 1);
    session.start(NOW);
    assert_eq!(events(&mut session, NOW), [Seen::Dial]);
    assert!(session.handle_connected(Side::Dialled, NOW) && session.handle_connected(Side::Accepted, NOW));
    assert!(!sent(&mut session, Side::Dialled, NOW).is_empty());
    assert!(sent(&mut session, Side::Accepted, NOW).is_empty());
    session
}

#[test]
fn of_two_connections_one_is_spoken_on() {
    // A peer with the higher identifier that reads slowly: the one that it may let stand stays.
    let mut session = two_connections();
    session.handle_bytes(Side::Dialled, &open());
    let seen = events(&mut session, NOW);
    assert!(matches!(seen[..], [Seen::Close(Side::Accepted, _)]), "{seen:?}");
    session.handle_bytes(Side::Accepted, &open());
    session.handle_bytes(Side::Dialled, &keepalive());
    assert_eq!(events(&mut session, NOW), [Seen::Up(Side::Dialled)]);
    // It has heard neither OPEN of the other: the rule decides.
    let mut session = two_connections();
    session.handle_bytes(Side::Accepted, &open());
    let seen = events(&mut session, NOW);
    assert!(matches!(seen[..], [Seen::Close(Side::Dialled, _)]), "{seen:?}");
    let said = sent(&mut session, Side::Accepted, NOW);
    assert!(said.starts_with(&encoded(|out| message::open(out, &config(1).open()))));
    session.handle_bytes(Side::Accepted, &keepalive());
    assert_eq!(events(&mut session, NOW), [Seen::Up(Side::Accepted)]);
    // The one that waits takes the place of one that ends, or that nothing comes by.
    let mut session = two_connections();
    session.handle_closed(Side::Dialled, NOW);
    assert!(!sent(&mut session, Side::Accepted, NOW).is_empty());
    let mut session = two_connections();
    let later = session.wakes().unwrap();
    session.handle_timeout(later);
    assert!(later < SECOND * 10 && !sent(&mut session, Side::Accepted, later).is_empty());
}
