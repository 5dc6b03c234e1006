//! The sysctls without which a node forwards nothing.

use std::path::Path;

use anyhow::Result;
use weft_fabric::{LocalPlan, Underlay};
use weft_kernel::{Event, sysctl};
use weft_model::mark;

use crate::loose;

/// Turns forwarding on for each family that has pods, on the whole node and on the links of the
/// path: one of them may have been turned off alone. What the check of sources was before a change of
/// the backend is kept in `state_dir`. Returns how many were changed.
pub(crate) fn ensure(plan: &LocalPlan, underlay: &Underlay, state_dir: &Path) -> Result<usize> {
    let file = state_dir.join("rp-filter.json");
    let mut changed = match plan.migrating {
        true => loose::loosen(links(plan, underlay), &file)?,
        false => loose::restore(&file)?,
    };
    let mut on = |name: String| sysctl::ensure(&name, "1").map(|done| changed += usize::from(done));
    on("net/ipv4/ip_forward".into())?;
    for link in links(plan, underlay) {
        on(format!("net/ipv4/conf/{link}/forwarding"))?;
    }
    if plan.tunnels.vxlan.is_some() || plan.tunnels.ipip.is_some() {
        // A tunnel is told of a narrower path by ICMP, and pods only by a node that heeds what it
        // learnt when it forwards; with IPv6 nodes always do.
        on("net/ipv4/ip_forward_use_pmtu".into())?;
    }
    if plan.pod_cidrs.iter().any(|cidr| cidr.addr().is_ipv6()) {
        on("net/ipv6/conf/all/forwarding".into())?;
    }
    Ok(changed)
}

fn links<'a>(plan: &LocalPlan, underlay: &'a Underlay) -> impl Iterator<Item = &'a str> {
    let tunnels = &plan.tunnels;
    let has = [
        (mark::VXLAN, tunnels.vxlan.is_some()),
        (mark::VXLAN6, tunnels.vxlan6.is_some()),
        (mark::UDP, tunnels.udp.is_some()),
        (mark::IPIP, tunnels.ipip.is_some()),
    ];
    let devices = has.into_iter().filter_map(|(name, there)| there.then_some(name));
    [&*underlay.link, mark::BRIDGE].into_iter().chain(devices)
}

/// Whether `event` says that forwarding was turned off somewhere.
pub(crate) fn concerns(event: &Event) -> bool {
    match event {
        Event::Netconf(netconf) => netconf.forwarding == Some(false),
        Event::Overrun => true,
        _ => false,
    }
}
