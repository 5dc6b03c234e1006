//! The node's own devices: found by name, made if missing, corrected if different.

use std::collections::BTreeMap;

use weft_kernel::{Link, LinkKind, LinkSet, Netlink, NewLink, Op};
use weft_model::{Mac, mark};

use crate::{BridgeSpec, Error, LocalPlan, VxlanSpec, vxlan};

/// EOPNOTSUPP: what the kernel says to a kind of link that it does not know.
const NOT_SUPPORTED: i32 = 95;

/// The devices with their indexes, as last made sure of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Devices {
    pub(crate) bridge: Option<u32>,
    pub(crate) vxlan: Option<u32>,
}

/// What was found and done.
#[derive(Debug, Default)]
pub(crate) struct Ensured {
    pub(crate) devices: Devices,
    /// A VXLAN device of ours that the plan does not have; removed after the routes through it.
    pub(crate) orphan: Option<u32>,
    pub(crate) writes: usize,
    pub(crate) errors: Vec<Error>,
}

/// Makes the plan's devices from what is there.
pub(crate) fn ensure(netlink: &mut Netlink, plan: &LocalPlan) -> Result<Ensured, Error> {
    let found = netlink.links()?;
    let by_name: BTreeMap<&str, &Link> = found.iter().map(|link| (link.name.as_str(), link)).collect();
    let mut done = Ensured::default();
    match ensure_bridge(netlink, by_name.get(mark::BRIDGE).copied(), &plan.bridge, &mut done.writes) {
        Ok(index) => done.devices.bridge = Some(index),
        Err(error) => done.errors.push(error),
    }
    match (&plan.vxlan, by_name.get(mark::VXLAN).copied()) {
        (Some(spec), link) => match ensure_vxlan(netlink, link, spec, &mut done.writes) {
            Ok(index) => done.devices.vxlan = Some(index),
            Err(error) => done.errors.push(error),
        },
        (None, Some(link)) => done.orphan = Some(link.index),
        (None, None) => {}
    }
    if let Some(bridge) = done.devices.bridge {
        let stray: Vec<u32> = found.iter().filter(|link| stray_port(link)).map(|link| link.index).collect();
        done.writes += enslave(netlink, bridge, &stray);
    }
    Ok(done)
}

/// A host-side veth of a pod that has lost its bridge.
fn stray_port(link: &Link) -> bool {
    let alias = link.alias.as_deref().unwrap_or_default();
    link.master.is_none() && link.name.starts_with("wf") && alias.starts_with(mark::ALIAS_PREFIX)
}

/// Puts pods' links back on the bridge, with the hairpin mode that their configuration asks for.
/// One that vanished meanwhile needs nothing.
pub(crate) fn enslave(netlink: &mut Netlink, bridge: u32, ports: &[u32]) -> usize {
    let ops = ports.iter().flat_map(|&index| {
        let master = LinkSet { index, master: Some(Some(bridge)), ..LinkSet::default() };
        [Op::LinkSet(master), Op::LinkSet(LinkSet { index, hairpin: Some(true), ..LinkSet::default() })]
    });
    netlink.batch(&ops.collect::<Vec<_>>()).into_iter().filter(Result::is_ok).count()
}

fn ensure_bridge(
    netlink: &mut Netlink,
    found: Option<&Link>,
    spec: &BridgeSpec,
    writes: &mut usize,
) -> Result<u32, Error> {
    let usable = |link: &&Link| link.kind.as_deref() == Some("bridge");
    // Not yet the MTU wanted: only a later change makes the kernel hold to it when ports come.
    let mtu = Some(spec.mtu.saturating_sub(1));
    let new = || NewLink { mac: Some(spec.mac), mtu, ..NewLink::new(mark::BRIDGE, LinkKind::Bridge) };
    let link = found_or_made(netlink, found, usable, new, writes)?;
    adjust(netlink, &link, spec.mac, spec.mtu, writes)?;
    Ok(link.index)
}

fn ensure_vxlan(
    netlink: &mut Netlink,
    found: Option<&Link>,
    spec: &VxlanSpec,
    writes: &mut usize,
) -> Result<u32, Error> {
    let usable = |link: &&Link| vxlan::usable(link, spec);
    let link = found_or_made(netlink, found, usable, || vxlan::device(spec), writes);
    let link = link.map_err(|error| match error {
        Error::Kernel(kernel) if kernel.errno() == Some(NOT_SUPPORTED) => Error::NoVxlan,
        other => other,
    })?;
    adjust(netlink, &link, spec.mac, spec.mtu, writes)?;
    Ok(link.index)
}

/// The usable link found, or a new one in the place of what else has the name: the name is our
/// mark.
fn found_or_made(
    netlink: &mut Netlink,
    found: Option<&Link>,
    usable: impl Fn(&&Link) -> bool,
    new: impl Fn() -> NewLink,
    writes: &mut usize,
) -> Result<Link, Error> {
    if let Some(link) = found.filter(&usable) {
        return Ok(link.clone());
    }
    if let Some(other) = found {
        netlink.apply(&Op::LinkDel(other.index))?;
        *writes += 1;
    }
    let new = new();
    netlink.apply(&Op::LinkAdd(new.clone()))?;
    *writes += 1;
    let gone = || weft_kernel::Error::sys("find link", new.name.as_str(), std::io::ErrorKind::NotFound);
    Ok(netlink.link(&new.name)?.ok_or_else(gone)?)
}

fn adjust(netlink: &mut Netlink, link: &Link, mac: Mac, mtu: u32, writes: &mut usize) -> Result<(), Error> {
    if is_adjusted(link, mac, mtu) {
        return Ok(());
    }
    let set = LinkSet {
        index: link.index,
        mac: (link.mac != Some(mac)).then_some(mac),
        mtu: (link.mtu != mtu).then_some(mtu),
        up: (!link.up).then_some(true),
        ..LinkSet::default()
    };
    netlink.apply(&Op::LinkSet(set))?;
    *writes += 1;
    Ok(())
}

fn is_adjusted(link: &Link, mac: Mac, mtu: u32) -> bool {
    link.up && link.mac == Some(mac) && link.mtu == mtu
}

/// Whether a link event says that a device of ours is no longer as `plan` wants it.
pub(crate) fn disturbed(link: &Link, new: bool, devices: &Devices, plan: &LocalPlan) -> bool {
    let bridge_ok = |link: &Link| {
        link.kind.as_deref() == Some("bridge") && is_adjusted(link, plan.bridge.mac, plan.bridge.mtu)
    };
    let vxlan_ok = |link: &Link| {
        plan.vxlan
            .as_ref()
            .is_some_and(|spec| vxlan::usable(link, spec) && is_adjusted(link, spec.mac, spec.mtu))
    };
    let index = Some(link.index);
    if index == devices.bridge {
        !new || link.name != mark::BRIDGE || !bridge_ok(link)
    } else if index == devices.vxlan {
        !new || link.name != mark::VXLAN || !vxlan_ok(link)
    } else {
        new && (link.name == mark::BRIDGE || link.name == mark::VXLAN)
    }
}
