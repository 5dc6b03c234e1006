//! The VLANs that a port of a bridge lets through (802.1Q).

use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};

use crate::wire::{Body, attributes, u16_at, u32_at};
use crate::{Netlink, Result};

/// VLANs of a bridge port, or of a bridge itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortVlan {
    /// Index of the port; of the bridge for what it sends and receives itself.
    pub index: u32,
    /// Whether `index` is the bridge.
    pub own: bool,
    /// The first VLAN, 1 to 4094.
    pub first: u16,
    /// The last VLAN; the same for one.
    pub last: u16,
    /// Whether untagged packets that come in belong to it; one VLAN only.
    pub pvid: bool,
    /// Whether its packets go out untagged.
    pub untagged: bool,
}

impl PortVlan {
    /// The VLANs as text for an error.
    pub(crate) fn ids(&self) -> String {
        if self.first == self.last { self.first.to_string() } else { format!("{}-{}", self.first, self.last) }
    }
}

// Of linux/if_bridge.h, which libc does not have.
const FLAGS: u16 = 0;
const VLAN_INFO: u16 = 2;
const FLAGS_SELF: u16 = 2;
const PVID: u16 = 1 << 1;
const UNTAGGED: u16 = 1 << 2;
const RANGE_BEGIN: u16 = 1 << 3;
const RANGE_END: u16 = 1 << 4;

/// The message that adds or removes VLANs.
pub(crate) fn encode(vlan: &PortVlan) -> Body {
    // struct ifinfomsg: the family and, after four bytes, the index.
    let mut header = [0; 16];
    header[0] = libc::AF_BRIDGE as u8;
    header[4..8].copy_from_slice(&vlan.index.to_ne_bytes());
    let mut flags = if vlan.pvid { PVID } else { 0 };
    flags |= if vlan.untagged { UNTAGGED } else { 0 };
    let mut body = Body::new(&header);
    body.nest(libc::IFLA_AF_SPEC, |spec| {
        if vlan.own {
            spec.put(FLAGS, &FLAGS_SELF.to_ne_bytes());
        }
        let mut info = |flags: u16, id: u16| {
            spec.put(VLAN_INFO, &[flags.to_ne_bytes(), id.to_ne_bytes()].concat());
        };
        if vlan.first == vlan.last {
            info(flags, vlan.first);
        } else {
            info(flags | RANGE_BEGIN, vlan.first);
            info(flags | RANGE_END, vlan.last);
        }
    });
    body
}

/// The VLANs out of a bridge's view of a link; none where the message is another.
pub(crate) fn decode(payload: &[u8]) -> Option<Vec<PortVlan>> {
    let (header, body) = payload.split_at_checked(16)?;
    if i32::from(header[0]) != libc::AF_BRIDGE {
        return None;
    }
    let index = u32_at(header, 4)?;
    let find = |wanted| attributes(body).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let own = find(libc::IFLA_MASTER).and_then(|value| u32_at(value, 0)).is_none_or(|master| master == index);
    let (mut vlans, mut begun) = (Vec::new(), None);
    for (_, value) in
        find(libc::IFLA_AF_SPEC).into_iter().flat_map(attributes).filter(|(k, _)| *k == VLAN_INFO)
    {
        let (flags, id) = (u16_at(value, 0)?, u16_at(value, 2)?);
        if flags & RANGE_BEGIN != 0 {
            begun = Some(id);
            continue;
        }
        let first = if flags & RANGE_END != 0 { begun.take().unwrap_or(id) } else { id };
        let (pvid, untagged) = (flags & PVID != 0, flags & UNTAGGED != 0);
        vlans.push(PortVlan { index, own, first, last: id, pvid, untagged });
    }
    Some(vlans)
}

impl Netlink {
    /// The VLANs of all ports of all bridges, and of the bridges themselves.
    pub fn port_vlans(&mut self) -> Result<Vec<PortVlan>> {
        let mut question = LinkMessage::default();
        question.header.interface_family = AddressFamily::Bridge;
        question.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::BrvlanCompressed]));
        let all = self.dump("VLANs of bridge ports", libc::RTM_GETLINK, &question, decode)?;
        Ok(all.into_iter().flatten().collect())
    }
}
