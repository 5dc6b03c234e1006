//! The table: what should become of every connection, said by the plainest code, from the Services' own words.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use weft_model::service::Protocol;

use crate::client::{Outcome, connect_to};
use crate::net::From;
use crate::scene::{self, ALLOWED, By, ENDPOINTS, NODE, SPECS, Spec};

/// Long enough that what is late on a busy machine is not taken for lost.
const PATIENT: Duration = Duration::from_secs(20);
/// How long nothing must come where nothing should.
const SHORT: Duration = Duration::from_millis(300);
/// So many connections find every endpoint: of three, one is missed once in 10^70.
const MOST: usize = 400;
/// So many are made at least.
const LEAST: usize = 6;

/// One row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) index: usize,
    pub(crate) by: By,
    pub(crate) from: From,
    pub(crate) protocol: Protocol,
    pub(crate) ipv6: bool,
}

/// What should become of its connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// One of these endpoints answers, each at times, and sees the client's own address or one of the node's.
    Answer {
        by: BTreeSet<&'static str>,
        keeps_source: bool,
    },
    Refused,
    /// Taken, and reset then.
    Reset,
    Silent,
}

/// Every row of the table from one client.
pub(crate) fn rows(from: From) -> Vec<Row> {
    let mut rows = Vec::new();
    for index in 0..SPECS.len() {
        for by in By::ALL {
            for protocol in Protocol::ALL {
                rows.extend([false, true].map(|ipv6| Row { index, by, from, protocol, ipv6 }));
            }
        }
    }
    rows
}

/// How many of so many connections from a pod to the first Service's cluster IP each endpoint got.
pub(crate) fn shares(connections: u32) -> BTreeMap<String, u32> {
    let (address, port) = scene::place(0, By::ClusterIp, false);
    let to = SocketAddr::new(address, port);
    let mut shares = BTreeMap::new();
    for _ in 0..connections {
        match connect_to(Protocol::Udp, None, to, PATIENT) {
            Outcome::Answered { by, .. } => *shares.entry(by).or_default() += 1,
            other => *shares.entry(format!("{other:?}")).or_default() += 1,
        }
    }
    shares
}

impl Row {
    pub(crate) fn spec(&self) -> &'static Spec {
        &SPECS[self.index]
    }

    /// What Kubernetes' documentation has one expect.
    pub(crate) fn expected(&self) -> Expected {
        let spec = self.spec();
        let is_here = |name: &&'static str| ENDPOINTS.iter().any(|(n, node, _)| n == name && *node == NODE);
        let all: BTreeSet<&str> = spec.endpoints.iter().copied().collect();
        let here: BTreeSet<&str> = spec.endpoints.iter().copied().filter(is_here).collect();
        let is_pod = matches!(self.from, From::Pod | From::Endpoint);
        let answer = |by: &BTreeSet<&'static str>, keeps_source| match by.is_empty() {
            true => Expected::Silent,
            false => Expected::Answer { by: by.clone(), keeps_source },
        };
        if all.is_empty() {
            return Expected::Refused;
        }
        if spec.guarded && self.by == By::LoadBalancer && !self.is_allowed() {
            return Expected::Silent;
        }
        match (self.by, self.from) {
            (By::ClusterIp, _) if spec.internal_local => answer(&here, is_pod),
            (By::ClusterIp, _) => answer(&all, is_pod),
            _ if !spec.external_local => answer(&all, false),
            (_, From::Pod | From::Endpoint) => answer(&all, true),
            (_, From::Node) => answer(&all, false),
            (_, From::OtherNode | From::Outside | From::Stranger) => answer(&here, true),
        }
    }

    fn is_allowed(&self) -> bool {
        // The node leaves by its address to the outside.
        let node = From::Outside.address(self.ipv6);
        let Some(address) = self.from.address(self.ipv6).or(node) else { return false };
        ALLOWED.iter().any(|net| net.parse::<IpNet>().is_ok_and(|net| net.contains(&address)))
    }

    /// Makes the connections, in the calling thread's namespace; what went wrong. What should become of them is
    /// as Kubernetes has it, unless the proxy is known to differ.
    pub(crate) fn run(&self, node: &[IpAddr], different: Option<Expected>) -> Result<(), String> {
        let expected = different.unwrap_or_else(|| self.expected());
        let (address, port) = scene::place(self.index, self.by, self.ipv6);
        let patience = if expected == Expected::Silent { SHORT } else { PATIENT };
        let from = self.from.address(self.ipv6);
        let connect = || connect_to(self.protocol, from, SocketAddr::new(address, port), patience);
        let fail =
            |outcome: &Outcome| Err(format!("{}: expected {expected:?}, found {outcome:?}", self.name()));
        let Expected::Answer { by: wanted, keeps_source } = &expected else {
            let outcome = connect();
            let wanted = match expected {
                Expected::Refused => Outcome::Refused,
                Expected::Reset => Outcome::Reset,
                _ => Outcome::Silent,
            };
            let holds = outcome == wanted || (outcome == Outcome::Forbidden && self.from == From::Node);
            return if holds { Ok(()) } else { fail(&outcome) };
        };
        let mut seen = BTreeSet::new();
        let all = if self.spec().sticky { 1 } else { wanted.len() };
        for count in 0..MOST {
            if count >= LEAST && seen.len() == all {
                break;
            }
            let outcome = connect();
            let Outcome::Answered { by, source } = &outcome else { return fail(&outcome) };
            let itself = self.from == From::Endpoint && by == "a";
            let source_holds =
                if *keeps_source && !itself { Some(*source) == from } else { node.contains(source) };
            if !wanted.contains(by.as_str()) || !source_holds {
                return fail(&outcome);
            }
            seen.insert(by.clone());
        }
        if seen.len() == all {
            Ok(())
        } else {
            Err(format!("{}: expected {wanted:?}, found only {seen:?}", self.name()))
        }
    }

    /// For people.
    pub(crate) fn name(&self) -> String {
        let family = if self.ipv6 { "IPv6" } else { "IPv4" };
        format!("{} by {:?} from {:?}, {} {family}", self.spec().name, self.by, self.from, self.protocol)
    }
}
