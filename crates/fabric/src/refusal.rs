use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

/// Why a node, or one of its pod CIDRs, is not programmed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// `spec.podCIDRs` is empty.
    #[error("node {node} has no pod CIDR yet: its Node object needs spec.podCIDRs")]
    NoPodCidr {
        /// The node.
        node: Arc<str>,
    },
    /// No InternalIP of the family that the path needs.
    #[error("node {node} has no {family} InternalIP: its Node object needs one in status.addresses")]
    NoAddress {
        /// The node.
        node: Arc<str>,
        /// `IPv4` or `IPv6`.
        family: &'static str,
    },
    /// An InternalIP that no host can have.
    #[error("node {node} has the unusable address {address}: correct its InternalIP")]
    AddressUnusable {
        /// The node.
        node: Arc<str>,
        /// Its InternalIP.
        address: IpAddr,
    },
    /// Two nodes say that they have one address; the older Node keeps it.
    #[error("node {node} has the address {address} of node {by}: correct the InternalIP of one of them")]
    AddressTaken {
        /// The node refused.
        node: Arc<str>,
        /// The address of both.
        address: IpAddr,
        /// The node that keeps it.
        by: Arc<str>,
    },
    /// Two nodes' pod CIDRs share addresses; the older Node keeps them.
    #[error("pod CIDR {cidr} of node {node} overlaps {by_cidr} of node {by}: give one of them another CIDR")]
    CidrTaken {
        /// The node refused.
        node: Arc<str>,
        /// Its pod CIDR.
        cidr: IpNet,
        /// The node that keeps its own.
        by: Arc<str>,
        /// That node's pod CIDR.
        by_cidr: IpNet,
    },
    /// The pod CIDR overlaps the segment that the nodes are on.
    #[error(
        "pod CIDR {cidr} of node {node} overlaps the underlay {segment}: choose CIDRs that share no address"
    )]
    CidrOverlapsUnderlay {
        /// The node.
        node: Arc<str>,
        /// Its pod CIDR.
        cidr: IpNet,
        /// A connected network of our underlay link.
        segment: IpNet,
    },
    /// A node's own address lies in the pod CIDR: routing it would cut that node off.
    #[error(
        "pod CIDR {cidr} of node {node} holds the address {address} of node {holder}: choose another CIDR"
    )]
    CidrHoldsNode {
        /// The node refused.
        node: Arc<str>,
        /// Its pod CIDR.
        cidr: IpNet,
        /// The address inside it.
        address: IpAddr,
        /// Whose address that is.
        holder: Arc<str>,
    },
    /// No room for the network address, the gateway and one pod.
    #[error("pod CIDR {cidr} of node {node} is too small: it needs a /{longest} or larger")]
    CidrTooSmall {
        /// The node.
        node: Arc<str>,
        /// Its pod CIDR.
        cidr: IpNet,
        /// The longest prefix that would do.
        longest: u8,
    },
    /// The node runs flannel, and what flannel says of it does not do.
    #[error(transparent)]
    Flannel(#[from] crate::flannel::Problem),
    /// Loopback, link-local, multicast or otherwise not for pods.
    #[error(
        "pod CIDR {cidr} of node {node} is in a reserved range: choose a private one such as 10.244.0.0/16"
    )]
    CidrReserved {
        /// The node.
        node: Arc<str>,
        /// Its pod CIDR.
        cidr: IpNet,
    },
    /// host-gw needs the peer on the same segment.
    #[error(
        "node {node} at {address} is not on our segment {segment} ({link}): host-gw reaches only nodes on the same segment; use the backend vxlan"
    )]
    OtherSegment {
        /// The node.
        node: Arc<str>,
        /// Its address.
        address: IpAddr,
        /// The connected networks of our underlay link of that family, joined by commas.
        segment: String,
        /// Our underlay link.
        link: Arc<str>,
    },
}
