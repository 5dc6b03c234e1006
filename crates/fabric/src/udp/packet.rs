//! The headers of one inner packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Reason;
use super::checksum::{fold, sum};

pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV6: u8 = 58;
const V6_HEADER: usize = 40;
const V6_FRAGMENT: u8 = 44;
/// Hop-by-hop options, routing header, destination options.
const V6_OPTIONS: [u8; 3] = [0, 43, 60];
const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;

/// What an IPv4 or IPv6 header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Inner {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// Bytes up to the transport header.
    pub header: usize,
    /// Bytes of the whole packet.
    pub len: usize,
    /// The transport protocol; of a fragment, too.
    pub protocol: u8,
    /// TTL or hop limit.
    pub hops: u8,
    /// Whether it may not be fragmented on its way: DF, or IPv6.
    pub whole: bool,
    /// Whether it is a part of a packet.
    pub fragment: bool,
    /// Whether it is a part but not the first.
    pub later: bool,
}

impl Inner {
    /// Reads the header of the packet that `bytes` are exactly.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Inner, Reason> {
        let inner = Inner::parse_begin(bytes)?;
        match bytes.len() {
            got if got < inner.len => Err(Reason::Truncated),
            got if got > inner.len => Err(Reason::Oversized),
            _ => Ok(inner),
        }
    }

    /// Reads the header of a packet of which `bytes` are at least the beginning.
    pub(crate) fn parse_begin(bytes: &[u8]) -> Result<Inner, Reason> {
        match bytes.first().map(|byte| byte >> 4) {
            Some(4) => parse_v4(bytes),
            Some(6) => parse_v6(bytes),
            None => Err(Reason::Truncated),
            _ => Err(Reason::Malformed),
        }
    }

    pub(crate) fn is_v4(&self) -> bool {
        self.source.is_ipv4()
    }

    /// Where both addresses lie in the packet.
    pub(crate) fn addresses(&self) -> std::ops::Range<usize> {
        if self.is_v4() { 12..20 } else { 8..40 }
    }
}

fn parse_v4(bytes: &[u8]) -> Result<Inner, Reason> {
    let Some(fixed) = bytes.first_chunk::<20>() else { return Err(Reason::Truncated) };
    let header = usize::from(fixed[0] & 0xf) * 4;
    let len = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    if header < 20 || len < header {
        return Err(Reason::Malformed);
    }
    if header > 20 {
        return Err(Reason::Options);
    }
    if fold(sum(fixed)) != 0xffff {
        return Err(Reason::Checksum);
    }
    let bits = u16::from_be_bytes([fixed[6], fixed[7]]);
    let (offset, more) = (usize::from(bits & 0x1fff) * 8, bits & MORE_FRAGMENTS != 0);
    let payload = len - header;
    // Past the largest packet, of a size that others cannot follow on, or a transport header
    // overwritten from its second part (RFC 1858, RFC 3128).
    if offset + payload > 65_535 - header
        || more && (payload == 0 || !payload.is_multiple_of(8))
        || offset == 8 && fixed[9] == TCP
    {
        return Err(Reason::Fragment);
    }
    Ok(Inner {
        source: Ipv4Addr::new(fixed[12], fixed[13], fixed[14], fixed[15]).into(),
        destination: Ipv4Addr::new(fixed[16], fixed[17], fixed[18], fixed[19]).into(),
        header,
        len,
        protocol: fixed[9],
        hops: fixed[8],
        whole: bits & DONT_FRAGMENT != 0,
        fragment: offset > 0 || more,
        later: offset > 0,
    })
}

fn parse_v6(bytes: &[u8]) -> Result<Inner, Reason> {
    let Some(fixed) = bytes.first_chunk::<V6_HEADER>() else { return Err(Reason::Truncated) };
    let len = V6_HEADER + usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
    let address = |at: usize| {
        let octets: [u8; 16] = fixed[at..at + 16].try_into().unwrap_or_default();
        IpAddr::from(Ipv6Addr::from(octets))
    };
    let mut inner = Inner {
        source: address(8),
        destination: address(24),
        header: V6_HEADER,
        len,
        protocol: fixed[6],
        hops: fixed[7],
        whole: true,
        fragment: false,
        later: false,
    };
    if inner.protocol == V6_FRAGMENT {
        let part = bytes.get(V6_HEADER..).and_then(|rest| rest.first_chunk::<8>());
        let Some(part) = part.filter(|_| len >= V6_HEADER + 8) else { return Err(Reason::Fragment) };
        let bits = u16::from_be_bytes([part[2], part[3]]);
        let (offset, more) = (usize::from(bits & !7), bits & 1 != 0);
        let payload = len - V6_HEADER - 8;
        if offset + payload > 65_535 || more && (payload == 0 || !payload.is_multiple_of(8)) {
            return Err(Reason::Fragment);
        }
        (inner.fragment, inner.later) = (true, offset > 0);
        inner.header += 8;
        inner.protocol = part[0];
    }
    if V6_OPTIONS.contains(&inner.protocol) {
        return Err(Reason::Options);
    }
    Ok(inner)
}

/// Takes one off TTL or hop limit, which is above 0.
pub(crate) fn decrement_hops(packet: &mut [u8], v4: bool) {
    if !v4 {
        packet[7] -= 1;
        return;
    }
    let old = u16::from_be_bytes([packet[8], packet[9]]);
    packet[8] -= 1;
    correct(packet, old, old - 0x100);
}

/// Corrects an IPv4 header's checksum for a word of it that was `old` and is `new` (RFC 1624,
/// equation 3).
pub(crate) fn correct(packet: &mut [u8], old: u16, new: u16) {
    let check = u16::from_be_bytes([packet[10], packet[11]]);
    let total = u32::from(!check) + u32::from(!old) + u32::from(new);
    let total = (total & 0xffff) + (total >> 16);
    let total = (total & 0xffff) + (total >> 16);
    packet[10..12].copy_from_slice(&(!(total as u16)).to_be_bytes());
}
