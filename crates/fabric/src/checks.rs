//! The conditions under which a node or a pod CIDR is refused. Where two nodes conflict, this
//! node's own claims go first and then the older Node object, of one age the lower name, whatever else
//! is wrong with the holder: a newcomer disturbs nobody, and
//! so the verdict on a node depends only on those it conflicts with.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use weft_model::Node;
use weft_model::network::overlaps;

use crate::claims::{Claims, Holder};
use crate::{Refusal, Underlay};

/// The longest prefixes that hold a network address, a gateway and a pod.
const LONGEST_V4: u8 = 30;
const LONGEST_V6: u8 = 126;

pub(crate) fn address(node: &Node, address: IpAddr) -> Result<(), Refusal> {
    let link_local = match address {
        IpAddr::V4(a) => a.is_link_local() || a.is_broadcast(),
        IpAddr::V6(a) => a.is_unicast_link_local(),
    };
    if address.is_unspecified() || address.is_loopback() || address.is_multicast() || link_local {
        return Err(Refusal::AddressUnusable { node: node.name.clone(), address });
    }
    Ok(())
}

/// What is wrong with a pod CIDR by itself or on this underlay.
pub(crate) fn cidr(node: &Node, cidr: &IpNet, underlay: &Underlay) -> Result<(), Refusal> {
    let longest = if cidr.addr().is_ipv4() { LONGEST_V4 } else { LONGEST_V6 };
    if cidr.prefix_len() > longest {
        return Err(Refusal::CidrTooSmall { node: node.name.clone(), cidr: *cidr, longest });
    }
    if reserved().iter().any(|net| overlaps(net, cidr)) {
        return Err(Refusal::CidrReserved { node: node.name.clone(), cidr: *cidr });
    }
    // Every IPv6 link has fe80::/64; a pod CIDR there is reserved anyway.
    match underlay.addresses.iter().map(IpNet::trunc).find(|segment| overlaps(segment, cidr)) {
        Some(segment) => Err(Refusal::CidrOverlapsUnderlay { node: node.name.clone(), cidr: *cidr, segment }),
        None => Ok(()),
    }
}

fn reserved() -> [IpNet; 8] {
    use std::net::{Ipv4Addr, Ipv6Addr};
    let v4 = |a, b, len| IpNet::new_assert(Ipv4Addr::new(a, b, 0, 0).into(), len);
    let v6 = |a, z, len| IpNet::new_assert(Ipv6Addr::new(a, 0, 0, 0, 0, 0, 0, z).into(), len);
    [
        v4(0, 0, 8),
        v4(127, 0, 8),
        v4(169, 254, 16),
        v4(224, 0, 3),
        v6(0, 0, 128),
        v6(0, 1, 128),
        v6(0xfe80, 0, 10),
        v6(0xff00, 0, 8),
    ]
}

/// What stops everything of a peer: no usable address of its own, or no pod CIDR.
pub(crate) fn peer(peer: &Node, me: &Arc<str>, claims: &Claims, routed: bool) -> Result<(), Refusal> {
    // Of pools a node has nothing before it has pods.
    if peer.pod_cidrs.is_empty() && !routed {
        return Err(Refusal::NoPodCidr { node: peer.name.clone() });
    }
    for one in &crate::claims::addresses(peer) {
        address(peer, *one)?;
        if let Some(by) = first(claims.holders(one), peer, me) {
            return Err(Refusal::AddressTaken {
                node: peer.name.clone(),
                address: *one,
                by: by.name.clone(),
            });
        }
    }
    Ok(())
}

/// A pod CIDR of a peer against what the other nodes claim.
pub(crate) fn cidr_conflict(
    peer: &Node,
    cidr: &IpNet,
    me: &Arc<str>,
    claims: &Claims,
) -> Result<(), Refusal> {
    let this = Holder::of(peer);
    let first = claims
        .overlapping(cidr)
        .filter(|(_, other)| goes_first(other, &this, me))
        .min_by_key(|(net, other)| (*other, *net));
    if let Some((by_cidr, by)) = first {
        let (node, by) = (peer.name.clone(), by.name.clone());
        return Err(Refusal::CidrTaken { node, cidr: *cidr, by, by_cidr });
    }
    match claims.addresses_in(cidr).next() {
        Some((address, holder)) => {
            let (node, holder) = (peer.name.clone(), holder.name.clone());
            Err(Refusal::CidrHoldsNode { node, cidr: *cidr, address, holder })
        }
        None => Ok(()),
    }
}

/// A pod CIDR of a peer against those that the same peer named before it.
pub(crate) fn own_overlap(peer: &Node, cidr: &IpNet, before: &[IpNet]) -> Result<(), Refusal> {
    match before.iter().map(IpNet::trunc).find(|other| overlaps(other, cidr)) {
        Some(by_cidr) => {
            let (node, by) = (peer.name.clone(), peer.name.clone());
            Err(Refusal::CidrTaken { node, cidr: *cidr, by, by_cidr })
        }
        None => Ok(()),
    }
}

/// host-gw: the peer must be a neighbour.
pub(crate) fn on_segment(peer: &Node, address: IpAddr, underlay: &Underlay) -> Result<(), Refusal> {
    if underlay.segment_of(address).is_some() {
        return Ok(());
    }
    let same_family = underlay.addresses.iter().filter(|net| net.addr().is_ipv4() == address.is_ipv4());
    let segment: Vec<String> = same_family.map(|net| net.trunc().to_string()).collect();
    let segment = if segment.is_empty() { "(none of that family)".into() } else { segment.join(", ") };
    let (node, link) = (peer.name.clone(), underlay.link.clone());
    Err(Refusal::OtherSegment { node, address, segment, link })
}

/// Conflicts that this node is part of, told from its side.
pub(crate) fn own_conflicts(node: &Node, claims: &Claims) -> Vec<Refusal> {
    let me = &node.name;
    let mut found = Vec::new();
    for address in &node.addresses {
        for by in claims.holders(address).filter(|other| other.name != *me) {
            found.push(Refusal::AddressTaken { node: me.clone(), address: *address, by: by.name.clone() });
        }
    }
    for cidr in node.pod_cidrs.iter().map(IpNet::trunc) {
        for (by_cidr, by) in claims.overlapping(&cidr).filter(|(_, other)| other.name != *me) {
            found.push(Refusal::CidrTaken { node: me.clone(), cidr, by: by.name.clone(), by_cidr });
        }
        for (address, holder) in claims.addresses_in(&cidr) {
            let (node, holder) = (me.clone(), holder.name.clone());
            found.push(Refusal::CidrHoldsNode { node, cidr, address, holder });
        }
    }
    found
}

/// Of those that claim the same as `node`, one whose claim goes before.
pub(crate) fn first<'a>(
    mut holders: impl Iterator<Item = &'a Holder>,
    node: &Node,
    me: &Arc<str>,
) -> Option<&'a Holder> {
    let this = Holder::of(node);
    holders.find(|other| goes_first(other, &this, me))
}

fn goes_first(other: &Holder, this: &Holder, me: &Arc<str>) -> bool {
    other.name != this.name && (other.name == *me || other < this)
}
