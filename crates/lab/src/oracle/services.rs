//! What should come of a connection to a Service, from the objects alone and by the slowest, plainest code.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Node, Party, Proto};

/// How a Service is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DoorKind {
    /// By its cluster IP.
    ClusterIp,
    /// By a node port, at that node's address, or by an address that leads in from outside, at any node.
    External,
}

/// One address and port at which a Service is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Door {
    /// `namespace/name`.
    pub service: String,
    /// Of which kind.
    pub kind: DoorKind,
    /// The address.
    pub address: IpAddr,
    /// By what.
    pub proto: Proto,
    /// The port.
    pub port: u16,
    /// Whose address it is, where it is a node's.
    pub node: Option<String>,
    /// Whether only endpoints of the node count: internalTrafficPolicy of a cluster IP, else
    /// externalTrafficPolicy.
    pub local: bool,
    /// loadBalancerSourceRanges, of both families; none where everybody may connect.
    pub ranges: Vec<IpNet>,
    /// Whether nodes announce the address on their segment.
    pub announced: bool,
    /// Who serves it.
    pub endpoints: Vec<Endpoint>,
}

/// One endpoint of a door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The place among the parties.
    pub party: usize,
    /// Whether it takes new connections.
    pub ready: bool,
    /// Whether it ends, but still serves.
    pub leaving: bool,
}

/// What should come of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// One of these answers, and sees one of these source addresses.
    Answer(Vec<(usize, BTreeSet<IpAddr>)>),
    /// It is refused: nobody serves it anywhere.
    Refused,
    /// Nothing comes back: others serve it, but they do not count.
    Silence,
}

/// What should come of a connection from `from` to `door`; `relayed` where nodes do not translate connections but
/// end them and make others themselves.
pub fn expect_door(
    nodes: &[Node],
    parties: &[Party],
    from: &Party,
    door: &Door,
    relayed: bool,
) -> (Outcome, &'static str) {
    // The node whose rules lead the client on: his own for a cluster IP, the one that is asked else.
    let mut decides = from.node.as_str();
    if let Some(node) = &door.node {
        decides = node;
    }
    let outside = door.node.is_some() && decides != from.node;

    if !lets_in(door, from) {
        return (Outcome::Silence, "others than loadBalancerSourceRanges are dropped");
    }

    let mut ready = Vec::new();
    let mut leaving = Vec::new();
    for endpoint in &door.endpoints {
        if endpoint.ready {
            ready.push(endpoint.party);
        }
        if endpoint.leaving {
            leaving.push(endpoint.party);
        }
    }
    if ready.is_empty() && leaving.is_empty() {
        return (Outcome::Refused, "nobody serves it");
    }

    let only_here = match door.kind {
        DoorKind::ClusterIp => door.local,
        // Pods and the node itself are served by all endpoints also where the policy is Local.
        DoorKind::External => door.local && outside,
    };
    let mut chosen = Vec::new();
    let rule;
    if only_here {
        rule = "policy Local: an endpoint of the node";
        for set in [&ready, &leaving] {
            if chosen.is_empty() {
                for party in set {
                    if parties[*party].node == decides {
                        chosen.push(*party);
                    }
                }
            }
        }
        if chosen.is_empty() {
            return (Outcome::Silence, "policy Local, and no endpoint is on the node");
        }
    } else {
        rule = "any endpoint";
        chosen = ready;
        if chosen.is_empty() {
            chosen = leaving;
        }
    }

    let masqueraded = match door.kind {
        DoorKind::ClusterIp => false,
        DoorKind::External => !door.local,
    };
    let mut answers = Vec::new();
    for party in chosen {
        let target = &parties[party];
        let itself = from.name == target.name;
        // What the node is led to that leads on goes nowhere, and so passes no masquerade.
        let ends_there = !target.own_address && target.node == decides;
        let mut sources = BTreeSet::new();
        if relayed || !ends_there && (masqueraded || itself || (!from.own_address && !outside)) {
            // The node that leads on puts itself in the client's place.
            for node in nodes {
                if node.name == decides {
                    sources.extend(node.addresses.iter().copied());
                }
            }
        } else if outside {
            // From another node a pod comes under that node's address.
            for node in nodes {
                if node.name == from.node {
                    sources.extend(node.addresses.iter().copied());
                }
            }
        } else {
            let expected = super::expect(nodes, from, target, Proto::Icmp, None, door.address);
            sources = expected.sources;
        }
        sources.retain(|ip| ip.is_ipv4() == door.address.is_ipv4());
        answers.push((party, sources));
    }
    (Outcome::Answer(answers), rule)
}

/// Whether the ranges of the door's family, if there are any, have one with the client's address in it.
pub(super) fn lets_in(door: &Door, from: &Party) -> bool {
    let mut guarded = false;
    for net in &door.ranges {
        if net.addr().is_ipv4() == door.address.is_ipv4() {
            guarded = true;
            for ip in &from.ips {
                if net.contains(ip) {
                    return true;
                }
            }
        }
    }
    !guarded
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
        vec![node("n1", "10.168.0.2", "10.244.0.1"), node("n2", "10.168.0.3", "10.244.1.1")]
    }

    fn parties() -> Vec<Party> {
        let party = |name: &str, node: &str, at: &str, own_address| Party {
            name: name.into(),
            node: node.into(),
            own_address,
            ips: vec![ip(at)],
            listens: vec![],
        };
        vec![
            party("a", "n1", "10.244.0.2", true),
            party("b", "n2", "10.244.1.2", true),
            party("node/n1", "n1", "10.168.0.2", false),
            party("c", "n1", "10.244.0.3", true),
        ]
    }

    /// `NAME from SOURCE`, or what else comes of it.
    fn outcome(from: usize, kind: DoorKind, node: Option<&str>, local: bool, serve: &[usize]) -> Vec<String> {
        let endpoint = |party: &usize| Endpoint { party: *party, ready: true, leaving: false };
        let door = Door {
            service: "shop/web".into(),
            kind,
            address: ip("10.96.0.7"),
            proto: Proto::Tcp,
            port: 80,
            node: node.map(str::to_owned),
            local,
            ranges: Vec::new(),
            announced: false,
            endpoints: serve.iter().map(endpoint).collect(),
        };
        let parties = parties();
        match expect_door(&nodes(), &parties, &parties[from], &door, false).0 {
            Outcome::Refused => vec!["refused".into()],
            Outcome::Silence => vec!["silence".into()],
            Outcome::Answer(list) => {
                let line = |(party, sources): (usize, BTreeSet<IpAddr>)| {
                    format!("{} from {}", parties[party].name, sources.iter().next().unwrap())
                };
                list.into_iter().map(line).collect()
            }
        }
    }

    #[test]
    fn the_table() {
        use DoorKind::{ClusterIp, External};
        for (from, kind, node, local, serve, expected) in [
            (3, ClusterIp, None, false, &[0, 1][..], &["a from 10.244.0.3", "b from 10.244.0.3"][..]),
            (0, ClusterIp, None, false, &[0], &["a from 10.168.0.2"]),
            (2, ClusterIp, None, false, &[1], &["b from 10.168.0.2"]),
            (3, ClusterIp, None, true, &[0, 1], &["a from 10.244.0.3"]),
            (3, ClusterIp, None, true, &[1], &["silence"]),
            (3, ClusterIp, None, false, &[], &["refused"]),
            (3, External, Some("n1"), false, &[1], &["b from 10.168.0.2"]),
            (3, External, Some("n1"), true, &[1], &["b from 10.244.0.3"]),
            (3, External, Some("n2"), false, &[0], &["a from 10.168.0.3"]),
            (3, External, Some("n2"), true, &[0, 1], &["b from 10.168.0.2"]),
            (3, External, Some("n2"), true, &[0], &["silence"]),
            (1, External, Some("n2"), true, &[1], &["b from 10.168.0.3"]),
        ] {
            assert_eq!(outcome(from, kind, node, local, serve), expected, "{from} {kind:?} {node:?} {local}");
        }
    }
}
