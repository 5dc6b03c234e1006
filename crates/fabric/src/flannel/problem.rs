use std::net::IpAddr;
use std::sync::Arc;

use weft_model::{FlannelAnnotation, Mac};

use super::FlannelBackend;

/// Why a node that runs flannel is not programmed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// An annotation that makes no sense.
    #[error(
        "annotation {annotation} of node {node} is {text:?}, which {problem}: restart flannel there or correct it"
    )]
    Unreadable {
        /// The node.
        node: Arc<str>,
        /// Which annotation.
        annotation: FlannelAnnotation,
        /// Its text.
        text: Arc<str>,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// An annotation that the others ask for.
    #[error("node {node} runs flannel but has no annotation {annotation}: restart flannel there")]
    Missing {
        /// The node.
        node: Arc<str>,
        /// Which annotation.
        annotation: FlannelAnnotation,
    },
    /// No end for the family of a pod CIDR.
    #[error("flannel on node {node} announces no {family} address: enable {family} in its net-conf.json")]
    NoFamily {
        /// The node.
        node: Arc<str>,
        /// `IPv4` or `IPv6`.
        family: &'static str,
    },
    /// Flannel takes no notice of nodes that have another backend than its own.
    #[error(
        "node {node} runs flannel's backend {theirs} and this node the backend {ours}: flannel ignores nodes of another backend, so choose the same for all"
    )]
    OtherBackend {
        /// The node.
        node: Arc<str>,
        /// Its backend.
        theirs: FlannelBackend,
        /// The name of ours.
        ours: String,
    },
    /// Another VXLAN network.
    #[error("flannel on node {node} uses the VNI {theirs} and this node {ours}: choose the same for all")]
    OtherVni {
        /// The node.
        node: Arc<str>,
        /// Its VNI.
        theirs: u32,
        /// Ours.
        ours: u32,
    },
    /// Two nodes say that they have one hardware address.
    #[error(
        "flannel on node {node} announces the VtepMAC {mac} of node {by}: delete its link flannel.1 and restart flannel there"
    )]
    MacTaken {
        /// The node refused.
        node: Arc<str>,
        /// The hardware address of both.
        mac: Mac,
        /// The node that keeps it.
        by: Arc<str>,
    },
    /// The outer packets are of the other family than ours.
    #[error("flannel on node {node} is reached at {address}, and this node has no address of that family")]
    OtherFamily {
        /// The node.
        node: Arc<str>,
        /// Its address.
        address: IpAddr,
    },
}
