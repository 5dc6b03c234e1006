//! The few controllers that a bare cluster needs: node CIDRs, workloads to pods, a scheduler,
//! garbage collection and the end of namespaces.
//!
//! One loop: watches feed the [`world::World`], which marks what a change concerns; for each marked object
//! a planner (a pure function) says what to write; the writes go out together, and their answers are known
//! to the world before it plans again. So nothing is created twice, and nothing is planned before every
//! kind is known whole.

mod action;
mod alarms;
mod basics;
mod disruption;
mod endpoints;
mod events;
mod feed;
mod gc;
mod key;
mod leader;
mod matching;
mod namespace;
mod nodes;
mod object;
mod quantity;
mod runner;
mod scheduler;
mod selection;
pub(crate) mod servers;
mod workloads;
mod world;

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use tokio::task::JoinSet;

use crate::registry::Registry;
use leader::Candidate;
pub use leader::LeaseTimes;
use runner::Runner;

/// What the controllers are told once.
#[derive(Debug, Clone)]
pub struct ControllersConfig {
    /// The cluster's pod CIDRs, at most one a family. Nodes get no CIDRs when empty.
    pub cluster_cidrs: Vec<IpNet>,
    /// Prefix length of a node's IPv4 CIDR.
    pub node_cidr_mask: u8,
    /// Prefix length of a node's IPv6 CIDR.
    pub node_cidr_mask_v6: u8,
    /// The certificate in PEM by which pods know the API server; every namespace has it in a ConfigMap.
    pub root_ca: Option<String>,
    /// Where pods reach this API server: with those that others tell of, the endpoints of the Service
    /// `kubernetes`. There is none when there are none.
    pub advertised: Vec<SocketAddr>,
    /// The address of the Service `kubernetes`.
    pub api_service_ip: Option<IpAddr>,
    /// Whether no other server can have the store: then nobody else can run controllers.
    pub exclusive: bool,
    /// How the right to run is kept where there are several servers.
    pub lease: LeaseTimes,
}

impl Default for ControllersConfig {
    /// Kubernetes' masks, /24 and /64, no cluster CIDR, no address of the API server, a store of its own.
    fn default() -> Self {
        Self {
            cluster_cidrs: Vec::new(),
            node_cidr_mask: 24,
            node_cidr_mask_v6: 64,
            root_ca: None,
            advertised: Vec::new(),
            api_service_ip: None,
            exclusive: true,
            lease: LeaseTimes::default(),
        }
    }
}

impl ControllersConfig {
    /// For these cluster CIDRs; `mask` is a node's prefix length, in the one family there is or
    /// in IPv4 where there are both.
    pub fn new(cluster_cidrs: Vec<IpNet>, mask: Option<u8>) -> Self {
        let defaults = Self::default();
        let v6_only =
            !cluster_cidrs.is_empty() && cluster_cidrs.iter().all(|cidr| matches!(cidr, IpNet::V6(_)));
        let (node_cidr_mask, node_cidr_mask_v6) = match mask {
            Some(mask) if v6_only => (defaults.node_cidr_mask, mask),
            Some(mask) => (mask, defaults.node_cidr_mask_v6),
            None => (defaults.node_cidr_mask, defaults.node_cidr_mask_v6),
        };
        Self { cluster_cidrs, node_cidr_mask, node_cidr_mask_v6, ..defaults }
    }
}

/// The running controllers. Dropping it ends them; what they were writing is written or not.
pub struct Controllers {
    task: JoinSet<()>,
    registry: Registry,
    identity: String,
}

impl Controllers {
    /// Ends them, and lets another server's take over at once.
    pub async fn stop(mut self) {
        self.task.shutdown().await;
        leader::release(&self.registry, &self.identity).await;
    }
}

/// Starts the controllers over a registry. Must be called within a Tokio runtime.
pub fn spawn(registry: Registry, config: ControllersConfig) -> Controllers {
    let mut task = JoinSet::new();
    let mut candidate = Candidate::new(registry.clone(), config.exclusive, config.lease);
    let identity = candidate.identity().to_owned();
    let objects = registry.clone();
    task.spawn(async move {
        loop {
            let term = candidate.win().await;
            let runner = Runner::new(objects.clone(), config.clone(), term.clone());
            tokio::select! { () = runner.run() => {}, () = candidate.keep(&term) => {} }
        }
    });
    Controllers { task, registry, identity }
}

#[cfg(test)]
mod deletion_tests;
#[cfg(test)]
mod load_tests;
#[cfg(test)]
mod namespace_tests;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;
