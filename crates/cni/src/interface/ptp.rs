//! The `ptp` plugin: a veth pair with the node as the other end, no bridge.
//!
//! The container sends everything to the gateway, also what is for its own network: the node's end
//! has the gateway's address, and the node a route to the container's.

use std::cell::Cell;

use ipnet::IpNet;
use serde::Deserialize;
use weft_kernel::{LinkSet, Netlink, Op, Route};

use crate::interface::rules::{self, Rules};
use crate::interface::veth::{self, Pair, Sides};
use crate::interface::{bridge, check, pod};
use crate::ipam::{self, Evidence, Ipam};
use crate::protocol::args::Command;
use crate::protocol::config::invalid;
use crate::protocol::error::CniError;
use crate::protocol::plugin::{Answer, Call};
use crate::protocol::result::{CniResult, Interface};
use crate::sandbox;

/// Scopes and protocols as the kernel numbers them (linux/rtnetlink.h).
const SCOPE_LINK: u8 = 253;
const SCOPE_HOST: u8 = 254;
const PROTOCOL_KERNEL: u8 = 2;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Keys {
    mtu: Option<i64>,
}

pub(crate) fn plugin(call: &Call, answer: Answer<'_>) -> Result<(), CniError> {
    if call.command == Command::Del {
        return rules::del(call);
    }
    let ipam = Ipam::of(call)?;
    match call.command {
        Command::Add => add(call, &ipam, answer),
        Command::Check => {
            let made = call.required_prev_result()?;
            ipam::check(call, &ipam)?;
            check(call, &made)
        }
        Command::Gc => {
            ipam::gc(call, &ipam)?;
            rules::gc(call)
        }
        _ => ipam::status(call, &ipam),
    }
}

fn add(call: &Call, ipam: &Ipam, answer: Answer<'_>) -> Result<(), CniError> {
    pod::refuse_lo(call)?;
    let mtu = pod::mtu(call.keys::<Keys>()?.mtu)?;
    if matches!(ipam, Ipam::None) {
        return Err(invalid("ipam: a point-to-point link needs an address: name an IPAM plugin"));
    }
    pod::check_mtu(mtu, ipam.gives_v6())?;
    let mut sides = Sides::open(call)?;
    let rules = Rules::of(call)?;
    let made = Cell::new(false);
    let detach = || rules::undo(call, &made);
    let attach = |addresses| attach(call, mtu, rules, &made, &mut sides, addresses);
    ipam::add(call, ipam, Evidence::HostLink, attach, detach, answer)
}

fn attach(
    call: &Call,
    mtu: Option<u32>,
    rules: Rules,
    made: &Cell<bool>,
    sides: &mut Sides,
    mut result: CniResult,
) -> Result<CniResult, CniError> {
    let pair =
        Pair { pod_mac: result.ips.first().map(|ip| pod::mac_of(ip.address.addr())), ..Pair::of(call, mtu) };
    bridge::forward(&result)?;
    let (link, peer) = pair.make(call, made, sides)?;
    pod::apply(&mut sides.host, &host_side(link.index, &result)?)?;
    pod::prepare(call, &sides.netns, &result, &[])?;
    pod::apply(&mut sides.pod, &pod_side(peer, &result)?)?;
    rules.masquerade(call, &result)?;
    veth::wait_carrier(&mut sides.host, &link)?;
    let inside = veth::inside(call, sides, peer, &link, pair.pod_mac)?;
    let interfaces = vec![Interface::of(&link, None), inside];
    pod::describe(call, interfaces, &mut result);
    Ok(result)
}

/// Every address with its gateway.
fn pairs(result: &CniResult) -> Result<Vec<(IpNet, IpNet)>, CniError> {
    let pair = |ip: &crate::protocol::result::Ip| {
        let missing =
            || invalid(&format!("ipam: {} has no gateway, which a point-to-point link needs", ip.address));
        Ok((ip.address, IpNet::from(ip.gateway.ok_or_else(missing)?)))
    };
    result.ips.iter().map(pair).collect()
}

/// The node's end has the gateway's address, and the container's is behind it.
fn host_side(index: u32, result: &CniResult) -> Result<Vec<Op>, CniError> {
    let mut ops = Vec::new();
    for (address, gateway) in pairs(result)? {
        ops.push(pod::address(index, gateway, false));
        let scope = if gateway.addr().is_ipv4() { SCOPE_HOST } else { 0 };
        ops.push(Op::RouteAdd(Route { oif: Some(index), scope, ..Route::new(address.addr().into()) }));
    }
    Ok(ops)
}

/// The route to its own network that comes with an address is replaced by one through the gateway.
fn pod_side(index: u32, result: &CniResult) -> Result<Vec<Op>, CniError> {
    let mut ops = vec![Op::LinkSet(LinkSet { index, up: Some(true), ..LinkSet::default() })];
    let pairs = pairs(result)?;
    ops.extend(pairs.iter().map(|(net, _)| pod::address(index, *net, false)));
    // While their gateways are on the link.
    for route in &result.routes {
        ops.push(Op::RouteAppend(pod::kernel_route(route, index, result)?));
    }
    for (address, gateway) in pairs {
        let link_scope = if gateway.addr().is_ipv4() { SCOPE_LINK } else { 0 };
        let on_link = Route { oif: Some(index), ..Route::new(address.trunc()) };
        let of_kernel = Route { protocol: PROTOCOL_KERNEL, scope: link_scope, ..on_link.clone() };
        ops.push(Op::RouteDel(of_kernel));
        let src = Some(address.addr());
        let to_gateway = Route { oif: Some(index), scope: link_scope, src, ..Route::new(gateway) };
        ops.push(Op::RouteAdd(to_gateway));
        ops.push(Op::RouteAdd(Route { via: Some(gateway.addr()), src, ..on_link }));
    }
    Ok(ops)
}

fn check(call: &Call, made: &CniResult) -> Result<(), CniError> {
    let netns = sandbox::of(call)?;
    let mut pod = Netlink::open_in(&netns)?;
    let link = check::link(&mut pod, &call.args.ifname, Some("veth"), made)?;
    check::addresses_and_routes(&mut pod, &link, made)?;
    Rules::of(call)?.check(call, &veth::host_link(call), None, made)
}
