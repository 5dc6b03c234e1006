//! Neighbours (IP address → hardware address) and forwarding entries (hardware address → port or
//! tunnel peer).

use std::net::IpAddr;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState};
use weft_model::Mac;

use crate::wire::{attributes, family, ip, mac, of_family, u16_at, u32_at};

/// A neighbour entry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Neighbour {
    /// The interface.
    pub ifindex: u32,
    /// The neighbour's address.
    pub ip: IpAddr,
    /// Its hardware address, where known.
    pub mac: Option<Mac>,
    /// `NUD_*` bits.
    pub state: u16,
}

impl Neighbour {
    /// An entry that never expires.
    pub fn permanent(ifindex: u32, ip: IpAddr, mac: Mac) -> Neighbour {
        Neighbour { ifindex, ip, mac: Some(mac), state: libc::NUD_PERMANENT }
    }
}

/// A forwarding database entry of a bridge or a VXLAN endpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FdbEntry {
    /// The bridge port, the bridge itself or the VXLAN interface.
    pub ifindex: u32,
    /// The hardware address.
    pub mac: Mac,
    /// VXLAN: the peer's underlay address.
    pub dst: Option<IpAddr>,
    /// Read only: the bridge the port belongs to.
    pub master: Option<u32>,
    /// Never expires (NUD_PERMANENT).
    pub permanent: bool,
    /// The entry is the interface's own (NTF_SELF), not its bridge's.
    pub own_self: bool,
}

impl FdbEntry {
    /// A permanent entry of a VXLAN interface: `mac` is behind the peer at `dst`.
    pub fn tunnel(ifindex: u32, mac: Mac, dst: IpAddr) -> FdbEntry {
        FdbEntry { ifindex, mac, dst: Some(dst), master: None, permanent: true, own_self: true }
    }
}

/// The message that sets or removes `neighbour`.
pub(crate) fn encode(neighbour: &Neighbour) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::from(family(neighbour.ip));
    message.header.ifindex = neighbour.ifindex;
    message.header.state = NeighbourState::from(neighbour.state);
    message.attributes.push(NeighbourAttribute::Destination(neighbour.ip.into()));
    message.attributes.extend(neighbour.mac.map(link_layer));
    message
}

/// The message that sets or removes the forwarding entry `entry`.
pub(crate) fn encode_fdb(entry: &FdbEntry) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = entry.ifindex;
    let state = if entry.permanent { libc::NUD_PERMANENT } else { libc::NUD_NOARP | libc::NUD_REACHABLE };
    message.header.state = NeighbourState::from(state);
    message.header.flags = if entry.own_self { NeighbourFlags::Own } else { NeighbourFlags::Controller };
    message.attributes.push(link_layer(entry.mac));
    message.attributes.extend(entry.dst.map(|dst| NeighbourAttribute::Destination(dst.into())));
    message
}

fn link_layer(mac: Mac) -> NeighbourAttribute {
    NeighbourAttribute::LinkLayerAddress(mac.0.to_vec())
}

struct Parts {
    family: u8,
    ifindex: u32,
    state: u16,
    flags: u8,
    dst: Option<IpAddr>,
    mac: Option<Mac>,
    master: Option<u32>,
}

fn parts(payload: &[u8]) -> Option<Parts> {
    let (header, body) = payload.split_at_checked(12)?;
    let (family, ifindex) = (header[0], u32_at(header, 4)?);
    let (state, flags) = (u16_at(header, 8)?, header[10]);
    let mut parts = Parts { family, ifindex, state, flags, dst: None, mac: None, master: None };
    for (kind, value) in attributes(body) {
        match kind {
            libc::NDA_DST => parts.dst = ip(value),
            libc::NDA_LLADDR => parts.mac = mac(value),
            libc::NDA_MASTER => parts.master = u32_at(value, 0),
            _ => {}
        }
    }
    Some(parts)
}

/// An IPv4 or IPv6 neighbour out of a message's payload.
pub(crate) fn decode(payload: &[u8]) -> Option<Neighbour> {
    let parts = parts(payload)?;
    let ip = of_family(parts.dst, parts.family)?;
    Some(Neighbour { ifindex: parts.ifindex, ip, mac: parts.mac, state: parts.state })
}

/// A forwarding entry out of a message's payload.
pub(crate) fn decode_fdb(payload: &[u8]) -> Option<FdbEntry> {
    let parts = parts(payload)?;
    if i32::from(parts.family) != libc::AF_BRIDGE {
        return None;
    }
    Some(FdbEntry {
        ifindex: parts.ifindex,
        mac: parts.mac?,
        dst: parts.dst,
        master: parts.master,
        permanent: parts.state & libc::NUD_PERMANENT != 0,
        own_self: parts.flags & libc::NTF_SELF != 0,
    })
}
