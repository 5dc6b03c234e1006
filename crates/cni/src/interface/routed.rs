//! The `routed` plugin: a veth pair and a route for each pod, no bridge and no network of layer 2.
//!
//! The way of Calico: the pod has its address alone (/32, /128) and one next hop, the same for
//! every pod: 169.254.1.1, for which the node's end answers ARP (proxy ARP), and for IPv6 the
//! link-local address that follows from the hardware address of every node's end. The node has
//! `10.92.77.163 dev wf… scope link`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use weft_kernel::{Link, LinkSet, Netlink, Op, Route, sysctl};
use weft_model::Mac;

use crate::interface::unbridged::{self, Ways};
use crate::interface::veth::{self, Pair, Sides};
use crate::interface::{check, clash, pod};
use crate::protocol::error::CniError;
use crate::protocol::plugin::{Answer, Call};
use crate::protocol::result::{CniResult, Route as ResultRoute};

/// The next hop of every pod, which is nobody's address.
const NEXT_HOP: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The hardware address of every node's end, and the link-local address that follows from it.
const HOST_MAC: Mac = Mac([0xee; 6]);
const NEXT_HOP_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0xecee, 0xeeff, 0xfeee, 0xeeee);
/// RT_SCOPE_LINK.
const SCOPE_LINK: u8 = 253;

/// `lo` has the same index in every namespace.
const LO: u32 = 1;

pub(crate) fn plugin(call: &Call, answer: Answer<'_>) -> Result<(), CniError> {
    let ways = Ways {
        pair: |call, mtu| Ok(Pair { host_mac: HOST_MAC, pod_mac: pod::mac(call)?, ..Pair::of(call, mtu) }),
        plan: |result| Ok(plan(result)),
        connect,
        check,
    };
    unbridged::serve(call, &ways, answer)
}

fn connect(sides: &mut Sides, link: &Link, peer: u32, result: &CniResult) -> Result<(), CniError> {
    answer_for_next_hop(&link.name, result)?;
    ensure_known(&mut sides.host, result)?;
    let to_pod = |ip: &IpNet| {
        let scope = if ip.addr().is_ipv4() { SCOPE_LINK } else { 0 };
        Op::RouteAdd(Route { oif: Some(link.index), scope, ..Route::new(*ip) })
    };
    let routes: Vec<Op> = result.ips.iter().map(|ip| to_pod(&ip.address)).collect();
    clash::apply_routes(&mut sides.host, &routes, result)?;
    pod::apply(&mut sides.pod, &pod_side(peer, result)?)
}

fn next_hop(v4: bool) -> IpAddr {
    if v4 { NEXT_HOP.into() } else { NEXT_HOP_V6.into() }
}

/// Each address alone, by the next hop of its family; everything goes there, or only what the
/// IPAM plugin has routes to.
fn plan(mut result: CniResult) -> CniResult {
    for ip in &mut result.ips {
        ip.address = ip.address.addr().into();
        ip.gateway = Some(next_hop(ip.address.addr().is_ipv4()));
    }
    for route in &mut result.routes {
        route.gw = Some(next_hop(route.dst.addr().is_ipv4()));
    }
    for v4 in [true, false] {
        let of_family = |net: &IpNet| net.addr().is_ipv4() == v4;
        let routed = result.routes.iter().any(|route| of_family(&route.dst));
        if !routed && result.ips.iter().any(|ip| of_family(&ip.address)) {
            let hop = next_hop(v4);
            result.routes.push(ResultRoute::new(pod::default_of(&hop), Some(hop)));
        }
    }
    result
}

/// The node's end answers for the next hop at once, and routes what comes.
fn answer_for_next_hop(link: &str, result: &CniResult) -> Result<(), CniError> {
    let has = |v4: bool| result.ips.iter().any(|ip| ip.address.addr().is_ipv4() == v4);
    let v4 = [
        ("conf", "proxy_arp", "1"),
        ("neigh", "proxy_delay", "0"),
        ("conf", "forwarding", "1"),
        ("conf", "rp_filter", "1"),
    ];
    let v6 = [
        ("conf", "forwarding", "1"),
        ("conf", "accept_ra", "0"),
        ("neigh", "proxy_delay", "0"),
        ("conf", "proxy_ndp", "1"),
    ];
    for (family, wanted, settings) in [("ipv4", has(true), v4), ("ipv6", has(false), v6)] {
        for (kind, key, value) in settings.into_iter().filter(|_| wanted) {
            sysctl::set(&format!("net/{family}/{kind}/{link}/{key}"), value)?;
        }
    }
    Ok(())
}

/// The kernel answers ARP only for what it has a route to. On a node with a default route that is
/// everything; on another one the next hop gets a route that nothing is sent by.
fn ensure_known(host: &mut Netlink, result: &CniResult) -> Result<(), CniError> {
    let has_v4 = result.ips.iter().any(|ip| ip.address.addr().is_ipv4());
    if !has_v4 || host.route_get(NEXT_HOP.into(), None, None).is_ok() {
        return Ok(());
    }
    let route = Route { oif: Some(LO), scope: SCOPE_LINK, ..Route::new(IpAddr::from(NEXT_HOP).into()) };
    match host.apply(&Op::RouteAdd(route)) {
        Err(error) if !error.exists() => Err(error.into()),
        _ => Ok(()),
    }
}

fn pod_side(index: u32, result: &CniResult) -> Result<Vec<Op>, CniError> {
    let mut ops = vec![Op::LinkSet(LinkSet { index, up: Some(true), ..LinkSet::default() })];
    for ip in &result.ips {
        ops.push(pod::address(index, ip.address, false));
    }
    if result.ips.iter().any(|ip| ip.address.addr().is_ipv4()) {
        let hop = Route { oif: Some(index), scope: SCOPE_LINK, ..Route::new(IpAddr::from(NEXT_HOP).into()) };
        ops.push(Op::RouteAdd(hop));
    }
    for route in &result.routes {
        ops.push(Op::RouteAdd(pod::kernel_route(route, index, result)?));
    }
    Ok(ops)
}

/// The node still routes to the container.
fn check(call: &Call, made: &CniResult) -> Result<(), CniError> {
    let mut host = Netlink::open()?;
    let link = host.link(&veth::host_link(call))?;
    let link = link.ok_or_else(|| check::differs(format!("{} is gone", veth::host_link(call))))?;
    let routes = host.routes()?;
    let reached = |net: &IpNet| routes.iter().any(|route| route.dst == *net && route.oif == Some(link.index));
    match made.ips.iter().find(|ip| !reached(&ip.address)) {
        Some(ip) => Err(check::differs(format!("the node has no route to {} by {}", ip.address, link.name))),
        None => Ok(()),
    }
}
