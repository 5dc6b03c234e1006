//! Which endpoints of a Service's port are used, as kube-proxy chooses them (KEP-1669 for terminating ones,
//! KEP-2433 and KEP-3015 for topology).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use weft_model::service::{Endpoint, EndpointSlice, ServicePort};

use super::reserved::special;
use super::{Backend, Choice, Refusal};

/// From where the choice is made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Viewpoint<'a> {
    /// This node.
    pub(super) node: &'a Arc<str>,
    /// Its zone.
    pub(super) zone: Option<&'a Arc<str>>,
}

/// An endpoint that may be used, with what counts for the choice.
#[derive(Clone, Copy)]
struct Candidate<'a> {
    endpoint: &'a Endpoint,
    here: bool,
}

/// Who serves one port of a Service in one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    /// Where clients go whom any endpoint serves.
    pub(super) cluster: Choice,
    /// Where they go whom this node's endpoints alone serve.
    pub(super) local: Choice,
}

/// The ready endpoints on this node, each address once: what health checks count.
pub(super) fn ready_here(slices: &[&EndpointSlice], at: Viewpoint<'_>) -> usize {
    let all = slices.iter().flat_map(|slice| &slice.endpoints);
    let here = all.filter(|endpoint| endpoint.ready && endpoint.node.as_ref() == Some(at.node));
    here.map(|endpoint| endpoint.address).collect::<std::collections::BTreeSet<_>>().len()
}

/// Chooses for one port in one family. What may be no endpoint is told and left out.
pub(super) fn choose(
    slices: &[&EndpointSlice],
    port: &ServicePort,
    ipv6: bool,
    at: Viewpoint<'_>,
    refused: &mut Vec<Refusal>,
) -> Chosen {
    let candidates = candidates(slices, port, ipv6, at, refused);
    let ready: Vec<_> = candidates.iter().filter(|(_, c)| c.endpoint.ready).collect();
    let leaving = |c: &Candidate<'_>| c.endpoint.serving && c.endpoint.terminating;
    let leaving: Vec<_> = candidates.iter().filter(|(_, c)| leaving(c)).collect();
    // Who is about to end serves on where nobody else does.
    let cluster =
        if ready.is_empty() { backends(leaving.iter().copied()) } else { backends(nearest(&ready, at)) };
    let here = |list: &[(&SocketAddr, &Candidate<'_>)]| -> Vec<Backend> {
        backends(list.iter().copied().filter(|(_, c)| c.here))
    };
    let ready: Vec<_> = ready.iter().map(|(address, c)| (*address, *c)).collect();
    let leaving: Vec<_> = leaving.iter().map(|(address, c)| (*address, *c)).collect();
    let local = Some(here(&ready)).filter(|list| !list.is_empty()).unwrap_or_else(|| here(&leaving));
    let anybody = !ready.is_empty() || !leaving.is_empty();
    Chosen {
        cluster: choice(cluster, Choice::Reject),
        local: choice(local, if anybody { Choice::Drop } else { Choice::Reject }),
    }
}

fn choice(backends: Vec<Backend>, none: Choice) -> Choice {
    if backends.is_empty() { none } else { Choice::Backends(backends.into()) }
}

fn backends<'a>(list: impl IntoIterator<Item = (&'a SocketAddr, &'a Candidate<'a>)>) -> Vec<Backend> {
    list.into_iter().map(|(address, c)| Backend { address: *address, here: c.here }).collect()
}

/// Each address once; of several slices' words on one the best counts.
fn candidates<'a>(
    slices: &[&'a EndpointSlice],
    port: &ServicePort,
    ipv6: bool,
    at: Viewpoint<'_>,
    refused: &mut Vec<Refusal>,
) -> BTreeMap<SocketAddr, Candidate<'a>> {
    let mut found: BTreeMap<SocketAddr, Candidate<'a>> = BTreeMap::new();
    for slice in slices {
        let same = slice.ports.iter().filter(|p| p.name == port.name && p.protocol == port.protocol);
        for number in same.map(|p| p.port) {
            for endpoint in slice.endpoints.iter().filter(|e| e.address.is_ipv6() == ipv6) {
                if let Some(what) = special(endpoint.address) {
                    refused.push(Refusal::EndpointUnusable { address: endpoint.address, what });
                    continue;
                }
                let here = endpoint.node.as_ref() == Some(at.node);
                let new = Candidate { endpoint, here };
                let address = SocketAddr::new(endpoint.address, number);
                let rank = |c: &Candidate<'_>| (c.endpoint.ready, c.endpoint.serving, c.here);
                let known = found.entry(address).or_insert(new);
                if rank(&new) > rank(known) {
                    *known = new;
                }
            }
        }
    }
    found
}

/// Those of the ready endpoints that are meant for this node, else for its zone, else all. A hint counts
/// only where every one has hints of the kind and some of them are for here.
fn nearest<'a>(
    ready: &[(&'a SocketAddr, &'a Candidate<'a>)],
    at: Viewpoint<'_>,
) -> Vec<(&'a SocketAddr, &'a Candidate<'a>)> {
    type Named<'n> = fn(&'n Endpoint) -> &'n [Arc<str>];
    let nodes: Named<'_> = |e| e.hints.as_ref().map(|hints| &hints.nodes[..]).unwrap_or_default();
    let zones: Named<'_> = |e| e.hints.as_ref().map(|hints| &hints.zones[..]).unwrap_or_default();
    for (named, here) in [(nodes, Some(at.node)), (zones, at.zone)] {
        let Some(here) = here else { continue };
        if ready.iter().any(|(_, c)| named(c.endpoint).is_empty()) {
            continue;
        }
        let meant: Vec<_> = ready.iter().copied().filter(|(_, c)| named(c.endpoint).contains(here)).collect();
        if !meant.is_empty() {
            return meant;
        }
    }
    ready.to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_model::service::{EndpointPort, Hints, Protocol};

    /// `NAME[+-~!]@NODE[/ZONES][%NODES]`: the last byte of the address; + ready, - not, ~ terminating but serving,
    /// ! terminating and not serving.
    fn endpoint(text: &str) -> Endpoint {
        let (head, place) = text.split_once('@').unwrap();
        let (host, state) = head.split_at(head.len() - 1);
        let (place, nodes) = place.split_once('%').unwrap_or((place, ""));
        let (node, zones) = place.split_once('/').unwrap_or((place, ""));
        let list = |text: &str| text.split(',').filter(|s| !s.is_empty()).map(Arc::from).collect::<Vec<_>>();
        let hints = Hints { zones: list(zones), nodes: list(nodes) };
        Endpoint {
            address: format!("10.244.0.{host}").parse().unwrap(),
            ready: state == "+",
            serving: state == "+" || state == "~",
            terminating: state == "~" || state == "!",
            node: Some(node.into()),
            hints: (hints != Hints::default()).then(|| Arc::new(hints)),
        }
    }

    fn slice(endpoints: &str) -> EndpointSlice {
        EndpointSlice {
            ports: vec![EndpointPort { name: "http".into(), protocol: Protocol::Tcp, port: 8080 }],
            endpoints: endpoints.split_whitespace().map(endpoint).collect(),
            ..EndpointSlice::default()
        }
    }

    fn show(choice: &Choice) -> String {
        match choice {
            Choice::Reject => "reject".into(),
            Choice::Drop => "drop".into(),
            Choice::Backends(list) => {
                let last = |b: &Backend| b.address.ip().to_string().rsplit('.').next().unwrap().to_owned();
                list.iter().map(last).collect::<Vec<_>>().join(" ")
            }
        }
    }

    fn chosen(endpoints: &[&str]) -> (String, String) {
        let slices: Vec<_> = endpoints.iter().map(|text| slice(text)).collect();
        let slices: Vec<_> = slices.iter().collect();
        let port = ServicePort { name: "http".into(), port: 80, ..ServicePort::default() };
        let (node, zone) = ("a".into(), "z".into());
        let at = Viewpoint { node: &node, zone: Some(&zone) };
        let chosen = choose(&slices, &port, false, at, &mut Vec::new());
        (show(&chosen.cluster), show(&chosen.local))
    }

    #[test]
    fn the_table() {
        for (endpoints, cluster, local) in [
            (&[""][..], "reject", "reject"),
            (&["1+@a 2+@b"], "1 2", "1"),
            (&["1-@a 2-@b"], "reject", "reject"),
            (&["2+@b"], "2", "drop"),
            // Who ends serves only where nobody is ready, and on this node likewise.
            (&["1~@a 2+@b"], "2", "1"),
            (&["1~@a 2~@b"], "1 2", "1"),
            (&["1!@a 2~@b"], "2", "drop"),
            (&["1!@a 2!@b"], "reject", "reject"),
            (&["1~@a 2+@a 3+@b"], "2 3", "2"),
            // Hints of zones: only where all have some and one is for here.
            (&["1+@a/z 2+@b/y"], "1", "1"),
            (&["1+@a/y 2+@b/z,y"], "2", "1"),
            (&["1+@a/z 2+@b"], "1 2", "1"),
            (&["1+@a/y 2+@b/y"], "1 2", "1"),
            (&["1+@a/z 2-@b"], "1", "1"),
            (&["1~@a/z 2~@b/y"], "1 2", "1"),
            // Those of nodes come first.
            (&["1+@a/z%a 2+@b/z%b"], "1", "1"),
            (&["1+@c/z%c 2+@b/y%b"], "1", "drop"),
            (&["1+@a/z%a 2+@b/z"], "1 2", "1"),
            // One address of several slices counts once, by the best that is said of it.
            (&["1-@a 2+@b", "1+@a"], "1 2", "1"),
            (&["1+@a 1+@a"], "1", "1"),
        ] {
            assert_eq!(chosen(endpoints), (cluster.to_owned(), local.to_owned()), "{endpoints:?}");
        }
    }

    #[test]
    fn ports_are_matched_by_name_and_protocol_and_bad_addresses_are_told() {
        let mut slice = slice("1+@a");
        slice
            .endpoints
            .push(Endpoint { address: "127.0.0.1".parse().unwrap(), ..slice.endpoints[0].clone() });
        slice.ports.push(EndpointPort { name: "http".into(), protocol: Protocol::Udp, port: 9090 });
        let node = "a".into();
        let at = Viewpoint { node: &node, zone: None };
        let mut refused = Vec::new();
        for (name, protocol, expected) in [
            ("http", Protocol::Tcp, "10.244.0.1:8080"),
            ("http", Protocol::Udp, "10.244.0.1:9090"),
            ("other", Protocol::Tcp, ""),
        ] {
            let port = ServicePort { name: name.into(), protocol, port: 80, node_port: None };
            let chosen = choose(&[&slice], &port, false, at, &mut refused);
            let found: Vec<_> = chosen.cluster.backends().iter().map(|b| b.address.to_string()).collect();
            assert_eq!(found.join(" "), expected);
        }
        assert_eq!(refused.len(), 2);
        let six = choose(&[&slice], &ServicePort::default(), true, at, &mut refused);
        assert_eq!(six.cluster, Choice::Reject);
        assert_eq!(ready_here(&[&slice, &slice], at), 2);
    }
}
