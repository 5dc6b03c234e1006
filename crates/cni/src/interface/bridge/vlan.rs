//! VLANs of a bridge that filters them: those of a port, and the gateway's place in one.

use weft_kernel::{Details, Link, LinkKind, LinkSet, Netlink, NewLink, Op, PortVlan, sysctl};
use weft_model::mark;

use crate::interface::bridge::plan::Vlans;
use crate::interface::pod;
use crate::protocol::error::{CniError, code};

/// The native VLAN of a trunk that names none.
const NATIVE_OF_TRUNK: u16 = 1;

/// What gives a new port of `bridge` its VLANs. A port begins in the bridge's default VLAN.
pub(crate) fn port(vlans: &Vlans, bridge: &Link, index: u32) -> Vec<Op> {
    let mut ops = Vec::new();
    let vlan =
        |first, last, native| PortVlan { index, own: false, first, last, pvid: native, untagged: native };
    let default = match bridge.details {
        Details::Bridge { vlan_default_pvid, .. } => vlan_default_pvid,
        _ => 0,
    };
    if default != 0 && !vlans.keeps_default && (vlans.native != 0 || !vlans.trunk.is_empty()) {
        ops.push(Op::PortVlanDel(vlan(default, default, false)));
    }
    if vlans.native != 0 {
        ops.push(Op::PortVlanAdd(vlan(vlans.native, vlans.native, true)));
    }
    ops.extend(ranges(vlans).into_iter().map(|(first, last)| Op::PortVlanAdd(vlan(first, last, false))));
    if vlans.native == 0 && !vlans.trunk.is_empty() {
        ops.push(Op::PortVlanAdd(vlan(NATIVE_OF_TRUNK, NATIVE_OF_TRUNK, true)));
    }
    ops
}

/// The trunk as ranges, lowest first.
fn ranges(vlans: &Vlans) -> Vec<(u16, u16)> {
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for id in &vlans.trunk {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *id => *last = *id,
            _ => ranges.push((*id, *id)),
        }
    }
    ranges
}

/// The interface by which the node is in VLAN `vlans.native` of the bridge, `cni0.100`: one end of
/// a veth pair, whose other end is a port. Made if it is missing.
pub(crate) fn ensure_interface(vlans: &Vlans, bridge: &Link, host: &mut Netlink) -> Result<Link, CniError> {
    let name = format!("{}.{}", bridge.name, vlans.native);
    pod::link_name("bridge with vlan", &name)?;
    if let Some(link) = host.link(&name)? {
        return Ok(link);
    }
    let kind = LinkKind::Veth {
        peer_name: name.clone(),
        peer_netns: None,
        peer_mac: None,
        peer_mtu: Some(bridge.mtu),
        peer_up: true,
    };
    let mut pair = NewLink::new(mark::host_link_name(&bridge.name, &name), kind);
    pair.mtu = Some(bridge.mtu);
    pair.master = Some(bridge.index);
    pair.up = true;
    let added = host.apply(&Op::LinkAdd(pair.clone()));
    let gone = || CniError::new(code::TRY_AGAIN, format!("{name} vanished while it was made"));
    let link = match added {
        Ok(()) => host.link(&name)?.ok_or_else(gone)?,
        // Another ADD makes it, and whose it is may not be undone here.
        Err(error) if error.exists() => return host.link(&name)?.ok_or_else(gone),
        Err(error) => return Err(error.into()),
    };
    // The node's routes are no business of a container's router.
    sysctl::set(&format!("net/ipv6/conf/{}/accept_ra", pair.name), "0").ok();
    let port_of = host.link(&pair.name)?.ok_or_else(gone)?;
    let native = Vlans { trunk: Default::default(), ..vlans.clone() };
    let joined = pod::apply(host, &port(&native, bridge, port_of.index));
    if let Err(error) = joined {
        host.apply(&Op::LinkDel(link.index)).ok();
        return Err(error);
    }
    host.apply(&Op::LinkSet(LinkSet { index: link.index, up: Some(true), ..LinkSet::default() }))?;
    Ok(link)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_ids_are_one_range() {
        let vlans = Vlans { trunk: [5, 6, 7, 9, 11, 12].into(), ..Vlans::default() };
        assert_eq!(ranges(&vlans), [(5, 7), (9, 9), (11, 12)]);
        let bridge = Link {
            details: Details::Bridge { vlan_filtering: true, vlan_default_pvid: 1 },
            ..Link::default()
        };
        let ops: Vec<String> = port(&vlans, &bridge, 3).iter().map(|op| format!("{op:?}")).collect();
        assert_eq!(ops.len(), 5, "the default goes, three ranges and the native VLAN come: {ops:?}");
        assert!(ops[0].contains("PortVlanDel") && ops[4].contains("pvid: true"));
        let kept = Vlans { keeps_default: true, ..vlans };
        assert_eq!(port(&kept, &bridge, 3).len(), 4);
    }
}
