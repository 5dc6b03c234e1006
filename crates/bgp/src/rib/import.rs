//! Which of a peer's routes are taken.

use std::borrow::Cow;
use std::net::Ipv4Addr;

use ipnet::IpNet;

use super::Config;
use super::peer::{Known, Refusal};
use crate::message::{Attributes, Negotiated, Relation};

/// What concerns all routes of the same attributes.
pub(super) fn check(
    config: &Config,
    peer: &Known,
    terms: &Negotiated,
    of: &Attributes,
) -> Result<(), Refusal> {
    let own = |asn: &u32| *asn == config.asn || Some(*asn) == config.confederation;
    if of.as_path.numbers().filter(own).count() > peer.config.own_as {
        return Err(Refusal::AsLoop);
    }
    let reflected = of.originator == Some(config.id) || of.cluster_list.contains(&config.cluster());
    if reflected && terms.relation != Relation::External {
        return Err(Refusal::ReflectionLoop);
    }
    let first = terms.relation == Relation::External && !peer.config.route_server;
    if first && of.as_path.neighbour().is_some_and(|asn| asn != terms.peer_as) {
        return Err(Refusal::FirstAs);
    }
    if config.addresses.contains(&of.next_hop.address()) {
        return Err(Refusal::OwnNextHop);
    }
    match (&peer.config.import, terms.relation) {
        (None, Relation::External) => Err(Refusal::Policy),
        _ => Ok(()),
    }
}

/// The attributes that a route is taken with.
pub(super) fn accept<'a>(
    peer: &Known,
    prefix: &IpNet,
    of: &'a Attributes,
) -> Result<Cow<'a, Attributes>, Refusal> {
    if !is_routed(prefix) {
        return Err(Refusal::Prefix);
    }
    match &peer.config.import {
        Some(policy) => policy.apply(prefix, of).ok_or(Refusal::Policy),
        None => Ok(Cow::Borrowed(of)),
    }
}

/// Whether a prefix is one that routes lead to: none inside of loopback, link-local, multicast and reserved ones.
fn is_routed(prefix: &IpNet) -> bool {
    match prefix {
        IpNet::V4(prefix) if prefix.prefix_len() == 0 => true,
        IpNet::V4(prefix) => {
            let ip = prefix.network();
            !(ip.octets()[0] == 0
                || ip.is_loopback()
                || ip.is_link_local()
                || ip >= Ipv4Addr::new(224, 0, 0, 0))
        }
        IpNet::V6(prefix) => {
            let (ip, length) = (prefix.network(), prefix.prefix_len());
            let local = length >= 10 && ip.is_unicast_link_local();
            let loopback = length == 128 && (ip.is_loopback() || ip.is_unspecified());
            !(local || loopback || length >= 8 && ip.is_multicast())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_that_nobody_routes() {
        let routed = |prefix: &str| is_routed(&prefix.parse().unwrap());
        for prefix in ["0.0.0.0/0", "10.0.0.0/8", "223.255.255.0/24", "::/0", "2000::/3", "fd00::/8", "::/64"]
        {
            assert!(routed(prefix), "{prefix}");
        }
        for prefix in [
            "0.0.0.0/8",
            "127.0.0.0/8",
            "127.0.0.1/32",
            "169.254.1.0/24",
            "224.0.0.0/4",
            "240.0.0.0/4",
            "255.255.255.255/32",
            "::1/128",
            "::/128",
            "fe80::/10",
            "fe80::1/128",
            "ff02::/16",
        ] {
            assert!(!routed(prefix), "{prefix}");
        }
    }
}
