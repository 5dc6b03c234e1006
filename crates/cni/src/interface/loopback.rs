//! The `loopback` plugin: the container's `lo` is up.

use weft_kernel::{LinkSet, Netlink, Op};

use crate::protocol::args::Command;
use crate::protocol::error::{CniError, code};
use crate::protocol::plugin::{Answer, Call};
use crate::protocol::result::{CniResult, Interface, Ip};
use crate::sandbox;

/// The index of `lo`: the first device of every namespace.
const LO: u32 = 1;

pub(crate) fn plugin(call: &Call, answer: Answer<'_>) -> Result<(), CniError> {
    match call.command {
        Command::Add => {
            set_up(call, true)?;
            let made = call.prev_result()?.map_or_else(|| result(call), Ok)?;
            answer(&made)
        }
        // Without its namespace it is gone, and one that is no container's is left alone.
        Command::Del => {
            set_up(call, false).ok();
            Ok(())
        }
        Command::Check => check(call),
        _ => Ok(()),
    }
}

fn set_up(call: &Call, up: bool) -> Result<(), CniError> {
    let Some(path) = &call.args.netns else { return Ok(()) };
    let mut netlink = Netlink::open_in(&sandbox::open(path)?)?;
    Ok(netlink.apply(&Op::LinkSet(LinkSet { index: LO, up: Some(up), ..LinkSet::default() }))?)
}

fn result(call: &Call) -> Result<CniResult, CniError> {
    let Some(path) = &call.args.netns else { return Ok(CniResult::default()) };
    let addresses = Netlink::open_in(&sandbox::open(path)?)?.addresses()?;
    let ips = addresses.into_iter().filter(|address| address.ifindex == LO);
    let lo = Interface {
        name: "lo".into(),
        mac: Some("00:00:00:00:00:00".into()),
        sandbox: Some(path.to_string_lossy().into_owned()),
        ..Interface::default()
    };
    Ok(CniResult {
        interfaces: vec![lo],
        ips: ips.map(|a| Ip { address: a.net, gateway: None, interface: Some(0) }).collect(),
        ..CniResult::default()
    })
}

fn check(call: &Call) -> Result<(), CniError> {
    call.required_prev_result()?;
    let Some(path) = &call.args.netns else { return Ok(()) };
    let lo = Netlink::open_in(&sandbox::open(path)?)?.link("lo")?;
    if lo.is_some_and(|lo| lo.up) {
        return Ok(());
    }
    Err(CniError::new(code::NOT_AS_MADE, format!("lo in {} is down", path.display())))
}
