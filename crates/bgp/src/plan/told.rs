//! What a node tells: where its pods are, and the addresses of Services as configured. Nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;
use weft_model::bgp::{CommunityValue, Speaking};
use weft_model::service::{EXCLUDE_LABEL, Service, ServiceKey, ServiceType};
use weft_model::{Cluster, Node};

use super::policies;
use crate::message::{Attributes, Community, LargeCommunity, NextHop};

/// The routes of a node's own.
pub(super) fn told(cluster: &Cluster, me: &Node, speaking: &Speaking) -> BTreeMap<IpNet, Attributes> {
    let pods = me.pod_cidrs.iter().map(IpNet::trunc).chain(me.loans.iter().copied());
    let mut told: BTreeMap<IpNet, bool> = pods.map(|net| (net, is_inside(cluster, &net))).collect();
    told.extend(services(cluster, me, speaking).into_iter().map(|net| (net, false)));
    told.into_iter().map(|(net, inside)| (net, attributes(&net, inside, speaking))).collect()
}

/// Whether routers outside are not told: the pool says so.
fn is_inside(cluster: &Cluster, net: &IpNet) -> bool {
    cluster.pools.values().any(|pool| pool.disable_bgp_export && pool.cidr.contains(net))
}

fn attributes(net: &IpNet, inside: bool, speaking: &Speaking) -> Attributes {
    // The speaker's address towards each neighbour.
    let next_hop = match net {
        IpNet::V4(_) => NextHop::V4(Ipv4Addr::UNSPECIFIED),
        IpNet::V6(_) => NextHop::V6(Ipv6Addr::UNSPECIFIED),
    };
    let asn = speaking.as_number;
    let mut large = BTreeSet::from([policies::own(asn)]);
    large.extend(inside.then(|| policies::inside(asn)));
    let mut standard = BTreeSet::new();
    for value in speaking.communities.iter().filter(|(around, _)| around.contains(net)).flat_map(|(_, c)| c) {
        match *value {
            CommunityValue::Standard(number) => _ = standard.insert(Community(number)),
            CommunityValue::Large(asn, a, b) => _ = large.insert(LargeCommunity(asn, a, b)),
        }
    }
    Attributes {
        communities: standard.into_iter().collect(),
        large_communities: large.into_iter().collect(),
        ..Attributes::new(next_hop)
    }
}

/// Addresses of Services: the networks of cluster IPs as they are, since every node serves them; addresses outside one
/// by one, as Services have them; and where only nodes with endpoints may be sent to, from those nodes alone.
fn services(cluster: &Cluster, me: &Node, speaking: &Speaking) -> BTreeSet<IpNet> {
    let lists = [&speaking.cluster_ips, &speaking.external_ips, &speaking.load_balancer_ips];
    // Load balancers and routers turn from a node that goes.
    if lists.iter().all(|list| list.is_empty()) || me.leaving || me.labels.contains_key(EXCLUDE_LABEL) {
        return BTreeSet::new();
    }
    let mut told: BTreeSet<IpNet> = speaking.cluster_ips.iter().copied().collect();
    let endpoints = Endpoints::of(cluster, &me.name);
    for (key, service) in &cluster.services {
        if service.headless() || service.proxy.is_some() {
            continue;
        }
        let serves = if service.external_local {
            endpoints.here.contains(key)
        } else {
            endpoints.anywhere.contains(key)
        };
        if serves {
            told.extend(addresses(service, speaking).map(IpNet::from));
        }
    }
    told
}

/// The addresses of a Service that are told one by one.
fn addresses<'a>(service: &'a Service, speaking: &'a Speaking) -> impl Iterator<Item = IpAddr> + 'a {
    let among = |ips: &'a [IpAddr], nets: &'a [IpNet]| {
        ips.iter().copied().filter(move |ip| nets.iter().any(|net| net.contains(ip)))
    };
    let inner = if service.external_local { &service.cluster_ips[..] } else { &[] };
    let balanced: &[IpAddr] =
        if service.kind == ServiceType::LoadBalancer { &service.load_balancer_ips } else { &[] };
    among(inner, &speaking.cluster_ips)
        .chain(among(&service.external_ips, &speaking.external_ips))
        .chain(among(balanced, &speaking.load_balancer_ips))
}

/// Services with endpoints that are ready and stay.
#[derive(Default)]
struct Endpoints {
    here: BTreeSet<ServiceKey>,
    anywhere: BTreeSet<ServiceKey>,
}

impl Endpoints {
    fn of(cluster: &Cluster, node: &Arc<str>) -> Endpoints {
        let mut found = Endpoints::default();
        for slice in cluster.slices.values() {
            let Some(owner) = slice.owner() else { continue };
            let mut ready = slice.endpoints.iter().filter(|one| one.ready && !one.terminating).peekable();
            if ready.peek().is_some() {
                found.anywhere.insert(owner.clone());
            }
            if ready.any(|one| one.node.as_ref() == Some(node)) {
                found.here.insert(owner);
            }
        }
        found
    }
}
