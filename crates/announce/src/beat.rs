//! What nodes tell one another: which addresses they have. A beat is the payload of a UDP datagram to the
//! segment; one that came over a router is not believed (hop limit 255, RFC 5082).
//!
//! Magic, version, word (its highest bit: the node knows what the API says now), seconds, length of the name,
//! run, counts of IPv4 and IPv6 addresses, name, addresses; numbers in network order.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

/// The UDP port, source and destination.
pub const PORT: u16 = 8286;
/// The groups: link-local, for experiments (RFC 4727). No switch holds them back, and nobody routes them.
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 254);
/// That of IPv6.
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x114);
/// The hop limit that beats are sent with and must arrive with.
pub const HOP_LIMIT: u8 = 255;
/// The longest payload: what fits in IPv6's smallest MTU (1280) with its headers.
pub const LONGEST: usize = 1280 - 40 - 8;

const MAGIC: [u8; 4] = *b"weft";
const VERSION: u8 = 1;
/// The bit of the word that says so.
const CURRENT: u8 = 0x80;
const HEADER: usize = 20;
/// The longest that a node may ask others to wait for it, in seconds.
const LONGEST_WAIT: u8 = 30;

/// What a node says of the addresses of a beat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// It has them.
    Has,
    /// It has them, and will be silent for so long, in whole seconds: its kernel goes on forwarding.
    Restarts(Duration),
    /// It has them no more.
    LetsGo,
}

/// What a node says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beat {
    /// The node's name.
    pub node: Arc<str>,
    /// A random number of the agent's run.
    pub run: u64,
    /// What it says of `addresses`.
    pub word: Word,
    /// Whether it knows what the API says now, or only what that said once.
    pub current: bool,
    /// Of both families.
    pub addresses: Vec<IpAddr>,
}

/// Why a beat is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Stranger {
    /// Cut short, too long, or with fields that make no sense.
    #[error("malformed")]
    Malformed,
    /// Of another version.
    #[error("of another version")]
    Version,
    /// Its hop limit is not 255: it came over a router.
    #[error("from beyond a router")]
    Routed,
    /// The cluster has no such node, or the sender's address is not that node's.
    #[error("from no node of the cluster")]
    Unknown,
    /// Another host says that it is this node.
    #[error("from another host of this node's name")]
    Namesake,
}

impl Beat {
    /// The payloads that say it; several where not all addresses fit in one.
    pub fn encode(&self) -> Vec<Vec<u8>> {
        let room = LONGEST - HEADER - self.node.len().min(usize::from(u8::MAX));
        let mut payloads = Vec::new();
        let mut part: Vec<IpAddr> = Vec::new();
        let mut used = 0;
        for address in &self.addresses {
            let length = if address.is_ipv4() { 4 } else { 16 };
            if used + length > room {
                payloads.push(self.payload(&part));
                part.clear();
                used = 0;
            }
            used += length;
            part.push(*address);
        }
        payloads.push(self.payload(&part));
        payloads
    }

    fn payload(&self, addresses: &[IpAddr]) -> Vec<u8> {
        let (word, seconds) = match self.word {
            Word::Has => (0, 0),
            Word::Restarts(wait) => (1, wait.as_secs().min(u64::from(LONGEST_WAIT)) as u8),
            Word::LetsGo => (2, 0),
        };
        let name = &self.node.as_bytes()[..self.node.len().min(usize::from(u8::MAX))];
        let mut bytes = MAGIC.to_vec();
        let current = if self.current { CURRENT } else { 0 };
        bytes.extend([VERSION, word | current, seconds, name.len() as u8]);
        bytes.extend(self.run.to_be_bytes());
        let count = |ipv4: bool| addresses.iter().filter(|ip| ip.is_ipv4() == ipv4).count() as u16;
        bytes.extend(count(true).to_be_bytes());
        bytes.extend(count(false).to_be_bytes());
        bytes.extend(name);
        for address in addresses {
            if let IpAddr::V4(ip) = address {
                bytes.extend(ip.octets());
            }
        }
        for address in addresses {
            if let IpAddr::V6(ip) = address {
                bytes.extend(ip.octets());
            }
        }
        bytes
    }

    /// The beat that a payload says.
    pub fn decode(bytes: &[u8]) -> Result<Beat, Stranger> {
        let (header, rest) = bytes.split_first_chunk::<HEADER>().ok_or(Stranger::Malformed)?;
        if header[..4] != MAGIC || bytes.len() > LONGEST {
            return Err(Stranger::Malformed);
        }
        if header[4] != VERSION {
            return Err(Stranger::Version);
        }
        let word = match (header[5] & !CURRENT, header[6]) {
            (0, 0) => Word::Has,
            (1, seconds @ 0..=LONGEST_WAIT) => Word::Restarts(Duration::from_secs(seconds.into())),
            (2, 0) => Word::LetsGo,
            _ => return Err(Stranger::Malformed),
        };
        let run = u64::from_be_bytes(header[8..16].try_into().unwrap_or_default());
        let count = |at: usize| usize::from(u16::from_be_bytes([header[at], header[at + 1]]));
        let (name, rest) = rest.split_at_checked(header[7].into()).ok_or(Stranger::Malformed)?;
        let node = std::str::from_utf8(name).ok().filter(|name| !name.is_empty());
        let (v4, v6) = rest.split_at_checked(count(16) * 4).ok_or(Stranger::Malformed)?;
        if v6.len() != count(18) * 16 {
            return Err(Stranger::Malformed);
        }
        let v4 = v4.as_chunks::<4>().0.iter().map(|ip| IpAddr::from(*ip));
        let v6 = v6.as_chunks::<16>().0.iter().map(|ip| IpAddr::from(*ip));
        let node = node.ok_or(Stranger::Malformed)?.into();
        let current = header[5] & CURRENT != 0;
        Ok(Beat { node, run, word, current, addresses: v4.chain(v6).collect() })
    }

    /// The beat of a payload that came from `from` with `hop_limit`, if it is to be believed by the node
    /// `own` whose run is `run`; `addresses` says which addresses a node of the cluster has.
    pub fn receive<'a>(
        payload: &[u8],
        from: IpAddr,
        hop_limit: u8,
        (own, run): (&str, u64),
        addresses: impl FnOnce(&str) -> Option<&'a [IpAddr]>,
    ) -> Result<Option<Beat>, Stranger> {
        if hop_limit != HOP_LIMIT {
            return Err(Stranger::Routed);
        }
        let beat = Beat::decode(payload)?;
        if !addresses(&beat.node).is_some_and(|all| all.contains(&from)) {
            return Err(Stranger::Unknown);
        }
        match &*beat.node == own {
            // Its own, which came back.
            true if beat.run == run => Ok(None),
            true => Err(Stranger::Namesake),
            false => Ok(Some(beat)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn beat(word: Word, addresses: Vec<IpAddr>) -> Beat {
        Beat { node: "node1".into(), run: 7, word, current: true, addresses }
    }

    #[test]
    fn many_addresses_take_several_payloads_that_say_the_same_together() {
        let v4 = (0..700u32).map(|i| IpAddr::V4((0x0a00_0000 + i).into()));
        let v6 = (0..200u128).map(|i| IpAddr::V6(((0xfd_u128 << 120) + i).into()));
        let said = beat(Word::Has, v4.chain(v6).collect());
        let payloads = said.encode();
        assert!(payloads.len() > 4 && payloads.iter().all(|payload| payload.len() <= LONGEST));
        let mut heard: Vec<IpAddr> =
            payloads.iter().flat_map(|payload| Beat::decode(payload).unwrap().addresses).collect();
        heard.sort();
        assert_eq!(heard, said.addresses);
    }

    #[test]
    fn strangers_are_not_believed() {
        let from: IpAddr = "10.168.0.2".parse().unwrap();
        let other: IpAddr = "10.168.0.3".parse().unwrap();
        let nodes = |name: &str| (name == "node1").then_some(std::slice::from_ref(&from));
        let good = beat(Word::Has, vec![other]).encode().remove(0);
        let hear = |bytes: &[u8], from, hops, own| Beat::receive(bytes, from, hops, (own, 7), nodes);
        assert_eq!(hear(&good, from, 255, "me").unwrap().unwrap().addresses, [other]);
        assert_eq!(hear(&good, from, 254, "me"), Err(Stranger::Routed));
        assert_eq!(hear(&good, other, 255, "me"), Err(Stranger::Unknown));
        assert_eq!(hear(&good, from, 255, "node1"), Ok(None), "its own");
        assert_eq!(Beat::receive(&good, from, 255, ("node1", 8), nodes), Err(Stranger::Namesake));
        assert_eq!(hear(&good[..good.len() - 1], from, 255, "me"), Err(Stranger::Malformed));
        let (mut long, mut newer) = (good.clone(), good.clone());
        long.push(0);
        newer[4] = 2;
        assert_eq!(hear(&long, from, 255, "me"), Err(Stranger::Malformed));
        assert_eq!(hear(&newer, from, 255, "me"), Err(Stranger::Version));
    }

    proptest! {
        #[test]
        fn what_is_decoded_is_encoded_alike(bytes in proptest::collection::vec(any::<u8>(), 0..200), fit in any::<bool>()) {
            let mut bytes = bytes;
            if fit && bytes.len() >= HEADER {
                bytes[..6].copy_from_slice(&[b'w', b'e', b'f', b't', VERSION, 0]);
                bytes[6] = 0;
                bytes[7] = 1;
                bytes[16..20].copy_from_slice(&[0, 1, 0, 0]);
                bytes.truncate(HEADER + 5);
            }
            if let Ok(beat) = Beat::decode(&bytes) {
                prop_assert_eq!(beat.encode(), [bytes]);
            }
        }
    }
}
