//! ARP for IPv4 on Ethernet (RFC 826, RFC 5227), without the link's header.

use std::net::Ipv4Addr;

use weft_model::Mac;

/// Hardware type Ethernet, protocol type IPv4, their address lengths.
const KIND: [u8; 6] = [0, 1, 8, 0, 6, 4];
const REQUEST: u16 = 1;
const REPLY: u16 = 2;
const LENGTH: usize = 28;

/// An ARP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// Whether it asks.
    pub request: bool,
    /// The sender's hardware address.
    pub sender: Mac,
    /// The address that the sender says it has; 0.0.0.0 where it only asks who has one (a probe).
    pub sender_ip: Ipv4Addr,
    /// Whose hardware address is meant.
    pub target: Mac,
    /// The address that is asked for.
    pub target_ip: Ipv4Addr,
}

impl Arp {
    /// Reads one; what is padded to Ethernet's shortest frame too.
    pub fn decode(bytes: &[u8]) -> Option<Arp> {
        let bytes: &[u8; LENGTH] = bytes.first_chunk()?;
        let operation = u16::from_be_bytes([bytes[6], bytes[7]]);
        if bytes[..6] != KIND || !matches!(operation, REQUEST | REPLY) {
            return None;
        }
        let mac = |at: usize| Some(Mac(*bytes[at..].first_chunk()?));
        let ip = |at: usize| Some(Ipv4Addr::from(*bytes[at..].first_chunk::<4>()?));
        let arp = Arp {
            request: operation == REQUEST,
            sender: mac(8)?,
            sender_ip: ip(14)?,
            target: mac(18)?,
            target_ip: ip(24)?,
        };
        // No station has a group's address.
        (arp.sender.0[0] & 1 == 0).then_some(arp)
    }

    /// Its bytes.
    pub fn encode(&self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        bytes[..6].copy_from_slice(&KIND);
        bytes[6..8].copy_from_slice(&if self.request { REQUEST } else { REPLY }.to_be_bytes());
        bytes[8..14].copy_from_slice(&self.sender.0);
        bytes[14..18].copy_from_slice(&self.sender_ip.octets());
        bytes[18..24].copy_from_slice(&self.target.0);
        bytes[24..].copy_from_slice(&self.target_ip.octets());
        bytes
    }

    /// The answer of the station `mac`.
    pub fn answer(&self, mac: Mac) -> Arp {
        Arp {
            request: false,
            sender: mac,
            sender_ip: self.target_ip,
            target: self.sender,
            target_ip: self.sender_ip,
        }
    }

    /// What tells everybody that `mac` has `ip`, in both forms: some heed requests alone, some replies.
    pub fn announcements(ip: Ipv4Addr, mac: Mac) -> [Arp; 2] {
        let arp = Arp { request: true, sender: mac, sender_ip: ip, target: Mac([0; 6]), target_ip: ip };
        [arp, Arp { request: false, target: mac, ..arp }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_with_its_padding_and_answered() {
        let asks = Arp {
            request: true,
            sender: Mac([2, 0, 0, 0, 0, 9]),
            sender_ip: [10, 0, 0, 9].into(),
            target: Mac([0; 6]),
            target_ip: [10, 0, 0, 200].into(),
        };
        let mut bytes = asks.encode().to_vec();
        bytes.extend([0; 18]);
        assert_eq!(Arp::decode(&bytes), Some(asks));
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        let answer = asks.answer(mac);
        assert_eq!(Arp::decode(&answer.encode()), Some(answer));
        assert_eq!((answer.sender, answer.sender_ip, answer.target), (mac, asks.target_ip, asks.sender));
        assert_eq!(Arp::decode(&bytes[..27]), None);
        for (at, wrong) in [(1, 6), (3, 6), (5, 16), (7, 3), (8, 1)] {
            let mut bad = bytes.clone();
            bad[at] = wrong;
            assert_eq!(Arp::decode(&bad), None, "byte {at}");
        }
    }
}
