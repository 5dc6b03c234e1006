//! Two over a line that loses, delays and reorders; and whatever may come to one.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn intervals() -> impl Strategy<Value = Intervals> {
    (10..400_u64, 10..400_u64, 1..6_u8).prop_map(|(transmit, receive, multiplier)| Intervals {
        transmit: MILLI * transmit as u32,
        receive: MILLI * receive as u32,
        multiplier,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn over_a_bad_line_both_come_to_agree_and_a_cut_is_noticed_in_time(
        a in intervals(), b in intervals(), loss in 0..200_u8, delay in 0..30_u32, spread in 0..600_u32,
        seed: u32, rough in 0..20_u32, cut in 0..2_usize,
    ) {
        let line = pair::Line { delay: MILLI * delay, spread: MILLI * spread, loss };
        let mut pair = Pair::new([a, b], line, seed.into());
        pair.run_for(SECOND * rough);
        // Whatever was, a good line brings both up, and nothing brings them down.
        pair.line = pair::Line { delay: MILLI, spread: Duration::ZERO, loss: 0 };
        pair.run_for(SECOND * 8);
        prop_assert!(pair.both_are(State::Up), "{:?} {:?}", pair.status(0), pair.status(1));
        let [at_a, at_b] = [pair.status(0), pair.status(1)];
        prop_assert_eq!(at_a.remote_discriminator, at_b.discriminator);
        prop_assert_eq!(at_b.remote_discriminator, at_a.discriminator);
        prop_assert_eq!(at_a.interval, a.transmit.max(b.receive));
        prop_assert_eq!(at_a.detection, at_b.interval * b.multiplier.into());
        let before = pair.told.clone();
        pair.run_for(SECOND * 20);
        prop_assert_eq!(&pair.told, &before);
        // Within the detection time, and not before what is allowed to be lost is lost.
        let now = pair.now;
        pair.cut[cut] = true;
        let detection = pair.status(cut).detection;
        pair.run_for(detection + SECOND);
        let (at, change) = pair.told[cut][before[cut].len()];
        prop_assert_eq!(change, Change::Down(Diagnostic::Expired));
        prop_assert!(at <= now + detection + MILLI);
        prop_assert!(at + pair.status(1 - cut).interval.max(SECOND) + MILLI >= now + detection);
        prop_assert_eq!(pair.status(cut).state, State::Down);
        prop_assert_ne!(pair.status(1 - cut).state, State::Up);
    }

    #[test]
    fn up_and_down_take_turns_and_nobody_is_up_with_a_stranger(
        packets in vec((0..4_u8, any::<[bool; 4]>(), 0..3_u32, 0..3_u32, 0..600_u32, any::<(u16, u16, u8)>()), 0..200),
    ) {
        let mut sessions = Sessions::new(3);
        sessions.set(&one(1, every(100, 3)), Duration::ZERO);
        let ours = sent(&mut sessions)[0].mine;
        let (mut now, mut up, mut heard) = (Duration::ZERO, false, Duration::ZERO);
        for (state, [poll, last, demand, wait], mine, yours, millis, (transmit, receive, multiplier)) in packets {
            if wait {
                now += MILLI * millis;
                sessions.handle_timeout(now);
            }
            let state = [State::AdminDown, State::Down, State::Init, State::Up][usize::from(state)];
            // Numbers of others, none, or the right one.
            let yours = [0, ours, ours ^ 1][yours as usize];
            let packet = Packet {
                state, poll, last, demand, mine, yours, multiplier,
                transmit: u32::from(transmit) * 10, receive: u32::from(receive) * 10, ..packet()
            };
            let before = sessions.status(now).sessions[0].state;
            sessions.handle_packet(&packet.encode(), &arrival(1), now);
            let status = sessions.status(now).sessions.remove(0);
            let good = mine != 0 && multiplier != 0 && yours != ours ^ 1;
            if good && (yours == ours || matches!(state, State::Down | State::AdminDown)) {
                heard = now;
            } else {
                prop_assert_eq!(before, status.state);
            }
            if before != State::Up && status.state == State::Up {
                prop_assert_eq!(yours, ours);
            }
            for change in changes(&mut sessions) {
                match change {
                    Change::Up => { prop_assert!(!up); up = true; }
                    Change::Down(_) => { prop_assert!(up); up = false; }
                    Change::AdminDown => up = false,
                }
            }
            prop_assert_eq!(up, status.state == State::Up);
            // One poll, one answer; one change, one word.
            prop_assert!(sent(&mut sessions).len() <= 3);
            prop_assert!(!up || now < heard + status.detection);
            prop_assert!(sessions.wakes().is_some_and(|at| at > now), "nothing is due that was just done");
        }
    }

    #[test]
    fn what_is_read_is_what_was_written(bytes in vec(any::<u8>(), 0..40)) {
        if let Ok(packet) = Packet::decode(&bytes) {
            prop_assert_eq!(Packet::decode(&packet.encode()), Ok(packet));
            prop_assert_eq!(&packet.encode()[4..], &bytes[4..24]);
        }
    }
}
