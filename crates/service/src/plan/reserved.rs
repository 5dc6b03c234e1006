//! Addresses that Services and endpoints cannot have.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

/// What others have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reserved {
    /// Where pods are.
    pub(super) pods: Vec<IpNet>,
    /// Every node's InternalIPs.
    pub(super) nodes: BTreeMap<Arc<str>, Vec<IpAddr>>,
    /// The same, to look up.
    pub(super) addresses: BTreeMap<IpAddr, usize>,
    /// Where the API server answers.
    pub(super) api: BTreeSet<SocketAddr>,
}

impl Reserved {
    /// Takes in a node's addresses; none where it is gone. True if they are others than before.
    pub(super) fn set_node(&mut self, name: &Arc<str>, addresses: &[IpAddr]) -> bool {
        let before = self.nodes.get(name).map(Vec::as_slice).unwrap_or_default();
        if before == addresses {
            return false;
        }
        for address in self.nodes.remove(name).into_iter().flatten() {
            if let Some(count) = self.addresses.get_mut(&address) {
                *count -= 1;
                if *count == 0 {
                    self.addresses.remove(&address);
                }
            }
        }
        for address in addresses {
            *self.addresses.entry(*address).or_default() += 1;
        }
        if !addresses.is_empty() {
            self.nodes.insert(name.clone(), addresses.to_vec());
        }
        true
    }

    /// Why a cluster IP cannot be this.
    pub(super) fn cluster_ip(&self, ip: IpAddr) -> Option<&'static str> {
        let node = self.addresses.contains_key(&ip).then_some("a node's address");
        let api = self.api.iter().any(|at| at.ip() == ip).then_some("the API server's address");
        self.external_ip(ip).or(node).or(api)
    }

    /// Why an external or load balancer IP cannot be this. It may be a node's: clients then name the node.
    pub(super) fn external_ip(&self, ip: IpAddr) -> Option<&'static str> {
        let pods = self.pods.iter().any(|net| net.contains(&ip)).then_some("a pod's address");
        special(ip).or(pods)
    }
}

/// What an address is that leads to no single other host.
pub(super) fn special(ip: IpAddr) -> Option<&'static str> {
    // What IPv4 says of an address counts for its form in IPv6 too.
    let ip = match ip {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(ip, IpAddr::V4),
        IpAddr::V4(_) => ip,
    };
    let link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast() || v4.octets()[0] == 0);
    match () {
        () if ip.is_loopback() => Some("a loopback address"),
        () if link_local => Some("a link-local address"),
        () if ip.is_multicast() => Some("a multicast address"),
        () if ip.is_unspecified() || broadcast => Some("no host's address"),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_endpoint_may_be() {
        for bad in [
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "169.254.169.254",
            "fe80::1",
            "224.0.0.1",
            "ff02::1",
            "0.0.0.0",
            "0.1.2.3",
            "::",
            "255.255.255.255",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
        ] {
            assert!(special(bad.parse().unwrap()).is_some(), "{bad}");
        }
        for good in ["10.244.0.5", "192.0.2.1", "fd00::5", "2001:db8::1", "::ffff:10.0.0.1"] {
            assert_eq!(special(good.parse().unwrap()), None, "{good}");
        }
    }

    #[test]
    fn a_nodes_address_is_reserved_while_one_node_has_it() {
        let mut reserved = Reserved::default();
        let ip: IpAddr = "10.168.0.2".parse().unwrap();
        assert!(reserved.set_node(&"a".into(), &[ip]));
        assert!(reserved.set_node(&"b".into(), &[ip]));
        assert!(!reserved.set_node(&"b".into(), &[ip]));
        assert!(reserved.set_node(&"a".into(), &[]));
        assert_eq!(reserved.cluster_ip(ip), Some("a node's address"));
        assert_eq!(reserved.external_ip(ip), None);
        assert!(reserved.set_node(&"b".into(), &[]));
        assert_eq!(reserved.cluster_ip(ip), None);
    }
}
