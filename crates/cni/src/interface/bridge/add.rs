//! ADD: every kernel request of it, in order, and their undoing.

use std::cell::Cell;

use weft_kernel::{Link, LinkKind, LinkSet, Netlink, NewLink, Op, sysctl};
use weft_model::Mac;

use crate::interface::bridge::gateway;
use crate::interface::bridge::plan::Plan;
use crate::interface::bridge::vlan;
use crate::interface::veth::{self, Pair, Sides};
use crate::interface::{clash, pod, rules};
use crate::ipam::{self, Evidence, Ipam};
use crate::protocol::config::invalid;
use crate::protocol::error::{CniError, code};
use crate::protocol::plugin::{Answer, Call};
use crate::protocol::result::{CniResult, Interface};

/// EOPNOTSUPP.
const NOT_SUPPORTED: i32 = 95;

pub(crate) fn add(call: &Call, plan: &Plan, ipam: &Ipam, answer: Answer<'_>) -> Result<(), CniError> {
    let mut sides = Sides::open(call)?;
    // Only what is this attachment's is undone. The bridge and its address belong to all pods of
    // the node, and another ADD may count on them already.
    let made = Cell::new(false);
    let detach = || rules::undo(call, &made);
    let wired = match ipam.uses_interface() {
        true => Some(wire_up(call, plan, &made, &mut sides).inspect_err(|_| detach())?),
        false => None,
    };
    let attach = |addresses| attach(call, plan, &made, &mut sides, wired, addresses);
    ipam::add(call, ipam, Evidence::HostLink, attach, detach, answer)
}

/// A container's interface that is a port of the bridge.
struct Wired {
    bridge: Link,
    link: Link,
    peer: u32,
    inside: Interface,
}

/// The pair on the bridge, where its addresses are known already, or not.
fn wire(
    call: &Call,
    plan: &Plan,
    made: &Cell<bool>,
    sides: &mut Sides,
    result: &CniResult,
) -> Result<Wired, CniError> {
    let bridge = ensure_bridge(plan, &mut sides.host, result)?;
    // Networks of two VLANs may well have the same addresses.
    if plan.vlans.is_none() {
        clash::refuse_on_bridge(call, &mut sides.host, &bridge, result)?;
    }
    let pair = Pair { master: Some(bridge.index), pod_mac: plan.pod_mac(result), ..Pair::of(call, plan.mtu) };
    let (link, peer) = pair.make(call, made, sides)?;
    configure_port(plan, &mut sides.host, &bridge, &link)?;
    let inside = veth::inside(call, sides, peer, &link, pair.pod_mac)?;
    plan.rules.guard(call, &link.name, inside.mac.as_deref().and_then(|mac| mac.parse().ok()))?;
    Ok(Wired { bridge, link, peer, inside })
}

/// The same, and it carries packets.
fn wire_up(call: &Call, plan: &Plan, made: &Cell<bool>, sides: &mut Sides) -> Result<Wired, CniError> {
    let none = CniResult::default();
    let wired = wire(call, plan, made, sides, &none)?;
    pod::prepare(call, &sides.netns, &none, plan.neighbourhood(None))?;
    set_up(plan, sides, wired.peer)?;
    veth::wait_carrier(&mut sides.host, &wired.link)?;
    Ok(wired)
}

fn attach(
    call: &Call,
    plan: &Plan,
    made: &Cell<bool>,
    sides: &mut Sides,
    wired: Option<Wired>,
    mut result: CniResult,
) -> Result<CniResult, CniError> {
    plan.complete(&mut result)?;
    let wired = wired.map_or_else(|| wire(call, plan, made, sides, &result), Ok)?;
    let Wired { bridge, link, peer, inside } = wired;
    let gateway = ensure_gateway(plan, &mut sides.host, &bridge, &result)?;
    plan.rules.masquerade(call, &result)?;
    // Its hardware address and MTU may be those of its ports, unless they were set.
    let settled = bridge.mac.is_some() && bridge.mac == bridge_mac(plan, &result) && bridge.mtu == link.mtu;
    let bridge = if settled { bridge } else { sides.host.link(&plan.bridge)?.unwrap_or(bridge) };
    // Last: from here on the kernel is busy with what the interface tells all other ports.
    if result.ips.is_empty() {
        set_up(plan, sides, peer)?;
    } else {
        let neighbourhood = plan.neighbourhood(Some(&result));
        let dad = plan.detects_duplicates;
        pod::configure(call, &sides.netns, &mut sides.pod, peer, &result, neighbourhood, dad)?;
    }
    if plan.sets_up {
        veth::wait_carrier(&mut sides.host, &link)?;
    }
    let mut interfaces = vec![Interface::of(&bridge, None), Interface::of(&link, None), inside];
    interfaces.extend(gateway.map(|link| Interface::of(&link, None)));
    pod::describe(call, interfaces, &mut result);
    Ok(result)
}

/// Answers the interface that has the gateway's addresses, if it is not the bridge itself.
fn ensure_gateway(
    plan: &Plan,
    host: &mut Netlink,
    bridge: &Link,
    result: &CniResult,
) -> Result<Option<Link>, CniError> {
    if !plan.is_gateway || result.ips.is_empty() {
        return Ok(None);
    }
    let Some(vlans) = plan.vlans.as_ref().filter(|vlans| vlans.native != 0) else {
        gateway::ensure(plan, host, bridge, result)?;
        return Ok(None);
    };
    let link = vlan::ensure_interface(vlans, bridge, host)?;
    gateway::ensure(plan, host, &link, result)?;
    Ok(Some(link))
}

fn ensure_bridge(plan: &Plan, host: &mut Netlink, result: &CniResult) -> Result<Link, CniError> {
    let bridge = match host.link(&plan.bridge)? {
        Some(bridge) => bridge,
        None => make_bridge(plan, host, result)?,
    };
    if bridge.kind.as_deref() != Some("bridge") {
        return Err(invalid(&format!("bridge: {} is there but is no bridge", plan.bridge)));
    }
    // Routes come from us, not from the pods, on somebody else's bridge too.
    if bridge.accept_ra.is_some_and(|value| value != 0) {
        sysctl::set(&format!("net/ipv6/conf/{}/accept_ra", plan.bridge), "0").ok();
    }
    let mut wanted = LinkSet { index: bridge.index, ..LinkSet::default() };
    wanted.up = (!bridge.up).then_some(true);
    wanted.promiscuous = (plan.promiscuous && !bridge.promiscuous).then_some(true);
    if wanted.up.is_some() || wanted.promiscuous.is_some() {
        host.apply(&Op::LinkSet(wanted))?;
    }
    Ok(bridge)
}

/// The hardware address of a bridge that is made: that of its first gateway.
fn bridge_mac(plan: &Plan, result: &CniResult) -> Option<Mac> {
    let gateway = result.ips.first().and_then(|ip| ip.gateway);
    gateway.filter(|_| plan.is_gateway).map(pod::mac_of)
}

/// With a hardware address that was set, if only to what it had: otherwise a bridge takes the
/// lowest of its ports', and would change it as pods come and go.
fn make_bridge(plan: &Plan, host: &mut Netlink, result: &CniResult) -> Result<Link, CniError> {
    let kind = match plan.vlans {
        Some(_) => LinkKind::VlanBridge { default_pvid: None },
        None => LinkKind::Bridge,
    };
    let mut bridge = NewLink::new(&plan.bridge, kind);
    bridge.mac = bridge_mac(plan, result);
    bridge.mtu = plan.mtu;
    match host.apply(&Op::LinkAdd(bridge)) {
        Err(error) if plan.vlans.is_some() && error.errno() == Some(NOT_SUPPORTED) => {
            let message = format!(
                "vlan: bridge {}: this kernel's bridges do not filter VLANs (CONFIG_BRIDGE_VLAN_FILTERING)",
                plan.bridge
            );
            return Err(CniError::new(code::IO, message));
        }
        Err(error) if !error.exists() => return Err(error.into()),
        _ => {}
    }
    let gone =
        || CniError::new(code::TRY_AGAIN, format!("bridge {} vanished while it was made", plan.bridge));
    let bridge = host.link(&plan.bridge)?.ok_or_else(gone)?;
    if bridge_mac(plan, result).is_none() {
        host.apply(&Op::LinkSet(LinkSet { index: bridge.index, mac: bridge.mac, ..LinkSet::default() }))?;
    }
    Ok(bridge)
}

fn configure_port(plan: &Plan, host: &mut Netlink, bridge: &Link, link: &Link) -> Result<(), CniError> {
    let port = LinkSet {
        index: link.index,
        hairpin: plan.hairpin.then_some(true),
        isolated: plan.isolated.then_some(true),
        ..LinkSet::default()
    };
    let mut ops = Vec::new();
    if plan.hairpin || plan.isolated {
        ops.push(Op::LinkSet(port));
    }
    if let Some(vlans) = &plan.vlans {
        ops.extend(vlan::port(vlans, bridge, link.index));
    }
    pod::apply(host, &ops)
}

/// A container without addresses still has an interface that carries packets.
fn set_up(plan: &Plan, sides: &mut Sides, index: u32) -> Result<(), CniError> {
    if plan.sets_up {
        sides.pod.apply(&Op::LinkSet(LinkSet { index, up: Some(true), ..LinkSet::default() }))?;
    }
    Ok(())
}
