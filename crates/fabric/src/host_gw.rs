//! The backend host-gw: a plain route through the peer, on the underlay link.

use std::net::IpAddr;

use ipnet::IpNet;
use weft_kernel::Route;
use weft_model::mark;

pub(crate) fn route(cidr: IpNet, via: IpAddr, link: u32) -> Route {
    let mut route = Route::new(cidr);
    route.via = Some(via);
    route.oif = Some(link);
    route.protocol = mark::ROUTE_PROTOCOL;
    route.as_reported()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_route_names_gateway_link_and_mark() {
        let v4 = route("10.244.1.0/24".parse().unwrap(), "10.168.0.3".parse().unwrap(), 7);
        assert_eq!((v4.via, v4.oif, v4.protocol), (Some("10.168.0.3".parse().unwrap()), Some(7), 87));
        assert!(!v4.onlink && v4.metric == 0);
        let v6 = route("fd00::/64".parse().unwrap(), "fd01::3".parse().unwrap(), 7);
        assert_eq!(v6.metric, 1024, "as the kernel reports it");
    }
}
