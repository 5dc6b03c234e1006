use std::net::IpAddr;

use weft_fabric::Underlay;
use weft_kernel::{Event, Netlink, Result};

/// The link that carries `address`, with all its addresses.
pub(crate) fn find(netlink: &mut Netlink, address: IpAddr) -> Result<Option<Underlay>> {
    let addresses = netlink.addresses()?;
    let Some(index) = addresses.iter().find(|a| a.net.addr() == address).map(|a| a.ifindex) else {
        return Ok(None);
    };
    let Some(link) = netlink.link_by_index(index)? else { return Ok(None) };
    let mut nets: Vec<_> = addresses.iter().filter(|a| a.ifindex == index).map(|a| a.net).collect();
    nets.sort();
    Ok(Some(Underlay { link: link.name.into(), index, mtu: link.mtu, addresses: nets }))
}

/// Whether `event` may have changed what [`find`] said for `address`.
pub(crate) fn concerns(event: &Event, address: Option<IpAddr>, known: Option<&Underlay>) -> bool {
    match event {
        Event::Link { new, link } => known.is_some_and(|known| {
            let differs = !new || link.mtu != known.mtu || *link.name != *known.link;
            link.index == known.index && differs
        }),
        Event::Address { address: changed, .. } => {
            known.is_some_and(|known| changed.ifindex == known.index) || Some(changed.net.addr()) == address
        }
        Event::Overrun => true,
        _ => false,
    }
}
