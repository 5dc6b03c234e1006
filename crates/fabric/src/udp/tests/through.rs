//! From the host of one node to the host of the other.

use proptest::prelude::*;

use super::*;

const ACK: u8 = 0x10;
const PSH: u8 = 0x08;
const FIN: u8 = 0x01;

/// What node B's host gets for a frame of node A's host, and how many datagrams went between.
fn carry(frame: Vec<u8>) -> (Vec<Vec<u8>>, usize) {
    let (a, b) = tables();
    let trains = send(&mut egress(), &a, &[frame]);
    let trains: Vec<Vec<Vec<u8>>> = trains.into_iter().map(|(_, train)| train).collect();
    for datagram in trains.iter().flatten() {
        assert!(right(datagram), "{datagram:02x?}");
    }
    let count = trains.iter().map(Vec::len).sum();
    let mut ingress = Ingress::new(true);
    let frames = receive(&mut ingress, &b, A, &trains);
    assert_eq!(dropped(&ingress.counters), []);
    (frames, count)
}

fn hop_less(mut packet: Vec<u8>) -> Vec<u8> {
    let v4 = packet[0] >> 4 == 4;
    super::super::packet::decrement_hops(&mut packet, v4);
    packet
}

#[test]
fn sixty_four_kilobytes_of_one_stream_stay_one_frame() {
    let payload: Vec<u8> = (0..46 * 1_420).map(|i| (i % 251) as u8).collect();
    for (from, to, segment) in [("10.1.0.2", "10.2.0.2", 1_420), ("fd01::2", "fd02::2", 1_400)] {
        let sent =
            packet(from, to, TCP, &tcp(u32::MAX - 9_000, ACK | PSH, &payload[..46 * segment as usize]));
        let (frames, datagrams) = carry(frame(sent.clone(), Some(segment)));
        assert_eq!((frames.len(), datagrams), (1, 46), "{from}");
        let expected = packets_of(&frame(hop_less(sent), Some(segment)));
        assert_eq!(packets_of(&frames[0]), expected, "{from}");
    }
}

#[test]
fn datagrams_of_one_flow_become_one_train() {
    let sent = packet("10.1.0.2", "10.2.0.2", UDP, &udp(&[5; 40 * 64 - 3]));
    let (frames, datagrams) = carry(frame(sent.clone(), Some(64)));
    assert_eq!((frames.len(), datagrams), (1, 40));
    assert_eq!(packets_of(&frames[0]), packets_of(&frame(hop_less(sent), Some(64))));
}

#[test]
fn small_packets_of_one_size_to_one_peer_travel_as_one_train() {
    let (a, _) = tables();
    let frames: Vec<Vec<u8>> = (0u8..70)
        .map(|i| frame(packet("10.1.0.2", &format!("10.2.0.{i}"), UDP, &udp(&[i; 64])), None))
        .collect();
    let trains = send(&mut egress(), &a, &frames);
    assert_eq!(trains.iter().map(|(_, train)| train.len()).collect::<Vec<_>>(), [64, 6]);
    assert!(trains.iter().flat_map(|(_, train)| train).all(|datagram| right(datagram)));
}

#[test]
fn flows_that_alternate_keep_their_order() {
    let (a, _) = tables();
    let peers = [("10.2.0.2", B), ("10.3.0.2", "192.0.2.3:8285")];
    let third = UdpPeer { address: peers[1].1.parse().unwrap(), prefixes: nets(3) };
    let second = UdpPeer { address: B.parse().unwrap(), prefixes: nets(2) };
    let table = Table::new(&nets(1), &[second, third], Some(&a));
    let frames: Vec<Vec<u8>> = (0u8..20)
        .map(|i| frame(packet("10.1.0.2", peers[usize::from(i % 2)].0, UDP, &udp(&[i; 30])), None))
        .collect();
    for (to, train) in send(&mut egress(), &table, &frames) {
        let first = if to == B.parse().unwrap() { 0 } else { 1 };
        let numbers: Vec<u8> = train.iter().map(|datagram| datagram[28]).collect();
        assert_eq!(numbers, (first..20).step_by(2).collect::<Vec<u8>>(), "{to}");
    }
}

#[test]
fn what_only_resembles_a_stream_is_passed_packet_by_packet() {
    let (_, b) = tables();
    let make = |sequence, flags, payload: &[u8]| {
        summed(packet("10.1.0.2", "10.2.0.2", TCP, &tcp(sequence, flags, payload)))
    };
    let first = make(1_000, ACK, &[1; 100]);
    let edited = |place: usize, value: u8| {
        let mut other = make(1_100, ACK, &[2; 100]);
        other[place] = value;
        let check = [0, 0];
        other[10..12].copy_from_slice(&check);
        let check = field(sum(&other[..20]));
        other[10..12].copy_from_slice(&check);
        summed(other)
    };
    let mut broken = make(1_100, ACK, &[2; 100]);
    broken[80] ^= 1;
    let mut own_broken = first.clone();
    own_broken[90] ^= 1;
    for (name, one, other) in [
        ("a gap", first.clone(), make(1_101, ACK, &[2; 100])),
        ("a repetition", first.clone(), first.clone()),
        ("a longer one", first.clone(), make(1_100, ACK, &[2; 101])),
        ("SYN", first.clone(), make(1_100, ACK | 2, &[2; 100])),
        ("FIN", first.clone(), make(1_100, ACK | FIN, &[2; 100])),
        ("RST", first.clone(), make(1_100, ACK | 4, &[2; 100])),
        ("URG", first.clone(), make(1_100, ACK | 0x20, &[2; 100])),
        ("ECE", first.clone(), make(1_100, ACK | 0x40, &[2; 100])),
        ("CWR", first.clone(), make(1_100, ACK | 0x80, &[2; 100])),
        ("no payload", first.clone(), make(1_100, ACK, &[])),
        ("pushed first", make(1_000, ACK | PSH, &[1; 100]), make(1_100, ACK, &[2; 100])),
        ("another port", first.clone(), edited(21, 0x91)),
        ("another acknowledgement", first.clone(), edited(31, 78)),
        ("another window", first.clone(), edited(34, 0x11)),
        ("another timestamp", first.clone(), edited(48, 1)),
        ("another TOS", first.clone(), edited(1, 4)),
        ("another TTL", first.clone(), edited(8, 63)),
        ("another source", first.clone(), edited(15, 3)),
        ("a wrong checksum", first.clone(), broken),
        ("a wrong checksum of the first", own_broken, make(1_100, ACK, &[2; 100])),
    ] {
        let mut ingress = Ingress::new(true);
        let frames = receive(&mut ingress, &b, A, &[vec![one.clone()], vec![other.clone()]]);
        assert_eq!(frames, [plain(&one), plain(&other)], "{name}");
    }
}

#[test]
fn an_id_that_counts_matters_only_where_fragments_may_arise() {
    let (_, b) = tables();
    let with = |whole: bool, id: u8, sequence| {
        let mut one = packet("10.1.0.2", "10.2.0.2", TCP, &tcp(sequence, ACK, &[3; 50]));
        (one[5], one[6]) = (id, if whole { 0x40 } else { 0 });
        one[10..12].fill(0);
        let check = field(sum(&one[..20]));
        one[10..12].copy_from_slice(&check);
        summed(one)
    };
    for (whole, second, frames) in [(true, 7, 1), (true, 8, 1), (false, 8, 1), (false, 7, 2), (false, 9, 2)] {
        let train = vec![with(whole, 7, 0), with(whole, second, 50)];
        let got = receive(&mut Ingress::new(true), &b, A, &[train]);
        assert_eq!(got.len(), frames, "whole {whole}, then {second}");
    }
}

#[test]
fn a_device_without_trains_of_datagrams_gets_them_one_by_one() {
    let (_, b) = tables();
    let one = summed(packet("10.1.0.2", "10.2.0.2", UDP, &udp(&[1; 30])));
    let train = vec![vec![one.clone(), one.clone()]];
    assert_eq!(receive(&mut Ingress::new(false), &b, A, &train), [plain(&one), plain(&one)]);
    assert_eq!(receive(&mut Ingress::new(true), &b, A, &train).len(), 1);
    // Without a checksum there is nothing to join by.
    let bare = packet("10.1.0.2", "10.2.0.2", UDP, &udp(&[1; 30]));
    assert_eq!(receive(&mut Ingress::new(true), &b, A, &[vec![bare.clone(), bare]]).len(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn cut_and_joined_again_it_is_the_same_stream(
        v4: bool,
        is_tcp: bool,
        segment in 88u16..1_400,
        len in 1usize..60_000,
        flags in prop::sample::select(vec![ACK, ACK | PSH, ACK | FIN, ACK | PSH | FIN, ACK | 0x80, ACK | 0x40]),
        sequence: u32,
        seed: u8,
    ) {
        let payload: Vec<u8> = (0..len).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)).collect();
        let (from, to) = if v4 { ("10.1.0.2", "10.2.0.9") } else { ("fd01::2", "fd02::9") };
        let sent = if is_tcp {
            packet(from, to, TCP, &tcp(sequence, flags, &payload))
        } else {
            packet(from, to, UDP, &udp(&payload))
        };
        let (frames, datagrams) = carry(frame(sent.clone(), Some(segment)));
        prop_assert_eq!(datagrams, len.div_ceil(segment.into()));
        let got: Vec<Vec<u8>> = frames.iter().flat_map(|frame| packets_of(frame)).collect();
        prop_assert_eq!(got, packets_of(&frame(hop_less(sent), Some(segment))));
    }

    #[test]
    fn whatever_comes_in_leaves_as_the_same_packets(
        packets in prop::collection::vec((0u32..4, 0u8..3, 1usize..5, prop::bool::weighted(0.1)), 1..40),
    ) {
        let (_, b) = tables();
        let mut sequence = 0;
        let made: Vec<Vec<u8>> = packets.iter().map(|(jump, flow, size, broken)| {
            let payload = vec![*flow; size * 40];
            let segment = tcp(sequence, ACK, &payload);
            sequence += payload.len() as u32 + if *jump == 0 { 1 } else { 0 };
            let mut one = summed(packet(&format!("10.1.0.{}", flow / 2 + 1), "10.2.0.2", TCP, &segment));
            if *broken {
                let last = one.len() - 1;
                one[last] ^= 0x55;
            }
            one
        }).collect();
        // In slots of messages of equal datagrams, as the kernel would join them.
        let mut trains: Vec<Vec<Vec<u8>>> = Vec::new();
        for one in &made {
            match trains.last_mut().filter(|train| train[0].len() == one.len()) {
                Some(train) => train.push(one.clone()),
                None => trains.push(vec![one.clone()]),
            }
        }
        let mut ingress = Ingress::new(true);
        let mut got = Vec::new();
        for batch in trains.chunks(super::super::ingress::SLOTS) {
            got.extend(receive(&mut ingress, &b, A, batch).iter().flat_map(|frame| packets_of(frame)));
        }
        let id_less = |mut one: Vec<u8>| { one[4..6].fill(0); one[10..12].fill(0); one };
        let got: Vec<_> = got.into_iter().map(id_less).collect();
        let made: Vec<_> = made.into_iter().map(id_less).collect();
        prop_assert_eq!(got, made);
    }
}
