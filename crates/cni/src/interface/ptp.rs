//! The `ptp` plugin: a veth pair with the node as the other end, no bridge.
//!
//! The container sends everything to the gateway, also what is for its own network: the node's end
//! has the gateway's address, and the node a route to the container's.

use ipnet::IpNet;
use weft_kernel::{Link, LinkSet, Op, Route};

use crate::interface::rules::Rules;
use crate::interface::unbridged::{self, Ways};
use crate::interface::veth::{self, Pair, Sides};
use crate::interface::{clash, pod};
use crate::protocol::config::invalid;
use crate::protocol::error::CniError;
use crate::protocol::plugin::{Answer, Call};
use crate::protocol::result::CniResult;

/// Scopes and protocols as the kernel numbers them (linux/rtnetlink.h).
const SCOPE_LINK: u8 = 253;
const SCOPE_HOST: u8 = 254;
const PROTOCOL_KERNEL: u8 = 2;

pub(crate) fn plugin(call: &Call, answer: Answer<'_>) -> Result<(), CniError> {
    let ways = Ways {
        pair: |call, mtu| Ok(Pair::of(call, mtu)),
        plan: |result| pairs(&result).map(|_| result),
        connect,
        check: |call, made| Rules::of(call)?.check(call, &veth::host_link(call), None, made),
    };
    unbridged::serve(call, &ways, answer)
}

fn connect(sides: &mut Sides, link: &Link, peer: u32, result: &CniResult) -> Result<(), CniError> {
    clash::apply_routes(&mut sides.host, &host_side(link.index, result)?, result)?;
    pod::apply(&mut sides.pod, &pod_side(peer, result)?)
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
