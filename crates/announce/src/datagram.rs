//! UDP in IPv4 and IPv6, as whole packets: beats pass by the host's packet filter, which is not asked whether
//! nodes hear one another.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const UDP: u8 = 17;
const V4: usize = 20;
const V6: usize = 40;

/// A datagram that came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// The sender.
    pub from: IpAddr,
    /// Hop limit, or IPv4's time to live.
    pub hop_limit: u8,
    /// Destination port.
    pub port: u16,
    /// What it carries.
    pub payload: &'a [u8],
}

impl Datagram<'_> {
    /// Reads a packet that is UDP in one piece. `summed` is false where its checksum was left to a device.
    pub fn decode(packet: &[u8], summed: bool) -> Option<Datagram<'_>> {
        let (from, to, hop_limit, body) = match packet.first()? >> 4 {
            4 => v4(packet)?,
            6 => v6(packet)?,
            _ => return None,
        };
        let length = usize::from(u16::from_be_bytes([*body.get(4)?, *body.get(5)?]));
        let body = body.get(..length)?;
        let payload = body.get(8..)?;
        // IPv4's may be left out.
        let left_out = to.is_ipv4() && body[6..8] == [0, 0];
        if summed && !left_out && fold(add(pseudo(from, to, UDP, length), body)) != 0xffff {
            return None;
        }
        Some(Datagram { from, hop_limit, port: u16::from_be_bytes([body[2], body[3]]), payload })
    }
}

type Parts<'a> = (IpAddr, IpAddr, u8, &'a [u8]);

fn v4(packet: &[u8]) -> Option<Parts<'_>> {
    let length = usize::from(packet[0] & 0xf) * 4;
    let header = packet.get(..length).filter(|_| length >= V4)?;
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0;
    if fragment || header[9] != UDP || fold(add(0, header)) != 0xffff {
        return None;
    }
    let ip = |at: usize| header[at..].first_chunk::<4>().map(|ip| IpAddr::from(*ip));
    Some((ip(12)?, ip(16)?, header[8], packet.get(length..total)?))
}

fn v6(packet: &[u8]) -> Option<Parts<'_>> {
    let (header, rest) = packet.split_first_chunk::<V6>()?;
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let ip = |at: usize| header[at..].first_chunk::<16>().map(|ip| IpAddr::from(*ip));
    if header[6] != UDP {
        return None;
    }
    Some((ip(8)?, ip(24)?, header[7], rest.get(..length)?))
}

/// A packet with `payload` from and to one port, hop limit 255. Both addresses must be of one family; nothing
/// else can be said in one packet.
pub fn encode(from: IpAddr, to: IpAddr, port: u16, payload: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(payload.len() + 8).ok()?;
    let mut body = [port.to_be_bytes(), port.to_be_bytes(), length.to_be_bytes(), [0, 0]].concat();
    body.extend(payload);
    let sum = !fold(add(pseudo(from, to, UDP, body.len()), &body));
    // A sum of 0 would say that there is none.
    body[6..8].copy_from_slice(&if sum == 0 { 0xffff } else { sum }.to_be_bytes());
    let mut packet = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => header_v4(from, to, body.len())?.to_vec(),
        (IpAddr::V6(from), IpAddr::V6(to)) => header_v6(from, to, length).to_vec(),
        _ => return None,
    };
    packet.extend(body);
    Some(packet)
}

fn header_v4(from: Ipv4Addr, to: Ipv4Addr, length: usize) -> Option<[u8; V4]> {
    let total = u16::try_from(V4 + length).ok()?.to_be_bytes();
    let mut header = [0; V4];
    // Class of service CS6, as routing protocols have it; not to be fragmented.
    header[..10].copy_from_slice(&[0x45, 0xc0, total[0], total[1], 0, 0, 0x40, 0, 255, UDP]);
    header[12..16].copy_from_slice(&from.octets());
    header[16..].copy_from_slice(&to.octets());
    let sum = !fold(add(0, &header));
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    Some(header)
}

fn header_v6(from: Ipv6Addr, to: Ipv6Addr, length: u16) -> [u8; V6] {
    let length = length.to_be_bytes();
    let mut header = [0; V6];
    header[..8].copy_from_slice(&[0x6c, 0, 0, 0, length[0], length[1], UDP, 255]);
    header[8..24].copy_from_slice(&from.octets());
    header[24..].copy_from_slice(&to.octets());
    header
}

/// The checksum of an ICMPv6 message whose own is 0.
pub(crate) fn icmp_sum(from: Ipv6Addr, to: Ipv6Addr, body: &[u8]) -> u16 {
    !fold(add(pseudo(from.into(), to.into(), 58, body.len()), body))
}

pub(crate) fn icmp_sum_is_right(from: Ipv6Addr, to: Ipv6Addr, body: &[u8]) -> bool {
    fold(add(pseudo(from.into(), to.into(), 58, body.len()), body)) == 0xffff
}

fn pseudo(from: IpAddr, to: IpAddr, protocol: u8, length: usize) -> u32 {
    let octets = |ip: IpAddr, sum| match ip {
        IpAddr::V4(ip) => add(sum, &ip.octets()),
        IpAddr::V6(ip) => add(sum, &ip.octets()),
    };
    octets(from, octets(to, u32::from(protocol) + length as u32))
}

fn add(sum: u32, bytes: &[u8]) -> u32 {
    let (pairs, last) = bytes.as_chunks::<2>();
    let pairs = pairs.iter().map(|pair| u32::from(u16::from_be_bytes(*pair)));
    sum + pairs.sum::<u32>() + last.first().map_or(0, |byte| u32::from(*byte) << 8)
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_is_read_and_what_is_damaged_is_not() {
        for (from, to) in [("10.0.0.1", "224.0.0.254"), ("fd00::1", "ff02::114")] {
            let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
            for payload in [&b"odd"[..], b"even", b""] {
                let packet = encode(from, to, 8286, payload).unwrap();
                let read = Datagram { from, hop_limit: 255, port: 8286, payload };
                assert_eq!(Datagram::decode(&packet, true), Some(read));
                for at in 0..packet.len() {
                    let mut bad = packet.clone();
                    bad[at] ^= 0x10;
                    // What is not summed in IPv6: class, flow label and hop limit.
                    let unsummed = from.is_ipv6() && matches!(at, 0..4 | 7);
                    assert!(unsummed || Datagram::decode(&bad, true).is_none(), "byte {at}");
                }
                assert_eq!(Datagram::decode(&packet[..packet.len() - 1], false), None);
            }
        }
        assert_eq!(encode("10.0.0.1".parse().unwrap(), "ff02::114".parse().unwrap(), 1, b""), None);
    }
}
