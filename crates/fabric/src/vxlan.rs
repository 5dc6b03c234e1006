//! The backend vxlan: one device, and for each peer a neighbour, a forwarding entry and a route,
//! all static, so that neither ARP nor a miss ever reaches the underlay.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use weft_kernel::{FdbEntry, Link, LinkKind, Neighbour, NewLink, Route};
use weft_model::{Mac, mark};

use crate::VxlanSpec;

/// The device to make. It is made down, so that it is complete before it carries anything.
pub(crate) fn device(spec: &VxlanSpec) -> NewLink {
    let VxlanSpec { name, vni, port, local, underlay, mac, mtu, .. } = *spec;
    let kind = LinkKind::Vxlan { vni, port, local: Some(local), dev: Some(underlay), learning: false };
    NewLink { mac: Some(mac), mtu: Some(mtu), ..NewLink::new(name, kind) }
}

/// Whether a found device is a VXLAN device with the parameters that cannot be changed later.
pub(crate) fn usable(link: &Link, spec: &VxlanSpec) -> bool {
    let VxlanSpec { vni, port, local, underlay, .. } = *spec;
    let wanted = weft_kernel::Vxlan { vni, port, local: Some(local), dev: Some(underlay), learning: false };
    link.vxlan.as_ref() == Some(&wanted)
}

/// The next hop of a path: for IPv4 the network address of the CIDR, as Flannel has it; for IPv6
/// the link-local address of the peer's device (RFC 4291, appendix A). The kernel refuses any other
/// where a route leads to it by another device, as the udp tunnel's for the whole cluster does.
pub(crate) fn gateway(cidr: &IpNet, mac: Mac) -> IpAddr {
    let [a, b, c, d, e, f] = mac.0.map(u16::from);
    match cidr {
        IpNet::V4(net) => net.network().into(),
        IpNet::V6(_) => {
            Ipv6Addr::new(0xfe80, 0, 0, 0, (a ^ 2) << 8 | b, c << 8 | 0xff, 0xfe00 | d, e << 8 | f).into()
        }
    }
}

/// What one path needs on the device with index `device`.
pub(crate) fn entries(
    device: u32,
    cidr: IpNet,
    gateway: IpAddr,
    mac: Mac,
    endpoint: IpAddr,
) -> (Neighbour, FdbEntry, Route) {
    let mut route = Route::new(cidr);
    route.via = Some(gateway);
    route.oif = Some(device);
    route.onlink = true;
    route.protocol = mark::ROUTE_PROTOCOL;
    let neighbour = Neighbour::permanent(device, gateway, mac);
    (neighbour, FdbEntry::tunnel(device, mac, endpoint), route.as_reported())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_hop_of_ipv6_is_what_the_kernel_makes_of_the_mac() {
        let mac = Mac([0x66, 0x0a, 0xff, 0x00, 0x12, 0x9c]);
        let of = |cidr: &str| gateway(&cidr.parse().unwrap(), mac).to_string();
        assert_eq!(of("fd00:244::/64"), "fe80::640a:ffff:fe00:129c");
        assert_eq!(of("10.244.1.0/24"), "10.244.1.0");
    }

    #[test]
    fn a_path_is_three_static_entries_on_our_device() {
        let mac = mark::vtep_mac("node2");
        let (gateway, endpoint) = ("10.244.1.0".parse().unwrap(), "10.168.0.3".parse().unwrap());
        let (neighbour, fdb, route) = entries(9, "10.244.1.0/24".parse().unwrap(), gateway, mac, endpoint);
        assert_eq!((neighbour.ip, neighbour.mac, neighbour.state), (gateway, Some(mac), 0x80));
        assert_eq!((fdb.mac, fdb.dst, fdb.permanent, fdb.own_self), (mac, Some(endpoint), true, true));
        assert_eq!((route.via, route.oif, route.onlink, route.protocol), (Some(gateway), Some(9), true, 87));
    }

    #[test]
    fn a_device_of_another_port_or_that_learns_is_not_usable() {
        let local = "10.168.0.2".parse().unwrap();
        let spec = VxlanSpec {
            name: mark::VXLAN,
            vni: 1,
            port: 8472,
            local,
            underlay: 2,
            mac: Mac::default(),
            addresses: vec![],
            mtu: 1450,
        };
        let found =
            weft_kernel::Vxlan { vni: 1, port: 8472, local: Some(local), dev: Some(2), learning: false };
        let link = |vxlan| Link { vxlan: Some(vxlan), ..Link::default() };
        assert!(usable(&link(found.clone()), &spec));
        assert!(!usable(&link(weft_kernel::Vxlan { port: 4789, ..found.clone() }), &spec));
        assert!(!usable(&link(weft_kernel::Vxlan { learning: true, ..found }), &spec));
        assert!(!usable(&Link::default(), &spec));
    }
}
