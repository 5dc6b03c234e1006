//! The `bridge` plugin: a veth pair joins the container to a bridge of the node.

mod add;
mod check;
mod plan;

use weft_kernel::{Netlink, Op};
use weft_model::mark;

use crate::interface::bridge::plan::Plan;
use crate::interface::pod;
use crate::ipam::{self, Ipam};
use crate::protocol::args::Command;
use crate::protocol::config::invalid;
use crate::protocol::error::CniError;
use crate::protocol::plugin::{Answer, Call};
use crate::sandbox;

pub(crate) fn plugin(call: &Call, answer: Answer<'_>) -> Result<(), CniError> {
    if call.command == Command::Del {
        return del(call);
    }
    if call.conf.ipam.is_none() {
        return Err(invalid("ipam is missing: say how addresses are given"));
    }
    let ipam = Ipam::of(call)?;
    match call.command {
        Command::Add => {
            call.prev_result()?;
            let plan = Plan::of(call)?;
            pod::check_mtu(plan.mtu, ipam.gives_v6())?;
            add::add(call, &plan, &ipam, answer)
        }
        Command::Check => {
            let made = call.required_prev_result()?;
            ipam::check(call, &ipam)?;
            check::check(call, &Plan::of(call)?, &made)
        }
        Command::Gc => ipam::gc(call, &ipam),
        _ => ipam::status(call, &ipam),
    }
}

/// The link first: no other pod may get the address while this one can still use it.
fn del(call: &Call) -> Result<(), CniError> {
    let attachment = call.args.attachment();
    let host_link = mark::host_link_name(attachment.container_id, attachment.ifname);
    if !remove_link(&mut Netlink::open()?, &host_link)? {
        remove_in_sandbox(call)?;
    }
    ipam::del(call)
}

/// A container that another program attached has another name on the host side.
fn remove_in_sandbox(call: &Call) -> Result<(), CniError> {
    let netns = call.args.netns.as_ref().and_then(|path| sandbox::open(path).ok());
    let Some(netns) = netns else { return Ok(()) };
    let mut netlink = Netlink::open_in(&netns)?;
    remove_link(&mut netlink, &call.args.ifname).map(drop)
}

fn remove_link(netlink: &mut Netlink, name: &str) -> Result<bool, CniError> {
    let link = netlink.link(name)?;
    let Some(link) = link.filter(|link| link.kind.as_deref() == Some("veth")) else { return Ok(false) };
    match netlink.apply(&Op::LinkDel(link.index)) {
        Err(error) if !error.not_found() => Err(error.into()),
        _ => Ok(true),
    }
}
