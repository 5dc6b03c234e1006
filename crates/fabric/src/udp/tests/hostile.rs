//! Peers and strangers that lie, and hosts that err.

use proptest::prelude::*;

use super::*;

/// What node B says of one datagram from `from`: nothing, or why it was dropped.
fn verdict(from: &str, datagram: &[u8]) -> Option<Reason> {
    let (_, b) = tables();
    let mut ingress = Ingress::new(true);
    let frames = receive(&mut ingress, &b, from, &[vec![datagram.to_vec()]]);
    let reasons = dropped(&ingress.counters);
    assert_eq!(reasons.len() + frames.len(), 1, "{datagram:02x?}");
    reasons.first().map(|(reason, _)| *reason)
}

fn resum(mut packet: Vec<u8>) -> Vec<u8> {
    packet[10..12].fill(0);
    let check = field(sum(&packet[..20]));
    packet[10..12].copy_from_slice(&check);
    packet
}

fn edited(packet: &[u8], place: usize, value: u8) -> Vec<u8> {
    let mut packet = packet.to_vec();
    packet[place] = value;
    packet
}

#[test]
fn each_lie_has_its_reason() {
    let good = summed(packet("10.1.0.2", "10.2.0.2", UDP, &udp(b"hello")));
    let good6 = summed(packet("fd01::2", "fd02::2", UDP, &udp(b"hello")));
    let p = |from: &str, to: &str| packet(from, to, UDP, &udp(b"hello"));
    let mut options = vec![0x46, 0, 0, 0, 0, 7, 0, 0, 64, UDP, 0, 0, 10, 1, 0, 2, 10, 2, 0, 2, 7, 4, 4, 0];
    options[3] = 24;
    let fragment = |offset: u16, more: bool, protocol: u8, len: usize| {
        let mut one = packet("10.1.0.2", "10.2.0.2", protocol, &vec![0; len]);
        one[6..8].copy_from_slice(&((offset / 8) | if more { 0x2000 } else { 0 }).to_be_bytes());
        resum(one)
    };
    let fragment6 = |offset: u16, more: u16, len: usize| {
        let mut part = vec![UDP, 0, 0, 0, 0, 0, 0, 1];
        part[2..4].copy_from_slice(&(offset | more).to_be_bytes());
        part.extend(vec![0; len]);
        packet("fd01::2", "fd02::2", 44, &part)
    };
    let cases: Vec<(&str, Vec<u8>, Option<Reason>)> = vec![
        ("good", good.clone(), None),
        ("good, IPv6", good6.clone(), None),
        ("a stranger's inner source", p("10.3.0.2", "10.2.0.2"), Some(Reason::Spoofed)),
        ("our own address as source", p("10.2.0.9", "10.2.0.2"), Some(Reason::Spoofed)),
        ("an outside source, IPv6", p("2001:db8::1", "fd02::2"), Some(Reason::Spoofed)),
        ("for another node", p("10.1.0.2", "10.3.0.2"), Some(Reason::NotOurs)),
        ("back to the sender", p("10.1.0.2", "10.1.0.3"), Some(Reason::NotOurs)),
        ("loopback as source", p("127.0.0.1", "10.2.0.2"), Some(Reason::Martian)),
        ("loopback as destination", p("10.1.0.2", "127.0.0.1"), Some(Reason::Martian)),
        ("multicast", p("10.1.0.2", "224.0.0.1"), Some(Reason::Martian)),
        ("broadcast", p("10.1.0.2", "255.255.255.255"), Some(Reason::Martian)),
        ("unspecified", p("0.0.0.0", "10.2.0.2"), Some(Reason::Martian)),
        ("multicast, IPv6", p("fd01::2", "ff02::1"), Some(Reason::Martian)),
        ("a mapped address", p("::ffff:10.1.0.2", "fd02::2"), Some(Reason::Martian)),
        ("empty", vec![], Some(Reason::Truncated)),
        ("half a header", good[..19].to_vec(), Some(Reason::Truncated)),
        ("half a header, IPv6", good6[..39].to_vec(), Some(Reason::Truncated)),
        ("cut off", good[..good.len() - 1].to_vec(), Some(Reason::Truncated)),
        ("cut off, IPv6", good6[..good6.len() - 1].to_vec(), Some(Reason::Truncated)),
        ("something behind it", [&good[..], b"x"].concat(), Some(Reason::Oversized)),
        ("something behind it, IPv6", [&good6[..], b"x"].concat(), Some(Reason::Oversized)),
        ("no IP", edited(&good, 0, 0x55), Some(Reason::Malformed)),
        ("a header of four words", edited(&good, 0, 0x44), Some(Reason::Malformed)),
        ("a length below the header", resum(edited(&good, 3, 19)), Some(Reason::Malformed)),
        ("a wrong sum", edited(&good, 8, 63), Some(Reason::Checksum)),
        ("options", resum_options(options), Some(Reason::Options)),
        (
            "hop-by-hop options",
            packet("fd01::2", "fd02::2", 0, &[17, 0, 1, 4, 0, 0, 0, 0]),
            Some(Reason::Options),
        ),
        (
            "a routing header",
            packet("fd01::2", "fd02::2", 43, &[17, 0, 0, 0, 0, 0, 0, 0]),
            Some(Reason::Options),
        ),
        (
            "destination options",
            packet("fd01::2", "fd02::2", 60, &[17, 0, 1, 4, 0, 0, 0, 0]),
            Some(Reason::Options),
        ),
        ("a first fragment", fragment(0, true, UDP, 1_400), None),
        ("a last fragment", fragment(1_400, false, UDP, 3), None),
        ("beyond the largest packet", fragment(65_528, false, UDP, 100), Some(Reason::Fragment)),
        ("a first part of no eighths", fragment(0, true, UDP, 13), Some(Reason::Fragment)),
        ("an empty part", fragment(0, true, UDP, 0), Some(Reason::Fragment)),
        ("over TCP's flags", fragment(8, false, TCP, 40), Some(Reason::Fragment)),
        ("a fragment, IPv6", fragment6(0, 1, 16), None),
        ("half a fragment header", packet("fd01::2", "fd02::2", 44, &[17, 0, 0]), Some(Reason::Fragment)),
        ("beyond the largest packet, IPv6", fragment6(65_528, 0, 16), Some(Reason::Fragment)),
        ("no eighths, IPv6", fragment6(0, 1, 15), Some(Reason::Fragment)),
    ];
    for (name, datagram, expected) in cases {
        assert_eq!(verdict(A, &datagram), expected, "{name}");
    }
    assert_eq!(verdict("192.0.2.9:8285", &good), Some(Reason::Stranger));
    assert_eq!(verdict("192.0.2.1:8286", &good), Some(Reason::Stranger), "the port counts too");
}

fn resum_options(mut packet: Vec<u8>) -> Vec<u8> {
    let check = field(sum(&packet));
    packet[10..12].copy_from_slice(&check);
    packet
}

#[test]
fn of_a_truncated_message_the_last_datagram_is_dropped() {
    let (_, b) = tables();
    let one = summed(packet("10.1.0.2", "10.2.0.2", UDP, &udp(b"hello")));
    let mut ingress = Ingress::new(true);
    let train = [&one[..], &one].concat();
    ingress.buffer()[..train.len()].copy_from_slice(&train);
    let piece = Piece { start: 0, len: train.len() as u32 };
    let segment = one.len() as u32;
    ingress
        .handle_message(&b, &Arrived { from: A.parse().unwrap(), piece, segment, truncated: true, ecn: 0 });
    ingress.finish();
    assert_eq!(ingress.frames().count(), 1);
    assert_eq!(dropped(&ingress.counters), [(Reason::Truncated, 1)]);
}

#[test]
fn a_host_that_errs_breaks_nothing() {
    let (a, _) = tables();
    let stream = packet("10.1.0.2", "10.2.0.2", TCP, &tcp(5, 0x10, &[1; 3_000]));
    let with = |place: usize, value: u16| {
        let mut frame = frame(stream.clone(), Some(1_000));
        frame[place..place + 2].copy_from_slice(&value.to_ne_bytes());
        frame
    };
    let mut egress = egress();
    let bad_kind = edited(&frame(stream.clone(), Some(1_000)), 1, 9);
    // Segments of nothing, of one byte (3,000 packets), and a kind that does not exist.
    for frame in [with(4, 0), with(4, 1), bad_kind, vec![], vec![0; 9], vec![0; 10]] {
        assert!(send(&mut egress, &a, &[frame]).is_empty());
    }
    // A checksum outside the packet.
    let mut outside = frame(packet("10.1.0.2", "10.2.0.2", UDP, &udp(b"x")), None);
    outside[6..8].copy_from_slice(&60_000u16.to_ne_bytes());
    assert!(send(&mut egress, &a, &[outside]).is_empty());
    // And one in the IP header.
    let mut within = frame(packet("10.1.0.2", "10.2.0.2", UDP, &udp(b"x")), None);
    within[6..10].fill(0);
    assert!(send(&mut egress, &a, &[within]).is_empty());
    assert_eq!(egress.counters.dropped(Reason::Malformed), 5);
    assert_eq!(send(&mut egress, &a, &[frame(stream, Some(1_000))]).len(), 1, "and then it works as before");
}

proptest! {
    #[test]
    fn no_datagram_makes_it_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        begin in prop::sample::select(vec![0usize, 1, 2]),
        segment in 1u32..200,
    ) {
        let good = [
            vec![],
            summed(packet("10.1.0.2", "10.2.0.2", TCP, &tcp(1, 0x10, b"0123456789"))),
            summed(packet("fd01::2", "fd02::2", UDP, &udp(b"0123456789"))),
        ][begin].clone();
        let mut message = good;
        for (i, byte) in bytes.iter().enumerate() {
            // Most of a good packet stays as it was.
            if byte % 4 == 0 && i < message.len() {
                message[i] ^= byte;
            }
        }
        message.extend(&bytes);
        let (a, b) = tables();
        let mut ingress = Ingress::new(true);
        ingress.buffer()[..message.len()].copy_from_slice(&message);
        let piece = Piece { start: 0, len: message.len() as u32 };
        ingress.handle_message(&b, &Arrived { from: A.parse().unwrap(), piece, segment, truncated: false, ecn: 0 });
        ingress.finish();
        for (arena, pieces) in ingress.frames() {
            prop_assert!(pieces.iter().all(|piece| piece.of(arena).is_some()));
        }
        let mut egress = egress();
        send(&mut egress, &a, &[message]);
    }
}
