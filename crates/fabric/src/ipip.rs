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

/// What one path needs on the device with index `device`: the next hop is where the outer packet
/// goes, though no route of the device leads there.
pub(crate) fn route(device: u32, cidr: IpNet, endpoint: IpAddr) -> Route {
    let mut route = Route::new(cidr);
    route.via = Some(endpoint);
    route.oif = Some(device);
    route.onlink = true;
    route.protocol = mark::ROUTE_PROTOCOL;
    route.as_reported()
}
