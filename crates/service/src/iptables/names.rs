//! The names that kube-proxy gives to a Service's chains, by which other tools find them.

use std::net::SocketAddr;

use sha2::{Digest, Sha256};
use weft_model::service::{Protocol, ServiceKey};

/// RFC 4648's alphabet for 32 digits.
const DIGITS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// A port of a Service, as the names of its chains and their comments need it.
#[derive(Clone, Debug)]
pub(super) struct Names {
    /// `namespace/name`, and `:port` where the port has a name.
    name: String,
    /// The protocol as iptables has it.
    protocol: &'static str,
}

impl Names {
    pub(super) fn new(service: &ServiceKey, port: &str, protocol: Protocol) -> Names {
        let name = if port.is_empty() { service.to_string() } else { format!("{service}:{port}") };
        Names { name, protocol: word(protocol) }
    }

    /// What rules' comments say; not yet safe.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn protocol(&self) -> &'static str {
        self.protocol
    }

    /// Spreads connections over all endpoints.
    pub(super) fn cluster(&self) -> String {
        self.chain("KUBE-SVC-", "")
    }

    /// Spreads connections over the endpoints on this node.
    pub(super) fn local(&self) -> String {
        self.chain("KUBE-SVL-", "")
    }

    /// Takes what comes from outside.
    pub(super) fn external(&self) -> String {
        self.chain("KUBE-EXT-", "")
    }

    /// Lets only some sources to `external`.
    pub(super) fn firewall(&self) -> String {
        self.chain("KUBE-FW-", "")
    }

    /// Leads to an endpoint.
    pub(super) fn endpoint(&self, address: SocketAddr) -> String {
        self.chain("KUBE-SEP-", &address.to_string())
    }

    fn chain(&self, prefix: &str, rest: &str) -> String {
        let hash =
            Sha256::new().chain_update(&self.name).chain_update(self.protocol).chain_update(rest).finalize();
        let mut out = String::with_capacity(prefix.len() + 16);
        out.push_str(prefix);
        // Five bytes are eight digits: sixteen take the first ten bytes.
        for bytes in hash[..10].chunks_exact(5) {
            let bits = bytes.iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
            out.extend((0..8).rev().map(|digit| char::from(DIGITS[(bits >> (5 * digit) & 31) as usize])));
        }
        out
    }
}

/// A protocol as iptables has it.
fn word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

/// Whether a chain of the table nat is one of some Service.
pub(super) fn is_of_service(chain: &str) -> bool {
    ["KUBE-SVC-", "KUBE-SVL-", "KUBE-SEP-", "KUBE-EXT-", "KUBE-FW-"]
        .iter()
        .any(|prefix| chain.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(namespace: &str, name: &str, port: &str, protocol: Protocol) -> Names {
        Names::new(&ServiceKey::new(namespace, name), port, protocol)
    }

    /// Chains that every cluster made by kubeadm has.
    #[test]
    fn names_are_those_of_kube_proxy() {
        let api = names("default", "kubernetes", "https", Protocol::Tcp);
        assert_eq!(api.cluster(), "KUBE-SVC-NPX46M4PTMTKRN6Y");
        let dns = names("kube-system", "kube-dns", "dns", Protocol::Udp);
        assert_eq!(dns.cluster(), "KUBE-SVC-TCOU7JCQXEZGVUNU");
        let dns_tcp = names("kube-system", "kube-dns", "dns-tcp", Protocol::Tcp);
        assert_eq!(dns_tcp.cluster(), "KUBE-SVC-ERIFXISQEP7F7OF4");
    }

    #[test]
    fn each_chain_has_a_name_of_its_own() {
        let names = names("a", "b", "", Protocol::Tcp);
        assert_eq!(names.name(), "a/b");
        let endpoints =
            ["10.0.0.1:80", "10.0.0.1:81", "[fd00::1]:80"].map(|a| names.endpoint(a.parse().unwrap()));
        let all = [names.cluster(), names.local(), names.external(), names.firewall()];
        let all: std::collections::BTreeSet<_> = all.iter().chain(&endpoints).collect();
        assert_eq!(all.len(), 7);
        assert!(all.iter().all(|chain| is_of_service(chain) && chain.len() <= 28));
        assert!(!is_of_service("KUBE-SERVICES") && !is_of_service("KUBE-FWD"));
    }
}
