//! What a lab is made of, as asked for on the command line, and why it may be refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use weft_model::network::{Backend, overlaps};

/// The most nodes a lab can have.
pub const MAX_NODES: u16 = 100;
/// The addresses of nodes and routers (IPv4).
pub const UNDERLAY_V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 168, 0, 0), 16);
/// The same for IPv6, used when a pod CIDR is IPv6.
pub const UNDERLAY_V6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xfd10, 0x168, 0, 0, 0, 0, 0, 0), 48);
/// The addresses of Services.
pub const SERVICES_V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 16);
/// Where the host outside the cluster lives (TEST-NET-1).
pub const OUTSIDE_V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 2, 0), 24);
/// The API server's address inside the lab; the router answers to it in every topology.
pub const API_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 168, 0, 1);
/// The API server's port inside the lab.
pub const API_PORT: u16 = 6443;
/// The host outside the cluster.
pub const OUTSIDE_HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

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
    /// Where pods' addresses come from, at most one a family.
    pub pod_cidrs: Vec<IpNet>,
    /// Prefix length of one node's part of the IPv4 pod CIDR; that of the IPv6 one is 64.
    pub node_mask: u8,
    /// The kubeconfig of an API server to use, absolute; the lab has its own where there is none.
    #[serde(default)]
    pub kubeconfig: Option<PathBuf>,
}

impl Default for LabConfig {
    fn default() -> Self {
        LabConfig {
            name: "weft".into(),
            nodes: 3,
            topology: Topology::Flat,
            backend: Backend::AUTO,
            pod_cidrs: vec![Ipv4Net::new_assert(Ipv4Addr::new(10, 244, 0, 0), 16).into()],
            node_mask: 24,
            kubeconfig: None,
        }
    }
}

/// Why a lab cannot be made as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Not usable as a name.
    #[error(
        "lab name {0:?} cannot be used: take 1 to 32 lower-case letters, digits and '-', not '-' at an end"
    )]
    Name(String),
    /// Too few or too many.
    #[error("{0} nodes cannot be made: ask for 1 to {MAX_NODES}")]
    Nodes(u16),
    /// Not the name of a topology.
    #[error("unknown topology {0:?}: use flat or racks=R, R a number from 1")]
    Topology(String),
    /// A rack would be empty, or there is none.
    #[error("{racks} racks cannot be filled by {nodes} nodes: ask for 1 to {nodes} racks, or for more nodes")]
    Racks {
        /// Racks asked for.
        racks: u16,
        /// Nodes asked for.
        nodes: u16,
    },
    /// No pod CIDR, or two of one family.
    #[error("{0} pod CIDRs of {1} were given: give one, and at most one of each family")]
    Families(usize, &'static str),
    /// Not enough parts, or parts too small to hold a pod.
    #[error(
        "pod CIDR {cidr} is too small for {nodes} nodes with a /{mask} each (it holds {holds}): \
         choose a shorter prefix, such as /{enough}"
    )]
    TooSmall {
        /// The CIDR.
        cidr: IpNet,
        /// A node's part.
        mask: u8,
        /// Nodes asked for.
        nodes: u16,
        /// Parts that fit.
        holds: u128,
        /// A prefix length that would do.
        enough: u8,
    },
    /// A node's part of the pod CIDR leaves no address for pods.
    #[error("a node's part of the pod CIDR cannot be a /{0}: use 8 to 29")]
    Mask(u8),
    /// Loopback, multicast or similar.
    #[error(
        "pod CIDR {0} is not for hosts (loopback, link-local, multicast or unspecified): use a private one such as 10.244.0.0/16"
    )]
    NotForHosts(IpNet),
    /// Shares addresses with something else in the lab.
    #[error("pod CIDR {cidr} overlaps {other} ({is}): choose another, such as 10.244.0.0/16")]
    Overlap {
        /// The pod CIDR.
        cidr: IpNet,
        /// What it overlaps.
        other: IpNet,
        /// What that is for.
        is: &'static str,
    },
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
        self.check_families()?;
        self.pod_cidrs.iter().try_for_each(|cidr| self.check_cidr(cidr))
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
        let others: [(IpNet, &'static str); 4] = [
            (UNDERLAY_V4.into(), "the lab's nodes"),
            (UNDERLAY_V6.into(), "the lab's nodes"),
            (SERVICES_V4.into(), "Services"),
            (OUTSIDE_V4.into(), "the host outside the cluster"),
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

    /// Whether nodes have IPv6 addresses too.
    pub fn has_v6(&self) -> bool {
        self.pod_cidrs.iter().any(|cidr| matches!(cidr, IpNet::V6(_)))
    }

    /// How many segments the underlay has.
    pub fn segments(&self) -> u16 {
        if let Topology::Racks(racks) = self.topology { racks } else { 1 }
    }

    /// The nodes, in order.
    pub fn node_specs(&self) -> Vec<NodeSpec> {
        (0..self.nodes).map(|index| self.node_spec(index)).collect()
    }

    fn node_spec(&self, index: u16) -> NodeSpec {
        let (rack, place) = match self.topology {
            Topology::Flat => (0, index),
            Topology::Racks(racks) => (index % racks + 1, index / racks),
        };
        let mut addresses = vec![segment_v4(rack, 2 + place)];
        if self.has_v6() {
            addresses.push(segment_v6(rack, 2 + place));
        }
        NodeSpec { name: format!("node{}", index + 1), rack, addresses }
    }

    /// The router's addresses on segment `rack` (0 when flat).
    pub fn gateways(&self, rack: u16) -> Vec<IpNet> {
        let mut gateways = vec![segment_v4(rack, 1)];
        if self.has_v6() {
            gateways.push(segment_v6(rack, 1));
        }
        gateways
    }
}

/// One node of a lab: what follows from the configuration alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSpec {
    /// `node1`, `node2`, …
    pub name: String,
    /// Its segment: 0 when flat, else from 1.
    pub rack: u16,
    /// Its addresses with their segment's prefix length, IPv4 first.
    pub addresses: Vec<IpNet>,
}

impl NodeSpec {
    /// Its bare addresses, IPv4 first.
    pub fn ips(&self) -> Vec<IpAddr> {
        self.addresses.iter().map(IpNet::addr).collect()
    }
}

// A rack and a place are at most 100, so both fit an octet.
fn segment_v4(rack: u16, host: u16) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(10, 168, rack as u8, host as u8), 24))
}

fn segment_v6(rack: u16, host: u16) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0xfd10, 0x168, 0, rack, 0, 0, 0, host), 64))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn with(change: impl FnOnce(&mut LabConfig)) -> Result<(), ConfigError> {
        let mut config = LabConfig::default();
        change(&mut config);
        config.validate()
    }

    fn pods(cidrs: &[&str]) -> Result<(), ConfigError> {
        with(|c| c.pod_cidrs = cidrs.iter().map(|s| s.parse().unwrap()).collect())
    }

    #[test]
    fn the_default_and_both_families_are_accepted() {
        assert_eq!(with(|_| ()), Ok(()));
        assert_eq!(pods(&["10.244.0.0/16", "fd00:244::/56"]), Ok(()));
    }

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "weft", "a-1", "0"] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "../x", "a/b", "é", &"x".repeat(33)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn pod_cidrs_that_clash_are_refused_with_what_they_clash_with() {
        for (cidr, is) in [
            ("10.168.4.0/22", "the lab's nodes"),
            ("10.0.0.0/8", "the lab's nodes"),
            ("10.96.0.0/12", "Services"),
            ("192.0.2.0/24", "the host outside the cluster"),
            ("fd10:168::/40", "the lab's nodes"),
        ] {
            let error = pods(&[cidr]).unwrap_err();
            assert!(matches!(error, ConfigError::Overlap { is: told, .. } if told == is), "{cidr}: {error}");
        }
        assert_eq!(pods(&[]), Err(ConfigError::Families(0, "any family")));
        assert_eq!(pods(&["10.1.0.0/16", "10.2.0.0/16"]), Err(ConfigError::Families(2, "IPv4")));
        for cidr in ["127.0.0.0/16", "224.0.0.0/8", "169.254.0.0/16", "fe80::/16", "0.0.0.0/0", "ff00::/16"] {
            assert!(matches!(pods(&[cidr]), Err(ConfigError::NotForHosts(_))), "{cidr}");
        }
    }

    #[test]
    fn a_pod_cidr_must_hold_a_part_for_every_node() {
        let small = with(|c| {
            c.nodes = 100;
            c.pod_cidrs = vec!["10.244.0.0/18".parse().unwrap()];
        });
        let Err(ConfigError::TooSmall { holds: 64, enough: 17, .. }) = small else { panic!("{small:?}") };
        assert!(matches!(pods(&["10.244.0.0/25"]), Err(ConfigError::TooSmall { holds: 0, enough: 22, .. })));
        assert!(with(|c| c.pod_cidrs = vec!["10.244.0.0/22".parse().unwrap()]).is_ok());
    }

    #[test]
    fn nodes_and_racks_have_bounds() {
        assert_eq!(with(|c| c.nodes = 0), Err(ConfigError::Nodes(0)));
        assert_eq!(with(|c| c.nodes = 101), Err(ConfigError::Nodes(101)));
        assert_eq!(with(|c| c.topology = Topology::Racks(4)), Err(ConfigError::Racks { racks: 4, nodes: 3 }));
        assert!(with(|c| c.topology = Topology::Racks(0)).is_err());
        assert_eq!("racks=2".parse(), Ok(Topology::Racks(2)));
        assert!("racks=x".parse::<Topology>().is_err() && "ring".parse::<Topology>().is_err());
    }

    #[test]
    fn no_two_nodes_share_an_address_and_each_is_beside_its_gateway() {
        for topology in [Topology::Flat, Topology::Racks(1), Topology::Racks(7), Topology::Racks(100)] {
            let config = LabConfig { nodes: 100, topology, ..LabConfig::default() };
            let mut seen = std::collections::BTreeSet::new();
            for node in config.node_specs() {
                for (address, gateway) in node.addresses.iter().zip(config.gateways(node.rack)) {
                    assert!(seen.insert(address.addr()), "{} twice", address.addr());
                    assert_eq!(address.trunc(), gateway.trunc());
                    assert_ne!(address.addr(), gateway.addr());
                }
            }
        }
        let flat = LabConfig::default().node_specs();
        assert_eq!(flat[1].addresses[0].to_string(), "10.168.0.3/24");
    }
}
