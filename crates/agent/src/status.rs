use std::sync::Arc;
use std::time::SystemTime;

use jiff::Timestamp;
use serde::Serialize;
use weft_fabric::{Fabric, FabricPlan, PeerPlan};
use weft_model::network::{Network, Participation};

/// More peers than this are not named.
pub(crate) const NAMED_PEERS: usize = 8;

/// What the agent says of its node, in `status.json` and from it in the node's conditions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The node.
    pub node: Arc<str>,
    /// Whether pods of this node can have a network.
    pub ready: bool,
    /// Since when the cluster's state here may be out of date: the API is away.
    pub stale_since: Option<Timestamp>,
    /// One for each other node.
    pub peers: Vec<PeerStatus>,
    /// How the node takes part in the cluster's network.
    pub network: Participation,
    /// What was brought back after something else removed or changed it.
    pub repairs: Repairs,
    /// Whether flannel still has this host: then it is flannel's to tell whether pods have a network.
    #[serde(skip)]
    pub flannel_here: bool,
    /// What of the node's annotations is to be written for flannel on other nodes.
    #[serde(skip)]
    pub flannel: serde_json::Map<String, serde_json::Value>,
    /// What is wrong now, each in one sentence.
    pub errors: Vec<String>,
}

/// How one peer's pods are reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PeerStatus {
    /// The peer.
    pub node: Arc<str>,
    /// Whether everything that its pods need is in the kernel.
    pub programmed: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Repairs since the agent started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Repairs {
    /// How many objects were written.
    pub count: u64,
    /// When the last was.
    pub last: Option<Timestamp>,
}

impl Repairs {
    /// Counts `objects` repaired now.
    pub(crate) fn add(&mut self, objects: usize) {
        if objects > 0 {
            self.count += objects as u64;
            self.last = Some(Timestamp::now());
        }
    }
}

/// How this node takes part; `settled` when the plan is in the kernel.
pub(crate) fn participation(
    plan: &FabricPlan,
    fabric: &Fabric,
    network: &Network,
    settled: bool,
) -> Participation {
    let Ok(local) = &plan.local else { return Participation::default() };
    let of = |(name, peer): (&Arc<str>, &PeerPlan)| {
        let reason = peer.fallback.first()?.to_string();
        Some((name.clone(), reason))
    };
    Participation {
        backend: network.backends(&local.node).next().filter(|_| settled),
        migrating: network.migration.as_ref().map(|migration| migration.to),
        receives: network.tunnels().into_iter().filter(|tunnel| fabric.receives(*tunnel)).collect(),
        fallback: plan.peers.iter().filter_map(of).take(NAMED_PEERS).collect(),
    }
}

/// Every peer's state, by name.
pub(crate) fn peers(plan: &FabricPlan, fabric: &Fabric) -> Vec<PeerStatus> {
    plan.peers.iter().map(|(name, peer)| peer_status(name, peer, fabric)).collect()
}

fn peer_status(name: &Arc<str>, plan: &PeerPlan, fabric: &Fabric) -> PeerStatus {
    let programmed = plan.complete() && fabric.programmed(name);
    let reason = match (&plan.refused[..], programmed) {
        (_, true) => None,
        ([], false) => Some("the kernel does not have all of it yet".into()),
        (refused, false) => Some(join(refused)),
    };
    PeerStatus { node: name.clone(), programmed, reason }
}

fn join(items: &[impl ToString]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

pub(crate) fn timestamp(time: SystemTime) -> Timestamp {
    Timestamp::try_from(time).unwrap_or_default()
}
