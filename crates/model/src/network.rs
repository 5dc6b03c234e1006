//! The cluster's network as configured: pod CIDRs, the node-to-node backend, its numbers.

use std::fmt;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// VXLAN network identifier, as Flannel's (`flannel.1`).
pub const VXLAN_VNI: u32 = 1;
/// VXLAN UDP port, the Linux default as Flannel's (not IANA's 4789).
pub const VXLAN_PORT: u16 = 8472;
/// What VXLAN adds to a packet on an IPv4 underlay, in bytes: Ethernet 14, IPv4 20, UDP 8, VXLAN 8.
pub const VXLAN_OVERHEAD_V4: u32 = 50;
/// The same on an IPv6 underlay.
pub const VXLAN_OVERHEAD_V6: u32 = 70;

/// How pods' packets go from node to node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// Plain routes via the peer's address; peers on the same segment only.
    HostGw,
    /// One VXLAN device with static FDB and neighbour entries; any IP underlay.
    Vxlan,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Backend::HostGw => "host-gw",
            Backend::Vxlan => "vxlan",
        })
    }
}

/// Not the name of a backend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown backend {0:?}: use host-gw or vxlan")]
pub struct UnknownBackend(pub String);

impl FromStr for Backend {
    type Err = UnknownBackend;

    fn from_str(text: &str) -> Result<Self, UnknownBackend> {
        match text {
            "host-gw" => Ok(Backend::HostGw),
            "vxlan" => Ok(Backend::Vxlan),
            other => Err(UnknownBackend(other.into())),
        }
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
