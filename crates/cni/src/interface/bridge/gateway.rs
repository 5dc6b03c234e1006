//! The bridge as the containers' gateway: its addresses, and the node that forwards.

use ipnet::IpNet;
use weft_kernel::{Address, Link, LinkSet, Netlink, Op, sysctl};

use crate::interface::bridge::plan::Plan;
use crate::protocol::config::invalid;
use crate::protocol::error::CniError;
use crate::protocol::result::CniResult;

/// `link` (the bridge, or its interface in the VLAN) has each gateway's address, and the kernel
/// forwards.
pub(crate) fn ensure(
    plan: &Plan,
    host: &mut Netlink,
    link: &Link,
    result: &CniResult,
) -> Result<(), CniError> {
    let mut wanted: Vec<IpNet> = Vec::new();
    for ip in &result.ips {
        let net = ip.gateway.and_then(|gateway| IpNet::new(gateway, ip.address.prefix_len()).ok());
        wanted.extend(net.filter(|net| !wanted.contains(net)));
    }
    let address = |net: &IpNet| Address { no_dad: true, broadcast: true, ..Address::new(link.index, *net) };
    let ops: Vec<Op> = wanted.iter().map(|net| Op::AddrAdd(address(net))).collect();
    for (net, done) in wanted.iter().zip(host.batch(&ops)) {
        match done {
            // The usual case: one of the pods before has put it there.
            Err(error) if error.exists() => {}
            Err(error) => return Err(error.into()),
            Ok(()) => {
                if settle(plan, host, link, net)? {
                    // The kernel removes with an address the later ones of its network.
                    host.apply(&Op::AddrAdd(address(net)))
                        .or_else(|e| if e.exists() { Ok(()) } else { Err(e) })?;
                }
                // Set, a bridge's hardware address does not follow its ports'.
                host.apply(&Op::LinkSet(LinkSet { index: link.index, mac: link.mac, ..LinkSet::default() }))?;
            }
        }
    }
    forward(host, result)
}

/// The kernel forwards packets of the families of `result`.
pub(crate) fn forward(host: &mut Netlink, result: &CniResult) -> Result<(), CniError> {
    let has = |v4: bool| result.ips.iter().any(|ip| ip.address.addr().is_ipv4() == v4);
    for (ipv6, name) in [(false, "net.ipv4.ip_forward"), (true, "net.ipv6.conf.all.forwarding")] {
        if has(!ipv6) && !host.forwards(ipv6).unwrap_or_default() {
            sysctl::set(name, "1")?;
        }
    }
    Ok(())
}

/// Whether others made way for it: a new gateway address must not stand beside another one of the bridge: of IPv4 any, of IPv6
/// one of the same network.
fn settle(plan: &Plan, host: &mut Netlink, link: &Link, net: &IpNet) -> Result<bool, CniError> {
    let of_link = host.addresses()?.into_iter().filter(|address| address.ifindex == link.index);
    let conflicts = |other: &Address| {
        let overlap = other.net.contains(&net.addr()) || net.contains(&other.net.addr());
        other.net != *net && (overlap || (net.addr().is_ipv4() && other.net.addr().is_ipv4()))
    };
    let mut replaced = false;
    for other in of_link.filter(conflicts) {
        if plan.force_address {
            host.apply(&Op::AddrDel(other))?;
            replaced = true;
            continue;
        }
        host.apply(&Op::AddrDel(Address::new(link.index, *net))).ok();
        let message = format!(
            "bridge: {} has {} already, not {net}: set forceAddress to replace it",
            link.name, other.net
        );
        return Err(invalid(&message));
    }
    Ok(replaced)
}
