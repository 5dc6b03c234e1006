//! Neighbour solicitations and advertisements (RFC 4861, 7.1), as whole IPv6 packets.

use std::net::Ipv6Addr;

use weft_model::Mac;

use crate::datagram::{icmp_sum, icmp_sum_is_right};

const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const ICMP: u8 = 58;
const HEADER: usize = 40;
/// Type, code, sum, flags, target.
const BODY: usize = 24;
const SOURCE_OPTION: u8 = 1;
const TARGET_OPTION: u8 = 2;
const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;
/// All nodes of a link.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// What a packet says of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbour {
    /// Somebody asks who has `target`.
    Asks {
        /// Who; unspecified where it is about to take the address itself (duplicate address detection).
        from: Ipv6Addr,
        /// Its hardware address, where it says it.
        mac: Option<Mac>,
        /// The address.
        target: Ipv6Addr,
    },
    /// Somebody says that it has `target`.
    Has {
        /// The address.
        target: Ipv6Addr,
        /// Its hardware address, where it says it.
        mac: Option<Mac>,
    },
}

impl Neighbour {
    /// Reads an IPv6 packet. `summed` is false where its checksum was left to a device.
    pub fn decode(packet: &[u8], summed: bool) -> Option<Neighbour> {
        let (header, rest) = packet.split_first_chunk::<HEADER>()?;
        let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
        let body = rest.get(..length)?;
        // Hop limit 255: from this segment.
        if header[0] >> 4 != 6 || header[6] != ICMP || header[7] != 255 || body.len() < BODY || body[1] != 0 {
            return None;
        }
        let address = |bytes: &[u8]| bytes.first_chunk::<16>().map(|ip| Ipv6Addr::from(*ip));
        let (from, to, target) = (address(&header[8..])?, address(&header[24..])?, address(&body[8..])?);
        if target.is_multicast() || (summed && !icmp_sum_is_right(from, to, body)) {
            return None;
        }
        let mut mac = None;
        let mut options = &body[BODY..];
        while let [kind, eights, ..] = *options {
            // One of length 0 would never end.
            let (option, rest) = options.split_at_checked(usize::from(eights) * 8).filter(|_| eights > 0)?;
            let wanted = if body[0] == SOLICITATION { SOURCE_OPTION } else { TARGET_OPTION };
            if kind == wanted {
                mac = option[2..].first_chunk().map(|mac| Mac(*mac)).filter(|mac| mac.0[0] & 1 == 0);
            }
            options = rest;
        }
        match body[0] {
            SOLICITATION if from.is_unspecified() && (mac.is_some() || to != group(target)) => None,
            SOLICITATION => Some(Neighbour::Asks { from, mac, target }),
            ADVERTISEMENT if to.is_multicast() && body[4] & SOLICITED != 0 => None,
            ADVERTISEMENT => Some(Neighbour::Has { target, mac }),
            _ => None,
        }
    }
}

/// The group in which who has `address` is asked for its hardware address.
pub fn group(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b] = address.segments();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | (a & 0xff), b)
}

/// The hardware address of a group.
pub fn group_mac(group: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = group.octets();
    Mac([0x33, 0x33, a, b, c, d])
}

/// The packet that tells `to`, or all nodes where none is given, that `mac` has `target`. It asks to override
/// what others remember. This is a router (RFC 4861, 4.4): a node forwards.
pub fn advertisement(target: Ipv6Addr, mac: Mac, to: Option<Ipv6Addr>) -> Vec<u8> {
    let flags = ROUTER | OVERRIDE | if to.is_some() { SOLICITED } else { 0 };
    let mut body = vec![ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0];
    body.extend(target.octets());
    body.extend([TARGET_OPTION, 1]);
    body.extend(mac.0);
    packet(target, to.unwrap_or(ALL_NODES), body)
}

fn packet(from: Ipv6Addr, to: Ipv6Addr, mut body: Vec<u8>) -> Vec<u8> {
    let sum = icmp_sum(from, to, &body);
    body[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((body.len() as u16).to_be_bytes());
    packet.extend([ICMP, 255]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(body);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Ipv6Addr = Ipv6Addr::new(0xfd10, 0x168, 0, 0, 0, 0, 0x12, 0x3456);
    const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

    fn solicitation(from: Ipv6Addr, to: Ipv6Addr, mac: Option<Mac>) -> Vec<u8> {
        let mut body = vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
        body.extend(TARGET.octets());
        if let Some(mac) = mac {
            body.extend([SOURCE_OPTION, 1]);
            body.extend(mac.0);
        }
        packet(from, to, body)
    }

    #[test]
    fn solicitations_are_read_and_malformed_ones_are_not() {
        let from: Ipv6Addr = "fd10:168::9".parse().unwrap();
        let good = solicitation(from, group(TARGET), Some(MAC));
        let asks = Neighbour::Asks { from, mac: Some(MAC), target: TARGET };
        assert_eq!(Neighbour::decode(&good, true), Some(asks));
        for (at, wrong) in [(0, 0x40), (6, 17), (7, 254), (41, 1), (65, 0), (65, 9), (50, 9)] {
            let mut bad = good.clone();
            bad[at] = wrong;
            assert_eq!(Neighbour::decode(&bad, true), None, "byte {at}");
        }
        assert_eq!(Neighbour::decode(&good[..good.len() - 1], true), None);
        let detection = solicitation(Ipv6Addr::UNSPECIFIED, group(TARGET), None);
        let asks = Neighbour::Asks { from: Ipv6Addr::UNSPECIFIED, mac: None, target: TARGET };
        assert_eq!(Neighbour::decode(&detection, true), Some(asks));
        assert_eq!(Neighbour::decode(&solicitation(Ipv6Addr::UNSPECIFIED, ALL_NODES, None), true), None);
        let said = solicitation(Ipv6Addr::UNSPECIFIED, group(TARGET), Some(MAC));
        assert_eq!(Neighbour::decode(&said, true), None);
    }

    #[test]
    fn advertisements_say_who_has_an_address() {
        for to in [None, Some("fe80::9".parse().unwrap())] {
            let packet = advertisement(TARGET, MAC, to);
            let has = Neighbour::Has { target: TARGET, mac: Some(MAC) };
            assert_eq!(Neighbour::decode(&packet, true), Some(has));
            assert_eq!(packet[44] & SOLICITED != 0, to.is_some());
        }
        assert_eq!(group(TARGET).to_string(), "ff02::1:ff12:3456");
        assert_eq!(group_mac(group(TARGET)).to_string(), "33:33:ff:12:34:56");
    }
}
