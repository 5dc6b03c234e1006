//! What should reach what, from the objects alone and by the slowest, plainest code.
//!
//! The three rules of the Kubernetes network model, spelt out one `if` at a time. It shares no
//! code with the planners: when the two disagree, one of them is wrong.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

pub mod outside;
pub mod services;

/// What a probe is carried by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proto {
    /// An ICMP echo request and its reply.
    Icmp,
    /// A TCP connection, a line each way.
    Tcp,
    /// A UDP datagram each way.
    Udp,
}

impl Proto {
    /// As printed: `icmp`, `tcp`, `udp`.
    pub fn name(self) -> &'static str {
        match self {
            Proto::Icmp => "icmp",
            Proto::Tcp => "tcp",
            Proto::Udp => "udp",
        }
    }
}

/// A node, as the API has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Every address that packets sent by the node itself may carry: its own on the underlay,
    /// its bridge's and its tunnel end's.
    pub addresses: Vec<IpAddr>,
    /// Those by which others know it (InternalIP).
    pub internal: Vec<IpAddr>,
    /// Whether load balancers pass it over, by its label.
    pub excluded: bool,
}

/// Who sends or receives: a pod or a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Party {
    /// `namespace/name` of a pod, `node/name` of a node.
    pub name: String,
    /// The node it is on, or is.
    pub node: String,
    /// Whether it is a pod with an address of its own; else it has its node's.
    pub own_address: bool,
    /// Its addresses, as the API has them.
    pub ips: Vec<IpAddr>,
    /// What it listens on.
    pub listens: Vec<(Proto, u16)>,
}

/// What should come of one probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// Whether it should be answered.
    pub reachable: bool,
    /// The source addresses of which the target should see one.
    pub sources: BTreeSet<IpAddr>,
    /// The rule, in words.
    pub rule: &'static str,
}

/// What should come of a probe of `proto` from `from` to `port` of `to` (no port for ICMP),
/// sent to an address of the same family as `like`.
pub fn expect(
    nodes: &[Node],
    from: &Party,
    to: &Party,
    proto: Proto,
    port: Option<u16>,
    like: IpAddr,
) -> Expectation {
    let mut sources = BTreeSet::new();
    let rule;

    if from.own_address && to.own_address {
        // Pods reach each other without NAT, themselves included.
        rule = "pod to pod: no NAT";
        for ip in &from.ips {
            sources.insert(*ip);
        }
    } else if from.own_address && from.node == to.node {
        // A pod's own node sees the pod's address.
        rule = "pod to its own node: no NAT";
        for ip in &from.ips {
            sources.insert(*ip);
        }
    } else if from.own_address {
        // Another node's address is outside the pods' network: the packet leaves with the
        // sending pod's node's address.
        rule = "pod to another node: from its node's address";
        for node in nodes {
            if node.name == from.node {
                for ip in &node.addresses {
                    sources.insert(*ip);
                }
            }
        }
    } else {
        rule = "node: from one of its own addresses";
        for node in nodes {
            if node.name == from.node {
                for ip in &node.addresses {
                    sources.insert(*ip);
                }
            }
        }
    }

    let mut same_family = BTreeSet::new();
    for ip in sources {
        if ip.is_ipv4() == like.is_ipv4() {
            same_family.insert(ip);
        }
    }

    let mut listens = proto == Proto::Icmp;
    if let Some(port) = port {
        for (known, at) in &to.listens {
            if *known == proto && *at == port {
                listens = true;
            }
        }
    }
    if listens {
        Expectation { reachable: true, sources: same_family, rule }
    } else {
        Expectation { reachable: false, sources: BTreeSet::new(), rule: "nobody listens there" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn nodes() -> Vec<Node> {
        let node = |name: &str, own: &str, bridge: &str| Node {
            name: name.into(),
            addresses: vec![ip(own), ip(bridge)],
            internal: vec![ip(own)],
            ..Node::default()
        };
        vec![node("node1", "10.168.0.2", "10.244.0.1"), node("node2", "10.168.0.3", "10.244.1.1")]
    }

    fn pod(name: &str, node: &str, at: &str) -> Party {
        Party {
            name: name.into(),
            node: node.into(),
            own_address: true,
            ips: vec![ip(at)],
            listens: vec![(Proto::Tcp, 80)],
        }
    }

    fn machine(node: &str, at: &str) -> Party {
        Party {
            name: format!("node/{node}"),
            node: node.into(),
            own_address: false,
            ips: vec![ip(at)],
            listens: vec![],
        }
    }

    #[test]
    fn who_sees_whom_as_what() {
        let a = pod("default/a", "node1", "10.244.0.2");
        let b = pod("default/b", "node1", "10.244.0.3");
        let c = pod("default/c", "node2", "10.244.1.2");
        let (one, two) = (machine("node1", "10.168.0.2"), machine("node2", "10.168.0.3"));
        let of_node1 = ["10.168.0.2", "10.244.0.1"];
        let table: &[(&Party, &Party, &[&str])] = &[
            (&a, &a, &["10.244.0.2"]),
            (&a, &b, &["10.244.0.2"]),
            (&a, &c, &["10.244.0.2"]),
            (&c, &a, &["10.244.1.2"]),
            (&a, &one, &["10.244.0.2"]),
            (&a, &two, &of_node1),
            (&one, &a, &of_node1),
            (&one, &c, &of_node1),
            (&one, &two, &of_node1),
        ];
        for (from, to, sources) in table {
            let expected: BTreeSet<IpAddr> = sources.iter().map(|s| ip(s)).collect();
            let found = expect(&nodes(), from, to, Proto::Icmp, None, to.ips[0]);
            assert!(found.reachable);
            assert_eq!(found.sources, expected, "{} to {}", from.name, to.name);
        }
    }

    #[test]
    fn a_port_answers_only_where_somebody_listens() {
        let (a, c) = (pod("default/a", "node1", "10.244.0.2"), pod("default/c", "node2", "10.244.1.2"));
        let at = |proto, port| expect(&nodes(), &a, &c, proto, Some(port), c.ips[0]).reachable;
        assert!(at(Proto::Tcp, 80));
        assert!(!at(Proto::Tcp, 81));
        assert!(!at(Proto::Udp, 80));
    }

    #[test]
    fn sources_are_of_the_probed_family() {
        let mut a = pod("default/a", "node1", "10.244.0.2");
        a.ips.push(ip("fd00::2"));
        let found = expect(&nodes(), &a, &a, Proto::Icmp, None, ip("fd00::2"));
        assert_eq!(found.sources, [ip("fd00::2")].into());
    }
}
