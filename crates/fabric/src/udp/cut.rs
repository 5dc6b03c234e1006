//! A frame that is a train of segments, cut into the packets it stands for.

use weft_kernel::Piece;

use super::Reason;
use super::checksum::{field, pseudo, sum, word};
use super::egress::Scratch;
use super::frame::Kind;
use super::packet::{Inner, TCP, UDP};

const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;
/// A frame is cut into no more packets; with Linux's smallest MSS (88) it is not even as many.
pub(crate) const MOST: usize = 1_024;
const UDP_HEADER: usize = 8;

/// How a frame is cut.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    inner: Inner,
    kind: Kind,
    /// Bytes before the payload.
    headers: usize,
    /// Payload of all packets but the last.
    segment: usize,
    /// Payload of all together.
    payload: usize,
}

impl Plan {
    /// Of `packet`, whose headers `inner` are. Refuses what is no train.
    pub(crate) fn new(packet: &[u8], inner: &Inner, kind: Kind, segment: u16) -> Result<Plan, Reason> {
        let protocol = if kind == Kind::Udp { UDP } else { TCP };
        let family = match kind {
            Kind::Tcp4 => inner.is_v4(),
            Kind::Tcp6 => !inner.is_v4(),
            Kind::Udp => true,
        };
        if inner.protocol != protocol || !family || inner.fragment || segment == 0 {
            return Err(Reason::Malformed);
        }
        let transport = match kind {
            Kind::Udp => UDP_HEADER,
            _ => usize::from(packet.get(inner.header + 12).ok_or(Reason::Truncated)? >> 4) * 4,
        };
        let headers = inner.header + transport;
        if transport < if kind == Kind::Udp { 8 } else { 20 } || headers >= packet.len() {
            return Err(Reason::Malformed);
        }
        let payload = packet.len() - headers;
        if payload.div_ceil(segment.into()) > MOST {
            return Err(Reason::Malformed);
        }
        Ok(Plan { inner: *inner, kind, headers, segment: segment.into(), payload })
    }

    /// How many packets it makes.
    pub(crate) fn count(&self) -> usize {
        self.payload.div_ceil(self.segment)
    }

    /// The length of the longest of them.
    pub(crate) fn largest(&self) -> usize {
        self.headers + self.segment.min(self.payload)
    }
}

/// Cuts the frame whose packet begins at `at`. The packets' headers are written anew, their
/// payloads stay where they are; `each` gets both.
pub(crate) fn cut(
    arena: &mut [u8],
    at: usize,
    plan: &Plan,
    scratch: &mut Scratch,
    mut each: impl FnMut([Piece; 2]),
) -> Result<(), Reason> {
    let headers = plan.headers;
    let mut done = 0;
    let mut number = 0u16;
    while done < plan.payload {
        let len = plan.segment.min(plan.payload - done);
        let start = scratch.take(arena, headers).ok_or(Reason::Malformed)?;
        arena.copy_within(at..at + headers, start);
        let body = at + headers + done;
        let payload = sum(&arena[body..body + len]);
        let packet = &mut arena[start..start + headers];
        let last = done + len == plan.payload;
        write_header(packet, plan, number, done, len, last, payload);
        each([
            Piece { start: start as u32, len: headers as u32 },
            Piece { start: body as u32, len: len as u32 },
        ]);
        done += len;
        number = number.wrapping_add(1);
    }
    Ok(())
}

/// Makes the train's header that of its packet `number`, which carries `len` bytes from `done` on.
fn write_header(
    packet: &mut [u8],
    plan: &Plan,
    number: u16,
    done: usize,
    len: usize,
    last: bool,
    payload: u64,
) {
    let inner = &plan.inner;
    let addresses = sum(&packet[inner.addresses()]);
    let (network, transport) = packet.split_at_mut(inner.header);
    let below = transport.len() + len;
    if inner.is_v4() {
        network[2..4].copy_from_slice(&((inner.header + below) as u16).to_be_bytes());
        let id = u16::from_be_bytes([network[4], network[5]]).wrapping_add(number);
        network[4..6].copy_from_slice(&id.to_be_bytes());
        network[10..12].fill(0);
        let check = field(sum(network));
        network[10..12].copy_from_slice(&check);
    } else {
        network[4..6].copy_from_slice(&(below as u16).to_be_bytes());
    }
    let place = if plan.kind == Kind::Udp {
        transport[4..6].copy_from_slice(&(below as u16).to_be_bytes());
        6
    } else {
        let sequence = u32::from_be_bytes([transport[4], transport[5], transport[6], transport[7]]);
        transport[4..8].copy_from_slice(&sequence.wrapping_add(done as u32).to_be_bytes());
        // The first tells of a smaller window once; the last ends or pushes the stream.
        transport[13] &= !(if number > 0 { CWR } else { 0 } | if last { 0 } else { FIN | PSH });
        16
    };
    transport[place..place + 2].fill(0);
    let total = addresses + word(inner.protocol.into()) + word(below as u16) + sum(transport) + payload;
    let mut check = field(total);
    if plan.kind == Kind::Udp && check == [0, 0] {
        check = [0xff, 0xff];
    }
    transport[place..place + 2].copy_from_slice(&check);
    debug_assert_eq!(pseudo(&[], inner.protocol, below), word(inner.protocol.into()) + word(below as u16));
}
