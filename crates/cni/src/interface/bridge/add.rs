//! ADD: every kernel request of it, in order, and their undoing.

use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use weft_kernel::{Address, Link, LinkKind, LinkSet, Netlink, Netns, NewLink, Op, sysctl};

use crate::interface::bridge::plan::Plan;
use crate::interface::bridge::remove_link;
use crate::interface::pod;
use crate::ipam::{self, Evidence, Ipam};
use crate::protocol::config::invalid;
use crate::protocol::error::{CniError, code};
use crate::protocol::plugin::{Answer, Call};
use crate::protocol::result::{CniResult, Interface};
use crate::sandbox;

/// How long the kernel may take until the bridge forwards on a new port.
const FORWARDING: Duration = Duration::from_secs(5);

/// The two sockets of an ADD.
struct Sides {
    host: Netlink,
    pod: Netlink,
    netns: Netns,
}

pub(crate) fn add(call: &Call, plan: &Plan, ipam: &Ipam, answer: Answer<'_>) -> Result<(), CniError> {
    let Some(path) = &call.args.netns else { return Ok(()) };
    let netns = sandbox::open(path)?;
    let mut sides = Sides { host: Netlink::open()?, pod: Netlink::open_in(&netns)?, netns };
    if sides.pod.link(&call.args.ifname)?.is_some() {
        return Err(pod::present(call));
    }
    // Only this attachment's link is undone. The bridge and its address belong to all pods of
    // the node, and another ADD may count on them already.
    let detach = || {
        if let Ok(mut netlink) = Netlink::open() {
            remove_link(&mut netlink, &plan.host_link).ok();
        }
    };
    ipam::add(
        call,
        ipam,
        Evidence::HostLink,
        |addresses| attach(call, plan, &mut sides, addresses),
        detach,
        answer,
    )
}

fn attach(call: &Call, plan: &Plan, sides: &mut Sides, mut result: CniResult) -> Result<CniResult, CniError> {
    plan.complete(&mut result)?;
    let bridge = ensure_bridge(plan, &mut sides.host, &result)?;
    let link = make_pair(call, plan, sides, &bridge, &result)?;
    let made = configure(call, plan, sides, &bridge, &link, &mut result);
    if made.is_err() {
        sides.host.apply(&Op::LinkDel(link.index)).ok();
    }
    made.map(|()| result)
}

fn configure(
    call: &Call,
    plan: &Plan,
    sides: &mut Sides,
    bridge: &Link,
    link: &Link,
    result: &mut CniResult,
) -> Result<(), CniError> {
    let missing = || CniError::new(code::IO, format!("{} has no other end", plan.host_link));
    let index = link.peer.ok_or_else(missing)?;
    pod::configure(&sides.netns, &mut sides.pod, index, &call.args.ifname, result, plan.detects_duplicates)?;
    if plan.hairpin {
        let hairpin = LinkSet { index: link.index, hairpin: Some(true), ..LinkSet::default() };
        sides.host.apply(&Op::LinkSet(hairpin))?;
    }
    if plan.is_gateway {
        ensure_gateway(plan, &mut sides.host, bridge, result)?;
    }
    wait_forwarding(&mut sides.host, link)?;
    describe(call, plan, bridge, link, result);
    Ok(())
}

fn ensure_bridge(plan: &Plan, host: &mut Netlink, result: &CniResult) -> Result<Link, CniError> {
    let bridge = match host.link(&plan.bridge)? {
        Some(bridge) => bridge,
        None => make_bridge(plan, host, result)?,
    };
    if bridge.kind.as_deref() != Some("bridge") {
        return Err(invalid(&format!("bridge: {} is there but is no bridge", plan.bridge)));
    }
    if !bridge.up {
        host.apply(&Op::LinkSet(LinkSet { index: bridge.index, up: Some(true), ..LinkSet::default() }))?;
    }
    Ok(bridge)
}

/// With a hardware address of its own: without one a bridge takes the lowest of its ports', and
/// would change it as pods come and go.
fn make_bridge(plan: &Plan, host: &mut Netlink, result: &CniResult) -> Result<Link, CniError> {
    let gateway = result.ips.first().and_then(|ip| ip.gateway);
    let mut bridge = NewLink::new(&plan.bridge, LinkKind::Bridge);
    bridge.mac = gateway.map(pod::mac_of);
    bridge.mtu = plan.mtu;
    match host.apply(&Op::LinkAdd(bridge)) {
        Err(error) if !error.exists() => return Err(error.into()),
        _ => {}
    }
    // A kernel without IPv6 has no such parameter; routes come from us, not from the pods.
    sysctl::set(&format!("net/ipv6/conf/{}/accept_ra", plan.bridge), "0").ok();
    let gone =
        || CniError::new(code::TRY_AGAIN, format!("bridge {} vanished while it was made", plan.bridge));
    host.link(&plan.bridge)?.ok_or_else(gone)
}

/// Both ends by one request, each where it belongs, so that none is ever visible elsewhere.
fn make_pair(
    call: &Call,
    plan: &Plan,
    sides: &mut Sides,
    bridge: &Link,
    result: &CniResult,
) -> Result<Link, CniError> {
    let kind = LinkKind::Veth {
        peer_name: call.args.ifname.clone(),
        peer_netns: Some(sides.netns.clone()),
        peer_mac: Some(plan.pod_mac(result)),
        peer_mtu: plan.mtu,
        // With its addresses, in one batch of the container's socket.
        peer_up: false,
    };
    let mut pair = NewLink::new(&plan.host_link, kind);
    pair.mtu = plan.mtu;
    pair.mac = Some(plan.host_mac());
    pair.master = Some(bridge.index);
    pair.alias = plan.alias.clone();
    pair.up = true;
    match sides.host.apply(&Op::LinkAdd(pair)) {
        Err(error) if error.exists() && sides.pod.link(&call.args.ifname)?.is_some() => {
            return Err(pod::present(call));
        }
        other => other?,
    }
    let gone = || CniError::new(code::TRY_AGAIN, format!("{} vanished while it was made", plan.host_link));
    sides.host.link(&plan.host_link)?.ok_or_else(gone)
}

/// The bridge has each gateway's address, and the kernel forwards.
fn ensure_gateway(
    plan: &Plan,
    host: &mut Netlink,
    bridge: &Link,
    result: &CniResult,
) -> Result<(), CniError> {
    let mut wanted: Vec<IpNet> = Vec::new();
    for ip in &result.ips {
        let net = ip.gateway.and_then(|gateway| IpNet::new(gateway, ip.address.prefix_len()).ok());
        wanted.extend(net.filter(|net| !wanted.contains(net)));
    }
    let address = |net: &IpNet| Address { no_dad: true, ..Address::new(bridge.index, *net) };
    let ops: Vec<Op> = wanted.iter().map(|net| Op::AddrAdd(address(net))).collect();
    for (net, done) in wanted.iter().zip(host.batch(&ops)) {
        match done {
            // The usual case: one of the pods before has put it there.
            Err(error) if error.exists() => {}
            Err(error) => return Err(error.into()),
            Ok(()) => settle_address(plan, host, bridge, net)?,
        }
    }
    for ip in &result.ips {
        let forward =
            if ip.address.addr().is_ipv4() { "net.ipv4.ip_forward" } else { "net.ipv6.conf.all.forwarding" };
        sysctl::ensure(forward, "1")?;
    }
    Ok(())
}

/// A new gateway address must not stand beside another one of the bridge: of IPv4 any, of IPv6
/// one of the same network.
fn settle_address(plan: &Plan, host: &mut Netlink, bridge: &Link, net: &IpNet) -> Result<(), CniError> {
    let of_bridge = host.addresses()?.into_iter().filter(|address| address.ifindex == bridge.index);
    let conflicts = |other: &Address| {
        let overlap = other.net.contains(&net.addr()) || net.contains(&other.net.addr());
        other.net != *net && (overlap || (net.addr().is_ipv4() && other.net.addr().is_ipv4()))
    };
    for other in of_bridge.filter(conflicts) {
        if plan.force_address {
            host.apply(&Op::AddrDel(other))?;
            continue;
        }
        host.apply(&Op::AddrDel(Address::new(bridge.index, *net))).ok();
        let message = format!(
            "bridge: {} has {} already, not {net}: set forceAddress to replace it",
            plan.bridge, other.net
        );
        return Err(invalid(&message));
    }
    Ok(())
}

/// The bridge opens the port when the kernel has told it of the carrier, which is soon but not
/// at once; what the container sent before would be lost.
fn wait_forwarding(host: &mut Netlink, link: &Link) -> Result<(), CniError> {
    let deadline = Instant::now() + FORWARDING;
    let mut pause = Duration::from_micros(100);
    loop {
        match host.link_by_index(link.index)? {
            Some(link) if link.running => return Ok(()),
            Some(_) if Instant::now() < deadline => {}
            found => {
                let state = if found.is_some() { "got no carrier" } else { "vanished" };
                return Err(CniError::new(code::TRY_AGAIN, format!("{} {state}", link.name)));
            }
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

fn describe(call: &Call, plan: &Plan, bridge: &Link, link: &Link, result: &mut CniResult) {
    let interface = |name: &str, mac: Option<String>, mtu: u32| Interface {
        name: name.into(),
        mac,
        mtu: Some(mtu),
        ..Interface::default()
    };
    let pod_mac = plan.pod_mac(result).to_string();
    let interfaces = vec![
        interface(&bridge.name, bridge.mac.map(|mac| mac.to_string()), bridge.mtu),
        interface(&link.name, link.mac.map(|mac| mac.to_string()), link.mtu),
        Interface { sandbox: pod::sandbox(call), ..interface(&call.args.ifname, Some(pod_mac), link.mtu) },
    ];
    pod::describe(call, interfaces, result);
}
