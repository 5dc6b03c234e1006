//! CHECK: the kernel still has what ADD answered.

use weft_kernel::{Link, Netlink};

use crate::bridge::plan::Plan;
use crate::error::{CniError, code};
use crate::plugin::Call;
use crate::result::{CniResult, Interface};
use crate::sandbox;

pub(crate) fn check(call: &Call, plan: &Plan, made: &CniResult) -> Result<(), CniError> {
    let Some(path) = &call.args.netns else { return Ok(()) };
    let netns = sandbox::open(path)?;
    let mut host = Netlink::open()?;
    let bridge = present(&mut host, &plan.bridge, "bridge", made)?;
    let mut pod = Netlink::open_in(&netns)?;
    let in_pod = present(&mut pod, &call.args.ifname, "veth", made)?;
    let peer = in_pod.peer.map(|index| host.link_by_index(index)).transpose()?.flatten();
    match peer {
        Some(peer) if peer.master == Some(bridge.index) => {}
        Some(peer) => return Err(differs(format!("{} is no port of bridge {}", peer.name, bridge.name))),
        None => return Err(differs(format!("{} has no other end on the node", in_pod.name))),
    }
    check_addresses(&mut pod, &in_pod, made)?;
    check_routes(&mut pod, made)
}

fn present(netlink: &mut Netlink, name: &str, kind: &str, made: &CniResult) -> Result<Link, CniError> {
    let link = netlink.link(name)?.ok_or_else(|| differs(format!("{name} is gone")))?;
    if link.kind.as_deref() != Some(kind) {
        return Err(differs(format!("{name} is no {kind}")));
    }
    let listed: Option<&Interface> = made.interfaces.iter().find(|interface| interface.name == name);
    let mac = listed.and_then(|interface| interface.mac.as_ref());
    let actual = link.mac.map(|mac| mac.to_string()).unwrap_or_default();
    if mac.is_some_and(|mac| !mac.eq_ignore_ascii_case(&actual)) {
        return Err(differs(format!("{name} has the MAC {actual} and not the one in prevResult")));
    }
    Ok(link)
}

fn check_addresses(pod: &mut Netlink, link: &Link, made: &CniResult) -> Result<(), CniError> {
    let actual = pod.addresses()?;
    let has = |ip: &ipnet::IpNet| actual.iter().any(|a| a.ifindex == link.index && a.net == *ip);
    match made.ips.iter().find(|ip| !has(&ip.address)) {
        Some(ip) => Err(differs(format!("{} does not have {}", link.name, ip.address))),
        None => Ok(()),
    }
}

fn check_routes(pod: &mut Netlink, made: &CniResult) -> Result<(), CniError> {
    let actual = pod.routes()?;
    for route in &made.routes {
        let same = |found: &&weft_kernel::Route| {
            found.dst == route.dst.trunc()
                && route.gw.is_none_or(|gw| found.via == Some(gw))
                && route.table.is_none_or(|table| found.table == table)
        };
        if !actual.iter().any(|found| same(&found)) {
            return Err(differs(format!("the container has no route to {}", route.dst)));
        }
    }
    Ok(())
}

fn differs(message: String) -> CniError {
    CniError::new(code::NOT_AS_MADE, message)
}
