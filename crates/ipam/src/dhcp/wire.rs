//! IPv4 and UDP headers around a DHCP message, and ARP probes, for packet sockets.

use std::net::Ipv4Addr;

use weft_model::Mac;

const IP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const UDP: u8 = 17;
const TIME_TO_LIVE: u8 = 64;
const ARP_LENGTH: usize = 28;
/// Ethernet, IPv4, lengths 6 and 4.
const ARP_START: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// A UDP datagram out of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Who sent it.
    pub source: Ipv4Addr,
    /// Its port.
    pub source_port: u16,
    /// For which port.
    pub port: u16,
    /// What it carries.
    pub payload: &'a [u8],
}

/// A packet with an IPv4 and a UDP header. `None` when the payload is too long for one.
pub fn udp(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), payload: &[u8]) -> Option<Vec<u8>> {
    let udp_length = u16::try_from(UDP_HEADER + payload.len()).ok()?;
    let length = u16::try_from(IP_HEADER + UDP_HEADER + payload.len()).ok()?;
    let mut packet = Vec::with_capacity(usize::from(length));
    packet.extend([0x45, 0x10]);
    packet.extend(length.to_be_bytes());
    packet.extend([0, 0, 0, 0, TIME_TO_LIVE, UDP, 0, 0]);
    packet.extend(from.0.octets());
    packet.extend(to.0.octets());
    let sum = checksum([&packet[..]]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(from.1.to_be_bytes());
    packet.extend(to.1.to_be_bytes());
    packet.extend(udp_length.to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(payload);
    let sum = match checksum([&pseudo_header(from.0, to.0, udp_length), &packet[IP_HEADER..]]) {
        0 => 0xffff,
        sum => sum,
    };
    packet[IP_HEADER + 6..IP_HEADER + 8].copy_from_slice(&sum.to_be_bytes());
    Some(packet)
}

/// The datagram in an IPv4 packet; `None` when it is none, a fragment, or its lengths or sums are
/// wrong. `summed` says whether the UDP checksum is filled in: on its way through the machine
/// itself it is not.
pub fn datagram(packet: &[u8], summed: bool) -> Option<Datagram<'_>> {
    let header_length = usize::from(packet.first()? & 0x0f) * 4;
    let header = packet.get(..header_length).filter(|header| header.len() >= IP_HEADER)?;
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff;
    if header[0] >> 4 != 4 || header[9] != UDP || fragment != 0 || checksum([header]) != 0 {
        return None;
    }
    let address = |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]);
    let udp = packet.get(header_length..length).filter(|udp| udp.len() >= UDP_HEADER)?;
    let udp_length = u16::from_be_bytes([udp[4], udp[5]]);
    let udp = udp.get(..usize::from(udp_length)).filter(|udp| udp.len() >= UDP_HEADER)?;
    let has_sum = udp[6..8] != [0, 0];
    if summed && has_sum && checksum([&pseudo_header(address(12), address(16), udp_length), udp]) != 0 {
        return None;
    }
    Some(Datagram {
        source: address(12),
        source_port: u16::from_be_bytes([udp[0], udp[1]]),
        port: u16::from_be_bytes([udp[2], udp[3]]),
        payload: &udp[UDP_HEADER..],
    })
}

/// The question whether anybody has `address`, from one who has none yet (RFC 5227 §2.1.1).
pub fn arp_probe(mac: Mac, address: Ipv4Addr) -> Vec<u8> {
    let mut packet = Vec::with_capacity(ARP_LENGTH);
    packet.extend(ARP_START);
    packet.extend([0, 1]);
    packet.extend(mac.0);
    packet.extend([0; 4 + 6]);
    packet.extend(address.octets());
    packet
}

/// Whether an ARP packet shows that somebody other than `mac` has `address` or probes for it.
pub fn arp_conflict(packet: &[u8], mac: Mac, address: Ipv4Addr) -> bool {
    let Some(packet) = packet.get(..ARP_LENGTH) else { return false };
    let (sender, sender_ip, target_ip) = (&packet[8..14], &packet[14..18], &packet[24..28]);
    let probes = sender_ip == [0; 4] && target_ip == address.octets() && packet[6..8] == [0, 1];
    packet[..6] == ARP_START && sender != mac.0 && (sender_ip == address.octets() || probes)
}

fn pseudo_header(from: Ipv4Addr, to: Ipv4Addr, length: u16) -> [u8; 12] {
    let mut header = [0; 12];
    header[..4].copy_from_slice(&from.octets());
    header[4..8].copy_from_slice(&to.octets());
    header[9] = UDP;
    header[10..].copy_from_slice(&length.to_be_bytes());
    header
}

/// The Internet checksum (RFC 1071) over parts, all but the last of even length.
fn checksum<const N: usize>(parts: [&[u8]; N]) -> u16 {
    let words = parts.into_iter().flat_map(|part| part.chunks(2));
    let mut sum: u32 =
        words.map(|word| u32::from(u16::from_be_bytes([word[0], *word.get(1).unwrap_or(&0)]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

    #[test]
    fn an_answer_or_another_probe_is_a_conflict_and_our_own_is_not() {
        let (ours, theirs) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
        assert!(!arp_conflict(&arp_probe(ours, A), ours, A));
        assert!(arp_conflict(&arp_probe(theirs, A), ours, A));
        assert!(!arp_conflict(&arp_probe(theirs, B), ours, A));
        let mut answer = arp_probe(theirs, Ipv4Addr::UNSPECIFIED);
        answer[7] = 2;
        answer[14..18].copy_from_slice(&A.octets());
        assert!(arp_conflict(&answer, ours, A));
        // Somebody else asks for the address in order to talk to it.
        let mut question = arp_probe(theirs, A);
        question[14..18].copy_from_slice(&B.octets());
        assert!(!arp_conflict(&question, ours, A));
    }

    proptest! {
        #[test]
        fn what_is_wrapped_comes_out(payload in prop::collection::vec(any::<u8>(), 0..600), flip in 0usize..28) {
            let mut packet = udp((A, 68), (B, 67), &payload).unwrap();
            let datagram_ = datagram(&packet, true).unwrap();
            prop_assert_eq!(datagram_, Datagram { source: A, source_port: 68, port: 67, payload: &payload });
            packet[flip] ^= 0x5a;
            prop_assert!(datagram(&packet, true).is_none_or(|got| got.payload != payload || flip >= 26));
        }

        #[test]
        fn no_packet_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..120), first in 0x40u8..0x50) {
            let mut bytes = bytes;
            let _ = datagram(&bytes, true);
            let _ = arp_conflict(&bytes, Mac([0; 6]), A);
            if let Some(byte) = bytes.first_mut() {
                *byte = first;
            }
            let _ = datagram(&bytes, false);
        }
    }
}
