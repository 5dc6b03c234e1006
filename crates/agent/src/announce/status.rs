//! What the agent says of announced addresses, in `announce.json`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::watch;
use weft_announce::Owner;

use crate::files;

/// The announced addresses as this node sees them.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AnnounceStatus {
    /// The link on which they are announced.
    pub link: Option<String>,
    /// Why this node may have none now; none where it may.
    pub out: Option<String>,
    /// Addresses and who has them, also those that other nodes have.
    pub addresses: BTreeMap<IpAddr, Place>,
    /// Others that claim what this node has, each in one sentence.
    pub conflicts: Vec<String>,
    /// How many beats were not believed, by reason.
    pub strangers: BTreeMap<String, u64>,
    /// What is wrong now, each in one sentence.
    pub errors: Vec<String>,
}

/// Where an address is.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    /// The node that answers for it.
    pub owner: Option<Arc<str>>,
    /// Since when this node knows it so.
    pub since: Option<Timestamp>,
    /// Why it is there.
    pub why: Option<String>,
    /// The Services whose it is, as `namespace/name`.
    pub services: Vec<String>,
}

impl AnnounceStatus {
    /// Takes in who has what now.
    pub(super) fn place(
        &mut self,
        owners: &BTreeMap<IpAddr, Owner>,
        services: &BTreeMap<IpAddr, Vec<String>>,
    ) {
        let before = std::mem::take(&mut self.addresses);
        for (address, services) in services {
            let owner = owners.get(address);
            let node = owner.map(|owner| owner.node.clone());
            let known = before.get(address).filter(|place| place.owner == node);
            let since = known.and_then(|place| place.since).or_else(|| node.is_some().then(Timestamp::now));
            let why = owner.map(|owner| owner.why.to_string());
            let place = Place { owner: node, since, why, services: services.clone() };
            self.addresses.insert(*address, place);
        }
    }
}

/// Writes the file whenever something else is to be said.
pub(super) async fn keep(path: PathBuf, mut told: watch::Receiver<AnnounceStatus>) {
    loop {
        let text = serde_json::to_vec_pretty(&*told.borrow_and_update()).unwrap_or_default();
        if let Err(error) = files::ensure(&path, &text) {
            tracing::warn!("{error:#}");
        }
        if told.changed().await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
