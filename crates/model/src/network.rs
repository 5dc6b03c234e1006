//! The cluster's network as configured: pod CIDRs, the node-to-node backend, its numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use crate::backend::{Backend, Tunnel, UnknownBackend};

/// VXLAN network identifier, as Flannel's (`flannel.1`).
pub const VXLAN_VNI: u32 = 1;
/// VXLAN UDP port, the Linux default as Flannel's (not IANA's 4789).
pub const VXLAN_PORT: u16 = 8472;
/// UDP port of the tunnel in user space, as Flannel's.
pub const UDP_PORT: u16 = 8285;
/// What VXLAN adds to a packet on an IPv4 underlay, in bytes: Ethernet 14, IPv4 20, UDP 8, VXLAN 8.
pub const VXLAN_OVERHEAD_V4: u32 = 50;
/// The same on an IPv6 underlay.
pub const VXLAN_OVERHEAD_V6: u32 = 70;

impl Tunnel {
    /// What it adds to a packet, in bytes, when the outer packet is of the family of `local`.
    pub fn overhead(self, local: IpAddr) -> u32 {
        match (self, local.is_ipv4()) {
            (Tunnel::Vxlan, true) => VXLAN_OVERHEAD_V4,
            (Tunnel::Vxlan, false) => VXLAN_OVERHEAD_V6,
            (Tunnel::Udp, true) => 28,
            (Tunnel::Udp, false) => 48,
            (Tunnel::Ipip, true) => 20,
            (Tunnel::Ipip, false) => 40,
        }
    }
}

/// What holds for the whole cluster: the `Network` object `default` (weft.dev/v1), or what the
/// agent was started with where there is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Network {
    /// How packets go from node to node.
    pub backend: Backend,
    /// VXLAN's numbers.
    pub vxlan: Vxlan,
    /// UDP port of the tunnel in user space.
    pub udp_port: u16,
    /// Where pods' addresses come from, where it is said.
    pub ipam: Option<Ipam>,
    /// MTU of pods' links in bytes, where it is not to follow from the underlay.
    pub mtu: Option<u32>,
    /// Networks outside of the cluster to which pods' packets go with the pods' own addresses.
    pub no_masquerade: Vec<IpNet>,
    /// A change of the backend that is under way.
    pub migration: Option<Migration>,
}

/// Where pods' addresses come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ipam {
    /// The CIDRs of their node, which its Node object names.
    #[default]
    #[serde(rename = "NodeCIDR")]
    NodeCidr,
    /// Blocks of pools, which nodes claim (IPPool, IPBlock).
    Pools,
}

impl fmt::Display for Ipam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ipam::NodeCidr => "node-cidr",
            Ipam::Pools => "pools",
        })
    }
}

impl FromStr for Ipam {
    type Err = UnknownIpam;

    fn from_str(text: &str) -> Result<Ipam, UnknownIpam> {
        match text {
            "node-cidr" => Ok(Ipam::NodeCidr),
            "pools" => Ok(Ipam::Pools),
            other => Err(UnknownIpam(other.into())),
        }
    }
}

/// Not where addresses can come from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not where addresses come from: use node-cidr or pools")]
pub struct UnknownIpam(pub String);

/// VXLAN's numbers, alike on all nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Vxlan {
    /// Network identifier, below 2^24.
    pub vni: u32,
    /// UDP port.
    pub port: u16,
}

/// The annotation of a Node object that says which host it is of: a number that the host's agent has in
/// its state folder. Of two hosts with one node name it is that of the one with the node's address.
pub const HOST_ANNOTATION: &str = "weft.dev/host";

/// The annotation of a Node object in which its agent tells how it takes part in the network.
pub const NETWORK_ANNOTATION: &str = "weft.dev/network";

/// How one node takes part in the network, as its agent tells it in [`NETWORK_ANNOTATION`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Participation {
    /// What it sends by; none while it has not programmed that.
    pub backend: Option<Backend>,
    /// Where the migration that it takes part in leads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub migrating: Option<Backend>,
    /// The tunnels that packets for its pods may come by.
    pub receives: BTreeSet<Tunnel>,
    /// Peers that it cannot send to by that backend, and why; they keep the migration's other one.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub fallback: BTreeMap<Arc<str>, String>,
}

/// A change of the backend under way: every node can receive by both, and sends by one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Migration {
    /// The backend that all are to have in the end.
    pub to: Backend,
    /// The nodes that send by it already.
    #[serde(default)]
    pub nodes: BTreeSet<Arc<str>>,
}

impl Default for Network {
    fn default() -> Self {
        Network {
            backend: Backend::AUTO,
            vxlan: Vxlan::default(),
            udp_port: UDP_PORT,
            ipam: None,
            mtu: None,
            no_masquerade: Vec::new(),
            migration: None,
        }
    }
}

impl Default for Vxlan {
    fn default() -> Self {
        Vxlan { vni: VXLAN_VNI, port: VXLAN_PORT }
    }
}

impl Network {
    /// The backends that `node` sends by: the one it prefers, and during a migration the other
    /// for peers that the first cannot reach.
    pub fn backends(&self, node: &str) -> impl Iterator<Item = Backend> {
        let to = self.migration.as_ref().map(|migration| migration.to);
        let moved = self.migration.as_ref().is_some_and(|migration| migration.nodes.contains(node));
        let (first, second) = if moved { (to, Some(self.backend)) } else { (Some(self.backend), to) };
        first.into_iter().chain(second)
    }

    /// The tunnels that every node must be able to receive from.
    pub fn tunnels(&self) -> BTreeSet<Tunnel> {
        self.backends("").filter_map(|backend| backend.tunnel).collect()
    }
}

/// Why a CIDR cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    /// Not `address/length`, or with leading zeros.
    #[error("{0:?} is not a CIDR: write it as 10.244.0.0/16")]
    Malformed(String),
    /// Bits are set to the right of the prefix.
    #[error("{given} has host bits set: did you mean {network}?")]
    HostBits {
        /// As given.
        given: IpNet,
        /// With the host bits cleared.
        network: IpNet,
    },
    /// Two CIDRs share addresses.
    #[error("{a} ({a_is}) overlaps {b} ({b_is}): choose CIDRs that share no address")]
    Overlap {
        /// One.
        a: IpNet,
        /// What it is for.
        a_is: String,
        /// The other.
        b: IpNet,
        /// What that is for.
        b_is: String,
    },
}

/// A network from text, strictly: no host bits, no leading zeros.
pub fn parse_cidr(text: &str) -> Result<IpNet, CidrError> {
    // ipnet's own parser takes leading zeros ("010.0.0.0/8"); the standard library's does not.
    let strict = |(address, length): (&str, &str)| {
        let digits = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
        let length = length.parse().ok().filter(|_| digits)?;
        IpNet::new(address.parse().ok()?, length).ok()
    };
    let given = text.split_once('/').and_then(strict).ok_or_else(|| CidrError::Malformed(text.into()))?;
    let network = given.trunc();
    if given == network { Ok(network) } else { Err(CidrError::HostBits { given, network }) }
}

/// Whether two networks share an address.
pub fn overlaps(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cidrs_are_read_strictly() {
        assert_eq!(parse_cidr("10.244.0.0/16").unwrap().to_string(), "10.244.0.0/16");
        assert!(matches!(parse_cidr("10.244.0.1/16"), Err(CidrError::HostBits { .. })));
        for bad in ["10.244.0.0", "010.0.0.0/8", "10.0.0.0/33", "pods", ""] {
            assert!(matches!(parse_cidr(bad), Err(CidrError::Malformed(_))), "{bad}");
        }
    }

    #[test]
    fn a_network_overlaps_what_it_holds_and_nothing_of_the_other_family() {
        let net = |s: &str| parse_cidr(s).unwrap();
        assert!(overlaps(&net("10.0.0.0/8"), &net("10.1.0.0/16")));
        assert!(overlaps(&net("10.1.0.0/16"), &net("10.0.0.0/8")));
        assert!(!overlaps(&net("10.1.0.0/16"), &net("10.2.0.0/16")));
        assert!(!overlaps(&net("0.0.0.0/0"), &net("::/0")));
    }
}
