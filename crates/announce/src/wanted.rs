//! Which addresses are to be announced, and by whom: from the cluster's objects, alike on all nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use weft_model::service::{EXCLUDE_LABEL, Service, ServiceKey, ServiceType};
use weft_model::{Changes, Cluster, NamespacedName, Node};

/// An address to be announced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The nodes that may have it.
    pub candidates: BTreeSet<Arc<str>>,
    /// The Services whose it is.
    pub services: Vec<ServiceKey>,
}

/// What of the cluster says which addresses are to be announced, kept up to date.
#[derive(Debug, Default)]
pub struct Wants {
    /// The segment's networks; a node that has no address in them hears nothing of what is said there.
    segment: Vec<IpNet>,
    addresses: BTreeMap<IpAddr, Wanted>,
    /// Services of externalTrafficPolicy Local among them, and the EndpointSlices that they had.
    local: BTreeSet<ServiceKey>,
    slices: BTreeSet<NamespacedName>,
}

impl Wants {
    /// What is to be announced.
    pub fn addresses(&self) -> &BTreeMap<IpAddr, Wanted> {
        &self.addresses
    }

    /// Whether these changes may change it: others cost nothing.
    pub fn concerned(&self, cluster: &Cluster, changes: &Changes) -> bool {
        let of_local = |key: &NamespacedName| {
            let owner = cluster.slices.get(key).and_then(|slice| slice.owner());
            self.slices.contains(key) || owner.is_some_and(|owner| self.local.contains(&owner))
        };
        !changes.nodes.is_empty() || !changes.services.is_empty() || changes.slices.iter().any(of_local)
    }

    /// Takes in the cluster, for a segment with these networks.
    pub fn update(&mut self, cluster: &Cluster, segment: &[IpNet]) {
        *self = Wants { segment: segment.to_vec(), ..Wants::default() };
        let announced = |service: &&Arc<Service>| {
            service.kind == ServiceType::LoadBalancer
                && service.balanced_here
                && service.proxy.is_none()
                && !service.load_balancer_ips.is_empty()
        };
        let mut services: Vec<&Arc<Service>> = cluster.services.values().filter(announced).collect();
        services.sort_by(|a, b| (&a.created, a.key()).cmp(&(&b.created, b.key())));
        let nodes = self.nodes(cluster);
        self.local = services.iter().filter(|s| s.external_local).map(|s| s.key()).collect();
        let endpoints = self.endpoints(cluster);
        for service in services {
            let key = service.key();
            let own = match service.external_local {
                true => {
                    let with = endpoints.get(&key).cloned().unwrap_or_default();
                    nodes.intersection(&with).cloned().collect()
                }
                false => nodes.clone(),
            };
            for ip in service.load_balancer_ips.iter().filter(|ip| can_be_announced(**ip, cluster)) {
                let wanted = self
                    .addresses
                    .entry(*ip)
                    .or_insert_with(|| Wanted { candidates: own.clone(), services: Vec::new() });
                // Of Services that share it the older says who, as far as they do not agree.
                let both: BTreeSet<_> = wanted.candidates.intersection(&own).cloned().collect();
                if !both.is_empty() || wanted.candidates.is_empty() {
                    wanted.candidates = if both.is_empty() { own.clone() } else { both };
                }
                if !wanted.services.contains(&key) {
                    wanted.services.push(key.clone());
                }
            }
        }
    }

    fn nodes(&self, cluster: &Cluster) -> BTreeSet<Arc<str>> {
        let here = |node: &&Arc<Node>| {
            let on_segment = |ip: &IpAddr| self.segment.iter().any(|net| net.contains(ip));
            !node.leaving && !node.labels.contains_key(EXCLUDE_LABEL) && node.addresses.iter().any(on_segment)
        };
        cluster.nodes.values().filter(here).map(|node| node.name.clone()).collect()
    }

    /// The nodes with endpoints that serve, of each Service of policy Local: ready ones, or where there is
    /// none those that serve while they end.
    fn endpoints(&mut self, cluster: &Cluster) -> BTreeMap<ServiceKey, BTreeSet<Arc<str>>> {
        let mut ready: BTreeMap<ServiceKey, BTreeSet<Arc<str>>> = BTreeMap::new();
        let mut serving = ready.clone();
        if self.local.is_empty() {
            return ready;
        }
        for (key, slice) in &cluster.slices {
            let Some(owner) = slice.owner().filter(|owner| self.local.contains(owner)) else { continue };
            self.slices.insert(key.clone());
            for endpoint in &slice.endpoints {
                let Some(node) = &endpoint.node else { continue };
                let of = match (endpoint.ready, endpoint.serving) {
                    (true, _) => &mut ready,
                    (false, true) => &mut serving,
                    (false, false) => continue,
                };
                of.entry(owner.clone()).or_default().insert(node.clone());
            }
        }
        for (owner, nodes) in serving {
            ready.entry(owner).or_insert(nodes);
        }
        ready
    }
}

/// Whether an address may be anybody's to announce: not a node's own, which some put into the status, nor a
/// pod's, nor one of no single host.
fn can_be_announced(ip: IpAddr, cluster: &Cluster) -> bool {
    let special = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast() || ip.octets()[0] == 0,
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.to_ipv4_mapped().is_some(),
    };
    let owned = |node: &Arc<Node>| {
        node.addresses.contains(&ip) || node.pod_cidrs.iter().any(|cidr| cidr.contains(&ip))
    };
    let special = special || ip.is_loopback() || ip.is_multicast() || ip.is_unspecified();
    !special && !cluster.nodes.values().any(owned)
}

#[cfg(test)]
mod tests {
    use weft_model::service::{Endpoint, EndpointSlice};

    use super::*;

    fn node(name: &str, ip: &str) -> Node {
        Node { name: name.into(), addresses: vec![ip.parse().unwrap()], ..Node::default() }
    }

    fn service(name: &str, ip: &str, local: bool) -> Service {
        Service {
            namespace: "shop".into(),
            name: name.into(),
            kind: ServiceType::LoadBalancer,
            created: name.into(),
            load_balancer_ips: vec![ip.parse().unwrap()],
            balanced_here: true,
            external_local: local,
            ..Service::default()
        }
    }

    fn slice(service: &str, endpoints: &[(&str, bool, bool)]) -> EndpointSlice {
        let endpoint = |(node, ready, serving): &(&str, bool, bool)| Endpoint {
            address: [10, 244, 0, 9].into(),
            ready: *ready,
            serving: *serving,
            terminating: !ready,
            node: Some((*node).into()),
            hints: None,
        };
        EndpointSlice {
            namespace: "shop".into(),
            name: format!("{service}-x").into(),
            service: service.into(),
            endpoints: endpoints.iter().map(endpoint).collect(),
            ..EndpointSlice::default()
        }
    }

    fn cluster(services: Vec<Service>, slices: Vec<EndpointSlice>) -> Cluster {
        let mut cluster = Cluster::default();
        let mut excluded = node("excluded", "10.0.0.4");
        excluded.labels.insert(EXCLUDE_LABEL.into(), "".into());
        let leaving = Node { leaving: true, ..node("leaving", "10.0.0.5") };
        let far = node("far", "10.9.0.1");
        for node in [node("a", "10.0.0.1"), node("b", "10.0.0.2"), excluded, leaving, far] {
            cluster.nodes.insert(node.name.clone(), Arc::new(node));
        }
        cluster.services = services.into_iter().map(|s| (s.key(), Arc::new(s))).collect();
        cluster.slices = slices.into_iter().map(|s| (s.key(), Arc::new(s))).collect();
        cluster
    }

    fn candidates(cluster: &Cluster, ip: &str) -> Option<String> {
        let mut wants = Wants::default();
        wants.update(cluster, &["10.0.0.0/24".parse().unwrap()]);
        let wanted = wants.addresses().get(&ip.parse().unwrap())?;
        Some(wanted.candidates.iter().map(|name| &**name).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn nodes_of_the_segment_that_load_balancers_may_use_are_candidates() {
        let cluster = cluster(vec![service("web", "10.0.0.200", false)], vec![]);
        assert_eq!(candidates(&cluster, "10.0.0.200").as_deref(), Some("a b"));
    }

    #[test]
    fn addresses_that_another_controller_gave_are_left_to_it() {
        let other = Service { balanced_here: false, ..service("web", "10.0.0.200", false) };
        assert_eq!(candidates(&cluster(vec![other], vec![]), "10.0.0.200"), None);
    }

    #[test]
    fn with_policy_local_it_is_those_with_endpoints() {
        let with = |slices| {
            candidates(&cluster(vec![service("web", "10.0.0.200", true)], slices), "10.0.0.200").unwrap()
        };
        assert_eq!(with(vec![slice("web", &[("b", true, true), ("a", false, true)])]), "b");
        assert_eq!(with(vec![slice("web", &[("b", false, false), ("a", false, true)])]), "a");
        assert_eq!(with(vec![slice("other", &[("b", true, true)])]), "");
    }

    #[test]
    fn services_that_share_an_address_share_its_node() {
        let services = vec![service("x", "10.0.0.200", true), service("y", "10.0.0.200", false)];
        let shared = cluster(services, vec![slice("x", &[("b", true, true)])]);
        assert_eq!(candidates(&shared, "10.0.0.200").as_deref(), Some("b"));
    }

    #[test]
    fn what_is_a_node_s_or_a_pod_s_or_no_host_s_is_not_announced() {
        for ip in ["10.0.0.2", "127.0.0.1", "169.254.1.1", "224.0.0.1", "fe80::1", "::ffff:10.0.0.9"] {
            assert_eq!(candidates(&cluster(vec![service("web", ip, false)], vec![]), ip), None, "{ip}");
        }
    }

    #[test]
    fn only_changes_that_may_matter_are_looked_at() {
        let services = vec![service("web", "10.0.0.200", true), service("plain", "10.0.0.201", false)];
        let cluster =
            cluster(services, vec![slice("web", &[("b", true, true)]), slice("plain", &[("a", true, true)])]);
        let mut wants = Wants::default();
        wants.update(&cluster, &["10.0.0.0/24".parse().unwrap()]);
        let of =
            |name: &str| Changes { slices: [NamespacedName::new("shop", name)].into(), ..Changes::default() };
        assert!(wants.concerned(&cluster, &of("web-x")));
        assert!(!wants.concerned(&cluster, &of("plain-x")));
        assert!(wants.concerned(&cluster, &Changes { nodes: ["a".into()].into(), ..Changes::default() }));
    }
}
