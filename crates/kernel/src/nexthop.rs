//! Next-hop objects: where routes lead, kept apart from the routes.
//!
//! The kernel looks through all next hops of a device for one that is alike whenever it makes an
//! IPv4 route that has its own; with thousands of peers behind one device that is most of the
//! work. A route that names an object is made without.

use std::fmt;
use std::net::IpAddr;

use crate::wire::{Body, attributes, ip, u32_at, unspecified};

/// A next hop that routes name by its number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nexthop {
    /// Its number, one space for the whole namespace.
    pub id: u32,
    /// The gateway.
    pub via: IpAddr,
    /// Outgoing interface.
    pub oif: u32,
    /// The gateway is on the link though no route says so.
    pub onlink: bool,
    /// Who made it (`RTPROT_*`).
    pub protocol: u8,
}

impl fmt::Display for Nexthop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} via {} on link {}", self.id, self.via, self.oif)
    }
}

// `NHA_*` of linux/nexthop.h, which libc does not have.
const NHA_ID: u16 = 1;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;
const RTNH_F_ONLINK: u32 = 4;
pub(crate) const RTM_NEWNEXTHOP: u16 = 104;
pub(crate) const RTM_DELNEXTHOP: u16 = 105;
pub(crate) const RTM_GETNEXTHOP: u16 = 106;
/// RTNLGRP_NEXTHOP of linux/rtnetlink.h.
pub(crate) const GROUP: u32 = 32;

/// struct nhmsg.
fn header(family: i32, protocol: u8, flags: u32) -> Body {
    // The constants fit a byte.
    let mut header = [family as u8, libc::RT_SCOPE_UNIVERSE, protocol, 0, 0, 0, 0, 0];
    header[4..].copy_from_slice(&flags.to_ne_bytes());
    Body::new(&header)
}

/// The message that makes or replaces `nexthop`.
pub(crate) fn encode(nexthop: &Nexthop) -> Body {
    let family = if nexthop.via.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let flags = if nexthop.onlink { RTNH_F_ONLINK } else { 0 };
    let mut body = header(family, nexthop.protocol, flags);
    body.u32(NHA_ID, nexthop.id);
    body.u32(NHA_OIF, nexthop.oif);
    match nexthop.via {
        IpAddr::V4(ip) => body.put(NHA_GATEWAY, &ip.octets()),
        IpAddr::V6(ip) => body.put(NHA_GATEWAY, &ip.octets()),
    };
    body
}

/// The message that removes the one of this number, and every route that names it.
pub(crate) fn encode_removal(id: u32) -> Body {
    let mut body = header(libc::AF_UNSPEC, 0, 0);
    body.u32(NHA_ID, id);
    body
}

/// The question for all of them.
pub(crate) fn question() -> Body {
    header(libc::AF_UNSPEC, 0, 0)
}

/// A next hop out of a message's payload; none for a group, and for one without a gateway.
pub(crate) fn decode(payload: &[u8]) -> Option<Nexthop> {
    let (header, body) = payload.split_at_checked(8)?;
    unspecified(header[0])?;
    let find = |wanted| attributes(body).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    Some(Nexthop {
        id: u32_at(find(NHA_ID)?, 0)?,
        via: ip(find(NHA_GATEWAY)?)?,
        oif: u32_at(find(NHA_OIF)?, 0)?,
        onlink: u32_at(header, 4)? & RTNH_F_ONLINK != 0,
        protocol: header[2],
    })
}
