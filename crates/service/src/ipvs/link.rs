//! The link that makes Services' addresses the node's, so that their packets come to the virtual servers.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use weft_kernel::{Address, LinkKind, LinkSet, Netlink, NewLink, Op, Route, TABLE_LOCAL, sysctl};
use weft_model::mark;

use super::{inner, kube_proxy};
use crate::Error;

/// The name of the link.
pub const LINK: &str = "weft-ipvs0";
/// RT_SCOPE_HOST and RTN_LOCAL.
const HOST: u8 = 254;
const LOCAL: u8 = 2;

/// The link, and which addresses it has.
#[derive(Debug)]
pub(super) struct Link {
    netlink: Netlink,
    index: Option<u32>,
    has: BTreeSet<IpAddr>,
}

impl Link {
    pub(super) fn open() -> Result<Link, Error> {
        Ok(Link { netlink: Netlink::open()?, index: None, has: BTreeSet::new() })
    }

    /// Reads what there is; gives the addresses of other links, but for those that kube-proxy gave its own.
    pub(super) fn read(&mut self) -> Result<BTreeSet<IpAddr>, Error> {
        self.index = self.netlink.link(LINK)?.map(|link| link.index);
        let before = self.netlink.link(kube_proxy::LINK)?.map(|link| link.index);
        let all = self.netlink.addresses()?;
        let (own, others): (Vec<Address>, Vec<Address>) =
            all.into_iter().partition(|address| Some(address.ifindex) == self.index);
        self.has = own.iter().map(|address| address.net.addr()).filter(|ip| !is_link_local(ip)).collect();
        let others = others.iter().filter(|address| Some(address.ifindex) != before);
        Ok(others.map(|address| address.net.addr()).collect())
    }

    /// The addresses that it has.
    pub(super) fn addresses(&self) -> &BTreeSet<IpAddr> {
        &self.has
    }

    /// Whether there is one.
    pub(super) fn is_there(&self) -> bool {
        self.index.is_some()
    }

    /// Whether an address is of this link.
    pub(super) fn is_own(&self, address: &Address) -> bool {
        Some(address.ifindex) == self.index
    }

    /// Whether what is told of a link is that somebody else changed this one.
    pub(super) fn is_changed(&self, new: bool, link: &weft_kernel::Link) -> bool {
        Some(link.index) == self.index && (!new || !link.up)
    }

    /// Whether what is told of an address is that somebody else changed one of this link.
    pub(super) fn is_changed_by(&self, new: bool, address: &Address) -> bool {
        let ip = address.net.addr();
        self.is_own(address) && !is_link_local(&ip) && new != self.has.contains(&ip)
    }

    /// Makes it where it is missing, and what leads to inner addresses. Says how many objects were made.
    pub(super) fn ensure(&mut self, families: [bool; 2]) -> Result<usize, Error> {
        let mut made = 0;
        let index = match self.index {
            Some(index) => index,
            None => {
                self.netlink.apply(&Op::LinkAdd(NewLink::new(LINK, LinkKind::Dummy)))?;
                made += 1;
                let index = self.netlink.link(LINK)?.map(|link| link.index).unwrap_or_default();
                // It needs no address of its own.
                let _ = sysctl::set(&format!("net/ipv6/conf/{LINK}/addr_gen_mode"), "1");
                *self.index.insert(index)
            }
        };
        if !self.netlink.link(LINK)?.is_some_and(|link| link.up) {
            self.netlink.apply(&Op::LinkSet(LinkSet { index, up: Some(true), ..LinkSet::default() }))?;
            made += 1;
        }
        let routes = self.netlink.routes()?;
        for (ipv6, _) in [false, true].into_iter().zip(families).filter(|(_, used)| *used) {
            let net = inner::net(ipv6);
            if !routes.iter().any(|route| route.dst == net && route.oif == Some(index)) {
                self.netlink.apply(&Op::RouteAdd(local_route(net, index)))?;
                made += 1;
            }
        }
        Ok(made)
    }

    /// Adds addresses that it does not have yet.
    pub(super) fn add(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<usize, Error> {
        let Some(index) = self.index else { return Ok(0) };
        let new: Vec<IpAddr> = addresses.difference(&self.has).copied().collect();
        let ops: Vec<Op> = new.iter().map(|ip| Op::AddrAdd(address(index, *ip))).collect();
        for (ip, result) in new.iter().zip(self.netlink.batch(&ops)) {
            if let Err(error) = result
                && !error.exists()
            {
                return Err(error.into());
            }
            self.has.insert(*ip);
        }
        Ok(new.len())
    }

    /// Removes addresses.
    pub(super) fn remove(&mut self, addresses: &[IpAddr]) -> Result<(), Error> {
        let Some(index) = self.index else { return Ok(()) };
        let ops: Vec<Op> = addresses.iter().map(|ip| Op::AddrDel(address(index, *ip))).collect();
        for (ip, result) in addresses.iter().zip(self.netlink.batch(&ops)) {
            if let Err(error) = result
                && !error.not_found()
            {
                return Err(error.into());
            }
            self.has.remove(ip);
        }
        Ok(())
    }

    /// Removes it with all addresses.
    pub(super) fn delete(&mut self) -> Result<(), Error> {
        if let Some(index) = self.index.take() {
            self.netlink.apply(&Op::LinkDel(index))?;
        }
        self.has.clear();
        Ok(())
    }
}

fn is_link_local(ip: &IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

/// Of a scope that nothing else takes for its source address, and that nobody asks for by ARP.
fn address(index: u32, ip: IpAddr) -> Address {
    let scope = if ip.is_ipv4() { HOST } else { 0 };
    Address { scope, no_dad: true, deprecated: ip.is_ipv6(), ..Address::new(index, IpNet::from(ip)) }
}

fn local_route(net: IpNet, index: u32) -> Route {
    Route {
        oif: Some(index),
        table: TABLE_LOCAL,
        protocol: mark::SERVICE_ROUTE_PROTOCOL,
        scope: if net.addr().is_ipv4() { HOST } else { 0 },
        kind: LOCAL,
        ..Route::new(net)
    }
}

/// What the kernel has to be told once: that translation is told to conntrack, that connections to what went
/// are led anew, and that nobody answers ARP for a Service's address.
pub(super) fn ensure_parameters() -> Result<(), Error> {
    for name in ["conntrack", "expire_nodest_conn", "expire_quiescent_template"] {
        sysctl::ensure(&format!("net/ipv4/vs/{name}"), "1")?;
    }
    // 3: not for addresses of scope host. What is there already is as strict.
    for (name, lax, strict) in [("arp_ignore", &["0"][..], "3"), ("arp_announce", &["0", "1"], "2")] {
        let name = format!("net/ipv4/conf/all/{name}");
        if lax.contains(&sysctl::get(&name)?.as_str()) {
            sysctl::set(&name, strict)?;
        }
    }
    Ok(())
}
