//! Routes that do not depend on peers.

use ipnet::IpNet;
use weft_kernel::Route;
use weft_model::mark;

/// What the destination leads to is nowhere (linux/rtnetlink.h).
const RTN_BLACKHOLE: u8 = 6;
/// The destination is on the link itself (the same).
const RT_SCOPE_LINK: u8 = 253;

/// A route that leads nowhere, of a block of this node.
pub(crate) fn blackhole(cidr: IpNet) -> Route {
    let route = Route { kind: RTN_BLACKHOLE, protocol: mark::ROUTE_PROTOCOL, ..Route::new(cidr) };
    route.as_reported()
}

/// A route to a device whose packets need no next hop.
pub(crate) fn device_route(index: u32, cidr: IpNet) -> Route {
    let mut route = Route::new(cidr);
    route.oif = Some(index);
    route.protocol = mark::ROUTE_PROTOCOL;
    route.scope = RT_SCOPE_LINK;
    route.as_reported()
}
