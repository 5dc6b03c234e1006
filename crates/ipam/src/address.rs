//! Addresses as numbers, one arithmetic for both families.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Which family a number belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) fn of(ip: &IpAddr) -> Family {
        if ip.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    /// The address with this number; `None` beyond the family's last.
    pub(crate) fn address(self, number: u128) -> Option<IpAddr> {
        match self {
            Family::V4 => Some(IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(number).ok()?))),
            Family::V6 => Some(IpAddr::V6(Ipv6Addr::from_bits(number))),
        }
    }
}

/// The address as a number.
pub(crate) fn number(ip: &IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_bits().into(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

/// The first and the last number of a network.
pub(crate) fn bounds(net: &IpNet) -> (u128, u128) {
    (number(&net.network()), number(&net.broadcast()))
}
