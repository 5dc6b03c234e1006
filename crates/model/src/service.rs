//! Services and their endpoints, with the fields Weft acts on.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::NamespacedName;

/// Namespace and name of a Service.
pub type ServiceKey = NamespacedName;

/// The label that hands a Service to another proxy (KEP-2447).
pub const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";
/// The label of an EndpointSlice that names its Service.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// The label of a Node that names its zone.
pub const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// The label of a Node that load balancers pass over.
pub const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// `spec.loadBalancerClass` of Services whose addresses Weft gives.
pub const LOAD_BALANCER_CLASS: &str = "weft.dev/load-balancer";

/// The condition of a Service to which Weft gave addresses.
pub const ADDRESSES_CONDITION: &str = "weft.dev/AddressesAssigned";

/// How long a client stays with its endpoint where the Service says nothing, in seconds.
pub const DEFAULT_AFFINITY: u32 = 10_800;
/// The longest time for that (core/v1 ClientIPConfig), in seconds.
pub const MOST_AFFINITY: u32 = 86_400;

/// A transport protocol that Services have (core/v1 Protocol).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP, also where nothing is said.
    #[default]
    #[serde(rename = "TCP")]
    Tcp,
    /// UDP.
    #[serde(rename = "UDP")]
    Udp,
    /// SCTP.
    #[serde(rename = "SCTP")]
    Sctp,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

    /// IANA's number.
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }

    /// As Kubernetes writes it.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a Service is offered (core/v1 ServiceType).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceType {
    /// By an address of the cluster's own.
    #[default]
    ClusterIP,
    /// And by a port of every node.
    NodePort,
    /// And by addresses that lead in from outside.
    LoadBalancer,
    /// By a name of DNS alone.
    ExternalName,
}

impl fmt::Display for ServiceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A Service (core/v1 Service).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Service {
    /// `metadata.namespace`.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
    /// `metadata.uid`.
    pub uid: Arc<str>,
    /// `metadata.creationTimestamp`, whose order is that of time.
    pub created: Arc<str>,
    /// `spec.type`.
    pub kind: ServiceType,
    /// `spec.clusterIPs` (or `spec.clusterIP`), at most one a family; none where it is headless.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.externalIPs`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub external_ips: Vec<IpAddr>,
    /// `status.loadBalancer.ingress` whose mode is VIP: those of mode Proxy are not translated here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub load_balancer_ips: Vec<IpAddr>,
    /// Weft gives those addresses, by `spec.loadBalancerClass` [`LOAD_BALANCER_CLASS`] or the condition
    /// [`ADDRESSES_CONDITION`], and so tells the network where they are. Others' are told by others.
    #[serde(skip_serializing_if = "is_false")]
    pub balanced_here: bool,
    /// `spec.loadBalancerSourceRanges`; `None` where all may come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_ranges: Option<Arc<[IpNet]>>,
    /// `spec.ports`.
    pub ports: Vec<ServicePort>,
    /// `spec.sessionAffinity` ClientIP: for how many seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<u32>,
    /// `spec.internalTrafficPolicy` is Local.
    #[serde(skip_serializing_if = "is_false")]
    pub internal_local: bool,
    /// `spec.externalTrafficPolicy` is Local.
    #[serde(skip_serializing_if = "is_false")]
    pub external_local: bool,
    /// `spec.healthCheckNodePort`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check_port: Option<u16>,
    /// Another proxy serves it, by the label [`PROXY_NAME_LABEL`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Arc<str>>,
    /// What of it makes no sense and was left out, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nonsense: Vec<Arc<str>>,
}

impl Service {
    /// The Service's key.
    pub fn key(&self) -> ServiceKey {
        NamespacedName { namespace: self.namespace.clone(), name: self.name.clone() }
    }

    /// Whether it has neither an address of its own nor ports to be translated.
    pub fn headless(&self) -> bool {
        self.cluster_ips.is_empty() || self.kind == ServiceType::ExternalName
    }
}

/// A port of a Service (core/v1 ServicePort). Where it leads is in its EndpointSlices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServicePort {
    /// `name`, by which EndpointSlices refer to it; empty where it is the only one.
    pub name: Arc<str>,
    /// `protocol`.
    pub protocol: Protocol,
    /// `port`.
    pub port: u16,
    /// `nodePort`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_port: Option<u16>,
}

/// Endpoints of a Service (discovery.k8s.io/v1 EndpointSlice).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointSlice {
    /// `metadata.namespace`.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
    /// The Service's name, by the label [`SERVICE_NAME_LABEL`]; empty where it is nobody's.
    pub service: Arc<str>,
    /// `ports`.
    pub ports: Vec<EndpointPort>,
    /// `endpoints`, those with an address of the slice's `addressType`.
    pub endpoints: Vec<Endpoint>,
}

impl EndpointSlice {
    /// The slice's key.
    pub fn key(&self) -> NamespacedName {
        NamespacedName { namespace: self.namespace.clone(), name: self.name.clone() }
    }

    /// The Service that it is of.
    pub fn owner(&self) -> Option<ServiceKey> {
        let name = (!self.service.is_empty()).then(|| self.service.clone())?;
        Some(NamespacedName { namespace: self.namespace.clone(), name })
    }
}

/// A port that the endpoints of a slice have (discovery.k8s.io/v1 EndpointPort).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointPort {
    /// `name`, that of the Service's port.
    pub name: Arc<str>,
    /// `protocol`.
    pub protocol: Protocol,
    /// `port`.
    pub port: u16,
}

/// One endpoint: an address that answers on all ports of its slice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The first of `addresses`; the others are for nobody (the field's own words).
    pub address: IpAddr,
    /// `conditions.ready`; where nothing is said it is.
    #[serde(default)]
    pub ready: bool,
    /// `conditions.serving`; where nothing is said as `ready`.
    #[serde(default)]
    pub serving: bool,
    /// `conditions.terminating`.
    #[serde(default)]
    pub terminating: bool,
    /// `nodeName`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Arc<str>>,
    /// `hints`: who should prefer it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hints: Option<Arc<Hints>>,
}

/// Who should prefer an endpoint (discovery.k8s.io/v1 EndpointHints).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hints {
    /// Names of `forZones`.
    pub zones: Vec<Arc<str>>,
    /// Names of `forNodes`.
    pub nodes: Vec<Arc<str>>,
}

fn is_false(value: &bool) -> bool {
    !value
}
