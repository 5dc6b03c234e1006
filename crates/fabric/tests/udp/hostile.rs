//! Datagrams that no peer sends.

use std::net::UdpSocket;

use super::*;

/// An ICMP echo request, with right checksums.
fn echo(from: [u8; 4], to: [u8; 4]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 28, 0, 1, 0x40, 0, 64, 1, 0, 0];
    packet.extend(from.into_iter().chain(to));
    packet.extend([8, 0, 0xf7, 0xfe, 0, 1, 0, 0]);
    let sum: u32 = packet[..20].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = !(((sum & 0xffff) + (sum >> 16)) as u16);
    packet[10..12].copy_from_slice(&folded.to_be_bytes());
    packet
}

#[test]
fn strangers_and_liars_are_counted_and_a_peer_still_gets_through() {
    let mut world = World::new(Outer::V4, 1_500);
    // Node 2's own tunnel makes room: the test speaks with its address and port.
    world.tunnels[1] = None;
    let target = SocketAddr::new(world.outer.node(1), world::PORT);
    let peer = world.nodes[1].run(|| UdpSocket::bind((world.outer.node(2), world::PORT)).unwrap()).unwrap();
    let other = world.nodes[1].run(|| UdpSocket::bind((world.outer.node(2), 0)).unwrap()).unwrap();
    let router = world.router.run(|| UdpSocket::bind(("192.0.2.254", world::PORT)).unwrap()).unwrap();
    let good = echo([10, 244, 2, 2], [10, 244, 1, 2]);
    let (a, b) = ([10, 244, 1, 2], [10, 244, 2, 2]);
    let mut options = good.clone();
    options[0] = 0x46;
    let mut broken = good.clone();
    broken[11] ^= 1;
    for (reason, socket, datagram) in [
        (Reason::Stranger, &other, good.clone()),
        (Reason::Stranger, &router, good.clone()),
        (Reason::Spoofed, &peer, echo([10, 244, 3, 2], a)),
        (Reason::Spoofed, &peer, echo(a, a)),
        (Reason::NotOurs, &peer, echo(b, [10, 244, 3, 2])),
        (Reason::Martian, &peer, echo(b, [127, 0, 0, 1])),
        (Reason::Truncated, &peer, good[..27].to_vec()),
        (Reason::Truncated, &peer, vec![]),
        (Reason::Oversized, &peer, [&good[..], &[0; 60_000]].concat()),
        (Reason::Malformed, &peer, b"\x16\x03\x01 no IP at all".to_vec()),
        (Reason::Options, &peer, options),
        (Reason::Checksum, &peer, broken),
    ] {
        let before = world.tunnel(1).counters();
        socket.send_to(&datagram, target).unwrap();
        eventually(SOON, reason.name(), || {
            world.tunnel(1).counters().dropped(reason) > before.dropped(reason)
        });
        let after = world.tunnel(1).counters();
        assert_eq!(total(&after), total(&before) + 1, "{reason:?}: {after:?}");
        assert_eq!(after.received_frames, before.received_frames, "{reason:?}");
    }
    // And a true one is answered, by the pod, to the peer.
    peer.set_read_timeout(Some(SOON)).unwrap();
    peer.send_to(&good, target).unwrap();
    let mut answer = [0; 100];
    let (len, from) = peer.recv_from(&mut answer).unwrap();
    assert_eq!((len, from), (28, target));
    assert_eq!((&answer[12..20], answer[20]), (&[10, 244, 1, 2, 10, 244, 2, 2][..], 0));
}
