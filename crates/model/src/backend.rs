use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How pods' packets go from node to node: through a tunnel, by plain routes, or by whichever
/// each peer allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Backend {
    /// What peers that get no plain route are reached through; none where such peers are refused, or where they tell
    /// their routes themselves.
    pub tunnel: Option<Tunnel>,
    /// Whether peers on our own segment get a plain route (Flannel's DirectRouting, Calico's
    /// CrossSubnet).
    pub direct: bool,
}

/// What carries pods' packets inside of the nodes' own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tunnel {
    /// One VXLAN device with static FDB and neighbour entries (RFC 7348); any IP underlay.
    Vxlan,
    /// A TUN device whose packets a process carries in UDP; any IP underlay, no kernel module.
    Udp,
    /// IP in IP (RFC 2003, RFC 2473): each family of pods needs nodes with addresses of it.
    Ipip,
}

impl Backend {
    /// Plain routes to peers on the same segment, VXLAN to the others.
    pub const AUTO: Backend = Backend { tunnel: Some(Tunnel::Vxlan), direct: true };
    /// Plain routes via the peer's address; peers on the same segment only.
    pub const HOST_GW: Backend = Backend { tunnel: None, direct: true };
    /// VXLAN to every peer.
    pub const VXLAN: Backend = Backend::through(Tunnel::Vxlan);
    /// The tunnel in user space to every peer.
    pub const UDP: Backend = Backend::through(Tunnel::Udp);
    /// The routes that nodes tell one another by BGP.
    pub const BGP: Backend = Backend { tunnel: None, direct: false };
    /// IP in IP to every peer.
    pub const IPIP: Backend = Backend::through(Tunnel::Ipip);

    /// Every name that can be given, with what it means.
    pub const NAMES: [(&str, Backend); 8] = [
        ("auto", Backend::AUTO),
        ("host-gw", Backend::HOST_GW),
        ("vxlan", Backend::VXLAN),
        ("udp", Backend::UDP),
        ("udp-cross-subnet", Backend { tunnel: Some(Tunnel::Udp), direct: true }),
        ("ipip", Backend::IPIP),
        ("ipip-cross-subnet", Backend { tunnel: Some(Tunnel::Ipip), direct: true }),
        ("bgp", Backend::BGP),
    ];

    const fn through(tunnel: Tunnel) -> Backend {
        Backend { tunnel: Some(tunnel), direct: false }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Backend::NAMES.iter().find(|(_, backend)| backend == self).map(|(name, _)| *name);
        f.write_str(name.unwrap_or_default())
    }
}

/// Not the name of a backend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown backend {0:?}: use auto, host-gw, vxlan, udp, udp-cross-subnet, ipip, ipip-cross-subnet or bgp"
)]
pub struct UnknownBackend(pub String);

impl FromStr for Backend {
    type Err = UnknownBackend;

    fn from_str(text: &str) -> Result<Self, UnknownBackend> {
        // What Calico calls the default.
        let text = if text == "vxlan-cross-subnet" { "auto" } else { text };
        let found = Backend::NAMES.iter().find(|(name, _)| *name == text);
        found.map(|(_, backend)| *backend).ok_or_else(|| UnknownBackend(text.into()))
    }
}

impl TryFrom<String> for Backend {
    type Error = UnknownBackend;

    fn try_from(text: String) -> Result<Self, UnknownBackend> {
        text.parse()
    }
}

impl From<Backend> for String {
    fn from(backend: Backend) -> String {
        backend.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_as_it_is_written() {
        for (name, backend) in Backend::NAMES {
            assert_eq!((name.parse(), backend.to_string()), (Ok(backend), name.to_owned()));
        }
        assert_eq!("vxlan-cross-subnet".parse(), Ok(Backend::AUTO));
        let error = "gre".parse::<Backend>().unwrap_err().to_string();
        for (name, _) in Backend::NAMES {
            assert!(error.contains(name), "{error}");
        }
    }
}
