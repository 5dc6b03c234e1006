use std::net::IpAddr;

use ipnet::IpNet;
use weft_kernel::{Event, Netlink, Result, sysctl};
use weft_model::{Mac, Node};

use super::AnnounceOn;
use crate::underlay;

/// The link on which this node announces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Announcing {
    pub name: String,
    pub index: u32,
    pub mac: Mac,
    /// Whether it carries packets.
    pub running: bool,
    /// The networks that it is in.
    pub nets: Vec<IpNet>,
    /// The node's addresses that it has, one a family: what is said to other nodes comes from the first.
    pub sources: Vec<IpAddr>,
}

impl Announcing {
    /// Finds it, or says why there is none.
    pub(super) fn find(
        netlink: &mut Netlink,
        on: &AnnounceOn,
        node: &Node,
    ) -> Result<std::result::Result<Announcing, String>> {
        let index = match on {
            AnnounceOn::Link(name) => match netlink.link(name)? {
                Some(link) => link.index,
                None => return Ok(Err(format!("there is no link {name}"))),
            },
            _ => {
                let Some(address) = node.addresses.first() else {
                    return Ok(Err(format!("node {} has no address", node.name)));
                };
                match underlay::find(netlink, *address)? {
                    Some(found) => found.index,
                    None => return Ok(Err(format!("no link has {address}"))),
                }
            }
        };
        let Some(link) = netlink.link_by_index(index)? else {
            return Ok(Err("the link is gone".into()));
        };
        let Some(mac) = link.mac else {
            return Ok(Err(format!("{} has no hardware address: nobody asks for one there", link.name)));
        };
        let addresses = netlink.addresses()?;
        let of_link = addresses.iter().filter(|address| address.ifindex == index);
        let usable = of_link.filter(|address| address.scope == 0 && !address.tentative && !address.duplicate);
        let mut nets: Vec<IpNet> = usable.map(|address| address.net).collect();
        nets.sort();
        let has = |ip: &&IpAddr| nets.iter().any(|net| net.addr() == **ip);
        let sources: Vec<IpAddr> = node.addresses.iter().filter(has).copied().collect();
        if sources.is_empty() {
            return Ok(Err(format!("{} has no address of node {}", link.name, node.name)));
        }
        Ok(Ok(Announcing { name: link.name, index, mac, running: link.running, nets, sources }))
    }

    /// Has the kernel neither answer nor tell for addresses that this link does not have: some proxy modes
    /// make those of Services the node's own, so that every node would answer. The kernel's proxy ARP is
    /// no way to answer for them, since what a process leaves of it answers on when that is gone.
    pub(super) fn quiet_kernel(&self) -> Result<()> {
        for (key, least) in [("arp_ignore", 1), ("arp_announce", 2)] {
            let key = format!("net/ipv4/conf/{}/{key}", self.name);
            if sysctl::get(&key)?.parse().unwrap_or(0) < least {
                sysctl::set(&key, &least.to_string())?;
            }
        }
        Ok(())
    }
}

/// Whether `event` may have changed what was found.
pub(super) fn concerns(event: &Event, known: Option<&Announcing>) -> bool {
    match event {
        Event::Link { new, link } => known.is_none_or(|known| {
            let differs = !new || link.running != known.running || link.mac != Some(known.mac);
            link.index == known.index && (differs || link.name != known.name)
        }),
        Event::Address { address, .. } => known.is_none_or(|known| address.ifindex == known.index),
        Event::Overrun => true,
        _ => false,
    }
}
