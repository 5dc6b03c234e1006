//! What a node's agent tells in its Node object, conditions and annotations: written when it
//! differs, and tried again with growing pauses while the API is away.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;
use weft_model::network::{HOST_ANNOTATION, NETWORK_ANNOTATION};
use weft_store::{Api, Error};

use crate::Status;
use crate::heart::{self, Reporter};
use crate::host;
use crate::status::NAMED_PEERS;

const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What the Node object is to say.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Report {
    pub(crate) conditions: Vec<Condition>,
    /// Annotations by key.
    pub(crate) annotations: BTreeMap<&'static str, String>,
    /// What its InternalIPs are to be, and the number of the host that says so; empty where they are so.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) host: Arc<str>,
}

impl Report {
    /// What a status says; nothing of a Node that is another host's.
    pub(crate) fn of(status: &Status) -> Report {
        let standing = &status.standing;
        if standing.elsewhere {
            return Report::default();
        }
        let network = serde_json::to_string(&status.network).unwrap_or_default();
        let mut annotations = BTreeMap::from([(NETWORK_ANNOTATION, network)]);
        if standing.here {
            annotations.insert(HOST_ANNOTATION, standing.host.to_string());
        }
        let (addresses, host) = (standing.addresses.clone(), standing.host.clone());
        Report { conditions: conditions(status), annotations, addresses, host }
    }
}

/// One condition as we want it (core/v1 NodeCondition without its times).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Condition {
    kind: &'static str,
    status: bool,
    reason: &'static str,
    message: String,
}

/// What a status says in conditions.
fn conditions(status: &Status) -> Vec<Condition> {
    if status.flannel_here {
        return vec![peers_condition(status)];
    }
    let network = if status.ready {
        let message = "Weft has programmed this node's pod network".into();
        Condition { kind: "NetworkUnavailable", status: false, reason: "WeftIsUp", message }
    } else {
        let message = status.errors.join("; ");
        Condition { kind: "NetworkUnavailable", status: true, reason: "WeftIsNotReady", message }
    };
    vec![network, peers_condition(status)]
}

fn peers_condition(status: &Status) -> Condition {
    let refused: Vec<&str> = status.peers.iter().filter_map(|peer| peer.reason.as_deref()).collect();
    let kind = "WeftPeersReachable";
    if refused.is_empty() {
        let message = "every other node's pods are reachable".into();
        return Condition { kind, status: true, reason: "AllPeersProgrammed", message };
    }
    let mut message = refused[..refused.len().min(NAMED_PEERS)].join("; ");
    if refused.len() > NAMED_PEERS {
        message += &format!("; and {} more", refused.len() - NAMED_PEERS);
    }
    Condition { kind, status: false, reason: "PeersRefused", message }
}

/// Writes what `wanted` holds, and again whenever it changes. Ends when its sender is gone.
pub(crate) async fn keep(api: Api, node: String, mut wanted: watch::Receiver<Report>) {
    let mut moved = Vec::new();
    while wanted.changed().await.is_ok() {
        let mut pause = Duration::from_millis(500);
        loop {
            let report = wanted.borrow_and_update().clone();
            // What was asked from the old address is never answered.
            if std::mem::replace(&mut moved, report.addresses.clone()) != report.addresses
                && !moved.is_empty()
                && let Err(error) = api.reconnect().await
            {
                tracing::warn!("{error}");
            }
            match write(&api, &node, &report).await {
                Ok(()) => break,
                Err(error) => tracing::debug!("write the status of node {node}: {error}"),
            }
            tokio::time::sleep(jittered(pause)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// Between half and the whole of `pause`, so that many nodes do not come back at once.
pub(crate) fn jittered(pause: Duration) -> Duration {
    let random = RandomState::new().hash_one(0u8) % 1024;
    pause / 2 + pause / 2 * u32::try_from(random).unwrap_or_default() / 1024
}

async fn write(api: &Api, node: &str, wanted: &Report) -> Result<(), Error> {
    let object = api.get(&format!("/api/v1/nodes/{node}")).await?;
    write_to(api, node, &object, wanted, Timestamp::now()).await
}

/// Writes the report into the status of a node that was read as `object`, as far as it is not in it.
pub(crate) async fn write_to(
    api: &Api,
    node: &str,
    object: &Value,
    wanted: &Report,
    now: Timestamp,
) -> Result<(), Error> {
    let path = format!("/api/v1/nodes/{node}");
    let conditions = merged(object.pointer("/status/conditions"), &wanted.conditions, now);
    let found = object.pointer("/metadata/annotations");
    let said = |(key, value): &(&&str, &String)| found.and_then(|all| all.get(**key)) == Some(&json!(value));
    let annotations: BTreeMap<_, _> = wanted.annotations.iter().filter(|entry| !said(entry)).collect();
    let addresses = addresses(object, wanted);
    if conditions.is_none() && annotations.is_empty() && addresses.is_none() {
        return Ok(());
    }
    // The version makes a concurrent writer of the list a conflict and not a loss.
    let version = object.pointer("/metadata/resourceVersion").cloned().unwrap_or_default();
    let mut patch = json!({ "metadata": { "resourceVersion": version } });
    if let Some(conditions) = conditions {
        patch["status"]["conditions"] = json!(conditions);
    }
    if let Some(addresses) = addresses {
        tracing::info!("this host's address has changed: node {node} is told of {:?}", wanted.addresses);
        patch["status"]["addresses"] = addresses;
    }
    if !annotations.is_empty() {
        patch["metadata"]["annotations"] = json!(annotations);
    }
    api.patch_status(&path, &patch).await?;
    Ok(())
}

/// The node's addresses with ours; none where they are not ours to say: a kubelet's, or another host's.
fn addresses(object: &Value, wanted: &Report) -> Option<Value> {
    let ours = heart::reporter(object) == Reporter::Agent && host::said(object) == Some(&*wanted.host);
    let new = (ours && !wanted.addresses.is_empty()).then(|| host::merged(object, &wanted.addresses))?;
    (object.pointer("/status/addresses") != Some(&new)).then_some(new)
}

/// The list with our conditions in it; none if it has them already.
fn merged(found: Option<&Value>, wanted: &[Condition], now: Timestamp) -> Option<Vec<Value>> {
    let mut list = found.and_then(Value::as_array).cloned().unwrap_or_default();
    let mut changed = false;
    for condition in wanted {
        let old = list.iter().position(|c| c["type"] == condition.kind);
        let new = condition.to_json(old.map(|i| &list[i]), now);
        let Some(new) = new else { continue };
        changed = true;
        match old {
            Some(i) => list[i] = new,
            None => list.push(new),
        }
    }
    changed.then_some(list)
}

impl Condition {
    /// That the node is ready, where it has no kubelet to say so.
    pub(crate) fn ready() -> Self {
        let message = "the node has no kubelet; its Weft agent tells that it lives".into();
        Condition { kind: "Ready", status: true, reason: "WeftAgentLives", message }
    }

    /// As the API has it; none if `old` already says so.
    fn to_json(&self, old: Option<&Value>, now: Timestamp) -> Option<Value> {
        let status = if self.status { "True" } else { "False" };
        let same_status = old.filter(|old| old["status"] == status);
        if same_status.is_some_and(|old| old["reason"] == self.reason && old["message"] == self.message) {
            return None;
        }
        let seconds = now.round(jiff::Unit::Second).unwrap_or(now).to_string();
        let since = same_status.and_then(|old| old.get("lastTransitionTime")).cloned();
        Some(json!({
            "type": self.kind,
            "status": status,
            "reason": self.reason,
            "message": self.message,
            "lastHeartbeatTime": seconds,
            "lastTransitionTime": since.unwrap_or_else(|| json!(seconds)),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PeerStatus;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn others_conditions_stay_and_equal_ones_are_not_written() {
        let ready = Status { ready: true, ..Status::default() };
        let kubelet = json!([{ "type": "Ready", "status": "True" }]);
        let first = merged(Some(&kubelet), &conditions(&ready), at("2026-01-01T00:00:00Z")).unwrap();
        assert_eq!(first.len(), 3);
        assert_eq!(first[0], kubelet[0]);
        assert_eq!((&first[1]["type"], &first[1]["status"]), (&json!("NetworkUnavailable"), &json!("False")));
        let again = Value::Array(first);
        assert_eq!(merged(Some(&again), &conditions(&ready), at("2026-01-02T00:00:00Z")), None);
    }

    #[test]
    fn the_time_of_transition_is_that_of_the_status_alone() {
        let peer =
            |n: usize| PeerStatus { reason: Some(format!("peer {n} is refused")), ..PeerStatus::default() };
        let one = Status { peers: vec![peer(1)], ..Status::default() };
        let first = merged(None, &conditions(&one), at("2026-01-01T00:00:00Z")).map(Value::Array).unwrap();
        let many = Status { peers: (0..20).map(peer).collect(), ..Status::default() };
        let second = merged(Some(&first), &conditions(&many), at("2026-01-02T00:00:00Z")).unwrap();
        assert_eq!(second[1]["lastTransitionTime"], "2026-01-01T00:00:00Z");
        assert!(second[1]["message"].as_str().unwrap().ends_with("and 12 more"), "{}", second[1]);
    }
}
