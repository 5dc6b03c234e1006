//! Packet filter rules that several plugins share: their names, and what interface plugins need.
//!
//! Chains, hashes and comments are those of the reference plugins, so that each deletes what the
//! other made.

pub(crate) mod macspoof;
pub(crate) mod masquerade;

use std::net::IpAddr;

use ipnet::IpNet;
use weft_kernel::nft::{Family, Nft};
use weft_kernel::xtables::Variant;

use crate::chained::hashed_name;
use crate::protocol::error::{CniError, code};

/// Length of the names of a container's chains in iptables' tables.
const CHAIN_NAME: usize = 28;

/// What the rules are written with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    /// Tables of iptables.
    Iptables,
    /// Tables of our own.
    Nftables,
}

impl Backend {
    /// The one that the configuration names under `key`. When it names none: iptables if this
    /// machine has it, otherwise nftables.
    pub(crate) fn of(key: &str, named: Option<&str>) -> Result<Backend, CniError> {
        match named {
            Some("iptables") => Ok(Backend::Iptables),
            Some("nftables") => Ok(Backend::Nftables),
            None if Variant::find().program.is_some() => Ok(Backend::Iptables),
            None => Ok(Backend::Nftables),
            Some(other) => {
                let message = format!("{key}: {other:?} is not supported: use iptables or nftables");
                Err(CniError::new(code::UNSUPPORTED_FIELD, message))
            }
        }
    }
}

/// The chain of one container in iptables' tables: `CNI-`, a prefix, and as much of the hash of
/// network and container as fits.
pub(crate) fn chain_name(prefix: &str, network: &str, container_id: &str) -> String {
    hashed_name(&format!("CNI-{prefix}"), &format!("{network}{container_id}"), CHAIN_NAME)
}

/// The table of iptables or ip6tables that an address belongs to.
pub(crate) fn family(ip: IpAddr) -> Family {
    if ip.is_ipv4() { Family::Ip } else { Family::Ip6 }
}

/// The address alone, as a prefix of full length.
pub(crate) fn host(net: &IpNet) -> IpNet {
    IpNet::from(net.addr())
}

/// Runs `work` on a connection to nftables and closes it without waiting for the kernel to destroy
/// what was deleted.
pub(crate) fn with_nft<T>(work: impl FnOnce(&mut Nft) -> Result<T, CniError>) -> Result<T, CniError> {
    let mut nft = Nft::open()?;
    let done = work(&mut nft);
    nft.close_later();
    done
}

/// CHECK found something missing.
pub(crate) fn missing(what: String) -> CniError {
    CniError::new(code::NOT_AS_MADE, what)
}

#[cfg(test)]
mod packet_tests;

#[cfg(test)]
mod tests {
    use super::*;

    /// Names that plugins of every version make (from the reference's own tests).
    #[test]
    fn chains_are_named_as_the_reference_names_them() {
        assert_eq!(chain_name("", "test", "1234"), "CNI-2bbe0c48b91a7d1b8a6753a8");
        assert_eq!(chain_name("DN-", "test", "1234").len(), 28);
        assert!(chain_name("DN-", "test", "1234").starts_with("CNI-DN-2bbe0c48b91a7d1b8a675"));
    }
}
