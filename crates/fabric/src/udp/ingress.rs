//! From peers to the host: datagrams become frames of the TUN device.

use std::net::{IpAddr, SocketAddr};

use weft_kernel::{Arrived, Piece};

use super::counters::{Counters, Reason};
use super::ecn;
use super::frame;
use super::join::Joint;
use super::packet::Inner;
use super::table::{Owner, Table};

/// Room for one message: the largest UDP datagram, and a little so that messages do not begin
/// at the same place of the processor's caches.
pub(crate) const STRIDE: usize = 65_536 + 192;
/// Messages of one batch.
pub(crate) const SLOTS: usize = 16;
/// Datagrams of one message: the kernel joins 64.
const DATAGRAMS: usize = 128;
/// Room for one frame's header.
const HEADER: usize = 128;
const FRAMES: usize = SLOTS * DATAGRAMS;

/// A frame for the device: its pieces.
#[derive(Clone, Copy, Debug)]
struct Frame {
    first: u32,
    count: u32,
}

/// The receiving half. Call order: fill [`buffer`](Self::buffer) with messages,
/// [`handle_message`](Self::handle_message) for each, then [`finish`](Self::finish), write
/// the [`frames`](Self::frames), and [`clear`](Self::clear).
#[derive(Debug)]
pub(crate) struct Ingress {
    arena: Vec<u8>,
    pieces: Vec<Piece>,
    frames: Vec<Frame>,
    joint: Option<Joint>,
    /// Where the open joint's pieces begin.
    first: usize,
    /// Whether the device takes trains of UDP datagrams.
    udp_trains: bool,
    last: Option<(SocketAddr, u32)>,
    /// The last sender, source and destination that were found right: most packets are of one flow.
    admitted: Option<(u32, IpAddr, IpAddr)>,
    pub counters: Counters,
}

impl Ingress {
    pub(crate) fn new(udp_trains: bool) -> Ingress {
        Ingress {
            // The first header is that of a packet by itself: all zero.
            arena: vec![0; SLOTS * STRIDE + HEADER + FRAMES * HEADER],
            pieces: Vec::with_capacity(2 * FRAMES),
            frames: Vec::with_capacity(FRAMES),
            joint: None,
            first: 0,
            udp_trains,
            last: None,
            admitted: None,
            counters: Counters::default(),
        }
    }

    /// Where messages are put, one each [`STRIDE`] bytes.
    pub(crate) fn buffer(&mut self) -> &mut [u8] {
        &mut self.arena[..SLOTS * STRIDE]
    }

    /// Takes in one message that lies in the buffer.
    pub(crate) fn handle_message(&mut self, table: &Table, message: &Arrived) {
        let size = message.segment.max(1);
        let end = message.piece.start + message.piece.len;
        let sender = self.sender(table, message.from);
        let mut start = message.piece.start;
        while start < end || message.piece.len == 0 {
            let len = size.min(end - start);
            // Only the end of a message is missing, so only its last datagram is hurt.
            let cut = message.truncated && start + len == end;
            let datagram = Piece { start, len };
            let taken = match sender {
                None => Err(Reason::Stranger),
                Some(_) if cut => Err(Reason::Truncated),
                Some(_) if self.frames.len() + 1 >= FRAMES => Err(Reason::Device),
                Some(peer) => self.handle_datagram(table, peer, datagram, message.ecn),
            };
            if let Err(reason) = taken {
                self.counters.drop(reason);
            }
            start += len;
            if message.piece.len == 0 {
                break;
            }
        }
    }

    fn sender(&mut self, table: &Table, from: SocketAddr) -> Option<u32> {
        if let Some((_, peer)) = self.last.filter(|(last, _)| *last == from) {
            return Some(peer);
        }
        let peer = table.sender(from)?;
        self.last = Some((from, peer));
        Some(peer)
    }

    fn handle_datagram(
        &mut self,
        table: &Table,
        peer: u32,
        datagram: Piece,
        outer: u8,
    ) -> Result<(), Reason> {
        let packet = datagram.of(&self.arena).ok_or(Reason::Truncated)?;
        let inner = Inner::parse(packet)?;
        let flow = Some((peer, inner.source, inner.destination));
        if self.admitted != flow {
            admit(table, peer, &inner)?;
            self.admitted = flow;
        }
        if outer != 0 {
            self.carry_congestion(datagram, &inner, outer)?;
        }
        let packet = datagram.of(&self.arena).ok_or(Reason::Truncated)?;
        self.counters.received_packets += 1;
        self.counters.received_bytes += u64::from(datagram.len);
        if let Some(joint) = &mut self.joint {
            if let Some(body) = joint.append(&self.arena, datagram, packet, &inner) {
                self.pieces.push(body);
                return Ok(());
            }
            self.close();
        }
        self.open(datagram, &inner);
        Ok(())
    }

    /// Has the inner packet say what the underlay's routers said of the outer one.
    fn carry_congestion(&mut self, datagram: Piece, inner: &Inner, outer: u8) -> Result<(), Reason> {
        let start = datagram.start as usize;
        let packet = self.arena.get_mut(start..start + inner.len).ok_or(Reason::Truncated)?;
        let before = ecn::of(packet, inner.is_v4());
        let after = ecn::decapsulated(outer, before)?;
        if after != before {
            ecn::set(packet, inner.is_v4(), after);
        }
        Ok(())
    }

    /// Begins a frame with a packet, which others may join.
    fn open(&mut self, datagram: Piece, inner: &Inner) {
        self.first = self.pieces.len();
        let Some(packet) = datagram.of(&self.arena) else { return };
        self.joint = Joint::begin(datagram, packet, inner, self.udp_trains);
        // The header is only known when the frame ends.
        self.pieces.push(Piece::default());
        if let Some(joint) = &self.joint {
            self.pieces.push(joint.body());
        } else {
            self.pieces.push(datagram);
            self.end(Piece { start: (SLOTS * STRIDE) as u32, len: frame::HEADER as u32 });
        }
    }

    /// Ends the open frame.
    fn close(&mut self) {
        let Some(joint) = self.joint.take() else { return };
        if !joint.joined() {
            let alone = Piece { start: (SLOTS * STRIDE) as u32, len: frame::HEADER as u32 };
            self.pieces.truncate(self.first + 1);
            self.pieces.push(joint.packet());
            return self.end(alone);
        }
        let start = SLOTS * STRIDE + HEADER + self.frames.len() * HEADER;
        let len = joint.write_header(&mut self.arena, start);
        self.end(Piece { start: start as u32, len: len as u32 });
    }

    fn end(&mut self, header: Piece) {
        self.pieces[self.first] = header;
        let count = (self.pieces.len() - self.first) as u32;
        self.frames.push(Frame { first: self.first as u32, count });
    }

    /// Ends the last frame of the batch.
    pub(crate) fn finish(&mut self) {
        self.close();
        self.counters.received_frames += self.frames.len() as u64;
    }

    /// The frames, each as pieces of the arena.
    pub(crate) fn frames(&self) -> impl Iterator<Item = (&[u8], &[Piece])> {
        self.frames.iter().map(|frame| {
            let first = frame.first as usize;
            (&self.arena[..], &self.pieces[first..first + frame.count as usize])
        })
    }

    /// Ready for the next batch.
    pub(crate) fn clear(&mut self) {
        self.pieces.clear();
        self.frames.clear();
        self.joint = None;
    }

    /// The table was replaced: its indices mean other peers now.
    pub(crate) fn forget_peers(&mut self) {
        self.last = None;
        self.admitted = None;
    }
}

/// Whether a packet from `peer` is from and to whom it may be.
fn admit(table: &Table, peer: u32, inner: &Inner) -> Result<(), Reason> {
    if table.owner(inner.source) != Some(Owner::Peer(peer)) {
        return Err(if martian(inner.source) { Reason::Martian } else { Reason::Spoofed });
    }
    if table.owner(inner.destination) != Some(Owner::Us) {
        return Err(if martian(inner.destination) { Reason::Martian } else { Reason::NotOurs });
    }
    Ok(())
}

/// An address that no packet between nodes may have (RFC 1812, 5.3.7).
fn martian(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let first = address.octets()[0];
            first == 0 || first == 127 || first >= 224
        }
        IpAddr::V6(address) => {
            let v4 = address.to_ipv4_mapped().is_some();
            address.is_unspecified() || address.is_loopback() || address.is_multicast() || v4
        }
    }
}
