//! IP in IP: interfaces of the kinds `ipip` (RFC 2003) and `ip6tnl` (RFC 2473).

use std::net::IpAddr;

use netlink_packet_core::DefaultNla;
use netlink_packet_route::link::{InfoData, InfoIpTunnel, InfoKind, Ip6TunnelFlags, LinkInfo};

use crate::wire::{attributes, ip, u32_at};

/// A tunnel endpoint without a fixed remote end: each route says where the outer packet goes, by its
/// next hop for IPv4 and by [`Route::encap`](crate::Route::encap) for IPv6, of which a namespace can
/// have one such endpoint. It carries packets of its own family only.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpTunnel {
    /// Source address of the outer packets.
    pub local: IpAddr,
    /// Index of the underlay interface.
    pub dev: Option<u32>,
}

/// The kind of the interface as the kernel names it.
pub(crate) fn kind(tunnel: &IpTunnel) -> InfoKind {
    if tunnel.local.is_ipv4() { InfoKind::IpIp } else { InfoKind::Ip6Tnl }
}

/// What makes the interface.
pub(crate) fn encode(tunnel: &IpTunnel) -> Vec<LinkInfo> {
    let mut data = vec![InfoIpTunnel::Local(tunnel.local)];
    data.extend(tunnel.dev.map(InfoIpTunnel::Link));
    if tunnel.local.is_ipv4() {
        data.extend([carries(libc::IPPROTO_IPIP), InfoIpTunnel::PMtuDisc(true)]);
    } else {
        // Without the option that counts how often a packet was put into another: 8 bytes of each.
        let flags = Ip6TunnelFlags::IgnEncapLimit;
        data.extend([carries(libc::IPPROTO_IPV6), InfoIpTunnel::Ipv6Flags(flags)]);
        data.push(InfoIpTunnel::CollectMetadata);
    }
    vec![LinkInfo::Kind(kind(tunnel)), LinkInfo::Data(InfoData::IpTunnel(data))]
}

/// Which protocol is inside. The crate has no name for it that others may use.
fn carries(protocol: i32) -> InfoIpTunnel {
    InfoIpTunnel::Other(DefaultNla::new(PROTO, vec![protocol as u8]))
}

// `IFLA_IPTUN_*` of linux/if_tunnel.h.
const LINK: u16 = 1;
const LOCAL: u16 = 2;
const REMOTE: u16 = 3;
const PROTO: u16 = 9;
const COLLECT_METADATA: u16 = 19;

/// A tunnel out of the data of its kind; none where it has a fixed remote end or no local one.
pub(crate) fn decode(data: &[u8]) -> Option<IpTunnel> {
    let find = |wanted| attributes(data).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let address = |wanted| find(wanted).and_then(ip).filter(|ip| !ip.is_unspecified());
    let local = address(LOCAL)?;
    if address(REMOTE).is_some() || local.is_ipv6() && find(COLLECT_METADATA).is_none() {
        return None;
    }
    let dev = find(LINK).and_then(|value| u32_at(value, 0)).filter(|index| *index != 0);
    Some(IpTunnel { local, dev })
}
