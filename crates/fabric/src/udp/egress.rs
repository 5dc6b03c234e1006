//! From the host to peers: frames of the TUN device become trains of datagrams.

use std::net::IpAddr;

use ipnet::IpNet;
use weft_kernel::{Piece, Train};

use super::batch::Batch;
use super::checksum::{fold, sum};
use super::counters::{Counters, Reason};
use super::frame::{self, FrameHeader};
use super::icmp::{self, Problem, Replies};
use super::packet::{Inner, decrement_hops};
use super::table::{Owner, Table};
use super::{cut, ecn, fragment};

/// The largest frame of the device.
const FRAME: usize = frame::HEADER + 65_535;
/// Room for frames of one batch: a batch ends when the next might not fit.
const FRAMES: usize = 2 * 65_536 + FRAME;
/// Room for the headers of cut packets, the largest of 120 bytes.
const HEADERS: usize = super::batch::PACKETS * 120;

/// Where new headers are written: the end of the arena.
#[derive(Debug)]
pub(crate) struct Scratch {
    next: usize,
}

impl Scratch {
    /// Takes `len` bytes; `None` when it is full.
    pub(crate) fn take(&mut self, arena: &[u8], len: usize) -> Option<usize> {
        let start = self.next;
        self.next = start.checked_add(len).filter(|end| *end <= arena.len())?;
        Some(start)
    }
}

/// The sending half. Call order: while [`room`](Self::room) gives a buffer, read a frame into
/// it and [`handle_frame`](Self::handle_frame); then [`seal`](Self::seal), send what
/// [`sealed`](Self::sealed) says, and [`clear`](Self::clear).
#[derive(Debug)]
pub(crate) struct Egress {
    arena: Vec<u8>,
    /// Where the next frame goes.
    cursor: usize,
    scratch: Scratch,
    batch: Batch,
    /// The last destination and its peer: most packets are of one flow.
    last: Option<(IpAddr, u32)>,
    /// Our own addresses on the device, the sources of ICMP errors.
    addresses: Vec<IpAddr>,
    /// The device's MTU, and what is added to a packet on the underlay.
    mtu: u32,
    overhead: u32,
    pub replies: Replies,
    pub counters: Counters,
}

impl Egress {
    pub(crate) fn new(addresses: &[IpNet], mtu: u32, overhead: u32) -> Egress {
        Egress {
            arena: vec![0; FRAMES + HEADERS],
            cursor: 0,
            scratch: Scratch { next: FRAMES },
            batch: Batch::new(),
            last: None,
            addresses: addresses.iter().map(IpNet::addr).collect(),
            mtu,
            overhead,
            replies: Replies::default(),
            counters: Counters::default(),
        }
    }

    /// From now on our addresses on the device are these.
    pub(crate) fn set_addresses(&mut self, addresses: &[IpAddr]) {
        addresses.clone_into(&mut self.addresses);
    }

    /// Where to read the next frame to, if the batch takes one more.
    pub(crate) fn room(&mut self) -> Option<&mut [u8]> {
        let fits = self.cursor + FRAME <= FRAMES && self.batch.room() >= cut::MOST;
        fits.then(|| &mut self.arena[self.cursor..self.cursor + FRAME])
    }

    /// Takes in a frame of `len` bytes that was read to [`room`](Self::room).
    pub(crate) fn handle_frame(&mut self, table: &Table, len: usize) {
        let start = self.cursor;
        if let Err(reason) = self.forward(table, start, len.min(FRAME)) {
            self.counters.drop(reason);
        }
    }

    fn forward(&mut self, table: &Table, start: usize, len: usize) -> Result<(), Reason> {
        let frame = &self.arena[start..start + len];
        let (header, packet) = frame.split_first_chunk().ok_or(Reason::Truncated)?;
        let header = FrameHeader::parse(header)?;
        if to_group(packet) {
            return Err(Reason::Multicast);
        }
        let inner = Inner::parse(packet)?;
        let at = start + frame::HEADER;
        let Some(peer) = self.peer(table, inner.destination) else {
            return self.refuse(at, &inner, Problem::NoRoute, Reason::NoRoute);
        };
        if inner.hops <= 1 {
            return self.refuse(at, &inner, Problem::Expired, Reason::Expired);
        }
        let limit = self.limit(table, peer);
        let packet = &mut self.arena[at..at + inner.len];
        decrement_hops(packet, inner.is_v4());
        let ecn = ecn::of(packet, inner.is_v4());
        let end = at + inner.len;
        if let Some((kind, _, segment)) = header.train {
            let plan = cut::Plan::new(packet, &inner, kind, segment)?;
            if plan.largest() > limit as usize {
                return self.refuse(at, &inner, Problem::TooBig(limit), Reason::TooBig);
            }
            cut::cut(&mut self.arena, at, &plan, &mut self.scratch, |parts| {
                self.batch.push(peer, ecn, parts);
            })?;
            self.counters.sent_packets += plan.count() as u64;
        } else {
            if let Some((from, offset)) = header.checksum {
                let from = usize::from(from);
                // The sum of a transport header, and not one that would change the IP header.
                if from < inner.header {
                    return Err(Reason::Malformed);
                }
                complete(packet, from, offset.into())?;
            }
            if inner.len > limit as usize {
                if inner.whole {
                    return self.refuse(at, &inner, Problem::TooBig(limit), Reason::TooBig);
                }
                let parts =
                    fragment::split(&mut self.arena, at, &inner, limit, &mut self.scratch, |parts| {
                        self.batch.push(peer, ecn, parts);
                    })?;
                self.counters.sent_packets += parts;
            } else {
                let whole = Piece { start: at as u32, len: inner.len as u32 };
                self.batch.push(peer, ecn, [Piece::default(), whole]);
                self.counters.sent_packets += 1;
            }
        }
        self.counters.sent_bytes += inner.len as u64;
        // The next frame begins on a cache line of its own.
        self.cursor = end.next_multiple_of(64);
        Ok(())
    }

    /// The peer that has an address. Of our own the host gives us what it has no route for.
    fn peer(&mut self, table: &Table, destination: IpAddr) -> Option<u32> {
        if let Some((_, peer)) = self.last.filter(|(last, _)| *last == destination) {
            return Some(peer);
        }
        let Some(Owner::Peer(peer)) = table.owner(destination) else { return None };
        self.last = Some((destination, peer));
        Some(peer)
    }

    /// The table was replaced: its indices mean other peers now.
    pub(crate) fn forget_peers(&mut self) {
        self.last = None;
    }

    /// The largest inner packet that the path to a peer takes.
    fn limit(&self, table: &Table, peer: u32) -> u32 {
        let learnt = table.peer(peer).and_then(|peer| peer.path_mtu());
        learnt.map_or(self.mtu, |mtu| mtu.saturating_sub(self.overhead).min(self.mtu))
    }

    fn refuse(&mut self, at: usize, inner: &Inner, problem: Problem, reason: Reason) -> Result<(), Reason> {
        let packet = &self.arena[at..at + inner.len];
        self.reply(packet.len(), at, inner, problem);
        Err(reason)
    }

    fn reply(&mut self, len: usize, at: usize, inner: &Inner, problem: Problem) {
        let from = self.addresses.iter().find(|address| address.is_ipv4() == inner.is_v4());
        if let Some(from) = from {
            icmp::reply(&mut self.replies, *from, &self.arena[at..at + len], inner, problem);
        }
    }

    /// Whether nothing is to be sent.
    pub(crate) fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// Lays the batch into trains.
    pub(crate) fn seal(&mut self, table: &Table) {
        self.batch.seal(table);
    }

    /// The arena, the pieces of it that make the packets, and the trains.
    pub(crate) fn sealed(&self) -> (&[u8], &[Piece], &[Train]) {
        let (pieces, trains) = self.batch.sealed();
        (&self.arena, pieces, trains)
    }

    /// The underlay found train `number` too big for the path, whose MTU is now learnt: tells the
    /// source of its first packet.
    pub(crate) fn handle_too_big(&mut self, table: &Table, number: usize) {
        self.counters.drop(Reason::TooBig);
        let (pieces, trains) = self.batch.sealed();
        let Some(train) = trains.get(number) else { return };
        let first = train.first as usize;
        let Some(own) = pieces.get(first..first + train.count as usize) else { return };
        let size = train.segment.map_or(u32::MAX, u32::from);
        // The beginning is enough: a header of 120 bytes at most, and what little follows it.
        let mut begin = [0; 256];
        let mut len = 0;
        for piece in own {
            let room = begin.len().min(size as usize) - len;
            let Some(bytes) = piece.of(&self.arena) else { return };
            let part = &bytes[..bytes.len().min(room)];
            begin[len..len + part.len()].copy_from_slice(part);
            len += part.len();
        }
        let Some(peer) = table.sender(train.to) else { return };
        let limit = self.limit(table, peer);
        let Ok(inner) = Inner::parse_begin(&begin[..len]) else { return };
        if !inner.whole {
            return;
        }
        let from = self.addresses.iter().find(|address| address.is_ipv4() == inner.is_v4());
        if let Some(from) = from {
            icmp::reply(&mut self.replies, *from, &begin[..len], &inner, Problem::TooBig(limit));
        }
    }

    /// Ready for the next batch.
    pub(crate) fn clear(&mut self) {
        self.batch.clear();
        self.cursor = 0;
        self.scratch.next = FRAMES;
    }
}

/// Whether a packet's destination is multicast or broadcast. Options, which such packets have,
/// are of no interest then.
fn to_group(packet: &[u8]) -> bool {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => packet.get(16).is_some_and(|first| *first >= 224),
        Some(6) => packet.get(24) == Some(&0xff),
        _ => false,
    }
}

/// Fills in a checksum of which the field holds the pseudo-header's sum.
fn complete(packet: &mut [u8], from: usize, offset: usize) -> Result<(), Reason> {
    let place = from + offset;
    let total = packet.get(from..).map(sum).ok_or(Reason::Malformed)?;
    let field = packet.get_mut(place..place + 2).ok_or(Reason::Malformed)?;
    // A UDP sum of zero would mean "none"; all ones is the same number (RFC 768).
    let value = match !fold(total) {
        0 => 0xffff,
        value => value,
    };
    field.copy_from_slice(&value.to_ne_bytes());
    Ok(())
}
