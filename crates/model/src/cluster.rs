use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::FlannelAnnotations;
use crate::bgp::{BgpConfiguration, BgpFilter, BgpPeer, NodeBgp};
use crate::load_balancer::{Claim, LoadBalancerPool};
use crate::network::{Ipam, Network};
use crate::pools::{IpBlock, IpPool, Labels, Namespace, Wish};
use crate::service::{EndpointSlice, Service, ServiceKey};

/// One immutable view of the cluster. Cloning shares everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cluster {
    /// Nodes by name.
    pub nodes: OrdMap<Arc<str>, Arc<Node>>,
    /// Pods by namespace and name, host-network pods included.
    pub pods: OrdMap<PodKey, Arc<Pod>>,
    /// What is configured for the whole cluster, by name: the one named `default` counts.
    pub networks: OrdMap<Arc<str>, Arc<Network>>,
    /// Namespaces by name.
    pub namespaces: OrdMap<Arc<str>, Arc<Namespace>>,
    /// Pools by name.
    pub pools: OrdMap<Arc<str>, Arc<IpPool>>,
    /// Blocks by name.
    pub blocks: OrdMap<Arc<str>, Arc<IpBlock>>,
    /// Services by namespace and name.
    pub services: OrdMap<ServiceKey, Arc<Service>>,
    /// EndpointSlices by namespace and name.
    pub slices: OrdMap<NamespacedName, Arc<EndpointSlice>>,
    /// Services, as far as addresses of load balancers go; only where these are planned.
    pub claims: OrdMap<ServiceKey, Arc<Claim>>,
    /// Pools of such addresses by name; likewise.
    pub balancers: OrdMap<Arc<str>, Arc<LoadBalancerPool>>,
    /// What holds for all sessions of BGP, by name.
    pub bgp_configurations: OrdMap<Arc<str>, Arc<BgpConfiguration>>,
    /// Sessions of BGP by name.
    pub bgp_peers: OrdMap<Arc<str>, Arc<BgpPeer>>,
    /// Rules for what they take and tell by name.
    pub bgp_filters: OrdMap<Arc<str>, Arc<BgpFilter>>,
}

impl Cluster {
    /// What is configured for the whole cluster; none where agents go by their flags.
    pub fn network(&self) -> Option<&Network> {
        self.networks.get("default").map(|network| &**network)
    }

    /// Where pods' addresses come from; `configured` where the cluster does not say it.
    pub fn ipam(&self, configured: Ipam) -> Ipam {
        self.network().and_then(|network| network.ipam).unwrap_or(configured)
    }

    /// The nodes that have these blocks or addresses of them.
    pub fn nodes_of_blocks<'a>(
        &'a self,
        names: &'a BTreeSet<Arc<str>>,
    ) -> impl Iterator<Item = &'a Arc<str>> {
        let blocks = names.iter().filter_map(|name| self.blocks.get(name));
        blocks.flat_map(|block| block.node.iter().chain(block.borrowed.values()))
    }
}

/// The keys that differ between two snapshots: added, changed or removed alike.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Names of nodes.
    pub nodes: BTreeSet<Arc<str>>,
    /// Keys of pods.
    pub pods: BTreeSet<PodKey>,
    /// Names of networks.
    pub networks: BTreeSet<Arc<str>>,
    /// Names of namespaces.
    pub namespaces: BTreeSet<Arc<str>>,
    /// Names of pools.
    pub pools: BTreeSet<Arc<str>>,
    /// Names of blocks.
    pub blocks: BTreeSet<Arc<str>>,
    /// Keys of Services.
    pub services: BTreeSet<ServiceKey>,
    /// Keys of EndpointSlices.
    pub slices: BTreeSet<NamespacedName>,
    /// Keys of Services, as far as addresses of load balancers go.
    pub claims: BTreeSet<ServiceKey>,
    /// Names of pools of such addresses.
    pub balancers: BTreeSet<Arc<str>>,
    /// Names of BGP's configurations.
    pub bgp_configurations: BTreeSet<Arc<str>>,
    /// Names of BGP's sessions.
    pub bgp_peers: BTreeSet<Arc<str>>,
    /// Names of their rules.
    pub bgp_filters: BTreeSet<Arc<str>>,
}

impl Changes {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        *self == Changes::default()
    }

    /// Adds the keys of `other` to these.
    pub fn merge(&mut self, other: Changes) {
        self.nodes.extend(other.nodes);
        self.pods.extend(other.pods);
        self.networks.extend(other.networks);
        self.namespaces.extend(other.namespaces);
        self.pools.extend(other.pools);
        self.blocks.extend(other.blocks);
        self.services.extend(other.services);
        self.slices.extend(other.slices);
        self.claims.extend(other.claims);
        self.balancers.extend(other.balancers);
        self.bgp_configurations.extend(other.bgp_configurations);
        self.bgp_peers.extend(other.bgp_peers);
        self.bgp_filters.extend(other.bgp_filters);
    }
}

/// A machine that runs pods (core/v1 Node), with the fields Weft acts on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// `metadata.name`.
    pub name: Arc<str>,
    /// `metadata.uid`; tells a recreated node from the one before.
    pub uid: Arc<str>,
    /// `metadata.creationTimestamp`, whose order is that of time.
    #[serde(default)]
    pub created: Arc<str>,
    /// Its annotation [`HOST_ANNOTATION`](crate::network::HOST_ANNOTATION).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<Arc<str>>,
    /// `status.addresses` of type InternalIP, in their order, at most one a family.
    pub addresses: Vec<IpAddr>,
    /// `spec.podCIDRs` (or `spec.podCIDR`), at most one a family.
    pub pod_cidrs: Vec<IpNet>,
    /// What flannel says of it in `metadata.annotations`.
    #[serde(default, skip_serializing_if = "FlannelAnnotations::is_empty")]
    pub flannel: FlannelAnnotations,
    /// Single addresses that its pods have of other nodes' blocks; only where pods' addresses come from
    /// pools, and then `pod_cidrs` are its own blocks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub loans: Vec<IpNet>,
    /// `metadata.labels`.
    #[serde(default)]
    pub labels: Labels,
    /// It is being removed: deleted, or marked so by the cluster's autoscaler. Load balancers turn from it.
    #[serde(default)]
    pub leaving: bool,
    /// What its annotations say of it as a speaker of BGP.
    #[serde(default, skip_serializing_if = "NodeBgp::is_empty")]
    pub bgp: NodeBgp,
}

impl Node {
    /// The node's underlay address of the same family as `like`.
    pub fn address_like(&self, like: IpAddr) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|a| a.is_ipv4() == like.is_ipv4())
    }
}

/// Namespace and name of an object; prints as `namespace/name`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NamespacedName {
    /// `metadata.namespace`.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
}

/// Namespace and name of a pod.
pub type PodKey = NamespacedName;

impl NamespacedName {
    /// A key from its two parts.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        NamespacedName { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for NamespacedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Where a pod is in its life (core/v1 PodPhase).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PodPhase {
    /// Accepted, not all containers started.
    #[default]
    Pending,
    /// Bound to a node and started.
    Running,
    /// All containers ended well: the address is free again.
    Succeeded,
    /// All containers ended, one badly: the address is free again.
    Failed,
    /// The node does not answer.
    Unknown,
}

/// A pod (core/v1 Pod), with the fields Weft acts on: about 1 KiB each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// `metadata.namespace`.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
    /// `metadata.uid`.
    pub uid: Arc<str>,
    /// `metadata.labels`.
    pub labels: Labels,
    /// `spec.nodeName`, once scheduled.
    pub node: Option<Arc<str>>,
    /// `status.podIPs` (or `status.podIP`).
    pub ips: Vec<IpAddr>,
    /// `spec.hostNetwork`: the pod has its node's addresses.
    pub host_network: bool,
    /// `status.phase`.
    pub phase: PodPhase,
    /// What it asks for by annotations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wish: Option<Box<Wish>>,
}

impl Pod {
    /// The pod's key.
    pub fn key(&self) -> PodKey {
        PodKey { namespace: self.namespace.clone(), name: self.name.clone() }
    }
}
