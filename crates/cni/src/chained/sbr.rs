//! The `sbr` plugin: packets from an address of the container's interface go by the routes of
//! that interface, also where another interface has the default route.
//!
//! Each address gets a routing table with a copy of the interface's routes, and a rule that asks
//! it for packets from there; the main table loses these routes.

use std::fs::File;
use std::os::fd::AsFd;

use ipnet::IpNet;
use serde::Deserialize;
use weft_kernel::{Netlink, Netns, Op, Route, Rule, TABLE_MAIN};

use crate::chained::{all_or_nothing, interface, netns_if_there};
use crate::interface::check::differs;
use crate::interface::pod::default_of;
use crate::protocol::args::Command;
use crate::protocol::config::invalid;
use crate::protocol::error::{CniError, code};
use crate::protocol::plugin::{Answer, Call};
use crate::protocol::result::{CniResult, Ip};
use crate::sandbox;

/// The first table that is taken.
const FIRST_TABLE: u32 = 100;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Keys {
    /// The table of all addresses; then no route is copied.
    table: Option<u32>,
}

pub(crate) fn plugin(call: &Call, answer: Answer<'_>) -> Result<(), CniError> {
    match call.command {
        Command::Add => add(call, answer),
        Command::Del => del(call),
        Command::Check => check(call),
        // What it makes goes with the container's namespace.
        Command::Gc => Ok(()),
        _ => call.keys::<Keys>().map(drop),
    }
}

/// Nobody else chooses a table or moves routes in the namespace at once, the reference neither.
fn locked(netns: &Netns) -> Result<File, CniError> {
    let refused =
        |error| CniError::new(code::IO, format!("cannot lock the container's network namespace: {error}"));
    let file = netns.as_fd().try_clone_to_owned().map(File::from).map_err(refused)?;
    file.lock().map_err(refused)?;
    Ok(file)
}

fn add(call: &Call, answer: Answer<'_>) -> Result<(), CniError> {
    let keys: Keys = call.keys()?;
    let made = call.required_prev_result()?;
    let ips = own_addresses(call, &made)?;
    let netns = sandbox::of(call)?;
    let _lock = locked(&netns)?;
    let mut pod = Netlink::open_in(&netns)?;
    let link = interface(call, &mut pod)?;
    let plan = match keys.table {
        Some(table) => {
            Plan { copy: ips.iter().map(|ip| Op::RuleAdd(rule(ip, table))).collect(), remove: vec![] }
        }
        None => {
            let routes =
                pod.routes()?.into_iter().filter(|r| r.table == TABLE_MAIN && r.oif == Some(link.index));
            Plan::new(&ips, &pod.rules()?, &routes.collect::<Vec<Route>>(), link.index)
        }
    };
    all_or_nothing(&mut pod, &plan.copy, inverse)?;
    let undo = |pod: &mut Netlink, ops: &[Op]| {
        pod.batch(&ops.iter().rev().filter_map(inverse).collect::<Vec<Op>>());
    };
    if let Err(error) = all_or_nothing(&mut pod, &plan.remove, inverse) {
        undo(&mut pod, &plan.copy);
        return Err(error);
    }
    answer(&made).inspect_err(|_| {
        undo(&mut pod, &plan.remove);
        undo(&mut pod, &plan.copy);
    })
}

/// What is done, in two steps.
#[derive(Debug, Default)]
struct Plan {
    copy: Vec<Op>,
    remove: Vec<Op>,
}

impl Plan {
    /// A table for each address: the first ones from 100 up that no rule of before names.
    fn new(ips: &[Ip], rules: &[Rule], routes: &[Route], index: u32) -> Plan {
        let mut tables = (FIRST_TABLE..).filter(|table| !rules.iter().any(|rule| rule.table == *table));
        let mut copy = Vec::new();
        for ip in ips {
            let table = tables.next().unwrap_or(FIRST_TABLE);
            copy.push(Op::RuleAdd(rule(ip, table)));
            // The default route may have been taken away by a plugin before.
            copy.extend(ip.gateway.map(|gateway| {
                let default = Route::new(default_of(&gateway));
                Op::RouteAdd(Route { via: Some(gateway), oif: Some(index), table, ..default })
            }));
            let serves = |route: &&Route| {
                let inside =
                    |other: Option<std::net::IpAddr>| other.is_some_and(|other| ip.address.contains(&other));
                inside(route.src) || inside(route.via) || (route.src.is_none() && route.via.is_none())
            };
            let copies = routes.iter().filter(serves).map(|route| Route { table, ..route.clone() });
            copy.extend(copies.map(Op::RouteReplace));
        }
        Plan { copy, remove: routes.iter().cloned().map(Op::RouteDel).collect() }
    }
}

fn inverse(op: &Op) -> Option<Op> {
    match op {
        Op::RuleAdd(rule) => Some(Op::RuleDel(rule.clone())),
        Op::RouteAdd(route) | Op::RouteReplace(route) => Some(Op::RouteDel(route.clone())),
        Op::RouteDel(route) => Some(Op::RouteReplace(route.clone())),
        _ => None,
    }
}

fn rule(ip: &Ip, table: u32) -> Rule {
    let source = ip.address.addr();
    Rule { ipv6: source.is_ipv6(), from: Some(IpNet::from(source)), table, ..Rule::default() }
}

/// The addresses of the interface, and those that are said to be of none.
fn own_addresses(call: &Call, made: &CniResult) -> Result<Vec<Ip>, CniError> {
    if made.ips.is_empty() {
        return Err(invalid(&format!("prevResult: it has no address of {}", call.args.ifname)));
    }
    let own = |ip: &&Ip| {
        let interface = ip.interface.and_then(|at| made.interfaces.get(at));
        interface.is_none_or(|interface| interface.name == call.args.ifname)
    };
    Ok(made.ips.iter().filter(own).cloned().collect())
}

/// Removes the rules for addresses of the interface.
fn del(call: &Call) -> Result<(), CniError> {
    let Some(netns) = netns_if_there(call) else { return Ok(()) };
    let _lock = locked(&netns)?;
    let mut pod = Netlink::open_in(&netns)?;
    let Some(link) = pod.link(&call.args.ifname)? else { return Ok(()) };
    // A DEL must not fail for a key that it can do without.
    let table = call.keys::<Keys>().ok().and_then(|keys| keys.table);
    let addresses = pod.addresses()?;
    let of_link =
        |from: &IpNet| addresses.iter().any(|a| a.ifindex == link.index && a.net.addr() == from.addr());
    let ours = |rule: &Rule| {
        rule.from.as_ref().is_some_and(of_link) && table.is_none_or(|table| rule.table == table)
    };
    let ops: Vec<Op> = pod.rules()?.into_iter().filter(ours).map(Op::RuleDel).collect();
    let failed = pod.batch(&ops).into_iter().find_map(|done| done.err().filter(|error| !error.not_found()));
    failed.map_or(Ok(()), |error| Err(error.into()))
}

fn check(call: &Call) -> Result<(), CniError> {
    let keys: Keys = call.keys()?;
    let made = call.required_prev_result()?;
    let rules = Netlink::open_in(&sandbox::of(call)?)?.rules()?;
    for ip in own_addresses(call, &made)? {
        let source = IpNet::from(ip.address.addr());
        let serves =
            |rule: &Rule| rule.from == Some(source) && keys.table.is_none_or(|table| rule.table == table);
        if !rules.iter().any(serves) {
            return Err(differs(format!("the container has no rule for packets from {}", source.addr())));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(address: &str, gateway: &str) -> Ip {
        Ip { address: address.parse().unwrap(), gateway: gateway.parse().ok(), interface: None }
    }

    #[test]
    fn each_address_gets_a_free_table_and_the_routes_that_serve_it() {
        let taken = Rule { table: 101, ..Rule::default() };
        let route = |dst: &str, via: &str, src: &str| Route {
            via: via.parse().ok(),
            src: src.parse().ok(),
            oif: Some(7),
            ..Route::new(dst.parse().unwrap())
        };
        let connected = route("10.1.0.0/16", "", "10.1.2.3");
        let onward = route("192.0.2.0/24", "10.1.0.1", "");
        let link_local = route("fe80::/64", "", "");
        let ips = [ip("10.1.2.3/16", "10.1.0.1"), ip("fd00::3/64", "")];
        let plan = Plan::new(&ips, &[taken], &[connected, onward, link_local], 7);
        let shown: Vec<String> = plan
            .copy
            .iter()
            .map(|op| match op {
                Op::RuleAdd(rule) => format!("rule {rule}"),
                Op::RouteAdd(route) => format!("add {route}"),
                Op::RouteReplace(route) => format!("copy {route}"),
                other => format!("{other:?}"),
            })
            .collect();
        assert_eq!(
            shown,
            [
                "rule IPv4 from 10.1.2.3/32 table 100",
                "add 0.0.0.0/0 via 10.1.0.1 on link 7 table 100",
                "copy 10.1.0.0/16 on link 7 table 100",
                "copy 192.0.2.0/24 via 10.1.0.1 on link 7 table 100",
                "copy fe80::/64 on link 7 table 100",
                "rule IPv6 from fd00::3/128 table 102",
                "copy fe80::/64 on link 7 table 102",
            ]
        );
        assert_eq!(plan.remove.len(), 3);
    }
}
