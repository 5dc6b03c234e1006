//! Bytes of a frame to what a trace needs to know: Ethernet, IPv4, IPv6, ICMP, UDP, TCP and one
//! VXLAN encapsulation. No I/O; any bytes give a value or `None`, never a panic.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use weft_model::Mac;

const ETHERNET: usize = 14;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const VXLAN_PORTS: [u16; 2] = [8472, 4789];
const VXLAN_HEADER: usize = 8;

/// IANA protocol numbers.
pub mod proto {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
}

/// A frame or packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Hardware addresses of the outermost frame: source, destination.
    pub macs: Option<(Mac, Mac)>,
    /// What it was wrapped in.
    pub outer: Option<Outer>,
    /// The innermost IP header.
    pub ip: Ip,
    /// What that carries.
    pub transport: Transport<'a>,
}

/// The outer headers of a VXLAN packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outer {
    /// The outer IP header.
    pub ip: Ip,
    /// UDP source port, a hash of the inner flow.
    pub source_port: u16,
    /// UDP destination port.
    pub port: u16,
    /// VXLAN network identifier.
    pub vni: u32,
    /// Hardware addresses inside: source, destination.
    pub inner_macs: Option<(Mac, Mac)>,
}

/// An IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// What it carries.
    pub proto: u8,
}

/// What an IP packet carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport<'a> {
    /// An ICMP or ICMPv6 echo.
    Echo {
        /// Whether it is the reply.
        reply: bool,
        /// Identifier.
        id: u16,
        /// Sequence number.
        seq: u16,
        /// What it carries.
        payload: &'a [u8],
    },
    /// An ICMP or ICMPv6 error.
    IcmpError {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// The packet it is about, as far as quoted.
        about: Option<Box<Packet<'a>>>,
    },
    /// A UDP datagram.
    Udp {
        /// Source port.
        sport: u16,
        /// Destination port.
        dport: u16,
        /// What it carries.
        payload: &'a [u8],
    },
    /// A TCP segment.
    Tcp {
        /// Source port.
        sport: u16,
        /// Destination port.
        dport: u16,
        /// Sequence number.
        seq: u32,
        /// Acknowledgement number.
        ack: u32,
        /// Flags: 1 FIN, 2 SYN, 4 RST, 16 ACK.
        flags: u8,
    },
    /// Anything else, or a later fragment.
    Other,
}

impl Transport<'_> {
    /// Source and destination port, where there are ports.
    pub fn ports(&self) -> Option<(u16, u16)> {
        match self {
            Transport::Udp { sport, dport, .. } | Transport::Tcp { sport, dport, .. } => {
                Some((*sport, *dport))
            }
            _ => None,
        }
    }
}

/// An Ethernet frame; `None` when it carries no IP.
pub fn frame(bytes: &[u8]) -> Option<Packet<'_>> {
    ethernet(bytes, true)
}

/// An IP packet without link header.
pub fn packet(bytes: &[u8]) -> Option<Packet<'_>> {
    internet(bytes, true, true)
}

/// An IP packet whose headers are in two pieces, as nftables reports them.
pub fn split(network: &[u8], transport: &[u8]) -> Option<(Ip, Vec<u8>)> {
    let (ip, _, _) = header(network)?;
    Some((ip, transport.to_vec()))
}

/// A transport header on its own, after `ip`.
pub fn transport<'a>(ip: &Ip, bytes: &'a [u8]) -> Transport<'a> {
    carried(ip.proto, bytes, false).unwrap_or(Transport::Other)
}

fn ethernet(bytes: &[u8], unwrap: bool) -> Option<Packet<'_>> {
    let head = bytes.get(..ETHERNET)?;
    let mac = |at: usize| Some(Mac(*head.get(at..)?.first_chunk()?));
    let macs = Some((mac(6)?, mac(0)?));
    let (mut kind, mut at) = (be16(head, 12)?, ETHERNET);
    if kind == ETHERTYPE_VLAN {
        (kind, at) = (be16(bytes, 16)?, 18);
    }
    if kind != ETHERTYPE_IPV4 && kind != ETHERTYPE_IPV6 {
        return None;
    }
    Some(Packet { macs, ..internet(bytes.get(at..)?, unwrap, true)? })
}

fn internet(bytes: &[u8], unwrap: bool, quotes: bool) -> Option<Packet<'_>> {
    let (ip, at, first_fragment) = header(bytes)?;
    let rest = bytes.get(at..)?;
    if unwrap
        && first_fragment
        && let Some(inner) = vxlan(ip, rest)
    {
        return Some(inner);
    }
    let transport = if first_fragment { carried(ip.proto, rest, quotes) } else { None };
    Some(Packet { macs: None, outer: None, ip, transport: transport.unwrap_or(Transport::Other) })
}

fn vxlan(ip: Ip, datagram: &[u8]) -> Option<Packet<'_>> {
    let port = be16(datagram, 2)?;
    let wrapped = ip.proto == proto::UDP && VXLAN_PORTS.contains(&port);
    let head = datagram.get(8..8 + VXLAN_HEADER)?;
    (wrapped && head[0] & 0x08 != 0).then_some(())?;
    let vni = u32::from_be_bytes([0, head[4], head[5], head[6]]);
    let inner = ethernet(datagram.get(8 + VXLAN_HEADER..)?, false)?;
    let outer = Outer { ip, source_port: be16(datagram, 0)?, port, vni, inner_macs: inner.macs };
    Some(Packet { macs: None, outer: Some(outer), ..inner })
}

/// The IP header, where it ends, and whether what follows is the start of the payload.
fn header(bytes: &[u8]) -> Option<(Ip, usize, bool)> {
    match bytes.first()? >> 4 {
        4 => {
            let head = bytes.get(..20)?;
            let length = usize::from(head[0] & 0x0f) * 4;
            let address = |at: usize| Some(IpAddr::from(Ipv4Addr::from(*head.get(at..)?.first_chunk()?)));
            let ip = Ip { src: address(12)?, dst: address(16)?, ttl: head[8], proto: head[9] };
            let first = be16(head, 6)? & 0x1fff == 0;
            (length >= 20).then_some((ip, length, first))
        }
        6 => {
            let head = bytes.get(..40)?;
            let address = |at: usize| Some(IpAddr::from(Ipv6Addr::from(*head.get(at..)?.first_chunk()?)));
            let (proto, at, first) = extensions(bytes, head[6])?;
            Some((Ip { src: address(8)?, dst: address(24)?, ttl: head[7], proto }, at, first))
        }
        _ => None,
    }
}

/// Skips IPv6 extension headers: hop-by-hop, routing, fragment, destination options.
fn extensions(bytes: &[u8], mut next: u8) -> Option<(u8, usize, bool)> {
    let (mut at, mut first) = (40, true);
    for _ in 0..8 {
        match next {
            0 | 43 | 60 => {
                let length = (usize::from(*bytes.get(at + 1)?) + 1) * 8;
                next = *bytes.get(at)?;
                at += length;
            }
            44 => {
                first &= be16(bytes, at + 2)? & 0xfff8 == 0;
                next = *bytes.get(at)?;
                at += 8;
            }
            _ => break,
        }
    }
    Some((next, at, first))
}

fn carried(number: u8, bytes: &[u8], quotes: bool) -> Option<Transport<'_>> {
    match number {
        proto::UDP => Some(Transport::Udp {
            sport: be16(bytes, 0)?,
            dport: be16(bytes, 2)?,
            payload: bytes.get(8..).unwrap_or_default(),
        }),
        proto::TCP => Some(Transport::Tcp {
            sport: be16(bytes, 0)?,
            dport: be16(bytes, 2)?,
            seq: be32(bytes, 4)?,
            // A quoting ICMP error may hold the first eight bytes only.
            ack: be32(bytes, 8).unwrap_or(0),
            flags: bytes.get(13).copied().unwrap_or(0),
        }),
        proto::ICMP | proto::ICMPV6 => icmp(number == proto::ICMPV6, bytes, quotes),
        _ => None,
    }
}

fn icmp(v6: bool, bytes: &[u8], quotes: bool) -> Option<Transport<'_>> {
    let (kind, code) = (*bytes.first()?, *bytes.get(1)?);
    let (request, reply) = if v6 { (128, 129) } else { (8, 0) };
    if kind == request || kind == reply {
        let payload = bytes.get(8..).unwrap_or_default();
        return Some(Transport::Echo {
            reply: kind == reply,
            id: be16(bytes, 4)?,
            seq: be16(bytes, 6)?,
            payload,
        });
    }
    let error = if v6 { kind < 128 } else { matches!(kind, 3 | 4 | 11 | 12) };
    (error && quotes).then_some(())?;
    let about = bytes.get(8..).and_then(|quoted| internet(quoted, false, false)).map(Box::new);
    Some(Transport::IcmpError { kind, code, about })
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|b| u16::from_be_bytes(*b))
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_be_bytes(*b))
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
