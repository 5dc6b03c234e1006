use ipnet::IpNet;

use super::MAX_NODES;

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
    /// Less than IPv6 needs, or more than a link can have.
    #[error("an MTU of {0} bytes cannot be had: ask for 1280 to 65535")]
    Mtu(u32),
    /// There is no router on the way.
    #[error("--hop-mtu is for the router between racks: add --topology racks=2, or take --underlay-mtu")]
    NoHop,
    /// A hop that is not the narrowest.
    #[error("a hop of {hop} bytes is no narrower than the underlay's {underlay}: ask for less")]
    WideHop {
        /// The router's.
        hop: u32,
        /// The nodes'.
        underlay: u32,
    },
}
