//! Both halves of the core under bytes of any kind, with what must hold of what they give.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a violated rule ends the fuzzer")]

use std::net::SocketAddr;

use weft_kernel::{Arrived, Piece};

use super::egress::Egress;
use super::frame::{FrameHeader, HEADER};
use super::ingress::{Ingress, STRIDE};
use super::packet::Inner;
use super::table::{Table, UdpPeer};

const PEER: &str = "192.0.2.2:8285";

fn table() -> Table {
    let nets =
        |n: u8| vec![format!("10.{n}.0.0/24").parse().unwrap(), format!("fd0{n}::/64").parse().unwrap()];
    Table::new(&nets(1), &[UdpPeer { address: PEER.parse().unwrap(), prefixes: nets(2) }], None)
}

/// One frame of the device: whatever is sent are whole packets that fit the path.
pub fn frame(data: &[u8]) {
    let Some((first, frame)) = data.split_first() else { return };
    let table = table();
    let limit = 600 + u32::from(*first) * 4;
    table.peers()[0].learn(Some(limit + 28));
    let own = ["10.1.0.0/32", "fd01::/128"].map(|net| net.parse().unwrap());
    let mut egress = Egress::new(&own, 9_000, 28);
    let room = egress.room().unwrap();
    let len = frame.len().min(room.len());
    room[..len].copy_from_slice(&frame[..len]);
    egress.handle_frame(&table, len);
    egress.seal(&table);
    let (arena, pieces, trains) = egress.sealed();
    for train in trains {
        let own = &pieces[train.first as usize..][..train.count as usize];
        let bytes: Vec<u8> = own.iter().flat_map(|piece| piece.of(arena).unwrap()).copied().collect();
        for datagram in bytes.chunks(train.segment.map_or(bytes.len(), usize::from).max(1)) {
            let inner = Inner::parse(datagram).unwrap();
            assert!(inner.hops > 0 && datagram.len() <= limit as usize);
        }
    }
    let trains = trains.len();
    (0..trains).for_each(|number| egress.handle_too_big(&table, number));
    for (_, packet) in egress.replies.iter() {
        Inner::parse(packet).unwrap();
    }
}

/// Messages of a peer, each of a length and a segment size: the host gets whole packets, and no
/// byte that was not sent.
pub fn messages(data: &[u8]) {
    let table = table();
    let from: SocketAddr = PEER.parse().unwrap();
    let mut ingress = Ingress::new(true);
    let mut rest = data;
    let mut messages = Vec::new();
    while let [a, b, segment, after @ ..] = rest {
        let len = usize::from(u16::from_be_bytes([*a, *b])).min(after.len());
        if messages.len() == super::ingress::SLOTS {
            break;
        }
        let start = messages.len() * STRIDE;
        ingress.buffer()[start..start + len].copy_from_slice(&after[..len]);
        let piece = Piece { start: start as u32, len: len as u32 };
        messages.push(Arrived { from, piece, segment: (*segment).into(), truncated: false, ecn: a >> 6 });
        rest = &after[len..];
    }
    for message in &messages {
        ingress.handle_message(&table, message);
    }
    ingress.finish();
    for (arena, pieces) in ingress.frames() {
        let frame: Vec<u8> = pieces.iter().flat_map(|piece| piece.of(arena).unwrap()).copied().collect();
        let header = FrameHeader::parse(frame.first_chunk().unwrap()).unwrap();
        let inner = Inner::parse(&frame[HEADER..]).unwrap();
        if let Some((_, headers, segment)) = header.train {
            let payload = inner.len - usize::from(headers);
            assert!(usize::from(headers) > inner.header && payload > usize::from(segment));
        }
    }
    ingress.clear();
}
