use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use weft_model::network::{Backend, VXLAN_OVERHEAD_V4, VXLAN_OVERHEAD_V6, VXLAN_PORT, VXLAN_VNI};
use weft_model::{Mac, mark};

use crate::Refusal;

/// What the operator chose for the whole cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FabricConfig {
    /// How packets go from node to node.
    pub backend: Backend,
    /// The CIDRs of all pods: between them nothing is masqueraded.
    pub cluster_cidrs: Vec<IpNet>,
}

/// What the planner must know of this host: the link that carries the node's InternalIP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Underlay {
    /// Its name.
    pub link: Arc<str>,
    /// Its index.
    pub index: u32,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Its addresses, each with the length of its connected prefix.
    pub addresses: Vec<IpNet>,
}

impl Underlay {
    /// The connected network of the link that holds `address`.
    pub fn segment_of(&self, address: IpAddr) -> Option<IpNet> {
        self.addresses.iter().map(IpNet::trunc).find(|net| net.contains(&address))
    }

    /// Whether the link itself has `address`.
    pub fn carries(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|net| net.addr() == address)
    }
}

/// All that one node should have in its kernel for node-to-node traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FabricPlan {
    /// The node's own objects, or what they wait for; while waiting nothing is changed.
    pub local: Result<LocalPlan, Waiting>,
    /// One plan for each other node, by name; empty while waiting.
    pub peers: BTreeMap<Arc<str>, PeerPlan>,
}

/// Why a node cannot program anything yet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Waiting {
    /// The cluster has no such node.
    #[error("node {0} is not in the cluster: waiting for its Node object (or correct --node-name)")]
    NodeMissing(Arc<str>),
    /// None of this host's links has the node's InternalIP.
    #[error("no link of this host carries {address}, the InternalIP of node {node}: correct one of them")]
    NoUnderlay {
        /// This node.
        node: Arc<str>,
        /// Its InternalIP.
        address: IpAddr,
    },
    /// The Node object is unusable as it is.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// The objects that do not depend on peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalPlan {
    /// This node.
    pub node: Arc<str>,
    /// Its pod CIDRs, at most one a family.
    pub pod_cidrs: Vec<IpNet>,
    /// Index of the underlay link.
    pub underlay: u32,
    /// The bridge that joins its pods.
    pub bridge: BridgeSpec,
    /// The tunnel device, where the backend has one.
    pub vxlan: Option<VxlanSpec>,
    /// What leaves under the node's own address.
    pub masquerade: Masquerade,
    /// Conflicts of this node with others that do not stop it from serving its own pods.
    pub problems: Vec<Refusal>,
}

/// The bridge `weft0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeSpec {
    /// The gateway of each pod CIDR (its first usable address) with the CIDR's length.
    pub addresses: Vec<IpNet>,
    /// MTU of the bridge and of the pods' links, in bytes.
    pub mtu: u32,
    /// Fixed, so that it does not follow the ports that come and go.
    pub mac: Mac,
}

/// The device `weft-vxlan`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VxlanSpec {
    /// Network identifier.
    pub vni: u32,
    /// UDP port.
    pub port: u16,
    /// Our end of the tunnels: source of the outer packets.
    pub local: IpAddr,
    /// Index of the underlay link.
    pub underlay: u32,
    /// This node's VTEP address ([`mark::vtep_mac`]).
    pub mac: Mac,
    /// The network address of each pod CIDR as a single-address prefix.
    pub addresses: Vec<IpNet>,
    /// In bytes: the underlay's less the encapsulation.
    pub mtu: u32,
}

/// Source in the cluster, destination outside of it and not multicast: masquerade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Masquerade {
    /// The cluster's CIDRs, merged and sorted.
    pub cluster_cidrs: Vec<IpNet>,
}

/// How one peer's pods are reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerPlan {
    /// A path for each pod CIDR that can be reached.
    pub paths: Vec<Path>,
    /// What of the peer is not programmed, and why.
    pub refused: Vec<Refusal>,
}

impl PeerPlan {
    /// Whether all the peer's pods are reachable.
    pub fn complete(&self) -> bool {
        self.refused.is_empty()
    }
}

/// The path to one pod CIDR of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Path {
    /// A plain route through the peer itself.
    Routed {
        /// The peer's pod CIDR.
        cidr: IpNet,
        /// The peer's address on our segment.
        via: IpAddr,
        /// Index of our underlay link.
        link: u32,
    },
    /// Through the VXLAN device.
    Tunnelled {
        /// The peer's pod CIDR.
        cidr: IpNet,
        /// The peer's VTEP: the network address of `cidr`.
        gateway: IpAddr,
        /// The peer's VTEP hardware address.
        mac: Mac,
        /// Where the outer packets go.
        endpoint: IpAddr,
    },
}

impl FabricConfig {
    /// What the backend takes off the underlay's MTU, given the family of the outer packets.
    fn overhead(&self, local: IpAddr) -> u32 {
        match self.backend {
            Backend::HostGw => 0,
            Backend::Vxlan if local.is_ipv4() => VXLAN_OVERHEAD_V4,
            Backend::Vxlan => VXLAN_OVERHEAD_V6,
        }
    }
}

pub(crate) fn local_plan(
    node: &weft_model::Node,
    local: IpAddr,
    cfg: &FabricConfig,
    underlay: &Underlay,
    problems: Vec<Refusal>,
) -> LocalPlan {
    let pod_cidrs: Vec<IpNet> = node.pod_cidrs.iter().map(IpNet::trunc).collect();
    let mtu = underlay.mtu.saturating_sub(cfg.overhead(local));
    let mut mac = mark::vtep_mac(&node.name);
    mac.0[0] = 0x0a;
    let bridge = BridgeSpec { addresses: pod_cidrs.iter().map(gateway).collect(), mtu, mac };
    let vxlan = (cfg.backend == Backend::Vxlan).then(|| VxlanSpec {
        vni: VXLAN_VNI,
        port: VXLAN_PORT,
        local,
        underlay: underlay.index,
        mac: mark::vtep_mac(&node.name),
        addresses: pod_cidrs.iter().map(|cidr| cidr.network().into()).collect(),
        mtu,
    });
    let cluster_cidrs = IpNet::aggregate(&cfg.cluster_cidrs.iter().map(IpNet::trunc).collect());
    let masquerade = Masquerade { cluster_cidrs };
    LocalPlan {
        node: node.name.clone(),
        pod_cidrs,
        underlay: underlay.index,
        bridge,
        vxlan,
        masquerade,
        problems,
    }
}

/// The first usable address of a pod CIDR, with the CIDR's length.
fn gateway(cidr: &IpNet) -> IpNet {
    match cidr {
        IpNet::V4(net) => {
            let first = u32::from(net.network()).saturating_add(1).into();
            ipnet::Ipv4Net::new(first, net.prefix_len()).map_or(*cidr, IpNet::V4)
        }
        IpNet::V6(net) => {
            let first = u128::from(net.network()).saturating_add(1).into();
            ipnet::Ipv6Net::new(first, net.prefix_len()).map_or(*cidr, IpNet::V6)
        }
    }
}
