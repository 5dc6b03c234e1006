//! DHCPv6: messages from the network, and a client that they are thrown at.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use weft_ipam::dhcp::v6::{Client, Config, Lease, Message, option};

fuzz_target!(|data: &[u8]| {
    if let Ok(message) = Message::decode(data) {
        assert_eq!(message.encode(), data);
        if let Ok(lease) = Lease::new(message.options, 1, Duration::ZERO) {
            let _ = lease.settings();
        }
    }
    let duid = vec![0, 4, 1];
    let config = Config { duid: duid.clone(), iaid: 1, requested: vec![option::DNS], rapid_commit: true };
    let mut client = Client::new(config, 1);
    let mut now = Duration::ZERO;
    client.start(now);
    // Each piece: what happens, then the options of a message whose identifiers are made to fit.
    for piece in data.chunks(120) {
        let mut seen = None;
        while let Some(transmit) = client.poll_transmit() {
            seen = Message::decode(&transmit.0).ok().or(seen);
        }
        while client.poll_event().is_some() {}
        now += Duration::from_secs(u64::from(piece[0]) * 8);
        match piece[0] % 4 {
            0 => client.handle_timeout(now),
            1 => client.handle_conflict(now),
            _ => {
                let Ok(mut message) = Message::decode(&piece[1..]) else { continue };
                message.id = seen.map_or(message.id, |seen| seen.id);
                message.options.push(option::CLIENT_ID, &duid[..]);
                client.handle_message(&message.encode(), now);
            }
        }
    }
});
