//! Whatever happens to a session, in whatever order.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Start,
    Stop,
    Reset,
    Connected(Side),
    Unreachable,
    Closed(Side),
    Good(Side, u8),
    Bytes(Side, Vec<u8>),
    Pass(u64),
    Send,
}

fn side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Dialled), Just(Side::Accepted)]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => Just(Step::Start),
        1 => Just(Step::Stop),
        1 => Just(Step::Reset),
        3 => side().prop_map(Step::Connected),
        1 => Just(Step::Unreachable),
        1 => side().prop_map(Step::Closed),
        9 => (side(), any::<u8>()).prop_map(|(side, which)| Step::Good(side, which)),
        1 => (side(), vec(any::<u8>(), 0..60)).prop_map(|(side, bytes)| Step::Bytes(side, bytes)),
        3 => (0..200_000_u64).prop_map(Step::Pass),
        1 => Just(Step::Send),
    ]
}

/// A message that makes sense somewhere.
fn good(which: u8) -> Vec<u8> {
    let peer = config(which / 16 % 3 + 1).with_graceful_restart(SECOND * 9);
    encoded(|out| match which % 8 {
        0..=2 => message::open(out, &peer.open()),
        3..=4 => message::keepalive(out),
        5 => message::end_of_rib(out, Family::Ipv4),
        6 => message::refresh(out, Family::Ipv6, RefreshKind::Request),
        _ => message::notification(out, &Reason::ADMINISTRATIVE_RESET.into()),
    })
}

proptest! {
    #[test]
    fn it_keeps_its_promises(steps in vec(step(), 0..120), graceful: bool, passive: bool) {
        let config = if graceful { config(1).with_graceful_restart(SECOND * 60) } else { config(1) };
        let mut session = Session::new(Config { passive, ..config }, 7);
        let mut now = Duration::ZERO;
        let mut up = false;
        for step in steps {
            match step {
                Step::Start => session.start(now),
                Step::Stop => session.stop(&Reason::SHUTDOWN.into(), now),
                Step::Reset => session.reset(&Reason::ADMINISTRATIVE_RESET.into(), now),
                Step::Connected(side) => { session.handle_connected(side, now); }
                Step::Unreachable => session.handle_unreachable(now),
                Step::Closed(side) => session.handle_closed(side, now),
                Step::Good(side, which) => { session.handle_bytes(side, &good(which)); }
                Step::Bytes(side, bytes) => { session.handle_bytes(side, &bytes); }
                Step::Pass(millis) => {
                    now += Duration::from_millis(millis);
                    session.handle_timeout(now);
                }
                Step::Send => { session.send([0; 4096].into(), now); }
            }
            for seen in events(&mut session, now) {
                match seen {
                    // Up and down take turns, and routes go in between alone.
                    Seen::Up(_) => { prop_assert!(!up); up = true; }
                    Seen::Down(..) => { prop_assert!(up); up = false; }
                    Seen::Update(_) | Seen::EndOfRib(_) | Seen::Refresh(..) => prop_assert!(up),
                    _ => {}
                }
            }
            prop_assert_eq!(up, session.state() == State::Established);
            prop_assert_eq!(up, session.terms().is_some());
            session.handle_timeout(now);
            events(&mut session, now);
            prop_assert!(session.wakes().is_none_or(|at| at > now), "nothing is due that was just done");
        }
    }
}
