//! A range of addresses: a CIDR, or the first and the last.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;

use crate::network::parse_cidr;

/// The most addresses of one range, as a power of two: a network of IPv6.
const MOST_BITS: u32 = 64;

/// Addresses of one family from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    first: IpAddr,
    last: IpAddr,
}

impl Range {
    /// The addresses of a network.
    pub fn of(net: &IpNet) -> Range {
        Range { first: net.network(), last: net.broadcast() }
    }

    /// The first address.
    pub fn first(&self) -> IpAddr {
        self.first
    }

    /// Whether it is of IPv4.
    pub fn is_ipv4(&self) -> bool {
        self.first.is_ipv4()
    }

    /// Whether the address is among them.
    pub fn contains(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.is_ipv4() && self.first <= ip && ip <= self.last
    }

    /// Whether two ranges share an address.
    pub fn overlaps(&self, other: &Range) -> bool {
        self.contains(other.first) || other.contains(self.first)
    }

    /// How many addresses there are.
    pub fn size(&self) -> u128 {
        // A whole family of IPv6 has one more than the number holds, and no range may be so large.
        (number(self.last) - number(self.first)).saturating_add(1)
    }

    /// How many of them end in .0 or .255; none of IPv6 do.
    pub fn buggy(&self) -> u128 {
        let (IpAddr::V4(first), IpAddr::V4(last)) = (self.first, self.last) else { return 0 };
        // How many numbers below `end` end so.
        let below = |end: u64| {
            let rest = end % 256;
            2 * (end / 256) + u64::from(rest > 0)
        };
        u128::from(below(u64::from(last.to_bits()) + 1) - below(first.to_bits().into()))
    }

    /// The address after this one, if it is among them.
    pub fn after(&self, ip: IpAddr) -> Option<IpAddr> {
        let next = match ip {
            IpAddr::V4(ip) => IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits().checked_add(1)?)),
            IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits().checked_add(1)?)),
        };
        self.contains(next).then_some(next)
    }
}

/// Whether equipment is known that takes an address for a network's own or its broadcast: .0 and .255.
pub fn is_buggy(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if matches!(ip.octets()[3], 0 | 255))
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_bits().into(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Range, String> {
        let range = match text.split_once('-') {
            None => Range::of(&parse_cidr(text.trim()).map_err(|error| error.to_string())?),
            Some((first, last)) => {
                let end = |part: &str| {
                    let part = part.trim();
                    part.parse::<IpAddr>().map_err(|_| format!("{text:?}: {part:?} is no IP address"))
                };
                Range { first: end(first)?, last: end(last)? }
            }
        };
        if range.first.is_ipv4() != range.last.is_ipv4() {
            return Err(format!("{range} begins and ends in two families; give a range for each"));
        }
        if range.first > range.last {
            return Err(format!("{range} begins after its end; turn it round"));
        }
        if range.size() > 1 << MOST_BITS {
            return Err(format!("{range} has more than 2^{MOST_BITS} addresses; give a part of it"));
        }
        match unfit(&range) {
            Some(why) => {
                Err(format!("{range} has {why} addresses, which lead to no Service; leave them out"))
            }
            None => Ok(range),
        }
    }
}

/// What kind of addresses a range has that no Service can have.
fn unfit(range: &Range) -> Option<&'static str> {
    let kinds = [
        ("loopback", "127.0.0.0/8"),
        ("loopback", "::1/128"),
        ("unspecified", "0.0.0.0/8"),
        ("unspecified", "::/128"),
        ("link-local", "169.254.0.0/16"),
        ("link-local", "fe80::/10"),
        ("multicast", "224.0.0.0/4"),
        ("multicast", "ff00::/8"),
        ("reserved", "240.0.0.0/4"),
        ("IPv4-mapped", "::ffff:0:0/96"),
    ];
    let hits = |net: &str| net.parse().is_ok_and(|net: IpNet| Range::of(&net).overlaps(range));
    kinds.into_iter().find(|(_, net)| hits(net)).map(|(name, _)| name)
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Range {
        text.parse().unwrap()
    }

    #[test]
    fn both_forms_are_read() {
        assert_eq!(range("192.0.2.0/30"), range("192.0.2.0 - 192.0.2.3"));
        assert_eq!(range("2001:db8::/64").size(), 1 << 64);
        assert_eq!(range("192.0.2.7/32").size(), 1);
        assert_eq!(range("192.0.2.7/32").after("192.0.2.7".parse().unwrap()), None);
    }

    #[test]
    fn buggy_addresses_are_counted_as_they_are() {
        for text in ["192.0.2.0/24", "192.0.2.1-192.0.2.254", "192.0.2.255-192.0.3.0", "10.0.0.0-10.0.2.7"] {
            let range = range(text);
            let mut at = Some(range.first());
            let mut count = 0;
            while let Some(ip) = at {
                count += u128::from(is_buggy(ip));
                at = range.after(ip);
            }
            assert_eq!(range.buggy(), count, "{text}");
        }
        assert_eq!(range("2001:db8::/120").buggy(), 0);
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[0-9a-f:./ -]{0,60}") {
            if let Ok(range) = text.parse::<Range>() {
                assert!(range.size() > 0 && range.contains(range.first()));
                let _ = range.buggy();
            }
        }
    }
}
