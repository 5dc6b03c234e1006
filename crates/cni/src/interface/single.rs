//! What the plugins have in common that make one interface in the container, without another end
//! on the node: macvlan, ipvlan, vlan, dummy, tap and, with a device of the node, host-device and
//! sriov.

use std::thread;
use std::time::{Duration, Instant};

use weft_kernel::{Link, LinkKind, LinkSet, Netlink, Netns, NewLink, Op, TABLE_MAIN};
use weft_model::Mac;

use crate::interface::pod::Neighbourhood;
use crate::interface::{check, pod};
use crate::ipam::{self, Evidence, HOST_LOCAL, Ipam};
use crate::protocol::config::{Dns, invalid};
use crate::protocol::error::{CniError, code};
use crate::protocol::plugin::{Answer, Call};
use crate::protocol::result::{CniResult, Interface};
use crate::sandbox;

/// How long duplicate address detection may take, as in the reference.
const DETECTION: Duration = Duration::from_secs(5);

/// The sockets of a call on both sides.
pub(crate) struct Sides {
    pub(crate) host: Netlink,
    pub(crate) pod: Netlink,
    pub(crate) netns: Netns,
}

impl Sides {
    /// None where there is no namespace (any more).
    pub(crate) fn open(call: &Call) -> Result<Option<Sides>, CniError> {
        let Some(path) = &call.args.netns else { return Ok(None) };
        let netns = sandbox::open(path)?;
        Ok(Some(Sides { host: Netlink::open()?, pod: Netlink::open_in(&netns)?, netns }))
    }

    /// The side on which an interface below is.
    pub(crate) fn of_parent(&mut self, in_container: bool) -> &mut Netlink {
        if in_container { &mut self.pod } else { &mut self.host }
    }
}

/// What a plugin's ADD does beyond the interface.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ways {
    /// Of an interface with addresses.
    pub(crate) neighbourhood: Neighbourhood,
    /// DNS settings of the IPAM plugin are part of the result; of most plugins they are not, as
    /// in the reference.
    pub(crate) ipam_dns: bool,
    /// The interface's MTU is part of the result.
    pub(crate) mtu: bool,
    /// The PCI device that the interface is, for the result.
    pub(crate) pci_id: Option<String>,
}

/// The IPAM plugin of a call; none where the configuration names none.
pub(crate) fn optional_ipam(call: &Call) -> Result<Ipam, CniError> {
    if call.conf.ipam_type().is_empty() { Ok(Ipam::None) } else { Ipam::of(call) }
}

/// The IPAM plugin of a call, which has to be there.
pub(crate) fn required_ipam(call: &Call) -> Result<Ipam, CniError> {
    if call.conf.ipam_type().is_empty() {
        return Err(invalid("ipam.type is missing: name an IPAM plugin such as host-local"));
    }
    Ipam::of(call)
}

/// ADD: `make` brings the interface into the container, before the IPAM plugin is asked, since
/// that of DHCP uses it; `undo` takes it away again. With `base` given, its addresses are used.
pub(crate) fn add(
    call: &Call,
    ipam: &Ipam,
    base: Option<CniResult>,
    ways: Ways,
    make: impl FnOnce(&mut Sides) -> Result<Link, CniError>,
    undo: impl Fn(&Netns),
    answer: Answer<'_>,
) -> Result<(), CniError> {
    pod::refuse_lo(call)?;
    let Some(mut sides) = Sides::open(call)? else { return Ok(()) };
    if sides.pod.link(&call.args.ifname)?.is_some() {
        return Err(pod::present(call));
    }
    let netns = sides.netns.clone();
    let link = make(&mut sides)?;
    let attach = |addresses: CniResult| {
        let mut result = base.unwrap_or(addresses);
        if !ways.ipam_dns {
            result.dns = Dns::default();
        }
        configure(call, &mut sides, &link, &result, ways.neighbourhood)?;
        let interface = Interface {
            name: call.args.ifname.clone(),
            mac: link.mac.map(|mac| mac.to_string()),
            sandbox: pod::sandbox(call),
            mtu: ways.mtu.then_some(link.mtu),
            pci_id: ways.pci_id.clone(),
            ..Interface::default()
        };
        pod::describe(call, vec![interface], &mut result);
        Ok(result)
    };
    let done = ipam::add(call, ipam, Evidence::Nowhere, attach, || undo(&netns), answer);
    if done.is_err() {
        // A refusal before the addresses does not undo.
        undo(&netns);
    }
    done
}

/// The link comes up with the addresses and routes of `result`: addresses first, since the kernel
/// announces those it has then; routes when IPv6 addresses can be used.
fn configure(
    call: &Call,
    sides: &mut Sides,
    link: &Link,
    result: &CniResult,
    neighbourhood: Neighbourhood,
) -> Result<(), CniError> {
    let neighbourhood = if result.ips.is_empty() { Neighbourhood::default() } else { neighbourhood };
    pod::prepare(call, &sides.netns, result, neighbourhood)?;
    let mut ops: Vec<Op> = result.ips.iter().map(|ip| pod::address(link.index, ip.address, true)).collect();
    ops.push(neighbourhood.up(link.index));
    if result.ips.iter().any(|ip| ip.gateway.is_some_and(|gateway| gateway.is_ipv6())) {
        pod::apply(&mut sides.pod, &ops)?;
        settle(&mut sides.pod, link.index, &call.args.ifname)?;
        ops.clear();
    }
    for route in &result.routes {
        ops.push(Op::RouteAppend(pod::kernel_route(route, link.index, result)?));
    }
    pod::apply(&mut sides.pod, &ops)
}

/// Waits for duplicate address detection. A link without carrier has none, and is left so.
fn settle(pod: &mut Netlink, index: u32, name: &str) -> Result<(), CniError> {
    let deadline = Instant::now() + DETECTION;
    let mut pause = Duration::from_millis(1);
    loop {
        let addresses = pod.addresses()?;
        let mut own = addresses.iter().filter(|address| address.ifindex == index);
        if let Some(taken) = own.clone().find(|address| address.duplicate) {
            let message = format!("{} for {name}: another host on the network has it", taken.net.addr());
            return Err(CniError::new(code::TRY_AGAIN, message));
        }
        let Some(waiting) = own.find(|address| address.tentative) else { return Ok(()) };
        if Instant::now() >= deadline {
            let running = pod.link_by_index(index)?.is_some_and(|link| link.running);
            let message = format!("{} for {name}: its duplicate detection does not end", waiting.net.addr());
            return if running { Err(CniError::new(code::TRY_AGAIN, message)) } else { Ok(()) };
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// The interface that others are made on: `master`, or that of the default route.
pub(crate) fn master(netlink: &mut Netlink, name: Option<&str>) -> Result<Link, CniError> {
    if let Some(name) = name.filter(|name| !name.is_empty()) {
        let absent = || invalid(&format!("master: there is no interface {name:?}"));
        return netlink.link(name)?.ok_or_else(absent);
    }
    let default = netlink.routes()?.into_iter().find(|r| r.table == TABLE_MAIN && r.dst.prefix_len() == 0);
    let index = default.and_then(|route| route.oif);
    let link = index.map(|index| netlink.link_by_index(index)).transpose()?.flatten();
    link.ok_or_else(|| {
        invalid("master is missing, and there is no default route whose interface it could be")
    })
}

/// The key `mtu`, which cannot be more than the interface below has.
pub(crate) fn mtu(key: Option<i64>, parent: &Link) -> Result<Option<u32>, CniError> {
    match pod::mtu(key)? {
        Some(mtu) if mtu > parent.mtu => {
            Err(invalid(&format!("mtu: {mtu} is more than the {} of {}", parent.mtu, parent.name)))
        }
        mtu => Ok(mtu),
    }
}

/// Makes the container's interface on one below it, on the node or in the container.
pub(crate) fn make_on(
    call: &Call,
    sides: &mut Sides,
    in_container: bool,
    kind: LinkKind,
    mtu: Option<u32>,
    mac: Option<Mac>,
) -> Result<Link, CniError> {
    let new = |name: &str| NewLink { mtu, mac, ..NewLink::new(name, kind.clone()) };
    if in_container {
        sides.pod.apply(&Op::LinkAdd(new(&call.args.ifname)))?;
        return made(call, &mut sides.pod, &call.args.ifname);
    }
    // Before Linux 6.15 the link is made on the node and then moved, where its name may be taken.
    let name = temporary_name(call);
    let there = NewLink { netns: Some(sides.netns.clone()), ..new(&name) };
    sides.host.apply(&Op::LinkAdd(there))?;
    let link = made(call, &mut sides.pod, &name)?;
    let named = LinkSet { index: link.index, name: Some(call.args.ifname.clone()), ..LinkSet::default() };
    if let Err(error) = sides.pod.apply(&Op::LinkSet(named)) {
        sides.pod.apply(&Op::LinkDel(link.index)).ok();
        return Err(if error.exists() { pod::present(call) } else { error.into() });
    }
    Ok(link)
}

/// The link that was just made.
pub(crate) fn made(call: &Call, pod: &mut Netlink, name: &str) -> Result<Link, CniError> {
    let gone = || CniError::new(code::TRY_AGAIN, format!("{} vanished while it was made", call.args.ifname));
    pod.link(name)?.ok_or_else(gone)
}

/// The name of a link that is not finished: it follows from the attachment, so that DEL finds it.
fn temporary_name(call: &Call) -> String {
    call.args.attachment().key().replacen("wf", "wt", 1)
}

/// Removes the container's interface, finished or not, if it is of this kind.
pub(crate) fn remove(call: &Call, netns: &Netns, kind: &str) -> Result<(), CniError> {
    let mut pod = Netlink::open_in(netns)?;
    for name in [&call.args.ifname, &temporary_name(call)] {
        let Some(link) = pod.link(name)?.filter(|link| link.kind.as_deref() == Some(kind)) else { continue };
        match pod.apply(&Op::LinkDel(link.index)) {
            Err(error) if !error.not_found() => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

/// DEL of an interface of this kind.
pub(crate) fn del(call: &Call, kind: &str) -> Result<(), CniError> {
    del_with(call, |netns| remove(call, netns, kind))
}

/// DEL: `take_away` acts in the container's namespace, where there still is one. An address of
/// our own must not be given to another pod while this one can use it; other IPAM plugins may
/// need the interface to give the address back (DHCP).
pub(crate) fn del_with(
    call: &Call,
    take_away: impl FnOnce(&Netns) -> Result<(), CniError>,
) -> Result<(), CniError> {
    let netns = call.args.netns.as_ref().and_then(|path| sandbox::open(path).ok());
    let away = || netns.as_ref().map_or(Ok(()), take_away);
    if call.conf.ipam_type() == HOST_LOCAL {
        return away().and_then(|()| ipam::del(call));
    }
    let freed = ipam::del(call);
    away().and(freed)
}

/// CHECK: addresses are reserved, and the interface is there with what ADD answered. None where
/// the container has no namespace.
pub(crate) fn check(call: &Call, ipam: &Ipam, kind: Option<&str>) -> Result<Option<Link>, CniError> {
    let made = call.required_prev_result()?;
    ipam::check(call, ipam)?;
    let Some(mut sides) = Sides::open(call)? else { return Ok(None) };
    let (name, sandbox) = (&call.args.ifname, pod::sandbox(call));
    if !made.interfaces.iter().any(|interface| interface.name == *name && interface.sandbox == sandbox) {
        return Err(check::differs(format!("prevResult has no {name} in {}", sandbox.unwrap_or_default())));
    }
    let link = check::link(&mut sides.pod, name, kind, &made)?;
    check::addresses_and_routes(&mut sides.pod, &link, &made)?;
    Ok(Some(link))
}
