//! The sysctls without which a node forwards nothing.

use weft_fabric::{LocalPlan, Underlay};
use weft_kernel::{Event, Result, sysctl};
use weft_model::mark;

/// Turns forwarding on for each family that has pods, on the whole node and on the links of the
/// path: one of them may have been turned off alone. Returns how many were changed.
pub(crate) fn ensure(plan: &LocalPlan, underlay: &Underlay) -> Result<usize> {
    let mut changed = 0;
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
    if plan.migrating {
        // A peer may send by one backend what we would send by the other: a strict check of the
        // source drops that.
        let strict =
            |link: &str| sysctl::get(&format!("net/ipv4/conf/{link}/rp_filter")).is_ok_and(|v| v == "1");
        let (all, loose) = (strict("all"), |link: &str| format!("net/ipv4/conf/{link}/rp_filter"));
        for link in links(plan, underlay).filter(|link| all || strict(link)) {
            if sysctl::ensure(&loose(link), "2")? {
                tracing::info!("set {} to 2 (loose), since the backend is being changed", loose(link));
            }
        }
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
