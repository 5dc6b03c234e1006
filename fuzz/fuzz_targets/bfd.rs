//! BFD packets, and two sessions that they are thrown at: nothing is due that was just done, nobody is up with a
//! stranger, and what is sent can be read.
#![no_main]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use weft_bgp::bfd::{Arrival, Change, HOPS, Intervals, Key, LENGTH, Packet, Sessions, State};

fn address(number: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, number % 4).into()
}

fn wanted(bits: u8, millis: u8) -> BTreeMap<Key, Intervals> {
    let interval = Duration::from_millis(millis.into());
    let intervals = Intervals { transmit: interval, receive: interval * 2, multiplier: bits / 64 };
    let keys = (1..3).filter(|number| bits & number != 0);
    keys.map(|number| (Key { peer: address(number), local: None, interface: None }, intervals)).collect()
}

/// Takes what is told: who was not up does not fall, and who is up does not come up.
fn take(sessions: &mut Sessions, up: &mut BTreeMap<Key, bool>) {
    while let Some((key, change)) = sessions.poll() {
        let before = up.insert(key, change == Change::Up).unwrap_or_default();
        assert!(change == Change::AdminDown || before != (change == Change::Up));
    }
}

fuzz_target!(|data: &[u8]| {
    let mut sessions = Sessions::new(7);
    let mut now = Duration::ZERO;
    let mut up: BTreeMap<Key, bool> = BTreeMap::new();
    sessions.set(&wanted(3, 50), now);
    let mut rest = data;
    // What happens, to whom, how much later, and a packet.
    while let Some((&[what, whom, later, ref bytes @ ..], more)) = rest.split_first_chunk::<{ 3 + LENGTH }>()
    {
        rest = more;
        now += Duration::from_millis(u64::from(later) * 4);
        sessions.handle_timeout(now);
        // Before it may be no longer wanted.
        take(&mut sessions, &mut up);
        let hops = if what & 0x80 == 0 { HOPS } else { whom };
        let arrival = Arrival { from: address(whom), to: address(0), interface: None, hops };
        match what % 8 {
            0 => {
                let wanted = wanted(whom, bytes[0]);
                sessions.set(&wanted, now);
                up.retain(|key, _| wanted.contains_key(key));
            }
            1 => sessions.handle_packet(&bytes[..usize::from(bytes[0]) % LENGTH], &arrival, now),
            2 => sessions.handle_packet(bytes, &arrival, now),
            _ => {
                // One that could be read, of somebody who knows the session or does not.
                let status = sessions.status(now);
                let ours = status.sessions.iter().find(|session| session.peer == arrival.from);
                let mut good = *bytes;
                (good[0], good[1], good[3]) = (0x20 | good[0] & 31, good[1] & !5, LENGTH as u8);
                if what & 0x40 == 0 {
                    let number = ours.map_or(0, |session| session.discriminator);
                    good[8..12].copy_from_slice(&number.to_be_bytes());
                }
                sessions.handle_packet(&good, &arrival, now);
            }
        }
        take(&mut sessions, &mut up);
        let mut sent = 0;
        while let Some(out) = sessions.poll_transmit() {
            let packet = Packet::decode(&out.packet).expect("our own packet");
            assert!(packet.mine == out.session && !(packet.poll && packet.last));
            sent += 1;
        }
        // For each session what was due, an answer, and what has changed; ten years at once are one packet.
        assert!(sent <= 16, "{sent}");
        assert!(sessions.wakes().is_none_or(|at| at > now), "nothing is due that was just done");
        for session in sessions.status(now).sessions {
            let strange = session.remote_discriminator == 0;
            assert!(!(session.state == State::Up && (strange || session.detection.is_zero())));
        }
    }
});
