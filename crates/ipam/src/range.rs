//! The ranges of a pool and the order in which their addresses are handed out. Pure.
//!
//! A pool is a list of range sets; an attachment gets one address of each set. A set is a list
//! of ranges of one family. Addresses go round robin from the one reserved last, so that a
//! freed address rests as long as the pool allows.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;
use weft_model::network::{overlaps, parse_cidr};

use crate::address::{Family, bounds, number};

/// A range as configured, in the words of the `host-local` plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RangeSpec {
    /// The network the addresses lie in; its length is the addresses' prefix length.
    pub subnet: String,
    /// The first address to hand out; default the second of the subnet.
    pub range_start: Option<String>,
    /// The last address to hand out; default the last that is no broadcast address.
    pub range_end: Option<String>,
    /// The gateway, never handed out; default the second address of the subnet.
    pub gateway: Option<String>,
}

/// What is wrong with a configured range: the field with its place, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct RangeError {
    /// The field, as `ranges[0][1].subnet`.
    pub field: String,
    /// What is wrong with it and what to do.
    pub reason: String,
}

/// Consecutive addresses of one subnet, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    subnet: IpNet,
    gateway: IpAddr,
    start: u128,
    end: u128,
}

/// Ranges of one family of which an attachment gets one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeSet {
    ranges: Vec<Range>,
}

/// All range sets of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    sets: Vec<RangeSet>,
}

/// An address with what the pod needs to use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The address with its subnet's prefix length.
    pub address: IpNet,
    /// The range's gateway.
    pub gateway: IpAddr,
}

impl Pool {
    /// Checks configured range sets; errors name the field as `ranges[set][range].field`.
    pub fn new(specs: &[Vec<RangeSpec>]) -> Result<Pool, RangeError> {
        if specs.is_empty() {
            return Err(fault("ranges", "no range is given: name at least one subnet"));
        }
        let sets: Vec<RangeSet> = specs.iter().enumerate().map(range_set).collect::<Result<_, _>>()?;
        for (index, set) in sets.iter().enumerate() {
            let earlier = || sets[..index].iter().flat_map(|set| &set.ranges);
            if let Some((a, b)) =
                set.ranges.iter().find_map(|a| earlier().find(|b| a.overlaps(b)).map(|b| (a, b)))
            {
                return Err(fault(
                    &format!("ranges[{index}]"),
                    &format!("{a} overlaps {b} of an earlier set"),
                ));
            }
        }
        Ok(Pool { sets })
    }

    /// The sets in their order; a set's index names its `last_reserved_ip` file.
    pub fn sets(&self) -> &[RangeSet] {
        &self.sets
    }
}

impl RangeSet {
    /// The ranges in their order.
    pub fn ranges(&self) -> &[Range] {
        &self.ranges
    }

    /// Every address once, beginning after `last` (or at the first when `last` is not in the set).
    pub fn candidates(&self, last: Option<IpAddr>) -> impl Iterator<Item = Assignment> + '_ {
        let start = last.and_then(|ip| self.position(&ip)).unwrap_or((0, None));
        let count = self.ranges.len();
        // The range of `last` comes twice: its tail first, its head at the end.
        (0..=count).flat_map(move |step| {
            let range = &self.ranges[(start.0 + step) % count];
            let (from, to) = match start.1 {
                Some(at) if step == 0 => (at.checked_add(1), range.end),
                Some(at) if step == count => (Some(range.start), at.min(range.end)),
                None if step == count => (None, 0),
                _ => (Some(range.start), range.end),
            };
            from.into_iter().flat_map(move |from| range.between(from, to))
        })
    }

    /// The address as this set would hand it out; `None` when it is outside, a gateway, or the
    /// network's or broadcast address.
    pub fn assignment(&self, ip: &IpAddr) -> Option<Assignment> {
        self.ranges.iter().find(|range| range.holds(ip)).and_then(|range| range.assign(number(ip)))
    }

    /// How many addresses the set can hand out.
    pub fn size(&self) -> u128 {
        self.ranges.iter().map(Range::size).fold(0, u128::saturating_add)
    }

    fn position(&self, ip: &IpAddr) -> Option<(usize, Option<u128>)> {
        self.ranges.iter().position(|range| range.holds(ip)).map(|index| (index, Some(number(ip))))
    }
}

impl Range {
    /// The network the addresses lie in.
    pub fn subnet(&self) -> IpNet {
        self.subnet
    }

    /// The address that is never handed out because the node's bridge has it.
    pub fn gateway(&self) -> IpAddr {
        self.gateway
    }

    fn between(&self, from: u128, to: u128) -> impl Iterator<Item = Assignment> + '_ {
        (from..=to).filter_map(|number| self.assign(number))
    }

    fn assign(&self, at: u128) -> Option<Assignment> {
        if self.reserved().contains(&Some(at)) {
            return None;
        }
        let ip = self.family().address(at)?;
        Some(Assignment { address: IpNet::new(ip, self.subnet.prefix_len()).ok()?, gateway: self.gateway })
    }

    /// The subnet's own address, the IPv4 broadcast address and the gateway.
    fn reserved(&self) -> [Option<u128>; 3] {
        let (first, last) = bounds(&self.subnet);
        [Some(first), (self.family() == Family::V4).then_some(last), Some(number(&self.gateway))]
    }

    fn size(&self) -> u128 {
        let mut reserved = self.reserved();
        reserved.sort_unstable();
        let inside = |at: &u128| (self.start..=self.end).contains(at);
        let excluded = reserved.iter().flatten().filter(|at| inside(at)).count() as u128;
        (self.end - self.start).saturating_add(1).saturating_sub(excluded)
    }

    fn family(&self) -> Family {
        Family::of(&self.gateway)
    }

    fn holds(&self, ip: &IpAddr) -> bool {
        Family::of(ip) == self.family() && (self.start..=self.end).contains(&number(ip))
    }

    fn overlaps(&self, other: &Range) -> bool {
        let same_numbers = self.start <= other.end && other.start <= self.end;
        same_numbers && overlaps(&self.subnet, &other.subnet)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = |at| self.family().address(at).unwrap_or(self.gateway);
        write!(f, "{}-{}", address(self.start), address(self.end))
    }
}

impl fmt::Display for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.ranges.iter().enumerate() {
            write!(f, "{}{range}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

fn fault(field: &str, reason: &str) -> RangeError {
    RangeError { field: field.into(), reason: reason.into() }
}

fn range_set((index, specs): (usize, &Vec<RangeSpec>)) -> Result<RangeSet, RangeError> {
    let place = format!("ranges[{index}]");
    if specs.is_empty() {
        return Err(fault(&place, "the set holds no range: name at least one subnet"));
    }
    let mut ranges: Vec<Range> = Vec::with_capacity(specs.len());
    for (at, spec) in specs.iter().enumerate() {
        let place = format!("{place}[{at}]");
        let range = checked(&place, spec)?;
        if let Some(other) = ranges.iter().find(|other| other.overlaps(&range)) {
            return Err(fault(&place, &format!("{range} overlaps {other} of the same set")));
        }
        if ranges.first().is_some_and(|first| first.family() != range.family()) {
            return Err(fault(&place, "one set holds IPv4 and IPv6: give each family a set of its own"));
        }
        ranges.push(range);
    }
    Ok(RangeSet { ranges })
}

fn checked(place: &str, spec: &RangeSpec) -> Result<Range, RangeError> {
    let subnet_field = format!("{place}.subnet");
    let subnet = parse_cidr(&spec.subnet).map_err(|error| fault(&subnet_field, &error.to_string()))?;
    if matches!(subnet.addr(), IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some()) {
        return Err(fault(
            &subnet_field,
            &format!("{subnet} is an IPv4 network written as IPv6: write it as IPv4"),
        ));
    }
    if subnet.prefix_len() > subnet.max_prefix_len() - 2 {
        return Err(fault(&subnet_field, &format!("{subnet} is too small to hand out addresses")));
    }
    let (first, last) = bounds(&subnet);
    let gateway = field(place, "gateway", spec.gateway.as_deref(), &subnet)?.unwrap_or(first + 1);
    let family = Family::of(&subnet.addr());
    if gateway == first || (family == Family::V4 && gateway == last) {
        let reason = format!("it is the network or broadcast address of {subnet}");
        return Err(fault(&format!("{place}.gateway"), &reason));
    }
    let default_end = if family == Family::V4 { last - 1 } else { last };
    let start = field(place, "rangeStart", spec.range_start.as_deref(), &subnet)?.unwrap_or(first + 1);
    let end = field(place, "rangeEnd", spec.range_end.as_deref(), &subnet)?.unwrap_or(default_end);
    if start > end {
        return Err(fault(&format!("{place}.rangeStart"), "it comes after rangeEnd"));
    }
    let gateway = family.address(gateway).unwrap_or(subnet.addr());
    Ok(Range { subnet, gateway, start, end })
}

fn field(place: &str, name: &str, text: Option<&str>, subnet: &IpNet) -> Result<Option<u128>, RangeError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let wrong = |reason: String| fault(&format!("{place}.{name}"), &reason);
    let ip: IpAddr = text.parse().map_err(|_| wrong(format!("{text:?} is not an IP address")))?;
    if !subnet.contains(&ip) {
        return Err(wrong(format!("{ip} is not in {subnet}")));
    }
    Ok(Some(number(&ip)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spec(subnet: &str, start: &str, end: &str, gateway: &str) -> RangeSpec {
        let some = |s: &str| Some(s.to_owned()).filter(|s| !s.is_empty());
        RangeSpec {
            subnet: subnet.into(),
            range_start: some(start),
            range_end: some(end),
            gateway: some(gateway),
        }
    }

    fn set(specs: &[RangeSpec]) -> RangeSet {
        Pool::new(&[specs.to_vec()]).unwrap().sets[0].clone()
    }

    fn given(set: &RangeSet, last: Option<&str>) -> Vec<String> {
        let last = last.map(|ip| ip.parse().unwrap());
        set.candidates(last).map(|a| a.address.addr().to_string()).collect()
    }

    #[test]
    fn addresses_go_round_robin_and_leave_out_network_broadcast_and_gateway() {
        let set = set(&[spec("10.9.0.0/29", "", "", "")]);
        let all = ["10.9.0.2", "10.9.0.3", "10.9.0.4", "10.9.0.5", "10.9.0.6"];
        assert_eq!(given(&set, None), all);
        assert_eq!(given(&set, Some("10.9.0.4"))[..2], ["10.9.0.5", "10.9.0.6"]);
        assert_eq!(given(&set, Some("10.9.0.4")).len(), 5);
        assert_eq!(given(&set, Some("10.9.0.6")), all);
        assert_eq!(given(&set, Some("192.0.2.1")), all);
        assert_eq!(set.size(), 5);
        assert_eq!(set.candidates(None).next().unwrap().gateway.to_string(), "10.9.0.1");
    }

    #[test]
    fn several_ranges_follow_one_another_and_limits_hold() {
        let set = set(&[
            spec("10.1.0.0/24", "10.1.0.10", "10.1.0.11", ""),
            spec("10.2.0.0/24", "10.2.0.254", "", "10.2.0.9"),
        ]);
        assert_eq!(given(&set, None), ["10.1.0.10", "10.1.0.11", "10.2.0.254"]);
        assert_eq!(given(&set, Some("10.2.0.254")), ["10.1.0.10", "10.1.0.11", "10.2.0.254"]);
        assert_eq!(given(&set, Some("10.1.0.10")), ["10.1.0.11", "10.2.0.254", "10.1.0.10"]);
    }

    #[test]
    fn ipv6_hands_out_the_last_address_but_not_the_first() {
        let set = set(&[spec("fd00::/126", "", "", "")]);
        assert_eq!(given(&set, None), ["fd00::2", "fd00::3"]);
        assert_eq!(set.size(), 2);
    }

    #[test]
    fn wrong_ranges_are_refused_with_the_field_named() {
        let cases = [
            (spec("10.0.0.1/24", "", "", ""), "ranges[0][0].subnet: 10.0.0.1/24 has host bits"),
            (spec("10.0.0.0/31", "", "", ""), "too small"),
            (spec("10.0.0.0/32", "", "", ""), "too small"),
            (spec("010.0.0.0/8", "", "", ""), "not a CIDR"),
            (spec("::ffff:10.0.0.0/104", "", "", ""), "written as IPv6"),
            (spec("10.0.0.0/24", "10.0.0.9", "10.0.0.8", ""), "ranges[0][0].rangeStart: it comes after"),
            (spec("10.0.0.0/24", "10.0.1.9", "", ""), "rangeStart: 10.0.1.9 is not in"),
            (spec("10.0.0.0/24", "", "fd00::1", ""), "rangeEnd: fd00::1 is not in"),
            (spec("10.0.0.0/24", "", "", "10.0.1.1"), "gateway: 10.0.1.1 is not in"),
            (spec("10.0.0.0/24", "", "", "10.0.0.0"), "gateway: it is the network"),
            (spec("10.0.0.0/24", "", "", "x"), "gateway: \"x\" is not an IP address"),
        ];
        for (spec, expected) in cases {
            let error = Pool::new(&[vec![spec]]).unwrap_err().to_string();
            assert!(error.contains(expected), "{error} should contain {expected}");
        }
        let a = || spec("10.0.0.0/24", "", "", "");
        let six = spec("fd00::/64", "", "", "");
        assert!(Pool::new(&[vec![a(), a()]]).unwrap_err().to_string().contains("of the same set"));
        assert!(Pool::new(&[vec![a()], vec![a()]]).unwrap_err().to_string().contains("earlier set"));
        assert!(Pool::new(&[vec![a(), six]]).unwrap_err().to_string().contains("IPv4 and IPv6"));
        assert!(Pool::new(&[]).is_err() && Pool::new(&[vec![]]).is_err());
    }

    proptest! {
        #[test]
        fn every_address_comes_exactly_once_whatever_came_last(
            start in 0u8..20, length in 0u8..20, second in any::<bool>(), last in 0u8..64,
        ) {
            let end = start.saturating_add(length).min(31);
            let mut specs =
                vec![spec("10.1.0.0/27", &format!("10.1.0.{start}"), &format!("10.1.0.{end}"), "")];
            if second {
                specs.push(spec("10.1.0.32/28", "", "", ""));
            }
            let set = set(&specs);
            let mut all = given(&set, Some(&format!("10.1.0.{last}")));
            prop_assert_eq!(all.len() as u128, set.size());
            all.sort();
            all.dedup();
            prop_assert_eq!(all.len() as u128, set.size());
        }

        #[test]
        fn no_text_makes_it_panic(a in ".{0,24}", b in ".{0,16}", c in ".{0,16}", d in "[0-9a-f:./]{0,20}") {
            let _ = Pool::new(&[vec![spec(&a, &b, &c, &d)], vec![spec(&d, &a, &b, &c)]]);
        }
    }
}
