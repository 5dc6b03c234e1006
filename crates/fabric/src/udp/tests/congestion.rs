//! What the underlay's routers say of congestion reaches the pods (RFC 6040).

use super::super::ecn;
use super::*;

const ENDS: [(&str, &str); 2] = [("10.1.0.2", "10.2.0.2"), ("fd01::2", "fd02::2")];

/// A datagram with these ECN bits.
fn marked((from, to): (&str, &str), bits: u8) -> Vec<u8> {
    let mut one = summed(packet(from, to, UDP, &udp(&[bits; 64])));
    let v4 = one[0] >> 4 == 4;
    ecn::set(&mut one, v4, bits);
    assert!(right(&one) && ecn::of(&one, v4) == bits);
    one
}

#[test]
fn packets_leave_in_trains_with_their_own_bits() {
    let (a, _) = tables();
    for ends in ENDS {
        let mut egress = egress();
        for bits in [0, 2, 0, 2, 2, 3] {
            let frame = plain(&marked(ends, bits));
            let room = egress.room().unwrap();
            room[..frame.len()].copy_from_slice(&frame);
            egress.handle_frame(&a, frame.len());
        }
        egress.seal(&a);
        let (_, _, trains) = egress.sealed();
        let trains: Vec<(u8, u32)> = trains.iter().map(|train| (train.ecn, train.count)).collect();
        assert_eq!(trains, [(0, 2), (2, 3), (3, 1)]);
    }
}

/// What node B's host gets of a packet that arrives in a datagram with these bits.
fn arrive(one: &[u8], outer: u8) -> Result<u8, Vec<(Reason, u64)>> {
    let (_, b) = tables();
    let mut ingress = Ingress::new(true);
    ingress.buffer()[..one.len()].copy_from_slice(one);
    let piece = Piece { start: 0, len: one.len() as u32 };
    let from = A.parse().unwrap();
    let message = Arrived { from, piece, segment: piece.len, truncated: false, ecn: outer };
    ingress.handle_message(&b, &message);
    ingress.finish();
    let Some((arena, pieces)) = ingress.frames().next() else { return Err(dropped(&ingress.counters)) };
    let frame: Vec<u8> = pieces.iter().flat_map(|piece| piece.of(arena).unwrap()).copied().collect();
    let packet = &frame[HEADER..];
    assert!(right(packet), "{packet:02x?}");
    Ok(ecn::of(packet, packet[0] >> 4 == 4))
}

#[test]
fn the_underlay_s_congestion_is_the_packet_s_own() {
    let lost = || Err(vec![(Reason::Congestion, 1)]);
    // RFC 6040, figure 4: a row for each arriving outer header, a column for each inner one, in the
    // order not-ECT, ECT(1), ECT(0), CE.
    let table = [
        [Ok(0), Ok(1), Ok(2), Ok(3)],
        [Ok(0), Ok(1), Ok(1), Ok(3)],
        [Ok(0), Ok(1), Ok(2), Ok(3)],
        [lost(), Ok(3), Ok(3), Ok(3)],
    ];
    for ends in ENDS {
        for (outer, row) in table.iter().enumerate() {
            for (inner, expected) in row.iter().enumerate() {
                let got = arrive(&marked(ends, inner as u8), outer as u8);
                assert_eq!(got, *expected, "outer {outer}, inner {inner}");
            }
        }
    }
}
