//! Two speakers.

use proptest::prelude::*;

use super::pair::Pair;
use super::*;

const MILLI: Duration = Duration::from_millis(1);

#[test]
fn they_come_up_and_stay_up() {
    let mut pair = Pair::new(config(1), Config { hold: 9, ..config(2) }, MILLI, 1);
    pair.run_until(7200 * SECOND);
    assert!(pair.both_are(State::Established));
    for told in &pair.told {
        assert!(matches!(told[..], [Seen::Up(_)]), "{told:?}");
    }
    assert_eq!(pair.sessions[0].terms().unwrap().hold, 9);
    assert_eq!(pair.sessions[0].terms().unwrap().peer_as, 65002);
}

#[test]
fn without_hold_times_nothing_is_sent_and_nothing_expires() {
    let mut pair = Pair::new(Config { hold: 0, ..config(1) }, config(2), MILLI, 1);
    pair.run_until(SECOND * 10);
    assert!(pair.both_are(State::Established));
    assert_eq!(pair.sessions.each_ref().map(Session::wakes), [None, None]);
}

proptest! {
    #[test]
    fn of_two_connections_one_stays(seed in 0..1000_u64, latency in 0..3000_u64, order: bool, graceful: bool) {
        let with = |number| match graceful {
            true => config(number).with_graceful_restart(SECOND * 120),
            false => config(number),
        };
        let (a, b) = if order { (1, 2) } else { (2, 1) };
        let mut pair = Pair::new(with(a), with(b), MILLI * latency as u32, seed);
        pair.run_until(SECOND * 300);
        prop_assert!(pair.both_are(State::Established), "{:?}", pair.told);
        prop_assert_eq!(pair.connections(), 1);
        let ups = |told: &[Seen]| told.iter().filter(|seen| matches!(seen, Seen::Up(_))).count();
        let told = pair.told.clone();
        pair.run_until(SECOND * 3000);
        prop_assert_eq!(&told, &pair.told, "it stays as it is");
        prop_assert_eq!(told.each_ref().map(|told| ups(told)), [1, 1], "none came up in vain");
    }
}

#[test]
fn who_is_passive_is_dialled() {
    let passive = |number| Config { passive: true, ..config(number) };
    let mut pair = Pair::new(passive(1), config(2), MILLI, 1);
    pair.run_until(SECOND * 5);
    assert_eq!((pair.dialled, &pair.told[0][..]), (1, &[Seen::Up(Side::Accepted)][..]));
    let mut pair = Pair::new(passive(1), passive(2), MILLI, 1);
    pair.run_until(SECOND * 500);
    assert!(pair.both_are(State::Active) && pair.dialled == 0);
}

#[test]
fn silence_ends_it_and_it_comes_again() {
    let mut pair = Pair::new(Config { hold: 9, ..config(1) }, config(2), MILLI, 1);
    pair.run_until(SECOND * 20);
    pair.cut = true;
    pair.run_for(SECOND * 10);
    let expired = Fall::Sent(Reason::HOLD_TIMER.into());
    for told in &pair.told {
        assert_eq!(told[1], Seen::Down(expired.clone(), PerFamily::default()));
    }
    pair.run_for(SECOND * 600);
    // Ever more rarely: at most once in three quarters of a minute each, after the first minute.
    assert!((10..50).contains(&pair.dialled), "{}", pair.dialled);
    pair.cut = false;
    pair.run_for(SECOND * 70);
    assert!(pair.both_are(State::Established));
}

#[test]
fn a_shutdown_is_told_and_lasts() {
    let mut pair = Pair::new(config(1), config(2), MILLI, 1);
    pair.run_until(SECOND);
    let why = Notification::with_text(Reason::SHUTDOWN, "rack 4 gets a new switch");
    let now = pair.now;
    pair.sessions[0].stop(&why, now);
    pair.run_for(SECOND * 300);
    assert_eq!(pair.told[0][1], Seen::Down(Fall::Sent(why.clone()), PerFamily::default()));
    assert_eq!(pair.told[1][1], Seen::Down(Fall::Received(why), PerFamily::default()));
    assert_eq!(pair.sessions[0].state(), State::Idle);
    assert!(pair.told.iter().all(|told| !told[2..].iter().any(|seen| matches!(seen, Seen::Up(_)))));
    let now = pair.now;
    pair.sessions[0].start(now);
    pair.run_for(SECOND * 70);
    assert!(pair.both_are(State::Established));
}

#[test]
fn who_does_not_fit_is_told_why() {
    let id = Config { id: config(2).id, ..config(1) };
    let inside = |config: Config| Config { local_as: 65000, peer_as: PeerAs::Internal, ..config };
    let v6 = |mut config: Config, ipv6: bool| {
        config.capabilities.families = Some(PerFamily { ipv4: !ipv6, ipv6 });
        config
    };
    let cases = [
        (Config { peer_as: PeerAs::Is(7), ..config(1) }, config(2), Reason::PEER_AS),
        (Config { peer_as: PeerAs::Internal, ..config(1) }, config(2), Reason::PEER_AS),
        (config(1), Config { local_as: 65001, ..config(2) }, Reason::PEER_AS),
        (inside(id.clone()), inside(config(2)), Reason::IDENTIFIER),
        (v6(config(1), true), v6(config(2), false), Reason::CAPABILITY),
    ];
    for (a, b, reason) in cases {
        let mut pair = Pair::new(a, Config { passive: true, ..b }, MILLI, 1);
        pair.run_until(SECOND * 200);
        let told: Vec<&Seen> = pair.told.iter().flatten().collect();
        let of = |seen: &Seen| match seen {
            Seen::Failed(Fall::Sent(why) | Fall::Received(why)) => why.reason == reason,
            Seen::Failed(Fall::Closed) => true,
            _ => false,
        };
        assert!(!told.is_empty() && told.iter().all(|seen| of(seen)), "{reason}: {told:?}");
        assert!(told.len() < 40, "it rests in between");
    }
    // Outside, two may have one identifier (RFC 6286): the AS decides.
    let mut pair = Pair::new(id, config(2), MILLI, 1);
    pair.run_until(SECOND * 60);
    assert!(pair.both_are(State::Established) && pair.connections() == 1);
}

#[test]
fn members_of_a_confederation_and_any_outside_are_told_apart() {
    let relation = |config: Config, asn| config.relation(asn);
    let config = Config { members: [65002].into(), ..config(1) };
    assert_eq!(relation(config.clone(), 65002), Some(message::Relation::Confederation));
    assert_eq!(relation(config.clone(), 65003), Some(message::Relation::External));
    assert_eq!(relation(config, 65001), None);
}

#[test]
fn routes_and_requests_go() {
    let mut pair = Pair::new(config(1), config(2), MILLI, 1);
    pair.run_until(SECOND * 5);
    let now = pair.now;
    let end = encoded(|out| message::end_of_rib(out, Family::Ipv6));
    assert!(pair.sessions[0].send(end.into(), now));
    assert!(pair.sessions[0].refresh(Family::Ipv4, now));
    assert!(pair.sessions[1].mark(Family::Ipv6, RefreshKind::Begin, now));
    pair.run_for(SECOND);
    let request = Seen::Refresh(Family::Ipv4, RefreshKind::Request);
    assert_eq!(pair.told[1][1..], [Seen::EndOfRib(Family::Ipv6), request]);
    assert_eq!(pair.told[0][1..], [Seen::Refresh(Family::Ipv6, RefreshKind::Begin)]);
}

#[test]
fn who_never_reads_costs_little_and_falls() {
    let mut pair = Pair::new(config(1), Config { hold: 0, ..config(2) }, MILLI, 1);
    pair.run_until(SECOND);
    pair.deaf[1] = true;
    let end: Arc<[u8]> = encoded(|out| message::end_of_rib(out, Family::Ipv4)).repeat(150).into();
    let (mut taken, since) = (0, pair.now);
    while pair.both_are(State::Established) && pair.now < SECOND * 1000 {
        let now = pair.now;
        while pair.sessions[0].send(end.clone(), now) {
            taken += end.len();
        }
        pair.pump();
        pair.run_for(SECOND);
        assert!(taken <= OUTPUT + 65_536 + 3 * end.len());
    }
    let stuck = Fall::Sent(Reason::SEND_HOLD.into());
    assert_eq!(pair.told[0][1], Seen::Down(stuck, PerFamily::default()));
    assert!(pair.now - since <= SECOND * 482);
}
