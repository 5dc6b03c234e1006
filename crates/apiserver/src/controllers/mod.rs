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
pub(crate) mod events;
mod feed;
mod flannel;
mod gc;
mod guard;
mod key;
mod known;
mod leader;
mod load_balancer;
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

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::thread::JoinHandle;

use ipnet::IpNet;
use tokio::sync::oneshot;

use crate::registry::Registry;
pub use flannel::{Attributes, FlannelEtcd, NoSubnet, Settings, Subnet, read_attributes, read_settings};
use leader::Candidate;
pub use leader::LeaseTimes;
use runner::Runner;

/// What the controllers are told once.
#[derive(Debug, Clone)]
pub struct ControllersConfig {
    /// The cluster's pod CIDRs, at most one a family. Nodes get no CIDRs when empty, nor where flannel's subnets
    /// in etcd are kept: then they get those.
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
    /// Where Services get their cluster addresses from.
    pub service_cidrs: Vec<IpNet>,
    /// The address of the Service `kubernetes`.
    pub api_service_ip: Option<IpAddr>,
    /// Whether no other server can have the store: then nobody else can run controllers.
    pub exclusive: bool,
    /// How the right to run is kept where there are several servers.
    pub lease: LeaseTimes,
    /// Where flannel's subnets are, if they are to be kept.
    pub flannel: Option<FlannelEtcd>,
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
            service_cidrs: Vec::new(),
            api_service_ip: None,
            exclusive: true,
            lease: LeaseTimes::default(),
            flannel: None,
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

/// The running controllers, on a thread of their own: no request waits for what they plan. Dropping it ends
/// them; what they were writing is written or not.
pub struct Controllers {
    /// Dropped to end them.
    running: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    registry: Registry,
    identity: String,
}

impl Controllers {
    /// Ends them, and lets another server's take over at once.
    pub async fn stop(mut self) {
        self.end();
        leader::release(&self.registry, &self.identity).await;
    }

    fn end(&mut self) {
        drop(self.running.take());
        // They wait for nothing that this thread would have to do; one that panicked has ended too.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Drop for Controllers {
    fn drop(&mut self) {
        self.end();
    }
}

/// Starts the controllers over a registry.
pub fn spawn(registry: Registry, config: ControllersConfig) -> io::Result<Controllers> {
    let candidate = Candidate::new(registry.clone(), config.exclusive, config.lease);
    let identity = candidate.identity().to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (running, ended) = oneshot::channel();
    let objects = registry.clone();
    let work = move || {
        runtime.block_on(async {
            tokio::select! { () = lead(candidate, objects, config) => {}, _ = ended => {} }
        });
    };
    let thread = std::thread::Builder::new().name("controllers".into()).spawn(work)?;
    Ok(Controllers { running: Some(running), thread: Some(thread), registry, identity })
}

/// Runs whenever this server has the right to.
async fn lead(mut candidate: Candidate, registry: Registry, config: ControllersConfig) {
    loop {
        let term = candidate.win().await;
        let mut all = config.clone();
        let subnets = all.flannel.take().map(|flannel| {
            let cluster_cidrs = std::mem::take(&mut all.cluster_cidrs);
            flannel::keep(registry.clone(), flannel, cluster_cidrs)
        });
        let subnets = async {
            match subnets {
                Some(subnets) => subnets.await,
                None => std::future::pending().await,
            }
        };
        let runner = Runner::new(registry.clone(), all, term.clone());
        tokio::select! { () = runner.run() => {}, () = candidate.keep(&term) => {}, () = subnets => {} }
    }
}

#[cfg(test)]
mod deletion_tests;
#[cfg(test)]
mod load_balancer_tests;
#[cfg(test)]
mod load_tests;
#[cfg(test)]
mod namespace_tests;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;
