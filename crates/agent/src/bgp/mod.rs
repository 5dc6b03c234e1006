//! BGP on this node: a speaker that does what the cluster's objects say ([`weft_bgp::plan`]), and whose routes the
//! agent brings into the kernel.
//!
//! It is spoken where the backend is `bgp`. An agent that ends leaves its routes in the kernel and tells nobody, so
//! that neighbours keep theirs until it is back (graceful restart).

mod learnt;
mod secrets;
mod speaking;

use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tokio::sync::watch;
use tokio::time::timeout;
use weft_bgp::plan::{Plan, plan};
use weft_model::network::{Backend, Ipam};
use weft_model::{Changes, Cluster, Node};
use weft_store::Api;

use crate::AgentConfig;
use crate::views::Views;
pub(crate) use learnt::Learnt;
use secrets::Secrets;
use speaking::Speaking;

/// How often the speaker's state is written down, and what failed is tried again.
const TICK: Duration = Duration::from_secs(1);

/// Speaks BGP while the backend is `bgp`, until `ends`.
pub(crate) async fn keep(
    api: Api,
    cfg: AgentConfig,
    views: Arc<Views>,
    learnt: Arc<Learnt>,
    mut ends: watch::Receiver<bool>,
) {
    let mut speaking = Speaking::new(&cfg, learnt);
    let mut secrets = Secrets::new(api);
    let mut known: Option<Cluster> = None;
    let mut planned: Option<Plan> = None;
    let mut due = Instant::now();
    loop {
        let rest = due.saturating_duration_since(Instant::now());
        let (told, over) = tokio::select! {
            told = timeout(rest, views.changed()) => (told.is_ok(), false),
            _ = ends.wait_for(|end| *end) => (false, true),
        };
        if over {
            return speaking.restart();
        }
        let concerned = match views.take() {
            Some((cluster, changes)) => {
                known = Some(with_prefixes(&cfg, cluster));
                concerns(&changes)
            }
            None => false,
        };
        if told && !concerned && Instant::now() < due {
            continue;
        }
        due = Instant::now() + TICK;
        planned = planned.filter(|_| !concerned);
        let Some(cluster) = &known else { continue };
        if !is_spoken(&cfg, cluster) {
            speaking.cease();
            continue;
        }
        let current = planned.get_or_insert_with(|| plan(cluster, &cfg.node_name, secrets.passwords()));
        if secrets.read(&current.secrets).await {
            *current = plan(cluster, &cfg.node_name, secrets.passwords());
        }
        speaking.follow(current);
    }
}

/// Whether the cluster's nodes speak BGP.
fn is_spoken(cfg: &AgentConfig, cluster: &Cluster) -> bool {
    cluster.network().map_or(cfg.backend, |network| network.backend) == Backend::BGP
}

/// What sessions and routes of one's own follow from.
fn concerns(changes: &Changes) -> bool {
    let others = Changes { pods: Default::default(), namespaces: Default::default(), ..changes.clone() };
    !others.is_empty()
}

/// The cluster with the node's blocks in its Node, where addresses come from pools.
fn with_prefixes(cfg: &AgentConfig, mut cluster: Cluster) -> Cluster {
    let name = cfg.node_name.as_str();
    if cluster.ipam(cfg.ipam) == Ipam::NodeCidr {
        return cluster;
    }
    if let Some((key, node)) =
        cluster.nodes.get_key_value(name).map(|(key, node)| (key.clone(), node.clone()))
    {
        let is_here = |node: &Arc<str>| **node == *name;
        let blocks = || cluster.blocks.values();
        let pod_cidrs = blocks().filter(|block| block.node.as_ref().is_some_and(is_here));
        let pod_cidrs = pod_cidrs.map(|block| block.cidr).collect();
        let loans = blocks().flat_map(|block| &block.borrowed).filter(|(_, to)| is_here(to));
        let loans = loans.map(|(ip, _)| IpNet::from(*ip)).collect();
        cluster.nodes.insert(key, Arc::new(Node { pod_cidrs, loans, ..(*node).clone() }));
    }
    cluster
}
