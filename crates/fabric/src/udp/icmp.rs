//! ICMP and ICMPv6 errors to the sources of packets that cannot go on (RFC 792, RFC 1812 4.3,
//! RFC 4443).

use std::net::IpAddr;

use super::checksum::{field, pseudo, sum};
use super::packet::{ICMP, ICMPV6, Inner};

/// The most that are kept until they are sent; more are not made.
const KEPT: usize = 8;
/// How much of the packet an error quotes: RFC 1812 wants as much as fits 576 bytes.
const QUOTE_V4: usize = 576 - 20 - 8;
/// RFC 4443 wants as much as fits the smallest MTU.
const QUOTE_V6: usize = 1_280 - 40 - 8;
const LARGEST: usize = 1_280;
const HOPS: u8 = 64;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    /// No peer has the destination.
    NoRoute,
    /// The TTL or hop limit ended.
    Expired,
    /// It exceeds this many bytes.
    TooBig(u32),
}

/// Errors that wait to be sent, as whole packets.
#[derive(Debug)]
pub(crate) struct Replies {
    packets: Vec<[u8; LARGEST]>,
    kept: Vec<(IpAddr, usize)>,
}

impl Default for Replies {
    fn default() -> Self {
        Replies { packets: vec![[0; LARGEST]; KEPT], kept: Vec::with_capacity(KEPT) }
    }
}

impl Replies {
    /// Each with its destination.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (IpAddr, &[u8])> {
        self.kept.iter().zip(&self.packets).map(|((to, len), packet)| (*to, &packet[..*len]))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.kept.clear();
    }
}

/// Adds the error about `packet` from our address `from`, unless there may be none about it.
pub(crate) fn reply(replies: &mut Replies, from: IpAddr, packet: &[u8], inner: &Inner, problem: Problem) {
    if silent(packet, inner) {
        return;
    }
    let Some(place) = replies.packets.get_mut(replies.kept.len()) else { return };
    let len = match (from, inner.source) {
        (IpAddr::V4(from), IpAddr::V4(to)) => write_v4(place, from.octets(), to.octets(), packet, problem),
        (IpAddr::V6(from), IpAddr::V6(to)) => write_v6(place, from.octets(), to.octets(), packet, problem),
        _ => return,
    };
    replies.kept.push((inner.source, len));
}

/// No errors about errors, later fragments, and packets from or to no single host.
fn silent(packet: &[u8], inner: &Inner) -> bool {
    let nobody =
        |address: IpAddr| address.is_unspecified() || address.is_multicast() || address.is_loopback();
    let kind = packet.get(inner.header).copied();
    let error = match inner.protocol {
        // Destination unreachable, source quench, redirect, time exceeded, parameter problem.
        ICMP if inner.is_v4() => matches!(kind, None | Some(3 | 4 | 5 | 11 | 12)),
        ICMPV6 if !inner.is_v4() => kind.is_none_or(|kind| kind < 128),
        _ => false,
    };
    let broadcast = inner.destination == IpAddr::V4(std::net::Ipv4Addr::BROADCAST);
    error || inner.later || nobody(inner.source) || nobody(inner.destination) || broadcast
}

fn write_v4(place: &mut [u8; LARGEST], from: [u8; 4], to: [u8; 4], packet: &[u8], problem: Problem) -> usize {
    let quote = &packet[..packet.len().min(QUOTE_V4)];
    let len = 28 + quote.len();
    let (kind, code, mtu) = match problem {
        Problem::NoRoute => (3, 0, 0),
        Problem::Expired => (11, 0, 0),
        Problem::TooBig(mtu) => (3, 4, mtu.min(0xffff) as u16),
    };
    let place = &mut place[..len];
    place.fill(0);
    place[0] = 0x45;
    // Internetwork control (RFC 1812, 4.3.2.5).
    place[1] = 0xc0;
    place[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    place[8] = HOPS;
    place[9] = ICMP;
    place[12..16].copy_from_slice(&from);
    place[16..20].copy_from_slice(&to);
    let check = field(sum(&place[..20]));
    place[10..12].copy_from_slice(&check);
    (place[20], place[21]) = (kind, code);
    place[26..28].copy_from_slice(&mtu.to_be_bytes());
    place[28..].copy_from_slice(quote);
    let check = field(sum(&place[20..]));
    place[22..24].copy_from_slice(&check);
    len
}

fn write_v6(
    place: &mut [u8; LARGEST],
    from: [u8; 16],
    to: [u8; 16],
    packet: &[u8],
    problem: Problem,
) -> usize {
    let quote = &packet[..packet.len().min(QUOTE_V6)];
    let len = 48 + quote.len();
    let (kind, code, mtu) = match problem {
        Problem::NoRoute => (1, 0, 0),
        Problem::Expired => (3, 0, 0),
        // No path of IPv6 is smaller.
        Problem::TooBig(mtu) => (2, 0, mtu.max(1_280)),
    };
    let place = &mut place[..len];
    place.fill(0);
    place[0] = 0x60;
    place[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes());
    place[6] = ICMPV6;
    place[7] = HOPS;
    place[8..24].copy_from_slice(&from);
    place[24..40].copy_from_slice(&to);
    (place[40], place[41]) = (kind, code);
    place[44..48].copy_from_slice(&mtu.to_be_bytes());
    place[48..].copy_from_slice(quote);
    let total = pseudo(&place[8..40], ICMPV6, len - 40) + sum(&place[40..]);
    place[42..44].copy_from_slice(&field(total));
    len
}
