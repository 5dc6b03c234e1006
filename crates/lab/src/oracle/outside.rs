//! What should come of a connection from outside of the cluster to an address that nodes announce on the client's
//! segment, from the objects alone and by the slowest, plainest code.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::services::{Door, Outcome, lets_in};
use super::{Node, Party};

/// What should come of a connection from `client`, on whose segment these nodes are, to `door`; `relayed` where
/// nodes end connections and make others themselves.
pub fn expect_from_outside(
    nodes: &[Node],
    parties: &[Party],
    client: &Party,
    segment: &[String],
    door: &Door,
    relayed: bool,
) -> (Outcome, &'static str) {
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
    let mut serving = ready;
    if serving.is_empty() {
        serving = leaving;
    }

    // Any of these may be the one that announces it.
    let mut announcers = Vec::new();
    for node in nodes {
        let mut may = segment.contains(&node.name) && !node.excluded;
        if door.local {
            let mut serves = false;
            for party in &serving {
                if parties[*party].node == node.name {
                    serves = true;
                }
            }
            may = may && serves;
        }
        if may {
            announcers.push(node);
        }
    }
    if announcers.is_empty() {
        return (Outcome::Silence, "no node may announce it");
    }
    if !lets_in(door, client) {
        return (Outcome::Silence, "others than loadBalancerSourceRanges are dropped");
    }
    if serving.is_empty() {
        return (Outcome::Refused, "nobody serves it");
    }

    let mut answers = Vec::new();
    for party in serving {
        let target = &parties[party];
        let mut sources = BTreeSet::new();
        for node in &announcers {
            if door.local && target.node != node.name {
                continue;
            }
            // What ends on the node itself passes no masquerade.
            let ends_there = !target.own_address && target.node == node.name;
            if relayed || !door.local && !ends_there {
                sources.extend(node.addresses.iter().copied());
            } else {
                sources.extend(client.ips.iter().copied());
            }
        }
        let family = |ip: &IpAddr| ip.is_ipv4() == door.address.is_ipv4();
        sources.retain(family);
        if !sources.is_empty() {
            answers.push((party, sources));
        }
    }
    let rule = match door.local {
        true => "policy Local: an endpoint of a node that announces it, seen from the client's address",
        false => "any endpoint, seen from the address of a node that announces it",
    };
    (Outcome::Answer(answers), rule)
}

#[cfg(test)]
mod tests {
    use super::super::Proto;
    use super::super::services::{DoorKind, Endpoint};
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn party(name: &str, node: &str, at: &str, own_address: bool) -> Party {
        Party { name: name.into(), node: node.into(), own_address, ips: vec![ip(at)], listens: vec![] }
    }

    /// `NAME from SOURCE …`, or what else comes of it; `ranges` are of who may connect.
    fn outcome(
        local: bool,
        serve: &[usize],
        segment: &[&str],
        ranges: &[&str],
        relayed: bool,
    ) -> Vec<String> {
        let node = |name: &str, own: &str, excluded| Node {
            name: name.into(),
            addresses: vec![ip(own)],
            internal: vec![ip(own)],
            excluded,
        };
        let nodes = [
            node("n1", "10.168.0.2", false),
            node("n2", "10.168.0.3", false),
            node("n3", "10.168.0.4", true),
        ];
        let parties = [
            party("a", "n1", "10.244.0.2", true),
            party("b", "n2", "10.244.1.2", true),
            party("host", "n1", "10.168.0.2", false),
            party("c", "n3", "10.244.2.2", true),
        ];
        let endpoint = |party: &usize| Endpoint { party: *party, ready: true, leaving: false };
        let door = Door {
            service: "shop/web".into(),
            kind: DoorKind::External,
            address: ip("10.168.0.200"),
            proto: Proto::Tcp,
            port: 80,
            node: None,
            local,
            ranges: ranges.iter().map(|net| net.parse().unwrap()).collect(),
            announced: true,
            endpoints: serve.iter().map(endpoint).collect(),
        };
        let client = party("outside", "", "10.168.0.1", false);
        let segment: Vec<String> = segment.iter().map(ToString::to_string).collect();
        match expect_from_outside(&nodes, &parties, &client, &segment, &door, relayed).0 {
            Outcome::Refused => vec!["refused".into()],
            Outcome::Silence => vec!["silence".into()],
            Outcome::Answer(list) => {
                let line = |(party, sources): (usize, BTreeSet<IpAddr>)| {
                    let sources: Vec<String> = sources.iter().map(ToString::to_string).collect();
                    format!("{} from {}", parties[party].name, sources.join(" "))
                };
                list.into_iter().map(line).collect()
            }
        }
    }

    #[test]
    fn the_table() {
        let all = &["n1", "n2", "n3"][..];
        for (local, serve, segment, ranges, relayed, expected) in [
            (false, &[1][..], all, &[][..], false, &["b from 10.168.0.2 10.168.0.3"][..]),
            (false, &[1], &["n1"], &[], false, &["b from 10.168.0.2"]),
            (false, &[2], all, &[], false, &["host from 10.168.0.1 10.168.0.3"]),
            (false, &[], all, &[], false, &["refused"]),
            (false, &[0], &["n3"], &[], false, &["silence"]),
            (true, &[0, 1], all, &[], false, &["a from 10.168.0.1", "b from 10.168.0.1"]),
            (true, &[0, 1], &["n2"], &[], false, &["b from 10.168.0.1"]),
            (true, &[1], &["n2"], &[], true, &["b from 10.168.0.3"]),
            (true, &[3], all, &[], false, &["silence"]),
            (true, &[], all, &[], false, &["silence"]),
            (false, &[1], &["n1"], &["10.168.0.0/24"], false, &["b from 10.168.0.2"]),
            (false, &[1], all, &["192.0.2.0/24"], false, &["silence"]),
            (false, &[1], &["n1"], &["fd00::/8"], false, &["b from 10.168.0.2"]),
        ] {
            assert_eq!(
                outcome(local, serve, segment, ranges, relayed),
                expected,
                "{local} {serve:?} {segment:?} {ranges:?}"
            );
        }
    }
}
