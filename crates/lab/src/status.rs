//! `weft lab status`: what is there, what is not ready and why, what is stored and does not act yet.

mod collect;
mod table;

use std::collections::BTreeMap;

use serde::Serialize;

pub use collect::collect;
pub use table::{not_ready, render, summary};

/// A lab at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The lab's name.
    pub lab: String,
    /// Whether nothing is left to wait for.
    pub ready: bool,
    /// What is left to wait for, and why.
    pub not_ready: Vec<NotReady>,
    /// The nodes, in order.
    pub nodes: Vec<NodeStatus>,
    /// The pods, by namespace and name.
    pub pods: Vec<PodStatus>,
    /// The Services, by namespace and name.
    pub services: Vec<ServiceStatus>,
    /// Kinds whose objects are stored and do nothing yet, with how many there are.
    pub not_acting_yet: BTreeMap<String, usize>,
    /// Kinds whose objects are data that pods or people read, with how many there are.
    pub stored: BTreeMap<String, usize>,
}

/// Something that is not ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NotReady {
    /// `node/node1`, `shop/web-0`, `deployment shop/web`.
    pub object: String,
    /// Why.
    pub why: String,
    /// Whether it is so by how the lab was made, and waiting changes nothing: a peer refused.
    pub settled: bool,
}

/// One node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// Its segment, from 1; 0 when there is one only.
    pub rack: u16,
    /// Its underlay addresses.
    pub addresses: Vec<String>,
    /// Where its pods' addresses come from.
    pub pod_cidrs: Vec<String>,
    /// Whether pods can run on it.
    pub ready: bool,
    /// Its agent, in a word or two: `ready`, `stale since …`, `no status`.
    pub agent: String,
    /// Peers whose pods are reachable from it.
    pub peers: usize,
    /// Peers whose pods are not, with the reason.
    pub refused: BTreeMap<String, String>,
    /// Objects brought back after something else removed them.
    pub repairs: u64,
    /// What its agent complains about.
    pub errors: Vec<String>,
}

/// One pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStatus {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The node it is on.
    pub node: String,
    /// Its addresses.
    pub ips: Vec<String>,
    /// Its phase, or `Terminating`.
    pub phase: String,
    /// Whether it is ready, or has ended as it should.
    pub ready: bool,
    /// Whether it shares its node's network.
    pub host_network: bool,
    /// Declared ports, as `80/TCP`.
    pub ports: Vec<String>,
    /// Why it is not ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// One Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceStatus {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its cluster address; empty where it has none yet.
    pub cluster_ip: String,
    /// Its ports, as `80/TCP`.
    pub ports: Vec<String>,
}

#[cfg(test)]
mod tests;
