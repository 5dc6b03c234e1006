//! What kube-proxy of mode ipvs left on this host: virtual servers at the addresses of a link and, for node ports,
//! at the node's own, and sets of addresses. Its connections are led packet by packet, so the servers and their
//! addresses stay until these have ended.

use std::collections::BTreeSet;
use std::net::IpAddr;

use weft_kernel::ipvs::ServerKey;
use weft_kernel::{Address, Netlink, Op, ipset};

use super::servers::Servers;
use crate::Error;

/// The link that has the Services' addresses.
pub(crate) const LINK: &str = "kube-ipvs0";
/// The sets that have the node ports of TCP, UDP and SCTP.
const NODE_PORTS: [(&str, u8); 3] =
    [("NODE-PORT-TCP", 6), ("NODE-PORT-UDP", 17), ("NODE-PORT-SCTP-HASH", 132)];
/// All others.
const SETS: [&str; 14] = [
    "LOOP-BACK",
    "CLUSTER-IP",
    "EXTERNAL-IP",
    "EXTERNAL-IP-LOCAL",
    "LOAD-BALANCER",
    "LOAD-BALANCER-LOCAL",
    "LOAD-BALANCER-FW",
    "LOAD-BALANCER-SOURCE-IP",
    "LOAD-BALANCER-SOURCE-CIDR",
    "NODE-PORT-LOCAL-TCP",
    "NODE-PORT-LOCAL-UDP",
    "NODE-PORT-LOCAL-SCTP-HASH",
    "HEALTH-CHECK-NODE-PORT",
    "IPVS-IPS",
];
/// As much of a name the kernel takes.
const NAME: usize = 31;

/// A set's names, of IPv4 and of IPv6.
fn names(of: &str) -> [String; 2] {
    ["KUBE-", "KUBE-6-"].map(|prefix| format!("{prefix}{of}").chars().take(NAME).collect())
}

/// Whether its link is in the calling thread's network namespace.
pub(crate) fn is_there() -> Result<bool, weft_kernel::Error> {
    Ok(Netlink::open()?.link(LINK)?.is_some())
}

/// Has its virtual servers get no new connections, and removes what has none. Those that an agent of this mode has
/// taken over stay. Says whether nothing of it is left; the sets are while rules name them.
pub fn drain() -> Result<bool, Error> {
    let mut netlink = Netlink::open()?;
    let Some(link) = netlink.link(LINK)? else { return Ok(true) };
    let taken_over = netlink.link(super::LINK)?.map(|link| link.index);
    let all = netlink.addresses()?;
    let of = |is: &dyn Fn(u32) -> bool| -> BTreeSet<IpAddr> {
        all.iter().filter(|address| is(address.ifindex)).map(|address| address.net.addr()).collect()
    };
    let theirs = of(&|index| index == link.index);
    let ours = of(&|index| Some(index) == taken_over);
    let node = of(&|index| index != link.index && Some(index) != taken_over);
    let mut ports = BTreeSet::new();
    for (set, protocol) in NODE_PORTS {
        for name in names(set) {
            ports.extend(ipset::ports(&name)?.into_iter().map(|port| (protocol, port)));
        }
    }
    let is_left = |key: &ServerKey| {
        let (ip, port) = (key.at.ip(), (key.protocol, key.at.port()));
        (theirs.contains(&ip) && !ours.contains(&ip)) || (node.contains(&ip) && ports.contains(&port))
    };
    let mut left = Servers::default();
    match super::open() {
        // Nobody new comes after the first, so the second removes what then has no connections.
        Ok(mut kernel) => {
            for _ in 0..2 {
                left = super::drain(&mut kernel, true, is_left)?;
            }
        }
        Err(Error::NoIpvs) => {}
        Err(error) => return Err(error),
    }
    if left.keys().next().is_some() {
        let is_idle = |address: &&Address| address.ifindex == link.index && !left.any_at(address.net.addr());
        let idle: Vec<Op> = all.iter().filter(is_idle).cloned().map(Op::AddrDel).collect();
        netlink.batch(&idle).into_iter().collect::<Result<Vec<()>, _>>()?;
        return Ok(false);
    }
    let mut gone = true;
    for set in SETS.into_iter().chain(NODE_PORTS.map(|(set, _)| set)) {
        for name in names(set) {
            gone &= ipset::destroy(&name)?;
        }
    }
    if gone {
        netlink.apply(&Op::LinkDel(link.index))?;
    }
    Ok(gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_long_as_the_kernel_takes() {
        assert_eq!(names("NODE-PORT-TCP"), ["KUBE-NODE-PORT-TCP", "KUBE-6-NODE-PORT-TCP"]);
        assert_eq!(names("LOAD-BALANCER-SOURCE-CIDR")[1], "KUBE-6-LOAD-BALANCER-SOURCE-CID");
    }
}
