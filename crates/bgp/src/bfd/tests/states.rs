//! Each rule of RFC 5880 6.8 by itself.

use super::*;

const QUIET: pair::Line = pair::Line { delay: MILLI, spread: Duration::ZERO, loss: 0 };

/// A session that is in a state, and its number.
fn session_in(state: State) -> (Sessions, u32) {
    let mut sessions = Sessions::new(5);
    sessions.set(&one(1, every(100, 3)), Duration::ZERO);
    let yours = sent(&mut sessions)[0].mine;
    let known = Packet { yours, ..packet() };
    match state {
        State::AdminDown => sessions.set(&BTreeMap::new(), Duration::ZERO),
        State::Down => {}
        State::Init => sessions.handle_packet(&packet().encode(), &arrival(1), Duration::ZERO),
        State::Up => {
            let init = Packet { state: State::Init, ..known };
            sessions.handle_packet(&init.encode(), &arrival(1), Duration::ZERO);
        }
    }
    assert_eq!(sessions.status(Duration::ZERO).sessions[0].state, state);
    changes(&mut sessions);
    sent(&mut sessions);
    (sessions, yours)
}

#[test]
fn every_state_and_every_state_of_the_peer() {
    use Change as C;
    use State::{AdminDown, Down, Init, Up};
    let signalled = C::Down(Diagnostic::Signalled);
    let rows = [
        (AdminDown, AdminDown, AdminDown, None),
        (AdminDown, Down, AdminDown, None),
        (AdminDown, Init, AdminDown, None),
        (AdminDown, Up, AdminDown, None),
        (Down, AdminDown, Down, Some(C::AdminDown)),
        (Down, Down, Init, None),
        (Down, Init, Up, Some(C::Up)),
        (Down, Up, Down, None),
        (Init, AdminDown, Down, Some(C::AdminDown)),
        (Init, Down, Init, None),
        (Init, Init, Up, Some(C::Up)),
        (Init, Up, Up, Some(C::Up)),
        (Up, AdminDown, Down, Some(C::AdminDown)),
        (Up, Down, Down, Some(signalled)),
        (Up, Init, Up, None),
        (Up, Up, Up, None),
    ];
    for (state, theirs, then, change) in rows {
        let (mut sessions, yours) = session_in(state);
        let packet = Packet { state: theirs, yours, ..packet() };
        sessions.handle_packet(&packet.encode(), &arrival(1), MILLI);
        let now = &sessions.status(MILLI).sessions[0];
        assert_eq!((now.state, now.remote_state), (then, theirs), "{state:?} and {theirs:?}");
        assert_eq!(changes(&mut sessions), Vec::from_iter(change), "{state:?} and {theirs:?}");
        // Each change of state is told at once.
        assert_eq!(sent(&mut sessions).iter().any(|sent| sent.state == then), state != then);
    }
}

#[test]
fn what_is_malformed_or_for_nobody_is_discarded() {
    let (mut sessions, yours) = session_in(State::Init);
    let good = Packet { state: State::Up, yours, ..packet() };
    let changed = |at: usize, byte: u8| {
        let mut bytes = good.encode();
        bytes[at] = byte;
        bytes.to_vec()
    };
    let malformed: [Vec<u8>; 9] = [
        Vec::new(),
        good.encode()[..23].to_vec(),
        changed(0, 2 << 5),
        changed(0, 0),
        changed(2, 0),
        changed(3, 23),
        changed(3, 25),
        changed(1, 3 << 6 | 1),
        Packet { mine: 0, ..good }.encode().to_vec(),
    ];
    for bytes in &malformed {
        sessions.handle_packet(bytes, &arrival(1), MILLI);
    }
    // Who knows nobody is not up.
    sessions.handle_packet(&Packet { yours: 0, ..good }.encode(), &arrival(1), MILLI);
    sessions.handle_packet(&changed(1, 3 << 6 | 4), &arrival(1), MILLI);
    sessions.handle_packet(&good.encode(), &Arrival { hops: 254, ..arrival(1) }, MILLI);
    sessions.handle_packet(&Packet { yours: yours ^ 1, ..good }.encode(), &arrival(1), MILLI);
    sessions.handle_packet(&packet().encode(), &arrival(3), MILLI);
    let status = sessions.status(MILLI);
    assert_eq!(status.discarded, Discarded { far: 1, malformed: 10, authenticated: 1, unknown: 2 });
    assert_eq!((status.sessions[0].state, status.sessions[0].received), (State::Init, 1));
    sessions.handle_packet(&good.encode(), &arrival(1), MILLI);
    assert_eq!(changes(&mut sessions), [Change::Up]);
}

#[test]
fn a_session_is_of_one_interface_and_one_address() {
    let interface: Arc<str> = "eth0".into();
    let key = Key { local: Some(address(9)), interface: Some(interface.clone()), ..key(1) };
    let mut sessions = Sessions::new(1);
    sessions.set(&BTreeMap::from([(key, every(100, 3))]), Duration::ZERO);
    let other = "eth1".into();
    let by = |interface, to| Arrival { interface, to: address(to), ..arrival(1) };
    for wrong in [by(Some(&other), 9), by(None, 9), by(Some(&interface), 8)] {
        sessions.handle_packet(&packet().encode(), &wrong, MILLI);
    }
    assert_eq!(sessions.status(MILLI).discarded.unknown, 3);
    sessions.handle_packet(&packet().encode(), &by(Some(&interface), 9), MILLI);
    assert_eq!(sessions.status(MILLI).sessions[0].state, State::Init);
    sessions.handle_link_down("eth1", MILLI);
    assert_eq!(sessions.status(MILLI).sessions[0].state, State::Init);
    sessions.handle_link_down("eth0", MILLI);
    let status = &sessions.status(MILLI).sessions[0];
    assert_eq!((status.state, status.diagnostic), (State::Down, Diagnostic::PathDown));
}

#[test]
fn it_sends_slowly_until_it_is_up_and_then_as_both_wish() {
    let mut pair = Pair::new([every(50, 3), every(200, 5)], QUIET, 3);
    pair.cut = [true; 2];
    pair.run_for(SECOND * 20);
    assert!((20..=27).contains(&pair.sent[0].len()), "{}", pair.sent[0].len());
    assert!(pair.sent[0].iter().all(|(_, packet)| packet.transmit == 1_000_000 && !packet.poll));
    pair.cut = [false; 2];
    pair.run_for(SECOND * 3);
    assert!(pair.both_are(State::Up));
    let [a, b] = [pair.status(0), pair.status(1)];
    assert_eq!((a.interval, a.detection), (MILLI * 200, MILLI * 1000));
    assert_eq!((b.interval, b.detection), (MILLI * 200, MILLI * 600));
    // Both have polled, were answered, and are at rest.
    pair.sent = Default::default();
    pair.run_for(SECOND * 10);
    for sent in &pair.sent {
        assert!((50..=67).contains(&sent.len()), "{}", sent.len());
        assert!(sent.iter().all(|(_, packet)| !packet.poll && !packet.last));
        let gaps = sent.windows(2).map(|pair| pair[1].0 - pair[0].0);
        assert!(gaps.clone().all(|gap| (MILLI * 150..=MILLI * 200).contains(&gap)));
        assert!(gaps.clone().max() > gaps.min(), "no two intervals are the same");
    }
    assert_eq!([pair.told[0].len(), pair.told[1].len()], [1, 1]);
}

#[test]
fn with_a_multiplier_of_one_a_packet_is_never_almost_late() {
    let mut pair = Pair::new([every(100, 1), every(100, 1)], QUIET, 3);
    pair.run_for(SECOND * 4);
    pair.sent = Default::default();
    pair.run_for(SECOND * 10);
    let gaps = pair.sent[0].windows(2).map(|pair| pair[1].0 - pair[0].0);
    assert!(gaps.clone().all(|gap| (MILLI * 75..=MILLI * 90).contains(&gap)), "{gaps:?}");
    assert!(pair.both_are(State::Up) && pair.told[0].len() == 1);
}

#[test]
fn changed_intervals_are_in_force_when_the_peer_knows() {
    let mut pair = Pair::new([every(100, 3), every(100, 10)], QUIET, 9);
    pair.run_for(SECOND * 4);
    // The answer does not come: it sends as before, and expects as before.
    pair.cut[0] = true;
    pair.set(0, Intervals { transmit: MILLI * 400, receive: MILLI * 50, multiplier: 3 });
    let before = pair.sent[0].len();
    pair.run_for(MILLI * 250);
    assert_eq!((pair.status(0).interval, pair.status(0).detection), (MILLI * 100, MILLI * 1000));
    let sent = &pair.sent[0][before..];
    assert!(sent.len() >= 2 && sent.iter().all(|(_, packet)| packet.poll && packet.transmit == 400_000));
    pair.cut[0] = false;
    pair.run_for(SECOND * 5);
    let [a, b] = [pair.status(0), pair.status(1)];
    assert_eq!((a.interval, b.detection), (MILLI * 400, MILLI * 1200));
    // The other side still sends every 100 ms, as it said.
    assert_eq!((b.interval, a.detection), (MILLI * 100, MILLI * 1000));
    // What changes twice before an answer is told twice.
    pair.set(0, every(200, 3));
    pair.set(0, every(300, 3));
    pair.run_for(SECOND * 5);
    assert_eq!((pair.status(0).interval, pair.status(1).interval), (MILLI * 300, MILLI * 300));
    assert!(pair.sent[0].last().is_some_and(|(_, packet)| !packet.poll));
    assert_eq!([pair.told[0].len(), pair.told[1].len()], [1, 1]);
}

#[test]
fn what_is_over_by_shorter_intervals_is_over_at_once() {
    let mut sessions = Sessions::new(5);
    sessions.set(&one(1, every(5000, 3)), Duration::ZERO);
    sessions.handle_packet(&packet().encode(), &arrival(1), Duration::ZERO);
    sessions.handle_timeout(SECOND);
    assert_eq!(sessions.status(SECOND).sessions[0].state, State::Init);
    sessions.set(&one(1, every(100, 3)), SECOND);
    assert_eq!(sessions.status(SECOND).sessions[0].state, State::Down);
    assert!(sessions.wakes().is_some_and(|at| at > SECOND), "nothing is due that was just done");
}

#[test]
fn who_is_heard_no_more_is_down_and_says_why() {
    let mut pair = Pair::new([every(100, 3), every(100, 3)], QUIET, 1);
    pair.run_for(SECOND * 4);
    let cut = pair.now;
    pair.cut[0] = true;
    pair.run_for(SECOND);
    let (at, change) = pair.told[0][1];
    assert_eq!(change, Change::Down(Diagnostic::Expired));
    assert!(at <= cut + MILLI * 301 && at >= cut + MILLI * 190, "{:?}", at - cut);
    // The other hears that at once, as the way back works.
    assert_eq!(pair.told[1][1], (at + MILLI, Change::Down(Diagnostic::Signalled)));
    assert_eq!(pair.status(0).remote_discriminator, 0);
    pair.cut[0] = false;
    pair.run_for(SECOND * 4);
    assert!(pair.both_are(State::Up));
}

#[test]
fn a_peer_that_starts_anew_is_noticed_before_it_is_missed() {
    let mut pair = Pair::new([every(100, 30), every(100, 30)], QUIET, 1);
    pair.run_for(SECOND * 4);
    pair.replace(1, every(100, 3));
    let now = pair.now;
    pair.run_for(SECOND * 4);
    assert_eq!(pair.told[0][1], (now + MILLI, Change::Down(Diagnostic::Signalled)));
    assert!(pair.both_are(State::Up));
}

#[test]
fn one_that_is_no_longer_wanted_says_so_until_it_is_known() {
    let mut pair = Pair::new([every(100, 3), every(100, 3)], QUIET, 1);
    pair.run_for(SECOND * 4);
    // The first word is lost.
    pair.line.loss = 255;
    pair.ends[1].set(&BTreeMap::new(), pair.now);
    pair.pump(1);
    pair.line.loss = 0;
    pair.ends[1].set(&one(1, every(100, 3)), pair.now);
    pair.pump(1);
    pair.run_for(SECOND * 4);
    assert!(pair.both_are(State::Up), "it was wanted again");
    pair.told = Default::default();
    pair.ends[1].set(&BTreeMap::new(), pair.now);
    pair.pump(1);
    pair.run_for(SECOND * 8);
    assert_eq!(pair.ends[1].len(), 0);
    let now = pair.now;
    assert!(pair.ends[1].wakes().is_none() && pair.ends[1].status(now).sessions.is_empty());
    assert_eq!(pair.told[0].iter().map(|(_, change)| *change).collect::<Vec<_>>(), [Change::AdminDown]);
    assert!(pair.told[1].is_empty());
    assert_eq!(pair.status(0).state, State::Down);
}

#[test]
fn a_peer_that_wants_none_gets_none_and_polls_are_answered() {
    let (mut sessions, yours) = session_in(State::Up);
    let mut now = MILLI;
    let mut pass = |sessions: &mut Sessions, packet: Packet| {
        let mut seen = Vec::new();
        for _ in 0..20 {
            now += MILLI * 50;
            sessions.handle_packet(&packet.encode(), &arrival(1), now);
            sessions.handle_timeout(now);
            seen.extend(sent(sessions));
        }
        seen
    };
    let up = Packet { state: State::Up, yours, ..packet() };
    // The poll that began with being up goes on until it is answered, in demand mode too.
    assert!(pass(&mut sessions, Packet { demand: true, ..up }).iter().all(|sent| sent.poll));
    assert!(pass(&mut sessions, Packet { last: true, demand: true, ..up }).is_empty());
    let answers = pass(&mut sessions, Packet { poll: true, demand: true, ..up });
    assert!(answers.len() == 20 && answers.iter().all(|sent| sent.last && !sent.poll && !sent.demand));
    assert!(!pass(&mut sessions, up).is_empty());
    assert!(pass(&mut sessions, Packet { receive: 0, ..up }).is_empty());
    assert_eq!(changes(&mut sessions), []);
}

#[test]
fn one_that_ends_is_not_held_up_by_a_peer_that_wants_none() {
    let (mut sessions, yours) = session_in(State::Up);
    let silent = Packet { state: State::Up, yours, receive: 0, ..packet() };
    sessions.handle_packet(&silent.encode(), &arrival(1), MILLI);
    sent(&mut sessions);
    sessions.set(&BTreeMap::new(), MILLI * 2);
    let words = sent(&mut sessions);
    assert!(words.len() == 3 && words.iter().all(|word| word.state == State::AdminDown));
    assert_eq!(sessions.len(), 0);
}

#[test]
fn there_are_no_more_sessions_than_may_be() {
    let mut sessions = Sessions::new(1);
    let wanted = (0..MAX_SESSIONS as u32 + 5).map(|i| {
        (Key { peer: Ipv4Addr::from(i + 1).into(), local: None, interface: None }, Intervals::default())
    });
    sessions.set(&wanted.collect(), Duration::ZERO);
    assert_eq!((sessions.len(), sessions.status(SECOND).refused), (MAX_SESSIONS, 5));
    let numbers: std::collections::BTreeSet<u32> = sent(&mut sessions).iter().map(|sent| sent.mine).collect();
    assert_eq!(numbers.len(), MAX_SESSIONS);
}
