//! MP_REACH_NLRI and MP_UNREACH_NLRI (RFC 4760): routes with a next hop of their own. What is wrong with these
//! ends the session (RFC 7606 7.11, 7.12): which routes are meant cannot be known.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::attributes::NextHop;
use super::nlri::NlriList;
use super::notification::{Notification, Reason};
use super::wire::Reader;
use super::{Negotiated, attributes};
use crate::Family;

/// What an MP_REACH_NLRI says.
pub(super) enum Reach<'a> {
    /// Routes of a family that was not agreed on.
    Other,
    /// Routes.
    Routes(NextHop, NlriList<'a>),
}

/// Reads an MP_REACH_NLRI; `whole` is the attribute with its head.
pub(super) fn decode<'a>(
    value: &'a [u8],
    terms: &Negotiated,
    whole: &[u8],
) -> Result<Reach<'a>, Notification> {
    let bad = || Notification::new(Reason::OPTIONAL_ATTRIBUTE, whole);
    let mut value = Reader(value);
    let (afi, safi) = (value.u16().ok_or_else(bad)?, value.u8().ok_or_else(bad)?);
    let length = value.u8().ok_or_else(bad)?;
    let next_hop = value.take(length.into()).ok_or_else(bad)?;
    value.u8().ok_or_else(bad)?;
    let Some(family) = Family::from_wire(afi, safi).filter(|family| terms.families[*family]) else {
        return Ok(Reach::Other);
    };
    let next_hop = decode_next_hop(next_hop, family, terms).ok_or_else(bad)?;
    let routes = NlriList::new(value.0, family, terms.add_path_in[family]).ok_or_else(bad)?;
    Ok(Reach::Routes(next_hop, routes))
}

/// Reads an MP_UNREACH_NLRI; `None` for a family that was not agreed on.
pub(super) fn decode_withdrawn<'a>(
    value: &'a [u8],
    terms: &Negotiated,
    whole: &[u8],
) -> Result<Option<NlriList<'a>>, Notification> {
    let bad = || Notification::new(Reason::OPTIONAL_ATTRIBUTE, whole);
    let mut value = Reader(value);
    let (afi, safi) = (value.u16().ok_or_else(bad)?, value.u8().ok_or_else(bad)?);
    let Some(family) = Family::from_wire(afi, safi).filter(|family| terms.families[*family]) else {
        return Ok(None);
    };
    NlriList::new(value.0, family, terms.add_path_in[family]).map(Some).ok_or_else(bad)
}

fn decode_next_hop(octets: &[u8], family: Family, terms: &Negotiated) -> Option<NextHop> {
    let mut rest = Reader(octets);
    match (octets.len(), family) {
        (4, Family::Ipv4) => Some(NextHop::V4(Ipv4Addr::from(rest.array::<4>()?))),
        (16 | 32, Family::Ipv6) => decode_v6(rest),
        (16 | 32, Family::Ipv4) if terms.extended_next_hop => decode_v6(rest),
        _ => None,
    }
}

fn decode_v6(mut rest: Reader<'_>) -> Option<NextHop> {
    let first = Ipv6Addr::from(rest.array::<16>()?);
    let second = rest.array::<16>().map(Ipv6Addr::from).filter(Ipv6Addr::is_unicast_link_local);
    Some(match second {
        // Without a global address some say nothing, and some the other one twice.
        Some(local) if first.is_unspecified() || first == local => NextHop::V6(local),
        Some(local) => NextHop::V6Both(first, local),
        None => NextHop::V6(first),
    })
}

/// The head of an MP_REACH_NLRI, to which prefixes are to be appended.
pub(super) fn head(family: Family, next_hop: NextHop) -> Vec<u8> {
    let (afi, safi) = family.wire();
    let next_hop = match next_hop {
        NextHop::V4(ip) => ip.octets().to_vec(),
        NextHop::V6(ip) => ip.octets().to_vec(),
        NextHop::V6Both(global, local) => [global.octets(), local.octets()].concat(),
    };
    [&afi.to_be_bytes()[..], &[safi, next_hop.len() as u8], &next_hop, &[0]].concat()
}

/// Appends an MP_UNREACH_NLRI.
pub(super) fn put_withdrawn(out: &mut Vec<u8>, family: Family, prefixes: &[u8]) {
    let (afi, safi) = family.wire();
    let value = [&afi.to_be_bytes()[..], &[safi], prefixes].concat();
    attributes::put(out, attributes::flag::OPTIONAL, attributes::code::MP_UNREACH, &value);
}
