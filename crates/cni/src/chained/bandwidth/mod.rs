//! The `bandwidth` plugin: limits what a container sends and receives.
//!
//! Towards the container a token bucket is on the host's end of the veth pair. What the container
//! sends arrives there and nothing can queue it, so it is redirected to an IFB device with a
//! token bucket of its own. Where only some subnets are limited, a classful queue stands instead
//! of the bucket.

mod plan;

use weft_kernel::{
    Class, Filter, Link, LinkKind, LinkSet, Match, Netlink, NewLink, Op, Qdisc, QdiscKind, Verdict,
};

use crate::chained::bandwidth::plan::{Limit, Plan, Subnets};
use crate::chained::{all_or_nothing, hashed_name, interface};
use crate::interface::check::differs;
use crate::protocol::args::Command;
use crate::protocol::config::invalid;
use crate::protocol::error::{CniError, code};
use crate::protocol::plugin::{Answer, Call};
use crate::protocol::result::{CniResult, Interface};
use crate::sandbox;

const PREFIX: &str = "bwp";
/// Begins the alias by which GC knows an IFB device of ours.
const ALIAS: &str = "weft-cni bandwidth";
/// Classes of the classful queue: what is not limited, and what is.
const FREE: u32 = 0x1;
const LIMITED: u32 = 0x30;
/// What is not limited gets this many bytes a second, above any link's, with a burst of 100 µs.
const FREE_RATE: u64 = 125_000_000_000;
const FREE_BURST: u32 = 100;
/// `ETH_P_*`: every packet, IPv4, IPv6.
const ALL: u16 = 0x3;
const IPV4: u16 = 0x800;
const IPV6: u16 = 0x86dd;

pub(crate) fn plugin(call: &Call, answer: Answer<'_>) -> Result<(), CniError> {
    match call.command {
        Command::Add => add(call, &Plan::of(call.keys()?)?, answer),
        Command::Del => remove(&mut Netlink::open()?, &ifb_name(call, &call.args.container_id)?),
        Command::Check => check(call, &Plan::of(call.keys()?)?),
        Command::Gc => gc(call),
        _ => Plan::of(call.keys()?).map(drop),
    }
}

/// The name of the IFB device, which DEL finds without any state.
fn ifb_name(call: &Call, container_id: &str) -> Result<String, CniError> {
    Ok(hashed_name(PREFIX, &format!("{}{container_id}", call.conf.network()?), 15))
}

fn alias(call: &Call, container_id: &str) -> Result<String, CniError> {
    let text = format!("{ALIAS} {} {container_id}", call.conf.network()?);
    // The kernel takes at most 255 bytes, and what is cut off is looked for cut off too.
    Ok(text.chars().take(255).collect())
}

fn add(call: &Call, plan: &Plan, answer: Answer<'_>) -> Result<(), CniError> {
    let mut result = call.required_prev_result()?;
    if plan.ingress.is_none() && plan.egress.is_none() {
        return answer(&result);
    }
    let mut host = Netlink::open()?;
    let link = host_end(call, &mut host, &result)?;
    let ifb = match plan.egress {
        Some(_) => Some(make_ifb(call, plan, &mut host, &link)?),
        None => None,
    };
    let ops = ops(plan, &link, ifb.as_ref());
    let mut made = all_or_nothing(&mut host, &ops, inverse);
    if made.is_ok() {
        result.interfaces.extend(ifb.as_ref().map(listed));
        made = answer(&result).inspect_err(|_| {
            let undo: Vec<Op> = ops.iter().rev().filter_map(inverse).collect();
            host.batch(&undo);
        });
    }
    if let (Err(_), Some(ifb)) = (&made, &ifb) {
        host.apply(&Op::LinkDel(ifb.index)).ok();
    }
    made
}

fn listed(ifb: &Link) -> Interface {
    Interface { name: ifb.name.clone(), mac: ifb.mac.map(|mac| mac.to_string()), ..Interface::default() }
}

/// The host's end of the container's interface, which prevResult lists.
fn host_end(call: &Call, host: &mut Netlink, result: &CniResult) -> Result<Link, CniError> {
    let inside = interface(call, &mut Netlink::open_in(&sandbox::of(call)?)?)?;
    let peer = inside.peer.filter(|_| inside.kind.as_deref() == Some("veth"));
    let no_pair =
        || invalid(&format!("bandwidth: {} in the container is no end of a veth pair", inside.name));
    let link = host.link_by_index(peer.ok_or_else(no_pair)?)?;
    let listed = |link: &Link| {
        let mut on_host = result.interfaces.iter().filter(|interface| interface.sandbox.is_none());
        on_host.any(|interface| interface.name == link.name) && link.peer == Some(inside.index)
    };
    let stray = || {
        let message =
            format!("prevResult: it does not list the host's end of {} in the container", inside.name);
        invalid(&message)
    };
    link.filter(listed).ok_or_else(stray)
}

fn make_ifb(call: &Call, plan: &Plan, host: &mut Netlink, link: &Link) -> Result<Link, CniError> {
    let name = ifb_name(call, &call.args.container_id)?;
    let mut ifb = NewLink::new(&name, LinkKind::Ifb);
    ifb.mtu = Some(link.mtu);
    ifb.up = true;
    ifb.alias = Some(alias(call, &call.args.container_id)?);
    if let Err(error) = host.apply(&Op::LinkAdd(ifb)) {
        return Err(match error.errno() {
            Some(NOT_SUPPORTED) => CniError::new(
                code::IO,
                "egressRate: the kernel has no IFB devices: load its module ifb, or leave egressRate out",
            ),
            _ => error.into(),
        });
    }
    let gone = || CniError::new(code::TRY_AGAIN, format!("{name} vanished while it was made"));
    let ifb = host.link(&name)?.ok_or_else(gone)?;
    // The bucket counts what waits itself; a class without one counts packets.
    let waiting = if plan.subnets == Subnets::All { 0 } else { 1000 };
    let set = LinkSet { index: ifb.index, tx_queue_len: Some(waiting), ..LinkSet::default() };
    if let Err(error) = host.apply(&Op::LinkSet(set)) {
        host.apply(&Op::LinkDel(ifb.index)).ok();
        return Err(error.into());
    }
    Ok(ifb)
}

/// EOPNOTSUPP: there is no such kind of link.
const NOT_SUPPORTED: i32 = 95;

/// Everything that is made on the links.
fn ops(plan: &Plan, link: &Link, ifb: Option<&Link>) -> Vec<Op> {
    let mut ops = Vec::new();
    if let Some(limit) = plan.ingress {
        ops.extend(shape(link.index, limit, &plan.subnets, Match::Source));
    }
    if let (Some(limit), Some(ifb)) = (plan.egress, ifb) {
        let incoming = Qdisc::incoming(link.index, QdiscKind::Ingress);
        let verdict = Verdict::Redirect { ifindex: ifb.index, class: class(FREE) };
        let redirect = filter(&incoming, 1, ALL, Match::All, verdict);
        ops.extend([Op::QdiscAdd(incoming), Op::FilterAdd(redirect)]);
        ops.extend(shape(ifb.index, limit, &plan.subnets, Match::Destination));
    }
    ops
}

/// Limits what leaves by a link. `other_end` says which address of a packet counts.
fn shape(index: u32, limit: Limit, subnets: &Subnets, other_end: fn(ipnet::IpNet) -> Match) -> Vec<Op> {
    let (list, default, listed) = match subnets {
        Subnets::All => return vec![Op::QdiscAdd(Qdisc::root(index, QdiscKind::Tbf(limit.bucket())))],
        Subnets::Shaped(list) => (list, FREE, LIMITED),
        Subnets::Unshaped(list) => (list, LIMITED, FREE),
    };
    let root = Qdisc::root(index, QdiscKind::Htb { default });
    let member = |minor, rate, buffer| {
        Op::ClassAdd(Class { ifindex: index, parent: root.handle, handle: class(minor), rate, buffer })
    };
    let mut ops = vec![Op::QdiscAdd(root.clone())];
    ops.push(member(FREE, FREE_RATE, weft_kernel::ticks(FREE_BURST)));
    ops.push(member(LIMITED, limit.rate(), limit.buffer()));
    ops.extend(list.iter().map(|net| {
        // Filters of one priority are for one protocol.
        let (priority, protocol) = if net.addr().is_ipv4() { (1, IPV4) } else { (2, IPV6) };
        Op::FilterAdd(filter(&root, priority, protocol, other_end(*net), Verdict::Class(class(listed))))
    }));
    ops
}

fn class(minor: u32) -> u32 {
    1 << 16 | minor
}

fn filter(on: &Qdisc, priority: u16, protocol: u16, matches: Match, verdict: Verdict) -> Filter {
    Filter { ifindex: on.ifindex, parent: on.handle, handle: 0, priority, protocol, matches, verdict }
}

/// With a queueing discipline its classes and filters go.
fn inverse(op: &Op) -> Option<Op> {
    match op {
        Op::QdiscAdd(qdisc) => Some(Op::QdiscDel(qdisc.clone())),
        _ => None,
    }
}

/// Removes the IFB device of this name; what is on the host's end of the pair goes with it.
fn remove(host: &mut Netlink, name: &str) -> Result<(), CniError> {
    let link = host.link(name)?.filter(|link| link.kind.as_deref() == Some("ifb"));
    let Some(link) = link else { return Ok(()) };
    match host.apply(&Op::LinkDel(link.index)) {
        Err(error) if !error.not_found() => Err(error.into()),
        _ => Ok(()),
    }
}

fn check(call: &Call, plan: &Plan) -> Result<(), CniError> {
    let made = call.required_prev_result()?;
    let mut host = Netlink::open()?;
    let link = host_end(call, &mut host, &made)?;
    let shaped = |host: &mut Netlink, index: u32, name: &str, limit: Limit| -> Result<(), CniError> {
        let qdiscs = host.qdiscs(index)?;
        let kind = match plan.subnets {
            Subnets::All => QdiscKind::Tbf(limit.bucket()),
            Subnets::Shaped(_) => QdiscKind::Htb { default: FREE },
            Subnets::Unshaped(_) => QdiscKind::Htb { default: LIMITED },
        };
        if !qdiscs.contains(&Qdisc::root(index, kind)) {
            return Err(differs(format!(
                "{name} does not have the rate, burst and limit of the configuration"
            )));
        }
        Ok(())
    };
    if let Some(limit) = plan.ingress {
        shaped(&mut host, link.index, &link.name, limit)?;
    }
    let Some(limit) = plan.egress else { return Ok(()) };
    let name = ifb_name(call, &call.args.container_id)?;
    let ifb = host.link(&name)?.ok_or_else(|| differs(format!("{name} is gone")))?;
    shaped(&mut host, ifb.index, &ifb.name, limit)?;
    let incoming = Qdisc::incoming(link.index, QdiscKind::Ingress);
    let filters = host.filters(link.index, incoming.handle)?;
    let to_ifb =
        |filter: &Filter| matches!(filter.verdict, Verdict::Redirect { ifindex, .. } if ifindex == ifb.index);
    if !filters.iter().any(to_ifb) {
        return Err(differs(format!("{} does not redirect what comes in to {name}", link.name)));
    }
    Ok(())
}

/// Removes the IFB devices that ours made for this network and no valid attachment has. Of those
/// that the reference made nobody can tell whose they are.
fn gc(call: &Call) -> Result<(), CniError> {
    let valid = call.conf.valid_attachments.as_ref();
    let valid = valid.ok_or_else(|| invalid("cni.dev/valid-attachments is missing: nothing was removed"))?;
    let network = format!("{ALIAS} {} ", call.conf.network()?);
    let kept = valid.iter().map(|attachment| ifb_name(call, &attachment.container_id));
    let kept = kept.collect::<Result<Vec<String>, _>>()?;
    let mut host = Netlink::open()?;
    for link in host.links()? {
        let of_network = link.alias.as_ref().is_some_and(|alias| alias.starts_with(&network));
        if of_network && link.name.starts_with(PREFIX) && !kept.contains(&link.name) {
            remove(&mut host, &link.name)?;
        }
    }
    Ok(())
}
