//! The `ovs` plugin: a veth pair joins the container to a bridge of Open vSwitch.
//!
//! The bridge is not the kernel's: its ports are rows in a database, which ovs-vswitchd follows.

mod keys;
pub(crate) mod ovsdb;
mod port;

use std::cell::Cell;

use weft_kernel::{Netlink, Op};

use crate::interface::check::{self, differs};
use crate::interface::ovs::keys::{Keys, Wanted};
use crate::interface::ovs::ovsdb::Ovsdb;
use crate::interface::single::optional_ipam;
use crate::interface::veth::{self, Pair, Sides};
use crate::interface::{pod, rules};
use crate::ipam::{self, Evidence, Ipam};
use crate::protocol::args::Command;
use crate::protocol::error::{CniError, code};
use crate::protocol::plugin::{Answer, Call};
use crate::protocol::result::{CniResult, Interface};
use crate::sandbox;

pub(crate) fn plugin(call: &Call, answer: Answer<'_>) -> Result<(), CniError> {
    if call.command == Command::Del {
        return del(call);
    }
    let keys: Keys = call.keys()?;
    let socket = keys.socket();
    if call.command == Command::Gc {
        return gc(call, &mut Ovsdb::connect(&socket)?);
    }
    let wanted = Wanted::of(call, keys)?;
    let ipam = optional_ipam(call)?;
    match call.command {
        Command::Add => add(call, &wanted, &mut Ovsdb::connect(&socket)?, &ipam, answer),
        Command::Check => {
            let made = call.required_prev_result()?;
            ipam::check(call, &ipam)?;
            check(call, &wanted, &mut Ovsdb::connect(&socket)?, &made)
        }
        _ => {
            let unavailable = |error: CniError| CniError::new(code::NOT_AVAILABLE, error.message);
            let mut db = Ovsdb::connect(&socket).map_err(unavailable)?;
            port::require_bridge(&mut db, &wanted.bridge, code::NOT_AVAILABLE)?;
            ipam::status(call, &ipam)
        }
    }
}

fn add(
    call: &Call,
    wanted: &Wanted,
    db: &mut Ovsdb,
    ipam: &Ipam,
    answer: Answer<'_>,
) -> Result<(), CniError> {
    pod::refuse_lo(call)?;
    pod::check_mtu(wanted.mtu, ipam.gives_v6())?;
    port::require_bridge(db, &wanted.bridge, code::INVALID_CONFIG)?;
    let mut sides = Sides::open(call)?;
    let socket = call.keys::<Keys>()?.socket();
    let made = Cell::new(false);
    let detach = || {
        if !made.get() {
            return;
        }
        // A connection of its own: the one of the ADD may be what failed.
        if let Ok(mut db) = Ovsdb::connect(&socket) {
            remove_ports(call, &mut db).ok();
        }
        rules::undo(call, &made);
    };
    let attach = |addresses| attach(call, wanted, db, &made, &mut sides, addresses);
    ipam::add(call, ipam, Evidence::HostLink, attach, detach, answer)
}

fn attach(
    call: &Call,
    wanted: &Wanted,
    db: &mut Ovsdb,
    made: &Cell<bool>,
    sides: &mut Sides,
    mut result: CniResult,
) -> Result<CniResult, CniError> {
    let of_address = result.ips.first().map(|ip| pod::mac_of(ip.address.addr()));
    let pair = Pair { pod_mac: wanted.mac.or(of_address), ..Pair::of(call, wanted.mtu) };
    let (link, peer) = pair.make(call, made, sides)?;
    port::add(db, call, wanted, &link.name)?;
    pod::configure(call, &sides.netns, &mut sides.pod, peer, &result, pod::ANNOUNCE, false)?;
    port::wait_up(db, &link.name, wanted.patience)?;
    let inside = veth::inside(call, sides, peer, &link, pair.pod_mac)?;
    pod::describe(call, vec![Interface::of(&link, None), inside], &mut result);
    Ok(result)
}

fn remove_ports(call: &Call, db: &mut Ovsdb) -> Result<(), CniError> {
    let ports = port::of_attachment(db, call, &veth::host_link(call))?;
    port::remove(db, &ports)
}

/// The port first, so that ovs-vswitchd does not see a link vanish. Where the database cannot be
/// asked, nobody knows whether the port is gone: the rest is removed, and the error told.
fn del(call: &Call) -> Result<(), CniError> {
    let socket = call.keys::<Keys>().unwrap_or_default().socket();
    let removed = Ovsdb::connect(&socket).and_then(|mut db| remove_ports(call, &mut db));
    veth::remove(call)?;
    if !call.conf.ipam_type().is_empty() {
        ipam::del(call)?;
    }
    removed
}

fn check(call: &Call, wanted: &Wanted, db: &mut Ovsdb, made: &CniResult) -> Result<(), CniError> {
    let mut inside = Netlink::open_in(&sandbox::of(call)?)?;
    let link = check::link(&mut inside, &call.args.ifname, Some("veth"), made)?;
    let host_link = veth::host_link(call);
    let ports = port::of_attachment(db, call, &host_link)?;
    let gone = || differs(format!("Open vSwitch has no port of {} any more", link.name));
    let port = ports.first().ok_or_else(gone)?;
    if !port::is_in(db, port, &wanted.bridge)? {
        return Err(differs(format!("port {} is not in bridge {}", port.name, wanted.bridge)));
    }
    if port.vlans != wanted.vlans {
        let (is, wanted) = (&port.vlans, &wanted.vlans);
        return Err(differs(format!("port {} has the VLANs {is:?} and not {wanted:?}", port.name)));
    }
    check::addresses_and_routes(&mut inside, &link, made)
}

fn gc(call: &Call, db: &mut Ovsdb) -> Result<(), CniError> {
    let ports = port::left_over(db, call)?;
    port::remove(db, &ports)?;
    let mut netlink = Netlink::open()?;
    for port in &ports {
        if let Some(link) = netlink.link(&port.name)?.filter(|link| link.kind.as_deref() == Some("veth")) {
            netlink.apply(&Op::LinkDel(link.index))?;
        }
    }
    let ipam = optional_ipam(call)?;
    ipam::gc(call, &ipam)
}
