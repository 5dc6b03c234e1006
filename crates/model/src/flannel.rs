//! The names of flannel's annotations on nodes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// What every annotation of flannel starts with (its default `--kube-annotation-prefix`).
const PREFIX: &str = "flannel.alpha.coreos.com/";

/// An annotation by which flannel's nodes tell one another how they are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FlannelAnnotation {
    /// `true` where flannel's Kubernetes mode has written the others.
    KubeSubnetManager,
    /// `vxlan`, `host-gw`, …; empty for `udp`.
    BackendType,
    /// JSON of the backend for IPv4, `null` where it has none.
    BackendData,
    /// The same for IPv6.
    BackendV6Data,
    /// Where IPv4 packets for the node's pods go.
    PublicIp,
    /// The same for IPv6.
    PublicIpv6,
    /// Set by an operator: what `public-ip` shall be.
    PublicIpOverwrite,
    /// The same for IPv6.
    PublicIpv6Overwrite,
    /// Set by an operator: the address of the node that flannel shall take.
    NodePublicIp,
    /// The same for IPv6.
    NodePublicIpv6,
}

/// A node's annotations of flannel as text, unchecked; empty where it has none.
pub type FlannelAnnotations = BTreeMap<FlannelAnnotation, Arc<str>>;

impl FlannelAnnotation {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::KubeSubnetManager,
        Self::BackendType,
        Self::BackendData,
        Self::BackendV6Data,
        Self::PublicIp,
        Self::PublicIpv6,
        Self::PublicIpOverwrite,
        Self::PublicIpv6Overwrite,
        Self::NodePublicIp,
        Self::NodePublicIpv6,
    ];

    /// The annotation with this key, if it is one of flannel's.
    pub fn of_key(key: &str) -> Option<Self> {
        let suffix = key.strip_prefix(PREFIX)?;
        Self::ALL.into_iter().find(|annotation| annotation.suffix() == suffix)
    }

    fn suffix(self) -> &'static str {
        match self {
            Self::KubeSubnetManager => "kube-subnet-manager",
            Self::BackendType => "backend-type",
            Self::BackendData => "backend-data",
            Self::BackendV6Data => "backend-v6-data",
            Self::PublicIp => "public-ip",
            Self::PublicIpv6 => "public-ipv6",
            Self::PublicIpOverwrite => "public-ip-overwrite",
            Self::PublicIpv6Overwrite => "public-ipv6-overwrite",
            Self::NodePublicIp => "node-public-ip",
            Self::NodePublicIpv6 => "node-public-ipv6",
        }
    }
}

impl fmt::Display for FlannelAnnotation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.suffix())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_its_annotation_and_no_other_does() {
        for annotation in FlannelAnnotation::ALL {
            assert_eq!(FlannelAnnotation::of_key(&annotation.to_string()), Some(annotation));
        }
        for other in ["public-ip", "flannel.alpha.coreos.com/", "flannel.alpha.coreos.com/public-ip4", ""] {
            assert_eq!(FlannelAnnotation::of_key(other), None, "{other}");
        }
    }
}
