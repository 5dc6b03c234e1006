//! What one Service wants of a node.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use weft_model::service::{EndpointSlice, Service, ServicePort};

use super::endpoints::{Chosen, Viewpoint, choose, ready_here};
use super::reserved::Reserved;
use super::{Frontend, FrontendKey, HealthCheck, Kind, Place, Policy, Refusal, ServiceConfig};

/// The most pairs of ports and endpoints of one Service: each is an entry in the kernel.
const MOST_PAIRS: usize = 250_000;
/// The most of one kind of trouble that is told of one Service.
const MOST_TOLD: usize = 16;

/// What one Service wants, whether or not another has it already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) frontends: BTreeMap<FrontendKey, Arc<Frontend>>,
    pub(super) cluster_ips: Vec<IpAddr>,
    pub(super) check: Option<(u16, HealthCheck)>,
    pub(super) refused: Vec<Refusal>,
    /// `metadata.creationTimestamp`: who is older keeps what two want.
    pub(super) created: Arc<str>,
}

/// What a Service wants of this node. Nothing where it is another proxy's, headless or a name of DNS.
pub(super) fn wanted(
    service: &Service,
    slices: &[&EndpointSlice],
    reserved: &Reserved,
    config: &ServiceConfig,
    at: Viewpoint<'_>,
) -> Wanted {
    let mut wanted = Wanted { created: service.created.clone(), ..Wanted::default() };
    if service.proxy.is_some() || service.headless() {
        return wanted;
    }
    let endpoints: usize = slices.iter().map(|slice| slice.endpoints.len()).sum();
    let count = endpoints.saturating_mul(service.ports.len());
    if count > MOST_PAIRS {
        wanted.refused.push(Refusal::TooLarge { count, most: MOST_PAIRS });
        return wanted;
    }
    wanted.refused.extend(service.nonsense.iter().cloned().map(Refusal::Nonsense));
    let places = places(service, reserved, config, &mut wanted);
    for port in &service.ports {
        let mut chosen = [None, None];
        for (kind, place) in places.iter().copied().chain(node_ports(service, port)) {
            let ipv6 = place.is_ipv6();
            let chosen = chosen[usize::from(ipv6)]
                .get_or_insert_with(|| choose(slices, port, ipv6, at, &mut wanted.refused));
            let number = if kind == Kind::NodePort { port.node_port.unwrap_or_default() } else { port.port };
            let key = FrontendKey { place, protocol: port.protocol, port: number };
            if reserved.api.iter().any(|api| place == Place::Address(api.ip()) && api.port() == number) {
                wanted.refused.push(Refusal::ApiServer { frontend: key });
                continue;
            }
            // Of two kinds of one address the first counts, as of two ports of one number.
            let frontend = || Arc::new(frontend(service, port, kind, ipv6, chosen));
            wanted.frontends.entry(key).or_insert_with(frontend);
        }
    }
    if let Some(port) = service.health_check_port.filter(|_| service.external_local) {
        let check = HealthCheck { service: service.key(), endpoints: ready_here(slices, at) };
        wanted.check = Some((port, check));
    }
    wanted.refused.sort_unstable();
    wanted.refused.dedup();
    wanted.refused.truncate(MOST_TOLD);
    wanted
}

/// The addresses at which a Service is served, but for node ports.
fn places(
    service: &Service,
    reserved: &Reserved,
    config: &ServiceConfig,
    wanted: &mut Wanted,
) -> Vec<(Kind, Place)> {
    let mut places = Vec::new();
    for address in &service.cluster_ips {
        match reserved.cluster_ip(*address) {
            Some(what) => {
                let field = "clusterIPs";
                wanted.refused.push(Refusal::AddressUnusable { field, address: *address, what });
            }
            None => {
                wanted.cluster_ips.push(*address);
                places.push((Kind::ClusterIp, Place::Address(*address)));
            }
        }
    }
    let balanced = service.load_balancer_ips.iter().map(|ip| (Kind::LoadBalancer, "status.loadBalancer", ip));
    let external = service.external_ips.iter().map(|ip| (Kind::External, "externalIPs", ip));
    for (kind, field, address) in balanced.chain(external) {
        let allowed =
            config.external_ips.is_empty() || config.external_ips.iter().any(|n| n.contains(address));
        if let Some(what) = reserved.external_ip(*address) {
            wanted.refused.push(Refusal::AddressUnusable { field, address: *address, what });
        } else if kind == Kind::External && !allowed {
            wanted.refused.push(Refusal::ExternalNotAllowed { address: *address });
        } else {
            places.push((kind, Place::Address(*address)));
        }
    }
    places
}

/// A port's node ports, in the families that the Service has.
fn node_ports(service: &Service, port: &ServicePort) -> impl Iterator<Item = (Kind, Place)> {
    let families = port.node_port.iter().flat_map(|_| &service.cluster_ips).map(IpAddr::is_ipv6);
    families.map(|ipv6| (Kind::NodePort, Place::NodePort { ipv6 }))
}

fn frontend(service: &Service, port: &ServicePort, kind: Kind, ipv6: bool, chosen: &Chosen) -> Frontend {
    let policy = match kind {
        Kind::ClusterIp => Policy::Internal,
        _ if service.external_local => Policy::Local,
        _ => Policy::Cluster,
    };
    let own = policy == Policy::Internal && service.internal_local;
    let all = if own { &chosen.local } else { &chosen.cluster };
    let local = if policy == Policy::Local { &chosen.local } else { all };
    Frontend {
        service: service.key(),
        port_name: port.name.clone(),
        kind,
        policy,
        all: all.clone(),
        local: local.clone(),
        affinity: service.affinity,
        sources: service
            .source_ranges
            .as_ref()
            .filter(|_| kind == Kind::LoadBalancer)
            .and_then(|ranges| of_family(ranges, ipv6)),
    }
}

/// The ranges of one family. Where all are of the other this one is open, as in kube-proxy; where there
/// are none at all, since none made sense, nobody may come.
fn of_family(ranges: &[IpNet], ipv6: bool) -> Option<Arc<[IpNet]>> {
    let same: Vec<IpNet> = ranges.iter().filter(|net| net.addr().is_ipv6() == ipv6).copied().collect();
    let open = same.is_empty() && !ranges.is_empty();
    (!open).then(|| IpNet::aggregate(&same).into())
}
