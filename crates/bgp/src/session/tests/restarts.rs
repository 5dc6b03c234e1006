//! A peer that restarts.

use super::pair::Pair;
use super::*;
use crate::message::LongLived;

const MILLI: Duration = Duration::from_millis(1);
const BOTH: PerFamily<bool> = PerFamily { ipv4: true, ipv6: true };

/// One that waits, and is waited for, 120 seconds; `kept`: it goes on forwarding while it restarts.
fn graceful(number: u8, kept: bool) -> Config {
    let mut config = config(number).with_graceful_restart(SECOND * 120);
    if let Some(graceful) = &mut config.capabilities.graceful_restart {
        graceful.families = PerFamily::from_fn(|_| Some(kept));
    }
    config
}

fn up(a: Config, b: Config) -> Pair {
    let mut pair = Pair::new(a, b, MILLI, 1);
    pair.run_until(SECOND * 40);
    assert!(pair.both_are(State::Established));
    pair.told = Default::default();
    pair
}

fn end_of_rib(pair: &mut Pair, who: usize) {
    for family in Family::ALL {
        let now = pair.now;
        assert!(pair.sessions[who].send(encoded(|out| message::end_of_rib(out, family)).into(), now));
    }
    pair.run_for(SECOND);
}

#[test]
fn who_is_killed_and_comes_again_keeps_its_routes() {
    let mut pair = up(graceful(1, true), graceful(2, true));
    pair.replace(1, Session::new(graceful(2, true), 99));
    pair.run_for(SECOND * 5);
    assert!(pair.both_are(State::Established));
    let up = pair.told[0][1].clone();
    assert!(matches!(up, Seen::Up(_)));
    assert_eq!(pair.told[0][0], Seen::Down(Fall::Replaced, BOTH));
    end_of_rib(&mut pair, 1);
    let ends = [Family::Ipv4, Family::Ipv6].map(|family| [Seen::EndOfRib(family), Seen::Sweep(family)]);
    assert_eq!(pair.told[0][2..], ends.concat());
    pair.run_for(SECOND * 1000);
    assert_eq!(pair.told[0].len(), 6);
}

#[test]
fn who_comes_again_without_what_it_forwarded_loses_it() {
    let mut pair = up(graceful(1, true), graceful(2, true));
    pair.replace(1, Session::new(graceful(2, false), 99));
    pair.run_for(SECOND * 5);
    let gone = Family::ALL.map(Seen::Sweep);
    assert_eq!(pair.told[0][2..], gone);
}

#[test]
fn routes_that_are_not_told_again_go_in_time() {
    let mut pair = up(graceful(1, true), graceful(2, true));
    pair.break_all();
    pair.run_for(SECOND * 5);
    assert_eq!(pair.told[0][0], Seen::Down(Fall::Closed, BOTH));
    assert!(pair.both_are(State::Established));
    pair.run_for(SECOND * 350);
    assert_eq!(pair.told[0].len(), 2, "{:?}", pair.told[0]);
    pair.run_for(SECOND * 20);
    assert_eq!(pair.told[0][2..], Family::ALL.map(Seen::Sweep));
}

#[test]
fn who_does_not_come_again_is_waited_for_and_then_long_lived() {
    for long in [None, Some(LongLived { kept: true, time: 3600 })] {
        let with = |number| {
            let mut config = graceful(number, true);
            config.capabilities.long_lived.ipv4 = long;
            config
        };
        let mut pair = up(with(1), with(2));
        pair.cut = true;
        pair.break_all();
        pair.run_for(SECOND * 119);
        assert_eq!(pair.told[0].iter().filter(|seen| !matches!(seen, Seen::Failed(_))).count(), 1);
        pair.run_for(SECOND * 2);
        let (v4, v6) = (Family::Ipv4, Family::Ipv6);
        if long.is_none() {
            assert_eq!(pair.told[0][1..], [Seen::Sweep(v4), Seen::Sweep(v6)]);
            continue;
        }
        assert_eq!(pair.told[0][1..], [Seen::LongLived(v4), Seen::Sweep(v6)]);
        pair.run_for(SECOND * 3590);
        assert_eq!(pair.told[0].len(), 3);
        pair.run_for(SECOND * 20);
        assert_eq!(pair.told[0][3..], [Seen::Sweep(v4)]);
    }
}

#[test]
fn notifications_spare_routes_where_both_say_so_but_no_hard_reset() {
    let quiet = |mut config: Config| {
        if let Some(graceful) = &mut config.capabilities.graceful_restart {
            graceful.notification = false;
        }
        config
    };
    let reset = Notification::from(Reason::ADMINISTRATIVE_RESET);
    let shutdown = Notification::from(Reason::SHUTDOWN);
    let none = PerFamily::default();
    let cases = [
        (graceful(1, true), &reset, BOTH, reset.clone()),
        (quiet(graceful(1, true)), &reset, none, reset.clone()),
        (graceful(1, true), &shutdown, none, shutdown.hard()),
        (quiet(graceful(1, true)), &shutdown, none, shutdown.clone()),
    ];
    for (config, why, kept, told) in cases {
        let mut pair = up(config, graceful(2, true));
        let now = pair.now;
        pair.sessions[0].reset(why, now);
        pair.run_for(SECOND);
        assert_eq!(pair.told[0][0], Seen::Down(Fall::Sent(told.clone()), kept));
        assert_eq!(pair.told[1][0], Seen::Down(Fall::Received(told), kept));
    }
}

#[test]
fn what_is_stopped_waits_for_nobody() {
    let mut pair = up(graceful(1, true), graceful(2, true));
    pair.cut = true;
    pair.break_all();
    pair.run_for(SECOND);
    let now = pair.now;
    pair.sessions[0].stop(&Reason::DECONFIGURED.into(), now);
    pair.pump();
    assert_eq!(pair.told[0][1..], Family::ALL.map(Seen::Sweep));
    assert_eq!(pair.sessions[0].wakes(), None);
}
