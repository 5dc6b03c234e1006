//! The `vrf` plugin: the container's interface belongs to a routing domain (VRF) of the container.

use std::cmp::Reverse;
use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use serde::Deserialize;
use weft_kernel::{Address, Details, Link, LinkKind, LinkSet, Netlink, NewLink, Op, Route, TABLE_MAIN};

use crate::chained::{interface, netns_if_there};
use crate::interface::check::differs;
use crate::interface::pod::link_name;
use crate::protocol::args::Command;
use crate::protocol::config::invalid;
use crate::protocol::error::{CniError, code};
use crate::protocol::plugin::{Answer, Call};
use crate::sandbox;

/// How long the kernel may take until an address that was given again can be used, which is as
/// long as it looks for duplicates.
const USABLE: Duration = Duration::from_secs(5);

/// RTPROT_KERNEL: a route that an address brings with it.
const KERNEL: u8 = 2;

#[derive(Deserialize)]
struct Keys {
    /// The VRF's name.
    vrfname: Option<String>,
    /// Its routing table; when absent or 0, the first that no other VRF has.
    table: Option<u32>,
}

impl Keys {
    fn name(&self) -> Result<&str, CniError> {
        let name = self.vrfname.as_deref().unwrap_or_default();
        if name.is_empty() {
            return Err(invalid("vrfname is missing: name the VRF"));
        }
        link_name("vrfname", name)
    }
}

pub(crate) fn plugin(call: &Call, answer: Answer<'_>) -> Result<(), CniError> {
    let keys: Keys = call.keys()?;
    let name = keys.name()?;
    match call.command {
        Command::Add => add(call, name, keys.table.unwrap_or(0), answer),
        Command::Del => del(call, name),
        Command::Check => check(call, name),
        // What it makes goes with the container's namespace.
        _ => Ok(()),
    }
}

/// A VRF and its table.
struct Vrf {
    index: u32,
    table: u32,
}

fn find(pod: &mut Netlink, name: &str) -> Result<Option<Vrf>, CniError> {
    let Some(link) = pod.link(name)? else { return Ok(None) };
    match link.details {
        Details::Vrf(table) => Ok(Some(Vrf { index: link.index, table })),
        _ => Err(invalid(&format!("vrfname: {name} is in the container already and is no VRF"))),
    }
}

fn add(call: &Call, name: &str, table: u32, answer: Answer<'_>) -> Result<(), CniError> {
    let made = call.required_prev_result()?;
    let mut pod = Netlink::open_in(&sandbox::of(call)?)?;
    let link = interface(call, &mut pod)?;
    if let Some(master) = link.master {
        let master = pod.link_by_index(master)?.map_or_else(|| master.to_string(), |link| link.name);
        let message = format!("vrfname: {} has a master already, {master}, and can have one only", link.name);
        return Err(invalid(&message));
    }
    let there = find(&mut pod, name)?;
    let fresh = there.is_none();
    let vrf = match there {
        Some(vrf) if table != 0 && vrf.table != table => {
            let message = format!("table: VRF {name} is there already with table {}, not {table}", vrf.table);
            return Err(invalid(&message));
        }
        Some(vrf) => vrf,
        None => create(&mut pod, name, table)?,
    };
    let before = Before::of(&mut pod, &link)?;
    let done = enslave(&mut pod, &link, &vrf, &before).and_then(|()| answer(&made));
    done.inspect_err(|_| {
        let free = LinkSet { index: link.index, master: Some(None), ..LinkSet::default() };
        pod.apply(&Op::LinkSet(free)).ok();
        before.restore(&mut pod, TABLE_MAIN).ok();
        if fresh {
            pod.apply(&Op::LinkDel(vrf.index)).ok();
        }
    })
}

fn create(pod: &mut Netlink, name: &str, table: u32) -> Result<Vrf, CniError> {
    let table = match table {
        0 => {
            let taken: Vec<Details> = pod.links()?.into_iter().map(|link| link.details).collect();
            let free = (1..u32::MAX).find(|table| !taken.contains(&Details::Vrf(*table)));
            free.ok_or_else(|| invalid("table: every routing table has a VRF"))?
        }
        table => table,
    };
    let vrf = NewLink { up: true, ..NewLink::new(name, LinkKind::Vrf { table }) };
    if let Err(error) = pod.apply(&Op::LinkAdd(vrf)) {
        return Err(match error.errno() {
            Some(NOT_SUPPORTED) => {
                CniError::new(code::IO, "vrfname: the kernel has no VRFs: load its module vrf")
            }
            _ => error.into(),
        });
    }
    let gone = || CniError::new(code::TRY_AGAIN, format!("{name} vanished while it was made"));
    Ok(Vrf { index: pod.link(name)?.ok_or_else(gone)?.index, table })
}

/// EOPNOTSUPP: there is no such kind of link.
const NOT_SUPPORTED: i32 = 95;

/// What an interface loses when it gets a master: the kernel sets it down and up again.
struct Before {
    index: u32,
    /// IPv6 addresses, unless the kernel is told to keep them.
    addresses: Vec<Address>,
    /// Routes but for those to its own networks, which come by themselves; first those that others
    /// need to reach their gateway.
    routes: Vec<Route>,
}

impl Before {
    fn of(pod: &mut Netlink, link: &Link) -> Result<Before, CniError> {
        let universe = |address: &Address| address.scope == 0 && address.net.addr().is_ipv6();
        let addresses = pod.addresses()?.into_iter().filter(|a| a.ifindex == link.index && universe(a));
        let addresses = addresses.collect();
        let moved = |r: &Route| {
            let made = r.scope == 0 || r.protocol != KERNEL;
            r.table == TABLE_MAIN && r.oif == Some(link.index) && made
        };
        let mut routes: Vec<Route> = pod.routes()?.into_iter().filter(moved).collect();
        routes.sort_by_key(|route| Reverse(route.scope));
        Ok(Before { index: link.index, addresses, routes })
    }

    /// The addresses and routes are there again, the latter in `table`.
    fn restore(&self, pod: &mut Netlink, table: u32) -> Result<(), CniError> {
        let there: Vec<IpNet> =
            pod.addresses()?.into_iter().filter(|a| a.ifindex == self.index).map(|a| a.net).collect();
        for lost in self.addresses.iter().filter(|address| !there.contains(&address.net)) {
            pod.apply(&Op::AddrAdd(lost.clone()))?;
            self.wait_usable(pod, lost, table)?;
        }
        let routes = self.routes.iter().map(|route| Op::RouteReplace(Route { table, ..route.clone() }));
        pod.batch(&routes.collect::<Vec<Op>>()).into_iter().collect::<Result<(), _>>()?;
        Ok(())
    }

    /// Routes can have an address as their source only once the kernel has its local route.
    fn wait_usable(&self, pod: &mut Netlink, address: &Address, table: u32) -> Result<(), CniError> {
        let own = IpNet::from(address.net.addr());
        let table = if table == TABLE_MAIN { weft_kernel::TABLE_LOCAL } else { table };
        let deadline = Instant::now() + USABLE;
        let mut pause = Duration::from_millis(1);
        let local = |r: &Route| r.table == table && r.dst == own && r.oif == Some(self.index);
        while !pod.routes()?.iter().any(local) {
            if Instant::now() >= deadline {
                let message =
                    format!("{} cannot be used on link {}: another host may have it", own.addr(), self.index);
                return Err(CniError::new(code::TRY_AGAIN, message));
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
        Ok(())
    }
}

fn enslave(pod: &mut Netlink, link: &Link, vrf: &Vrf, before: &Before) -> Result<(), CniError> {
    let set = LinkSet { index: link.index, master: Some(Some(vrf.index)), ..LinkSet::default() };
    pod.apply(&Op::LinkSet(set))?;
    before.restore(pod, vrf.table)
}

/// Takes the interface out of the VRF, and the VRF away with its last one.
fn del(call: &Call, name: &str) -> Result<(), CniError> {
    let Some(netns) = netns_if_there(call) else { return Ok(()) };
    let mut pod = Netlink::open_in(&netns)?;
    // A link of that name that is no VRF is somebody else's.
    let Ok(Some(vrf)) = find(&mut pod, name) else { return Ok(()) };
    let member = pod.link(&call.args.ifname)?.filter(|link| link.master == Some(vrf.index));
    if let Some(link) = member {
        pod.apply(&Op::LinkSet(LinkSet { index: link.index, master: Some(None), ..LinkSet::default() }))?;
    }
    if pod.links()?.iter().any(|link| link.master == Some(vrf.index)) {
        return Ok(());
    }
    match pod.apply(&Op::LinkDel(vrf.index)) {
        Err(error) if !error.not_found() => Err(error.into()),
        _ => Ok(()),
    }
}

fn check(call: &Call, name: &str) -> Result<(), CniError> {
    call.required_prev_result()?;
    let mut pod = Netlink::open_in(&sandbox::of(call)?)?;
    let vrf = find(&mut pod, name)?.ok_or_else(|| differs(format!("VRF {name} is gone")))?;
    let link = interface(call, &mut pod)?;
    if link.master != Some(vrf.index) {
        return Err(differs(format!("{} does not belong to VRF {name}", link.name)));
    }
    Ok(())
}
