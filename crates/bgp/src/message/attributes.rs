//! Path attributes: what is told of a route besides its prefix.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::as_path::AsPath;
use super::community::{Community, ExtendedCommunity, LargeCommunity};
use super::open::AS_TRANS;

/// Attribute types.
pub(super) mod code {
    pub(crate) const ORIGIN: u8 = 1;
    pub(crate) const AS_PATH: u8 = 2;
    pub(crate) const NEXT_HOP: u8 = 3;
    pub(crate) const MED: u8 = 4;
    pub(crate) const LOCAL_PREF: u8 = 5;
    pub(crate) const ATOMIC_AGGREGATE: u8 = 6;
    pub(crate) const AGGREGATOR: u8 = 7;
    pub(crate) const COMMUNITIES: u8 = 8;
    pub(crate) const ORIGINATOR_ID: u8 = 9;
    pub(crate) const CLUSTER_LIST: u8 = 10;
    pub(crate) const MP_REACH: u8 = 14;
    pub(crate) const MP_UNREACH: u8 = 15;
    pub(crate) const EXTENDED_COMMUNITIES: u8 = 16;
    pub(crate) const AS4_PATH: u8 = 17;
    pub(crate) const AS4_AGGREGATOR: u8 = 18;
    pub(crate) const LARGE_COMMUNITIES: u8 = 32;
}

/// Attribute flags.
pub(super) mod flag {
    pub(crate) const OPTIONAL: u8 = 0x80;
    pub(crate) const TRANSITIVE: u8 = 0x40;
    pub(crate) const PARTIAL: u8 = 0x20;
    pub(crate) const EXTENDED: u8 = 0x10;
}

/// Where a route came from, the better first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Origin {
    /// Of the AS's own.
    #[default]
    Igp,
    /// By EGP.
    Egp,
    /// By other means.
    Incomplete,
}

/// Where packets to a route's prefix are to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NextHop {
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 address, global or link-local.
    V6(Ipv6Addr),
    /// A global address and a link-local one of the same router (RFC 2545).
    V6Both(Ipv6Addr, Ipv6Addr),
}

impl NextHop {
    /// The address; of two the global one.
    pub fn address(&self) -> IpAddr {
        match self {
            NextHop::V4(ip) => IpAddr::V4(*ip),
            NextHop::V6(ip) | NextHop::V6Both(ip, _) => IpAddr::V6(*ip),
        }
    }

    /// Whether anything can be sent there at all.
    pub(crate) fn is_possible(&self) -> bool {
        match self.address() {
            IpAddr::V4(ip) => !matches!(ip.octets()[0], 0 | 127 | 224..),
            IpAddr::V6(ip) => {
                !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast())
                    && ip.to_ipv4_mapped().is_none()
            }
        }
    }
}

impl From<IpAddr> for NextHop {
    fn from(ip: IpAddr) -> NextHop {
        match ip {
            IpAddr::V4(ip) => NextHop::V4(ip),
            IpAddr::V6(ip) => NextHop::V6(ip),
        }
    }
}

/// Who made an aggregate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Aggregator {
    /// Its AS.
    pub asn: u32,
    /// Its BGP identifier.
    pub id: Ipv4Addr,
}

/// An optional transitive attribute that we do not know, to be passed on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Unknown {
    /// Its type.
    pub code: u8,
    /// Its value.
    pub value: Box<[u8]>,
}

/// A route's attributes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Attributes {
    /// ORIGIN.
    pub origin: Origin,
    /// AS_PATH.
    pub as_path: AsPath,
    /// NEXT_HOP, or that of MP_REACH_NLRI.
    pub next_hop: NextHop,
    /// MULTI_EXIT_DISC: the less the better.
    pub med: Option<u32>,
    /// LOCAL_PREF: the more the better.
    pub local_pref: Option<u32>,
    /// ATOMIC_AGGREGATE.
    pub atomic_aggregate: bool,
    /// AGGREGATOR.
    pub aggregator: Option<Aggregator>,
    /// ORIGINATOR_ID: who brought the route into the AS.
    pub originator: Option<Ipv4Addr>,
    /// CLUSTER_LIST: the reflectors' clusters that it came through, the nearest first.
    pub cluster_list: Box<[Ipv4Addr]>,
    /// COMMUNITIES.
    pub communities: Box<[Community]>,
    /// EXTENDED_COMMUNITIES.
    pub extended_communities: Box<[ExtendedCommunity]>,
    /// LARGE_COMMUNITIES.
    pub large_communities: Box<[LargeCommunity]>,
    /// What else there is, by type.
    pub unknown: Box<[Unknown]>,
}

impl Attributes {
    /// Those of a route of one's own.
    pub fn new(next_hop: NextHop) -> Attributes {
        Attributes {
            origin: Origin::Igp,
            as_path: AsPath::default(),
            next_hop,
            med: None,
            local_pref: None,
            atomic_aggregate: false,
            aggregator: None,
            originator: None,
            cluster_list: Box::default(),
            communities: Box::default(),
            extended_communities: Box::default(),
            large_communities: Box::default(),
            unknown: Box::default(),
        }
    }

    /// Whether it has this community.
    pub fn has(&self, community: Community) -> bool {
        self.communities.contains(&community)
    }

    /// Appends them in the order of their types, all but the next hop and MP_REACH_NLRI. `classic`: with
    /// NEXT_HOP, for prefixes at the message's end.
    pub(super) fn encode(&self, out: &mut Vec<u8>, four_octet: bool, classic: bool) {
        const WELL_KNOWN: u8 = flag::TRANSITIVE;
        const OPTIONAL: u8 = flag::OPTIONAL;
        const BOTH: u8 = flag::OPTIONAL | flag::TRANSITIVE;
        put(out, WELL_KNOWN, code::ORIGIN, &[self.origin as u8]);
        if four_octet {
            put(out, WELL_KNOWN, code::AS_PATH, self.as_path.bytes());
        } else {
            let mut short = Vec::new();
            self.as_path.encode_short(&mut short);
            put(out, WELL_KNOWN, code::AS_PATH, &short);
        }
        if let (NextHop::V4(ip), true) = (self.next_hop, classic) {
            put(out, WELL_KNOWN, code::NEXT_HOP, &ip.octets());
        }
        if let Some(med) = self.med {
            put(out, OPTIONAL, code::MED, &med.to_be_bytes());
        }
        if let Some(preference) = self.local_pref {
            put(out, WELL_KNOWN, code::LOCAL_PREF, &preference.to_be_bytes());
        }
        if self.atomic_aggregate {
            put(out, WELL_KNOWN, code::ATOMIC_AGGREGATE, &[]);
        }
        if let Some(Aggregator { asn, id }) = self.aggregator {
            let long = asn.to_be_bytes();
            let short = u16::try_from(asn).unwrap_or(AS_TRANS).to_be_bytes();
            put(
                out,
                BOTH,
                code::AGGREGATOR,
                &[if four_octet { &long[..] } else { &short }, &id.octets()].concat(),
            );
        }
        let words = |numbers: &mut dyn Iterator<Item = u32>| -> Vec<u8> {
            numbers.flat_map(u32::to_be_bytes).collect()
        };
        put_some(out, BOTH, code::COMMUNITIES, &words(&mut self.communities.iter().map(|c| c.0)));
        if let Some(id) = self.originator {
            put(out, OPTIONAL, code::ORIGINATOR_ID, &id.octets());
        }
        put_some(
            out,
            OPTIONAL,
            code::CLUSTER_LIST,
            &words(&mut self.cluster_list.iter().map(|id| id.to_bits())),
        );
        let extended: Vec<u8> = self.extended_communities.iter().flat_map(|community| community.0).collect();
        put_some(out, BOTH, code::EXTENDED_COMMUNITIES, &extended);
        if !four_octet {
            self.encode_four_octet(out);
        }
        let large = self.large_communities.iter().flat_map(|LargeCommunity(asn, a, b)| [*asn, *a, *b]);
        put_some(out, BOTH, code::LARGE_COMMUNITIES, &words(&mut { large }));
        for Unknown { code, value } in &self.unknown {
            put(out, BOTH | flag::PARTIAL, *code, value);
        }
    }

    /// What two octets cannot say of AS numbers (RFC 6793).
    fn encode_four_octet(&self, out: &mut Vec<u8>) {
        const BOTH: u8 = flag::OPTIONAL | flag::TRANSITIVE;
        if self.as_path.is_wide() {
            put_some(out, BOTH, code::AS4_PATH, self.as_path.without_confederation().bytes());
        }
        if let Some(Aggregator { asn, id }) = self.aggregator.filter(|by| by.asn > u32::from(u16::MAX)) {
            put(out, BOTH, code::AS4_AGGREGATOR, &[asn.to_be_bytes(), id.octets()].concat());
        }
    }
}

/// Appends an attribute.
pub(super) fn put(out: &mut Vec<u8>, flags: u8, code: u8, value: &[u8]) {
    match u8::try_from(value.len()) {
        Ok(length) => out.extend([flags, code, length]),
        Err(_) => {
            out.extend([flags | flag::EXTENDED, code]);
            out.extend((value.len() as u16).to_be_bytes());
        }
    }
    out.extend(value);
}

fn put_some(out: &mut Vec<u8>, flags: u8, code: u8, value: &[u8]) {
    if !value.is_empty() {
        put(out, flags, code, value);
    }
}
