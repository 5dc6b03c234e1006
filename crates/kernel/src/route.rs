//! Routes.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_core::DefaultNla;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAttribute, RouteFlags, RouteIp6Tunnel, RouteLwEnCapType, RouteLwTunnelEncap, RouteMessage,
    RouteMetric, RouteProtocol, RouteScope, RouteType, RouteVia,
};

use crate::wire::{attributes, family, ip, of_family, u16_at, u32_at, unspecified};

/// The main routing table (RT_TABLE_MAIN).
pub const TABLE_MAIN: u32 = 254;
/// The table of the machine's own addresses (RT_TABLE_LOCAL).
pub const TABLE_LOCAL: u32 = 255;

/// Loopback has the same index in every namespace.
const LOOPBACK: u32 = 1;

/// A route. A multipath route that another program made is read without `via` and `oif`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// Destination.
    pub dst: IpNet,
    /// Next hop; may be of the other family.
    pub via: Option<IpAddr>,
    /// Outgoing interface.
    pub oif: Option<u32>,
    /// Routing table.
    pub table: u32,
    /// Who made it (`RTPROT_*`).
    pub protocol: u8,
    /// Distance (`RT_SCOPE_*`): 0 universe, 253 link, 254 host. IPv6 has universe only.
    pub scope: u8,
    /// `RTN_*`: 1 unicast, 2 local, 6 blackhole, 7 unreachable.
    pub kind: u8,
    /// Preferred source address.
    pub src: Option<IpAddr>,
    /// Priority, lowest wins. For IPv6 the kernel turns 0 into 1024.
    pub metric: u32,
    /// The next hop is on the link though no route says so.
    pub onlink: bool,
    /// Path MTU in bytes.
    pub mtu: Option<u32>,
    /// Maximal segment size that TCP advertises, in bytes.
    pub advmss: Option<u32>,
    /// Number of the [`Nexthop`](crate::Nexthop) that it names; `via`, `oif` and `onlink` then say
    /// what that is.
    pub nexthop: Option<u32>,
    /// Where an interface of kind `ip6tnl` is to send the outer packet. For IPv6 this stands in the
    /// place of a next hop, which the kernel refuses where another interface leads to it.
    pub encap: Option<Ipv6Addr>,
}

impl Route {
    /// A unicast route in the main table, made by protocol boot (3), as `ip route add` makes it.
    pub fn new(dst: IpNet) -> Route {
        Route {
            dst,
            via: None,
            oif: None,
            table: TABLE_MAIN,
            protocol: libc::RTPROT_BOOT,
            scope: libc::RT_SCOPE_UNIVERSE,
            kind: libc::RTN_UNICAST,
            src: None,
            metric: 0,
            onlink: false,
            mtu: None,
            advmss: None,
            nexthop: None,
            encap: None,
        }
    }

    /// The same route as the kernel will report it: destination without host bits, and for IPv6
    /// the default metric 1024, universe scope, and loopback as the interface of what leads
    /// nowhere.
    pub fn as_reported(mut self) -> Route {
        self.dst = self.dst.trunc();
        if matches!(self.dst, IpNet::V6(_)) {
            self.scope = libc::RT_SCOPE_UNIVERSE;
            if self.metric == 0 {
                self.metric = 1024;
            }
            if (libc::RTN_BLACKHOLE..=libc::RTN_THROW).contains(&self.kind) {
                self.oif = Some(LOOPBACK);
            }
        }
        self
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.dst)?;
        self.via.map_or(Ok(()), |via| write!(f, " via {via}"))?;
        self.encap.map_or(Ok(()), |remote| write!(f, " encap ip6 dst {remote}"))?;
        self.oif.map_or(Ok(()), |oif| write!(f, " on link {oif}"))?;
        write!(f, " table {}", self.table)
    }
}

const RTA_NH_ID: u16 = 30;
const RTAX_MTU: u16 = 2;
const RTAX_ADVMSS: u16 = 8;
const RTNH_F_ONLINK: u32 = 4;
// `LWTUNNEL_*` of linux/lwtunnel.h.
const ENCAP_IP6: u16 = 4;
const ENCAP_IP6_DST: u16 = 2;

/// The message that adds, replaces or removes `route`.
pub(crate) fn encode(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    let dst = route.dst.trunc();
    let header = &mut message.header;
    header.address_family = AddressFamily::from(family(dst.addr()));
    header.destination_prefix_length = dst.prefix_len();
    header.table = u8::try_from(route.table).unwrap_or(libc::RT_TABLE_UNSPEC);
    header.protocol = RouteProtocol::from(route.protocol);
    header.scope = RouteScope::from(route.scope);
    header.kind = RouteType::from(route.kind);
    let own = route.nexthop.is_none();
    header.flags.set(RouteFlags::Onlink, route.onlink && own);
    let attributes = &mut message.attributes;
    attributes.push(RouteAttribute::Destination(dst.addr().into()));
    attributes.push(RouteAttribute::Table(route.table));
    attributes.extend(route.via.filter(|_| own).map(|via| next_hop(dst, via)));
    attributes.extend(route.oif.filter(|_| own).map(RouteAttribute::Oif));
    attributes.extend(
        route.nexthop.map(|id| RouteAttribute::Other(DefaultNla::new(RTA_NH_ID, id.to_ne_bytes().to_vec()))),
    );
    attributes.extend(route.src.map(|src| RouteAttribute::PrefSource(src.into())));
    attributes.extend((route.metric != 0).then_some(RouteAttribute::Priority(route.metric)));
    let metrics = [route.mtu.map(RouteMetric::Mtu), route.advmss.map(RouteMetric::Advmss)];
    let metrics: Vec<RouteMetric> = metrics.into_iter().flatten().collect();
    if !metrics.is_empty() {
        attributes.push(RouteAttribute::Metrics(metrics));
    }
    if let Some(remote) = route.encap {
        attributes.push(RouteAttribute::EncapType(RouteLwEnCapType::Ip6));
        let remote = RouteIp6Tunnel::Destination(remote);
        attributes.push(RouteAttribute::Encap(vec![RouteLwTunnelEncap::Ip6(remote)]));
    }
    message
}

fn next_hop(dst: IpNet, via: IpAddr) -> RouteAttribute {
    match via {
        IpAddr::V6(ip) if dst.addr().is_ipv4() => RouteAttribute::Via(RouteVia::Inet6(ip)),
        _ => RouteAttribute::Gateway(via.into()),
    }
}

/// The question which route leads to `dst`.
pub(crate) fn encode_lookup(dst: IpAddr, from: Option<IpAddr>, iif: Option<u32>) -> RouteMessage {
    let mut message = RouteMessage::default();
    let dst = IpNet::from(dst);
    message.header.address_family = AddressFamily::from(family(dst.addr()));
    message.header.destination_prefix_length = dst.prefix_len();
    // IPv6 always says the table, and refuses to be asked for it.
    message.header.flags.set(RouteFlags::LookupTable, dst.addr().is_ipv4());
    message.attributes.push(RouteAttribute::Destination(dst.addr().into()));
    if let Some(from) = from {
        message.header.source_prefix_length = IpNet::from(from).prefix_len();
        message.attributes.push(RouteAttribute::Source(from.into()));
    }
    message.attributes.extend(iif.map(RouteAttribute::Iif));
    message
}

/// An IPv4 or IPv6 route out of a message's payload.
pub(crate) fn decode(payload: &[u8]) -> Option<Route> {
    let (header, body) = payload.split_at_checked(12)?;
    let mut dst = unspecified(header[0])?;
    let mut route = Route::new(IpNet::from(dst));
    (route.table, route.protocol, route.scope, route.kind) =
        (u32::from(header[4]), header[5], header[6], header[7]);
    route.onlink = u32_at(header, 8)? & RTNH_F_ONLINK != 0;
    let (mut encap_type, mut encap) = (None, None);
    for (kind, value) in attributes(body) {
        match kind {
            libc::RTA_DST => dst = of_family(ip(value), header[0])?,
            libc::RTA_GATEWAY => route.via = ip(value),
            // struct rtvia: the family, then the address.
            libc::RTA_VIA => route.via = value.get(2..).and_then(ip),
            libc::RTA_OIF => route.oif = u32_at(value, 0),
            RTA_NH_ID => route.nexthop = u32_at(value, 0),
            libc::RTA_TABLE => route.table = u32_at(value, 0)?,
            libc::RTA_PREFSRC => route.src = ip(value),
            libc::RTA_PRIORITY => route.metric = u32_at(value, 0)?,
            libc::RTA_METRICS => {
                (route.mtu, route.advmss) = (metric(value, RTAX_MTU), metric(value, RTAX_ADVMSS));
            }
            libc::RTA_ENCAP_TYPE => encap_type = u16_at(value, 0),
            libc::RTA_ENCAP => encap = Some(value),
            _ => {}
        }
    }
    if encap_type == Some(ENCAP_IP6) {
        route.encap = encap.and_then(remote);
    }
    route.dst = IpNet::new(dst, header[1]).ok()?;
    Some(route)
}

fn remote(encap: &[u8]) -> Option<Ipv6Addr> {
    let value = attributes(encap).find(|(kind, _)| *kind == ENCAP_IP6_DST)?.1;
    Some(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?))
}

fn metric(metrics: &[u8], which: u16) -> Option<u32> {
    attributes(metrics).find(|(kind, _)| *kind == which).and_then(|(_, value)| u32_at(value, 0))
}
