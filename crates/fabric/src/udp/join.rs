//! Packets of one flow that follow on one another, joined into one train for the host.
//!
//! Joined is only what the kernel, cutting the train again, makes the same packets of.

use weft_kernel::Piece;

use super::checksum::{field, fold, pseudo, sum};
use super::frame::{self, FrameHeader, Kind};
use super::packet::{Inner, TCP, UDP};

const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const ECE: u8 = 0x40;
/// The largest frame: what the length field of IPv4 can say.
const LARGEST: usize = 65_535;
/// The most datagrams of one UDP train: the kernel's `UDP_MAX_SEGMENTS` of before 6.9.
const DATAGRAMS: usize = 64;

/// A frame under construction, begun with one packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Joint {
    first: Piece,
    inner: Inner,
    kind: Kind,
    /// Bytes before the payload.
    headers: usize,
    /// Payload of the first packet, so of all but the last.
    segment: usize,
    /// Payload so far, and in how many packets.
    payload: usize,
    packets: usize,
    /// Whether the first packet's checksum was found right; it is looked at when a second comes.
    verified: bool,
    /// Whether the last packet ends the train: shorter, or pushed.
    ended: bool,
    /// Whether the last packet pushes.
    pushed: bool,
}

impl Joint {
    /// Begins with `packet`; `None` if nothing can follow it.
    pub(crate) fn begin(first: Piece, packet: &[u8], inner: &Inner, udp: bool) -> Option<Joint> {
        if inner.fragment {
            return None;
        }
        let transport = packet.get(inner.header..)?;
        let (kind, length) = match inner.protocol {
            TCP => {
                let fixed = transport.first_chunk::<20>()?;
                let flags = fixed[13];
                // Only data in the middle of a stream: no SYN, FIN, RST, URG, CWR. A push ends it.
                if flags & !ECE != ACK {
                    return None;
                }
                let kind = if inner.is_v4() { Kind::Tcp4 } else { Kind::Tcp6 };
                (kind, usize::from(fixed[12] >> 4) * 4)
            }
            UDP if udp => {
                let fixed = transport.first_chunk::<8>()?;
                let whole = usize::from(u16::from_be_bytes([fixed[4], fixed[5]])) == transport.len();
                let summed = fixed[6..8] != [0, 0];
                if !whole || !summed {
                    return None;
                }
                (Kind::Udp, 8)
            }
            _ => return None,
        };
        let headers = inner.header + length;
        if length < 8 || inner.protocol == TCP && length < 20 || headers >= packet.len() {
            return None;
        }
        let segment = packet.len() - headers;
        Some(Joint {
            first,
            inner: *inner,
            kind,
            headers,
            segment,
            payload: segment,
            packets: 1,
            verified: false,
            ended: false,
            pushed: false,
        })
    }

    /// Adds the packet if it is what follows; its payload.
    pub(crate) fn append(&mut self, arena: &[u8], at: Piece, packet: &[u8], inner: &Inner) -> Option<Piece> {
        let len = packet.len().checked_sub(self.headers).filter(|len| *len > 0 && *len <= self.segment)?;
        let full = self.headers + self.payload + len > LARGEST
            || self.kind == Kind::Udp && self.packets == DATAGRAMS;
        if self.ended || full || inner.fragment || inner.protocol != self.inner.protocol {
            return None;
        }
        let first = self.first.of(arena)?;
        let (network, transport) = first.get(..self.headers)?.split_at(self.inner.header);
        let (other, after) = packet.get(..self.headers)?.split_at(self.inner.header);
        if inner.header != self.inner.header || !self.follows(network, other) {
            return None;
        }
        let ends = match self.kind {
            Kind::Udp => {
                let length = usize::from(u16::from_be_bytes([after[4], after[5]]));
                let same = transport[..4] == after[..4] && length == 8 + len && after[6..8] != [0, 0];
                same.then_some(false)?
            }
            _ => tcp_follows(transport, after, self.payload)?,
        };
        if !self.verified {
            if !right(first, &self.inner) {
                self.ended = true;
                return None;
            }
            self.verified = true;
        }
        if !right(packet, inner) {
            return None;
        }
        self.payload += len;
        self.packets += 1;
        self.pushed = ends;
        self.ended = ends || len < self.segment;
        Some(Piece { start: at.start + self.headers as u32, len: len as u32 })
    }

    /// Whether `other` is the IP header of the next packet, `network` being that of the first.
    fn follows(&self, network: &[u8], other: &[u8]) -> bool {
        if !self.inner.is_v4() {
            // All but the payload's length: class, flow label, next header, hop limit, addresses.
            return network[..4] == other[..4] && network[6..] == other[6..];
        }
        let same =
            network[..2] == other[..2] && network[6..10] == other[6..10] && network[12..] == other[12..];
        let id = |header: &[u8]| u16::from_be_bytes([header[4], header[5]]);
        // Cut again the packets get ascending IDs; of packets that may not be fragmented the ID
        // has no meaning (RFC 6864, 4).
        same && (self.inner.whole || id(other) == id(network).wrapping_add(self.packets as u16))
    }

    /// Whether more than one packet is in it.
    pub(crate) fn joined(&self) -> bool {
        self.packets > 1
    }

    /// The first packet, whole.
    pub(crate) fn packet(&self) -> Piece {
        self.first
    }

    /// The first packet's payload.
    pub(crate) fn body(&self) -> Piece {
        Piece { start: self.first.start + self.headers as u32, len: self.segment as u32 }
    }

    /// Writes the frame's header and the joined packet's headers at `start`; how many bytes.
    pub(crate) fn write_header(&self, arena: &mut [u8], start: usize) -> usize {
        let at = start + frame::HEADER;
        let first = self.first.start as usize;
        arena.copy_within(first..first + self.headers, at);
        let packet = &mut arena[at..at + self.headers];
        let below = self.headers - self.inner.header + self.payload;
        let addresses = pseudo(&packet[self.inner.addresses()], self.inner.protocol, below);
        let (network, transport) = packet.split_at_mut(self.inner.header);
        if self.inner.is_v4() {
            network[2..4].copy_from_slice(&((self.inner.header + below) as u16).to_be_bytes());
            network[10..12].fill(0);
            let check = field(sum(network));
            network[10..12].copy_from_slice(&check);
        } else {
            network[4..6].copy_from_slice(&(below as u16).to_be_bytes());
        }
        let place = if self.kind == Kind::Udp {
            transport[4..6].copy_from_slice(&(below as u16).to_be_bytes());
            6
        } else {
            transport[13] |= if self.pushed { PSH } else { 0 };
            16
        };
        // The rest of the sum is left to the host: it makes it only if the packet leaves it.
        transport[place..place + 2].copy_from_slice(&fold(addresses).to_ne_bytes());
        let header = FrameHeader {
            checksum: Some((self.inner.header as u16, place as u16)),
            train: Some((self.kind, self.headers as u16, self.segment as u16)),
        };
        arena[start..at].copy_from_slice(&header.encode());
        frame::HEADER + self.headers
    }
}

/// Whether `after` is the TCP header of the segment that follows `payload` bytes later in the
/// stream; if so, whether it pushes.
fn tcp_follows(first: &[u8], after: &[u8], payload: usize) -> Option<bool> {
    let sequence = |header: &[u8]| u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    let contiguous = sequence(after) == sequence(first).wrapping_add(payload as u32);
    // Ports; acknowledged number and header length; window; urgent pointer and options.
    let same = first[..4] == after[..4]
        && first[8..13] == after[8..13]
        && first[14..16] == after[14..16]
        && first[18..] == after[18..];
    // The flags too, but that the last may push.
    let flags = (first[13] ^ after[13]) & !PSH == 0;
    (contiguous && same && flags).then_some(after[13] & PSH != 0)
}

/// Whether the transport checksum of a TCP segment or UDP datagram is right.
fn right(packet: &[u8], inner: &Inner) -> bool {
    let transport = &packet[inner.header..];
    let addresses = pseudo(&packet[inner.addresses()], inner.protocol, transport.len());
    fold(addresses + sum(transport)) == 0xffff
}
