//! The node's own devices: found by name, made if missing, corrected if different.

use std::collections::BTreeMap;

use weft_kernel::{Link, LinkKind, LinkSet, Netlink, NewLink, Op};
use weft_model::{Mac, mark};

use crate::{BridgeSpec, Error, IpipSpec, LocalPlan, UdpSpec, VxlanSpec, ipip, vxlan};

/// EOPNOTSUPP: what the kernel says to a kind of link that it does not know.
const NOT_SUPPORTED: i32 = 95;

/// The devices' indexes by name, as last made sure of.
pub(crate) type Devices = BTreeMap<&'static str, u32>;

/// A device that a plan has.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Device<'a> {
    Bridge(&'a BridgeSpec),
    Vxlan(&'a VxlanSpec),
    Udp(&'a UdpSpec),
    Ipip(&'a IpipSpec),
}

/// How many hardware addresses the bridge learns: far more than a node has pods, and few enough for
/// a pod that makes them up to harm nobody.
const LEARNED: u32 = 4096;

/// Every device of a plan, the bridge first.
pub(crate) fn of(plan: &LocalPlan) -> impl Iterator<Item = Device<'_>> {
    let tunnels = &plan.tunnels;
    let ipip = tunnels.ipip.iter().chain(&tunnels.ip6tnl).map(Device::Ipip);
    let vxlan = tunnels.vxlan.iter().chain(&tunnels.vxlan6).map(Device::Vxlan);
    let udp = tunnels.udp.iter().map(Device::Udp);
    std::iter::once(Device::Bridge(&plan.bridge)).chain(vxlan).chain(udp).chain(ipip)
}

/// The names that only tunnels of ours have.
pub(crate) const TUNNELS: [&str; 5] = [mark::VXLAN, mark::VXLAN6, mark::UDP, mark::IPIP, mark::IP6TNL];

impl Device<'_> {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Device::Bridge(_) => mark::BRIDGE,
            Device::Vxlan(spec) => spec.name,
            Device::Udp(_) => mark::UDP,
            Device::Ipip(spec) => ipip::name(spec),
        }
    }

    /// The addresses it has.
    pub(crate) fn addresses(&self) -> &[ipnet::IpNet] {
        match self {
            Device::Bridge(spec) => &spec.addresses,
            Device::Vxlan(spec) => &spec.addresses,
            Device::Udp(spec) => &spec.addresses,
            Device::Ipip(spec) => &spec.addresses,
        }
    }

    fn mtu(&self) -> u32 {
        match self {
            Device::Bridge(spec) => spec.mtu,
            Device::Vxlan(spec) => spec.mtu,
            Device::Udp(spec) => spec.mtu,
            Device::Ipip(spec) => spec.mtu,
        }
    }

    /// Its hardware address, where its kind has one.
    fn mac(&self) -> Option<Mac> {
        match self {
            Device::Bridge(spec) => Some(spec.mac),
            Device::Vxlan(spec) => Some(spec.mac),
            Device::Udp(_) | Device::Ipip(_) => None,
        }
    }

    /// Whether a found link is of the kind, and has the parameters that cannot be changed later.
    fn usable(&self, link: &Link) -> bool {
        match self {
            Device::Bridge(_) => link.kind.as_deref() == Some("bridge"),
            Device::Vxlan(spec) => vxlan::usable(link, spec),
            Device::Udp(_) => link.kind.as_deref() == Some("tun"),
            Device::Ipip(spec) => ipip::usable(link, spec),
        }
    }

    /// The link to make; none where netlink cannot make it.
    fn new_link(&self) -> Option<NewLink> {
        match self {
            // Not yet the MTU wanted: only a later change makes the kernel hold to it when ports come.
            Device::Bridge(spec) => Some(NewLink {
                mac: Some(spec.mac),
                mtu: Some(spec.mtu.saturating_sub(1)),
                ..NewLink::new(mark::BRIDGE, LinkKind::LimitedBridge { learned: LEARNED })
            }),
            Device::Vxlan(spec) => Some(vxlan::device(spec)),
            Device::Udp(_) => None,
            Device::Ipip(spec) => Some(ipip::device(spec)),
        }
    }

    fn is_adjusted(&self, link: &Link) -> bool {
        link.up && link.mtu == self.mtu() && self.mac().is_none_or(|mac| link.mac == Some(mac))
    }
}

/// What was found and done.
#[derive(Debug, Default)]
pub(crate) struct Ensured {
    pub(crate) devices: Devices,
    /// Tunnel devices of ours that the plan does not have; removed after the routes through them.
    pub(crate) orphans: Vec<u32>,
    pub(crate) writes: usize,
    pub(crate) errors: Vec<Error>,
}

/// Makes the plan's devices from what is there.
pub(crate) fn ensure(netlink: &mut Netlink, plan: &LocalPlan) -> Result<Ensured, Error> {
    let found = netlink.links()?;
    let by_name: BTreeMap<&str, &Link> = found.iter().map(|link| (link.name.as_str(), link)).collect();
    let mut done = Ensured::default();
    for device in of(plan) {
        match ensure_device(netlink, &device, by_name.get(device.name()).copied(), &mut done.writes) {
            Ok(index) => _ = done.devices.insert(device.name(), index),
            Err(error) => done.errors.push(error),
        }
    }
    let planned: Vec<&str> = of(plan).map(|device| device.name()).collect();
    let orphans = TUNNELS.iter().filter(|name| !planned.contains(name)).filter_map(|name| by_name.get(name));
    done.orphans = orphans.map(|link| link.index).collect();
    if let Some(&bridge) = done.devices.get(mark::BRIDGE) {
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

fn ensure_device(
    netlink: &mut Netlink,
    device: &Device<'_>,
    found: Option<&Link>,
    writes: &mut usize,
) -> Result<u32, Error> {
    let link = found_or_made(netlink, device, found, writes).map_err(|error| match error {
        Error::Kernel(kernel) if kernel.errno() == Some(NOT_SUPPORTED) => Error::no_kind(device.name()),
        other => other,
    })?;
    if !device.is_adjusted(&link) {
        let set = LinkSet {
            index: link.index,
            mac: device.mac().filter(|mac| link.mac != Some(*mac)),
            mtu: (link.mtu != device.mtu()).then_some(device.mtu()),
            up: (!link.up).then_some(true),
            ..LinkSet::default()
        };
        netlink.apply(&Op::LinkSet(set))?;
        *writes += 1;
    }
    Ok(link.index)
}

/// The usable link found, or a new one in the place of what else has the name: the name is our
/// mark.
fn found_or_made(
    netlink: &mut Netlink,
    device: &Device<'_>,
    found: Option<&Link>,
    writes: &mut usize,
) -> Result<Link, Error> {
    if let Some(link) = found.filter(|link| device.usable(link)) {
        return Ok(link.clone());
    }
    let gone = || weft_kernel::Error::sys("find link", device.name(), std::io::ErrorKind::NotFound);
    let new = device.new_link().ok_or_else(gone)?;
    if let Some(other) = found {
        netlink.apply(&Op::LinkDel(other.index))?;
        *writes += 1;
    }
    netlink.apply(&Op::LinkAdd(new))?;
    *writes += 1;
    Ok(netlink.link(device.name())?.ok_or_else(gone)?)
}

/// Whether a link event says that a device of ours is no longer as `plan` wants it.
pub(crate) fn disturbed(link: &Link, new: bool, devices: &Devices, plan: &LocalPlan) -> bool {
    let Some((name, _)) = devices.iter().find(|(_, index)| **index == link.index) else {
        return new && (link.name == mark::BRIDGE || TUNNELS.contains(&link.name.as_str()));
    };
    let whole = |device: Device<'_>| {
        device.name() == *name && link.name == *name && device.usable(link) && device.is_adjusted(link)
    };
    !new || !of(plan).any(whole)
}
