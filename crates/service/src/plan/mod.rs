//! What a node's proxy should do: plain values, made without clock, kernel or file.

mod endpoints;
mod frontends;
mod planner;
mod refusal;
mod reserved;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use weft_model::service::{Protocol, ServiceKey};

pub use planner::Planner;
pub use refusal::Refusal;

/// What does not follow from the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceConfig {
    /// This node's name.
    pub node: Arc<str>,
    /// The CIDRs of all pods: who is in none of them is no pod.
    pub cluster_cidrs: Vec<IpNet>,
    /// Addresses of this node at which node ports are served (kube-proxy's `--nodeport-addresses`); empty:
    /// its InternalIPs.
    pub node_port_addresses: Vec<IpNet>,
    /// Where externalIPs may be; empty: anywhere but where no address of a Service may be.
    pub external_ips: Vec<IpNet>,
}

/// Where clients connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrontendKey {
    /// The address.
    pub place: Place,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
}

impl fmt::Display for FrontendKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FrontendKey { place, protocol, port } = self;
        match place {
            Place::Address(ip) => write!(f, "{} {protocol}", SocketAddr::new(*ip, *port)),
            Place::NodePort { ipv6: false } => write!(f, "node port {port} {protocol}"),
            Place::NodePort { ipv6: true } => write!(f, "node port {port} {protocol} (IPv6)"),
        }
    }
}

/// Which addresses a frontend has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// One.
    Address(IpAddr),
    /// Those of the node that serve node ports ([`ServicePlan::node_addresses`]).
    NodePort {
        /// Of which family.
        ipv6: bool,
    },
}

impl Place {
    /// Whether it is of IPv6.
    pub fn is_ipv6(&self) -> bool {
        match self {
            Place::Address(ip) => ip.is_ipv6(),
            Place::NodePort { ipv6 } => *ipv6,
        }
    }
}

/// What a frontend is of its Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `spec.clusterIPs`.
    ClusterIp,
    /// `spec.ports[].nodePort`.
    NodePort,
    /// `spec.externalIPs`.
    External,
    /// `status.loadBalancer.ingress`.
    LoadBalancer,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::ClusterIp => "cluster IP",
            Kind::NodePort => "node port",
            Kind::External => "external IP",
            Kind::LoadBalancer => "load balancer IP",
        })
    }
}

/// One frontend and where it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frontend {
    /// Whose it is.
    pub service: ServiceKey,
    /// The port's name, as its owner wrote it: any text that the API lets through.
    pub port_name: Arc<str>,
    /// What it is of the Service.
    pub kind: Kind,
    /// Who is led where, and whose source address stays.
    pub policy: Policy,
    /// Where clients are led.
    pub all: Choice,
    /// With [`Policy::Local`] where clients from outside are led; else as `all`.
    pub local: Choice,
    /// For how many seconds a client stays with its backend (ClientIP).
    pub affinity: Option<u32>,
    /// Who may connect, of the frontend's family and sorted; `None`: everybody. Others are dropped.
    pub sources: Option<Arc<[IpNet]>>,
}

/// Who is led where, and whether the source address that the client has stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Policy {
    /// A cluster IP: everybody to `all`; who is no pod is masqueraded, since only this node knows the way back.
    Internal,
    /// externalTrafficPolicy Cluster: everybody to `all`, masqueraded.
    Cluster,
    /// externalTrafficPolicy Local: pods to `all` as they are, this node's own processes to `all` masqueraded,
    /// who comes from outside to `local` as he is.
    Local,
}

/// Where connections go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// To one of these, each as likely as the others; sorted by address, at least one.
    Backends(Arc<[Backend]>),
    /// Nobody serves them anywhere: refused (TCP reset, ICMP port unreachable).
    Reject,
    /// Nobody on this node serves them, and others do not count: dropped, so that a load balancer turns to
    /// another node.
    Drop,
}

impl Choice {
    /// The backends; none where connections are refused or dropped.
    pub fn backends(&self) -> &[Backend] {
        match self {
            Choice::Backends(backends) => backends,
            Choice::Reject | Choice::Drop => &[],
        }
    }
}

/// One endpoint of a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    /// Its address, of the frontend's family.
    pub address: SocketAddr,
    /// Whether it is on this node: then a client may be the endpoint itself.
    pub here: bool,
}

/// What answers at a Service's healthCheckNodePort.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// Whose it is.
    pub service: ServiceKey,
    /// How many ready endpoints are on this node.
    pub endpoints: usize,
}

/// What a node's proxy should do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServicePlan {
    /// Every frontend.
    pub frontends: BTreeMap<FrontendKey, Arc<Frontend>>,
    /// Cluster IPs with the number of their Services: connections to their other ports are refused.
    pub cluster_ips: BTreeMap<IpAddr, usize>,
    /// The health checks by port.
    pub checks: BTreeMap<u16, HealthCheck>,
    /// Where all pods are, merged and sorted.
    pub pods: Vec<IpNet>,
    /// The node's addresses that serve node ports, or where those are; merged and sorted.
    pub node_addresses: Vec<IpNet>,
    /// What of Services is not done, and why.
    pub refused: BTreeMap<ServiceKey, Vec<Refusal>>,
}

/// What an update of the plan changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Frontends that are new, different or gone.
    pub frontends: BTreeSet<FrontendKey>,
    /// Cluster IPs that are new or gone.
    pub cluster_ips: BTreeSet<IpAddr>,
    /// Whether the health checks, the pods or the node's addresses are others.
    pub rest: bool,
}

impl Changed {
    /// Whether the plan is as it was.
    pub fn is_empty(&self) -> bool {
        *self == Changed::default()
    }

    /// Adds the changes that came after.
    pub fn merge(&mut self, later: Changed) {
        self.frontends.extend(later.frontends);
        self.cluster_ips.extend(later.cluster_ips);
        self.rest |= later.rest;
    }
}
