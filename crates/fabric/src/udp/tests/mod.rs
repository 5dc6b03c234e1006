//! The core without sockets: frames in, datagrams out, and back.
//! Node A (10.1.0.0/24, fd01::/64) has the peer B (10.2.0.0/24, fd02::/64) and the other way round.

mod congestion;
mod hostile;
mod out;
mod through;

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use weft_kernel::{Arrived, Piece};

use super::checksum::{field, fold, pseudo, sum};
use super::counters::Reason;
use super::egress::Egress;
use super::frame::{FrameHeader, HEADER, Kind};
use super::ingress::{Ingress, STRIDE};
use super::packet::{Inner, TCP, UDP};
use super::table::{Table, UdpPeer};

pub(super) const A: &str = "192.0.2.1:8285";
pub(super) const B: &str = "192.0.2.2:8285";

fn nets(of: u8) -> Vec<IpNet> {
    vec![format!("10.{of}.0.0/24").parse().unwrap(), format!("fd0{of}::/64").parse().unwrap()]
}

fn table_of(us: u8, peer: u8, address: &str) -> Table {
    let peer = UdpPeer { address: address.parse().unwrap(), prefixes: nets(peer) };
    Table::new(&nets(us), &[peer], None)
}

/// The table of node A, and that of node B.
pub(super) fn tables() -> (Table, Table) {
    (table_of(1, 2, B), table_of(2, 1, A))
}

/// Node A's sending half on a device of MTU 1,472.
pub(super) fn egress() -> Egress {
    let own = |net: &IpNet| IpNet::from(net.network());
    Egress::new(&nets(1).iter().map(own).collect::<Vec<_>>(), 1_472, 28)
}

/// A packet with right checksums, transport header and payload given.
pub(super) fn packet(from: &str, to: &str, protocol: u8, transport: &[u8]) -> Vec<u8> {
    let mut packet = match (from.parse().unwrap(), to.parse().unwrap()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut ip = vec![0x45, 0, 0, 0, 0, 7, 0x40, 0, 64, protocol, 0, 0];
            ip[2..4].copy_from_slice(&(20 + transport.len() as u16).to_be_bytes());
            ip.extend(from.octets().into_iter().chain(to.octets()));
            let check = field(sum(&ip));
            ip[10..12].copy_from_slice(&check);
            ip
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut ip = vec![0x60, 0, 0, 0, 0, 0, protocol, 64];
            ip[4..6].copy_from_slice(&(transport.len() as u16).to_be_bytes());
            ip.extend(from.octets().into_iter().chain(to.octets()));
            ip
        }
        _ => panic!("two families"),
    };
    packet.extend(transport);
    packet
}

/// A TCP segment.
pub(super) fn tcp(sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0x1f, 0x90, 0xc0, 0x01];
    header.extend(sequence.to_be_bytes());
    header.extend(77u32.to_be_bytes());
    // Eight words: the timestamps option.
    header.extend([0x80, flags, 0x10, 0, 0, 0, 0, 0]);
    header.extend([1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 8]);
    header.extend(payload);
    header
}

/// A UDP datagram.
pub(super) fn udp(payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0x1f, 0x90, 0xc0, 0x01];
    header.extend((8 + payload.len() as u16).to_be_bytes());
    header.extend([0, 0]);
    header.extend(payload);
    header
}

/// Fills in the transport checksum.
pub(super) fn summed(mut packet: Vec<u8>) -> Vec<u8> {
    let inner = Inner::parse(&packet).unwrap();
    let place = inner.header + if inner.protocol == TCP { 16 } else { 6 };
    packet[place..place + 2].fill(0);
    let total = pseudo(&packet[inner.addresses()], inner.protocol, packet.len() - inner.header)
        + sum(&packet[inner.header..]);
    let check = field(total);
    packet[place..place + 2].copy_from_slice(&check);
    packet
}

/// Whether the IPv4 header's sum and that of TCP or UDP are right.
pub(super) fn right(packet: &[u8]) -> bool {
    let Ok(inner) = Inner::parse(packet) else { return false };
    let total = pseudo(&packet[inner.addresses()], inner.protocol, packet.len() - inner.header)
        + sum(&packet[inner.header..]);
    ![TCP, UDP].contains(&inner.protocol) || inner.fragment || fold(total) == 0xffff
}

/// The frame in which the host gives such a packet: the sum of its pseudo-header only.
pub(super) fn frame(mut packet: Vec<u8>, segment: Option<u16>) -> Vec<u8> {
    let inner = Inner::parse(&packet).unwrap();
    let place = if inner.protocol == TCP { 16 } else { 6 };
    let below = packet.len() - inner.header;
    let partial = fold(pseudo(&packet[inner.addresses()], inner.protocol, below)).to_ne_bytes();
    packet[inner.header + place..inner.header + place + 2].copy_from_slice(&partial);
    let kind = match (inner.protocol, inner.is_v4()) {
        (UDP, _) => Kind::Udp,
        (_, true) => Kind::Tcp4,
        (_, false) => Kind::Tcp6,
    };
    let headers = inner.header + if inner.protocol == UDP { 8 } else { 32 };
    let header = FrameHeader {
        checksum: Some((inner.header as u16, place as u16)),
        train: segment.map(|size| (kind, headers as u16, size)),
    };
    [&header.encode()[..], &packet].concat()
}

/// A frame as it is: nothing is left to be done.
pub(super) fn plain(packet: &[u8]) -> Vec<u8> {
    [&[0; HEADER], packet].concat()
}

/// What node A sends for these frames: trains of datagrams.
pub(super) fn send(
    egress: &mut Egress,
    table: &Table,
    frames: &[Vec<u8>],
) -> Vec<(SocketAddr, Vec<Vec<u8>>)> {
    for frame in frames {
        let room = egress.room().unwrap();
        let len = frame.len().min(room.len());
        room[..len].copy_from_slice(&frame[..len]);
        egress.handle_frame(table, len);
    }
    egress.seal(table);
    let (arena, pieces, trains) = egress.sealed();
    let train = |train: &weft_kernel::Train| {
        let own = &pieces[train.first as usize..][..train.count as usize];
        let bytes: Vec<u8> = own.iter().flat_map(|piece| piece.of(arena).unwrap()).copied().collect();
        let size = train.segment.map_or(bytes.len(), usize::from);
        assert!(bytes.len() <= 65_507 && bytes.len().div_ceil(size) <= 64);
        (train.to, bytes.chunks(size).map(<[u8]>::to_vec).collect())
    };
    let sent = trains.iter().map(train).collect();
    egress.clear();
    sent
}

/// Datagrams laid back to back as the kernel joins them: all of one size but the last.
pub(super) fn receive(
    ingress: &mut Ingress,
    table: &Table,
    from: &str,
    trains: &[Vec<Vec<u8>>],
) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    for (slot, train) in trains.iter().enumerate() {
        let bytes = train.concat();
        ingress.buffer()[slot * STRIDE..][..bytes.len()].copy_from_slice(&bytes);
        messages.push(Arrived {
            from: from.parse().unwrap(),
            piece: Piece { start: (slot * STRIDE) as u32, len: bytes.len() as u32 },
            segment: train.first().map_or(0, Vec::len) as u32,
            truncated: false,
            ecn: 0,
        });
    }
    for message in &messages {
        ingress.handle_message(table, message);
    }
    ingress.finish();
    let whole = |(arena, pieces): (&[u8], &[Piece])| -> Vec<u8> {
        pieces.iter().flat_map(|piece| piece.of(arena).unwrap()).copied().collect()
    };
    let frames = ingress.frames().map(whole).collect();
    ingress.clear();
    frames
}

/// The packets a frame stands for, cut by rules written down here and not shared with the cutter.
pub(super) fn packets_of(frame: &[u8]) -> Vec<Vec<u8>> {
    let header = FrameHeader::parse(frame.first_chunk().unwrap()).unwrap();
    let packet = &frame[HEADER..];
    let Some((_, headers, segment)) = header.train else { return vec![packet.to_vec()] };
    let (head, payload) = packet.split_at(headers.into());
    let v4 = head[0] >> 4 == 4;
    let network = if v4 { 20 } else { 40 };
    let tcp = head[if v4 { 9 } else { 6 }] == TCP;
    let chunks: Vec<&[u8]> = payload.chunks(segment.into()).collect();
    let mut sequence = u32::from_be_bytes(head[network + 4..network + 8].try_into().unwrap());
    let make = |(i, chunk): (usize, &&[u8])| {
        let mut one = [head, chunk].concat();
        let len = one.len();
        if v4 {
            one[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            let id = u16::from_be_bytes([one[4], one[5]]).wrapping_add(i as u16);
            one[4..6].copy_from_slice(&id.to_be_bytes());
            one[10..12].fill(0);
            let check = field(sum(&one[..20]));
            one[10..12].copy_from_slice(&check);
        } else {
            one[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes());
        }
        if tcp {
            one[network + 4..network + 8].copy_from_slice(&sequence.to_be_bytes());
            sequence = sequence.wrapping_add(chunk.len() as u32);
            if i + 1 < chunks.len() {
                one[network + 13] &= !0x09;
            }
            if i > 0 {
                one[network + 13] &= !0x80;
            }
        } else {
            one[network + 4..network + 6].copy_from_slice(&((len - network) as u16).to_be_bytes());
        }
        summed(one)
    };
    chunks.iter().enumerate().map(make).collect()
}

pub(super) fn dropped(counters: &super::Counters) -> Vec<(Reason, u64)> {
    let count = |reason: &Reason| Some((*reason, counters.dropped(*reason))).filter(|(_, n)| *n > 0);
    Reason::ALL.iter().filter_map(count).collect()
}
