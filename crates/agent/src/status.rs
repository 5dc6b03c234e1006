use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use jiff::Timestamp;
use serde::Serialize;
use weft_fabric::udp::{Counters, Reason};
use weft_fabric::{Fabric, FabricPlan, PeerPlan};
use weft_model::network::{Network, Participation};

use crate::host::Standing;

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
    /// What the tunnel in user space carried, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp: Option<UdpTraffic>,
    /// How this host stands to its Node object.
    #[serde(skip)]
    pub standing: Standing,
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

/// What went through `weft-udp0` since the agent opened it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UdpTraffic {
    /// Packets to peers.
    pub sent_packets: u64,
    /// Their bytes, without the outer headers.
    pub sent_bytes: u64,
    /// Packets from peers.
    pub received_packets: u64,
    /// Their bytes, without the outer headers.
    pub received_bytes: u64,
    /// ICMP errors sent to sources.
    pub icmp_errors: u64,
    /// Packets dropped, by reason; reasons without any are left out.
    pub dropped: BTreeMap<&'static str, u64>,
}

impl UdpTraffic {
    pub(crate) fn of(counters: &Counters) -> UdpTraffic {
        let dropped = Reason::ALL.iter().map(|reason| (reason.name(), counters.dropped(*reason)));
        UdpTraffic {
            sent_packets: counters.sent_packets,
            sent_bytes: counters.sent_bytes,
            received_packets: counters.received_packets,
            received_bytes: counters.received_bytes,
            icmp_errors: counters.icmp_errors,
            dropped: dropped.filter(|(_, count)| *count > 0).collect(),
        }
    }
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
    let rival = fabric.rival(name);
    let programmed = plan.complete() && fabric.programmed(name) && rival.is_none();
    let reason = match (&plan.refused[..], programmed) {
        (_, true) => None,
        ([], false) => rival
            .map(|rival| format!("node {name}: {rival}"))
            .or(Some("the kernel does not have all of it yet".into())),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_json_names_what_the_tunnel_dropped_and_nothing_else() {
        let traffic = UdpTraffic { sent_packets: 3, ..UdpTraffic::of(&Counters::default()) };
        let mut status = Status::default();
        assert!(serde_json::to_value(&status).unwrap().get("udp").is_none());
        status.udp = Some(UdpTraffic { dropped: [(Reason::Stranger.name(), 2)].into(), ..traffic });
        let told = serde_json::to_value(&status).unwrap();
        assert_eq!(told.pointer("/udp/sentPackets"), Some(&3.into()));
        assert_eq!(told.pointer("/udp/dropped"), Some(&serde_json::json!({"stranger": 2})));
    }
}
