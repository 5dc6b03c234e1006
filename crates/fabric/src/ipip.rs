//! The backend ipip: a device for each family whose packets go to the route's own next hop.

use std::net::IpAddr;

use ipnet::IpNet;
use weft_kernel::{Details, IpTunnel, Link, LinkKind, NewLink, Route};
use weft_model::mark;

use crate::IpipSpec;

/// The device's name.
pub(crate) fn name(spec: &IpipSpec) -> &'static str {
    if spec.local.is_ipv4() { mark::IPIP } else { mark::IP6TNL }
}

/// The device to make.
pub(crate) fn device(spec: &IpipSpec) -> NewLink {
    NewLink { mtu: Some(spec.mtu), ..NewLink::new(name(spec), LinkKind::IpTunnel(endpoint(spec))) }
}

fn endpoint(spec: &IpipSpec) -> IpTunnel {
    IpTunnel { local: spec.local, dev: Some(spec.underlay) }
}

/// Whether a found device is such a tunnel with our end.
pub(crate) fn usable(link: &Link, spec: &IpipSpec) -> bool {
    link.details == Details::IpTunnel(Some(endpoint(spec)))
}

/// What one path needs on the device with index `device`. For IPv4 the next hop is where the outer
/// packet goes, though no route of the device leads there; for IPv6 that is refused, and the route
/// itself has the address.
pub(crate) fn route(device: u32, cidr: IpNet, endpoint: IpAddr) -> Route {
    let mut route = Route::new(cidr);
    route.oif = Some(device);
    match endpoint {
        IpAddr::V4(_) => (route.via, route.onlink) = (Some(endpoint), true),
        IpAddr::V6(remote) => route.encap = Some(remote),
    }
    route.protocol = mark::ROUTE_PROTOCOL;
    route.as_reported()
}
