//! DHCPv4: messages, packets and ARP from the network, and a client that they are thrown at.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use weft_ipam::dhcp::v4::{Client, Config, Lease, Message, Options, Transmit};
use weft_ipam::dhcp::wire;

fuzz_target!(|data: &[u8]| {
    let _ = wire::datagram(data, false);
    if let Ok(message) = Message::decode(data) {
        let again = Message::decode(&message.encode()).expect("what was decoded can be encoded");
        assert_eq!(again.options.iter().count(), message.options.iter().count());
        if let Ok(lease) = Lease::new(message.yours, message.options, Duration::ZERO) {
            let _ = lease.settings();
        }
    }
    let (first_wait, longest_wait) = (Duration::from_secs(4), Duration::from_secs(64));
    let provided = Options::default();
    let mac = "02:00:00:00:00:01".parse().expect("a MAC address");
    let config = Config { mac, provided, requested: vec![1, 3], broadcast: false, first_wait, longest_wait };
    let mut client = Client::new(config, 1);
    let mut now = Duration::ZERO;
    client.start(now);
    // Each piece: what happens, then the bytes of a message whose identifiers are made to fit.
    for piece in data.chunks(300) {
        let mut seen = None;
        while let Some(transmit) = client.poll_transmit() {
            if let Transmit::Broadcast { message: bytes, .. } | Transmit::Unicast { message: bytes, .. } =
                transmit
            {
                seen = Message::decode(&bytes).ok();
            }
        }
        while client.poll_event().is_some() {}
        now += Duration::from_secs(u64::from(piece[0]) * 8);
        match piece[0] % 4 {
            0 => client.handle_timeout(now),
            1 => client.handle_conflict(now),
            _ => {
                let Ok(mut message) = Message::decode(&piece[1..]) else { continue };
                (message.reply, message.mac) = (true, mac);
                message.xid = seen.map_or(message.xid, |seen| seen.xid);
                client.handle_message(&message.encode(), now);
            }
        }
    }
});
