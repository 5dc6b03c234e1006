use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use weft_model::network::{Backend, Network, Tunnel};
use weft_model::{FlannelAnnotations, Mac, Node, mark};

use crate::{Masquerade, Refusal, flannel};

/// What the operator chose for the whole cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FabricConfig {
    /// What holds where the cluster has no `Network` object.
    pub network: Network,
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
    /// Single addresses of other nodes' blocks that its pods have.
    pub loans: Vec<IpNet>,
    /// Whether each pod has a route of its own, as with pools and BGP, and the bridge joins none.
    pub routed: bool,
    /// Whether pods' addresses come from pools.
    pub pools: bool,
    /// Whether the routes to peers' pods are those that peers tell (BGP).
    pub learns: bool,
    /// Index of the underlay link.
    pub underlay: u32,
    /// The bridge that joins its pods.
    pub bridge: BridgeSpec,
    /// The tunnel devices in force: during a migration more than one.
    pub tunnels: Tunnels,
    /// What leaves under the node's own address.
    pub masquerade: Masquerade,
    /// Whether the backend is being changed: packets of a peer may come by another way than the
    /// one by which this node sends to it.
    pub migrating: bool,
    /// What flannel on other nodes is told of this one; empty where none of them runs it.
    pub flannel: FlannelAnnotations,
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

/// The device `weft-vxlan` or `weft-vxlan6`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VxlanSpec {
    /// Its name.
    pub name: &'static str,
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

/// The devices of the tunnels in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tunnels {
    /// VXLAN.
    pub vxlan: Option<VxlanSpec>,
    /// VXLAN in IPv6 for the IPv6 pods of nodes that run flannel, which uses a device for each family.
    pub vxlan6: Option<VxlanSpec>,
    /// The tunnel in user space.
    pub udp: Option<UdpSpec>,
    /// IPv4 in IPv4.
    pub ipip: Option<IpipSpec>,
    /// IPv6 in IPv6.
    pub ip6tnl: Option<IpipSpec>,
}

/// The TUN device `weft-udp0` and the socket behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpSpec {
    /// UDP port.
    pub port: u16,
    /// Our end of the tunnels: source of the outer packets.
    pub local: IpAddr,
    /// Index of the underlay link.
    pub underlay: u32,
    /// The network address of each pod CIDR as a single-address prefix.
    pub addresses: Vec<IpNet>,
    /// This node's own pod CIDRs: where a packet from a peer may go.
    pub pod_cidrs: Vec<IpNet>,
    /// What is routed to the device: the cluster's CIDRs.
    pub routes: Vec<IpNet>,
    /// In bytes: the underlay's less the encapsulation.
    pub mtu: u32,
}

/// The device `weft-ipip` or `weft-ip6tnl`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpipSpec {
    /// Our end of the tunnels: source of the outer packets.
    pub local: IpAddr,
    /// Index of the underlay link.
    pub underlay: u32,
    /// The network address of each pod CIDR of the family as a single-address prefix.
    pub addresses: Vec<IpNet>,
    /// In bytes: the underlay's less the encapsulation.
    pub mtu: u32,
}

/// How one peer's pods are reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerPlan {
    /// A path for each pod CIDR that can be reached.
    pub paths: Vec<Path>,
    /// What of the peer is not programmed, and why.
    pub refused: Vec<Refusal>,
    /// Why paths go by the other backend of a migration and not by the one this node sends by.
    pub fallback: Vec<Refusal>,
}

impl PeerPlan {
    /// Whether all the peer's pods are reachable.
    pub fn complete(&self) -> bool {
        self.refused.is_empty()
    }
}

/// The path to one pod CIDR of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// The peer's pod CIDR.
    pub cidr: IpNet,
    /// How its packets get there.
    pub via: Via,
}

/// How packets get to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Via {
    /// A plain route through the peer itself.
    Direct {
        /// The peer's address on our segment.
        gateway: IpAddr,
        /// Index of our underlay link.
        link: u32,
    },
    /// Through the VXLAN device.
    Vxlan {
        /// The peer's VTEP: the network address of the CIDR.
        gateway: IpAddr,
        /// The peer's VTEP hardware address.
        mac: Mac,
        /// Where the outer packets go.
        endpoint: IpAddr,
    },
    /// Through the tunnel in user space.
    Udp {
        /// Where the outer packets go.
        endpoint: IpAddr,
    },
    /// IP in IP.
    Ipip {
        /// Where the outer packets go; of the CIDR's family.
        endpoint: IpAddr,
    },
    /// By the route that BGP brings.
    Learnt,
}

impl LocalPlan {
    /// The same for pods that have a route each.
    pub(crate) fn routed(mut self) -> LocalPlan {
        self.routed = true;
        self.bridge.addresses.clear();
        self
    }
}

/// What a node's own plan follows from.
pub(crate) struct Facts<'a> {
    pub(crate) node: &'a Node,
    /// Its address on the underlay.
    pub(crate) local: IpAddr,
    pub(crate) network: &'a Network,
    pub(crate) cluster_cidrs: &'a [IpNet],
    pub(crate) masquerade: Masquerade,
    pub(crate) underlay: &'a Underlay,
    pub(crate) flannel_next_door: bool,
    pub(crate) problems: Vec<Refusal>,
}

/// The plan of a node that waits for nothing.
pub(crate) fn local_plan(facts: Facts<'_>) -> LocalPlan {
    let Facts { node, local, network, cluster_cidrs, underlay, flannel_next_door, .. } = facts;
    let pod_cidrs: Vec<IpNet> = node.pod_cidrs.iter().map(IpNet::trunc).collect();
    let cluster_cidrs = IpNet::aggregate(&cluster_cidrs.iter().map(IpNet::trunc).collect());
    let mut mac = mark::vtep_mac(&node.name);
    mac.0[0] = 0x0a;
    let mtu = pod_mtu(node, local, network, underlay);
    let mut tunnels = tunnels(node, local, network, &pod_cidrs, &cluster_cidrs, underlay);
    let vxlan = tunnels.vxlan.as_ref().filter(|_| flannel_next_door);
    tunnels.vxlan6 = vxlan.and_then(|vxlan| vxlan6(node, vxlan, underlay));
    LocalPlan {
        node: node.name.clone(),
        loans: node.loans.clone(),
        routed: false,
        pools: false,
        learns: network.backends(&node.name).any(|backend| backend == Backend::BGP),
        bridge: BridgeSpec { addresses: pod_cidrs.iter().map(gateway).collect(), mtu, mac },
        tunnels,
        pod_cidrs,
        underlay: underlay.index,
        masquerade: facts.masquerade,
        migrating: network.migration.is_some(),
        flannel: if flannel_next_door { flannel::ours(node, network) } else { FlannelAnnotations::new() },
        problems: facts.problems,
    }
}

/// The second VXLAN device that dual stack with flannel needs.
fn vxlan6(node: &Node, vxlan: &VxlanSpec, underlay: &Underlay) -> Option<VxlanSpec> {
    let addresses: Vec<IpNet> = vxlan.addresses.iter().filter(|net| net.addr().is_ipv6()).copied().collect();
    let local = node.address_like(addresses.first()?.addr()).filter(|_| vxlan.local.is_ipv4())?;
    let mtu = underlay.mtu.saturating_sub(Tunnel::Vxlan.overhead(local));
    Some(VxlanSpec { name: mark::VXLAN6, local, addresses, mtu, ..vxlan.clone() })
}

/// What fits through every tunnel in force, or what is configured where that is less.
fn pod_mtu(node: &Node, local: IpAddr, network: &Network, underlay: &Underlay) -> u32 {
    // IP in IP uses the address of each family that the pods have.
    let outer = |tunnel: Tunnel| match tunnel {
        Tunnel::Ipip if node.pod_cidrs.iter().any(|cidr| cidr.addr().is_ipv6()) => {
            node.address_like(std::net::Ipv6Addr::UNSPECIFIED.into()).unwrap_or(local)
        }
        _ => local,
    };
    let overhead = network.tunnels().into_iter().map(|tunnel| tunnel.overhead(outer(tunnel))).max();
    let fits = underlay.mtu.saturating_sub(overhead.unwrap_or_default());
    network.mtu.map_or(fits, |mtu| mtu.min(fits))
}

fn tunnels(
    node: &Node,
    local: IpAddr,
    network: &Network,
    pod_cidrs: &[IpNet],
    cluster_cidrs: &[IpNet],
    underlay: &Underlay,
) -> Tunnels {
    let own: Vec<IpNet> = pod_cidrs.iter().map(|cidr| cidr.network().into()).collect();
    let mtu = |tunnel: Tunnel, local| underlay.mtu.saturating_sub(tunnel.overhead(local));
    let index = underlay.index;
    let mut tunnels = Tunnels::default();
    for tunnel in network.tunnels() {
        match tunnel {
            Tunnel::Vxlan => {
                let weft_model::network::Vxlan { vni, port } = network.vxlan;
                let (mac, mtu) = (mark::vtep_mac(&node.name), mtu(tunnel, local));
                let addresses = own.clone();
                let name = mark::VXLAN;
                tunnels.vxlan =
                    Some(VxlanSpec { name, vni, port, local, underlay: index, mac, addresses, mtu });
            }
            Tunnel::Udp => {
                tunnels.udp = Some(UdpSpec {
                    port: network.udp_port,
                    local,
                    underlay: index,
                    addresses: own.clone(),
                    pod_cidrs: pod_cidrs.iter().chain(&node.loans).copied().collect(),
                    routes: cluster_cidrs.to_vec(),
                    mtu: mtu(tunnel, local),
                });
            }
            Tunnel::Ipip => {
                let end = |v4: bool| {
                    let family = |net: &&IpNet| net.addr().is_ipv4() == v4;
                    let addresses: Vec<IpNet> = own.iter().filter(family).copied().collect();
                    let local = node.address_like(addresses.first()?.addr())?;
                    Some(IpipSpec { local, underlay: index, addresses, mtu: mtu(tunnel, local) })
                };
                (tunnels.ipip, tunnels.ip6tnl) = (end(true), end(false));
            }
        }
    }
    tunnels
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
