//! What a lab is made of, as asked for on the command line, and why it may be refused.

mod addresses;
mod error;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use weft_model::network::{Backend, Ipam, overlaps};

pub use addresses::NodeSpec;
pub use error::ConfigError;

/// The most nodes a lab can have.
pub const MAX_NODES: u16 = 100;
/// The addresses of nodes and routers, of which nodes have those of the families that pods have.
pub const UNDERLAY_V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 168, 0, 0), 16);
/// The same for IPv6.
pub const UNDERLAY_V6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xfd10, 0x168, 0, 0, 0, 0, 0, 0), 48);
/// The addresses of Services.
pub const SERVICES_V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 16);
/// The same for IPv6.
pub const SERVICES_V6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0), 112);
/// Where the host outside the cluster lives (TEST-NET-1).
pub const OUTSIDE_V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 2, 0), 24);
/// The same for IPv6 (RFC 3849's prefix for documentation).
pub const OUTSIDE_V6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32);
/// The API server's port inside the lab.
pub const API_PORT: u16 = 6443;
/// MTU of the underlay's links where none is asked for, in bytes.
pub const DEFAULT_MTU: u32 = 1500;
/// The least that IPv6 can do with (RFC 8200), and the most that the kernel lets a link have.
const MTUS: std::ops::RangeInclusive<u32> = 1280..=65_535;

/// How the nodes are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Topology {
    /// All nodes on one L2 segment.
    Flat,
    /// So many segments, joined by a router; nodes are dealt to them in turn.
    Racks(u16),
}

impl std::fmt::Display for Topology {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Topology::Flat => f.write_str("flat"),
            Topology::Racks(racks) => write!(f, "racks={racks}"),
        }
    }
}

impl std::str::FromStr for Topology {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        match text.strip_prefix("racks=").map(str::parse) {
            None if text == "flat" => Ok(Topology::Flat),
            Some(Ok(racks)) => Ok(Topology::Racks(racks)),
            _ => Err(ConfigError::Topology(text.into())),
        }
    }
}

/// A lab as asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabConfig {
    /// The lab's name: a DNS label of at most 32 characters.
    pub name: String,
    /// How many nodes, 1 to [`MAX_NODES`].
    pub nodes: u16,
    /// How they are joined.
    pub topology: Topology,
    /// How pods' packets go from node to node.
    pub backend: Backend,
    /// From the CIDRs of their node, or from pools.
    #[serde(default)]
    pub ipam: Ipam,
    /// How agents serve Services: a mode of `weft agent --proxy`, which reads it.
    #[serde(default = "default_proxy")]
    pub proxy: String,
    /// Where pods' addresses come from, at most one a family; nodes' addresses are of the same
    /// families, in the same order.
    pub pod_cidrs: Vec<IpNet>,
    /// Prefix length of one node's part of the IPv4 pod CIDR; that of the IPv6 one is 64.
    pub node_mask: u8,
    /// The kubeconfig of an API server to use, absolute; the lab has its own where there is none.
    #[serde(default)]
    pub kubeconfig: Option<PathBuf>,
    /// MTU of the nodes' links, in bytes.
    #[serde(default = "default_mtu")]
    pub underlay_mtu: u32,
    /// MTU of the router's links to the racks, where it is another.
    #[serde(default)]
    pub hop_mtu: Option<u32>,
}

fn default_mtu() -> u32 {
    DEFAULT_MTU
}

impl Default for LabConfig {
    fn default() -> Self {
        LabConfig {
            name: "weft".into(),
            nodes: 3,
            topology: Topology::Flat,
            backend: Backend::AUTO,
            ipam: Ipam::NodeCidr,
            proxy: default_proxy(),
            pod_cidrs: vec![Ipv4Net::new_assert(Ipv4Addr::new(10, 244, 0, 0), 16).into()],
            node_mask: 24,
            kubeconfig: None,
            underlay_mtu: DEFAULT_MTU,
            hop_mtu: None,
        }
    }
}

/// Whether `name` can name a lab: a DNS label of at most 32 characters.
pub fn check_name(name: &str) -> Result<(), ConfigError> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let inner = name.bytes().all(|b| plain(b) || b == b'-');
    let ends = name.bytes().next().is_some_and(plain) && name.bytes().last().is_some_and(plain);
    if inner && ends && name.len() <= 32 { Ok(()) } else { Err(ConfigError::Name(name.into())) }
}

impl LabConfig {
    /// Whether this lab can be made; the first reason why not.
    pub fn validate(&self) -> Result<(), ConfigError> {
        check_name(&self.name)?;
        if !(1..=MAX_NODES).contains(&self.nodes) {
            return Err(ConfigError::Nodes(self.nodes));
        }
        if let Topology::Racks(racks) = self.topology
            && !(1..=self.nodes).contains(&racks)
        {
            return Err(ConfigError::Racks { racks, nodes: self.nodes });
        }
        if !(8..=29).contains(&self.node_mask) {
            return Err(ConfigError::Mask(self.node_mask));
        }
        self.check_mtus()?;
        self.check_families()?;
        self.pod_cidrs.iter().try_for_each(|cidr| self.check_cidr(cidr))
    }

    fn check_mtus(&self) -> Result<(), ConfigError> {
        let mut given = Some(self.underlay_mtu).into_iter().chain(self.hop_mtu);
        if let Some(bad) = given.find(|mtu| !MTUS.contains(mtu)) {
            return Err(ConfigError::Mtu(bad));
        }
        match self.hop_mtu {
            Some(_) if self.segments() < 2 => Err(ConfigError::NoHop),
            Some(hop) if hop > self.underlay_mtu => {
                Err(ConfigError::WideHop { hop, underlay: self.underlay_mtu })
            }
            _ => Ok(()),
        }
    }

    fn check_families(&self) -> Result<(), ConfigError> {
        let v4 = self.pod_cidrs.iter().filter(|c| matches!(c, IpNet::V4(_))).count();
        let v6 = self.pod_cidrs.len() - v4;
        match (v4, v6) {
            (0, 0) => Err(ConfigError::Families(0, "any family")),
            (2.., _) => Err(ConfigError::Families(v4, "IPv4")),
            (_, 2..) => Err(ConfigError::Families(v6, "IPv6")),
            _ => Ok(()),
        }
    }

    fn check_cidr(&self, cidr: &IpNet) -> Result<(), ConfigError> {
        let others: [(IpNet, &'static str); 6] = [
            (UNDERLAY_V4.into(), "the lab's nodes"),
            (UNDERLAY_V6.into(), "the lab's nodes"),
            (SERVICES_V4.into(), "Services"),
            (SERVICES_V6.into(), "Services"),
            (OUTSIDE_V4.into(), "the host outside the cluster"),
            (OUTSIDE_V6.into(), "the host outside the cluster"),
        ];
        if !for_hosts(cidr) {
            return Err(ConfigError::NotForHosts(*cidr));
        }
        if let Some(&(other, is)) = others.iter().find(|(other, _)| overlaps(cidr, other)) {
            return Err(ConfigError::Overlap { cidr: *cidr, other, is });
        }
        let mask = self.mask_for(cidr);
        let holds = mask.checked_sub(cidr.prefix_len()).map_or(0, |bits| 1u128 << bits.min(127));
        if holds < u128::from(self.nodes) {
            let bits = u16::BITS - (self.nodes - 1).leading_zeros();
            let enough = mask.saturating_sub(bits as u8);
            return Err(ConfigError::TooSmall { cidr: *cidr, mask, nodes: self.nodes, holds, enough });
        }
        Ok(())
    }

    /// Prefix length of a node's part of `cidr`.
    pub fn mask_for(&self, cidr: &IpNet) -> u8 {
        if matches!(cidr, IpNet::V4(_)) { self.node_mask } else { 64 }
    }

    /// Whether pods and nodes have IPv4 addresses.
    pub fn has_v4(&self) -> bool {
        self.pod_cidrs.iter().any(|cidr| matches!(cidr, IpNet::V4(_)))
    }

    /// Whether pods and nodes have IPv6 addresses.
    pub fn has_v6(&self) -> bool {
        self.pod_cidrs.iter().any(|cidr| matches!(cidr, IpNet::V6(_)))
    }

    /// How many segments the underlay has.
    pub fn segments(&self) -> u16 {
        if let Topology::Racks(racks) = self.topology { racks } else { 1 }
    }
}

fn for_hosts(cidr: &IpNet) -> bool {
    match cidr {
        IpNet::V4(net) => {
            let first = net.addr().octets()[0];
            net.prefix_len() >= 4 && first != 0 && first != 127 && first < 224 && !net.addr().is_link_local()
        }
        IpNet::V6(net) => {
            let first = net.addr().segments()[0];
            net.prefix_len() >= 16 && first & 0xff00 != 0xff00 && first & 0xffc0 != 0xfe80 && first != 0
        }
    }
}

fn default_proxy() -> String {
    "nftables".into()
}

#[cfg(test)]
mod tests;
