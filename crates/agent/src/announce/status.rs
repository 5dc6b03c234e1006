//! What the agent says of announced addresses, in `announce.json`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use tokio::sync::watch;
use weft_announce::{Owner, Wanted, Why};

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
    /// Whether the API is away: where nodes do not agree who may have an address, those that reach it go before
    /// this one.
    pub api_away: bool,
    /// Others that claim what this node has, each in one sentence.
    pub conflicts: BTreeMap<IpAddr, Vec<String>>,
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
    #[serde(serialize_with = "in_words")]
    pub why: Option<Why>,
    /// The Services whose it is, as `namespace/name`.
    pub services: Vec<String>,
}

fn in_words<S: Serializer>(why: &Option<Why>, to: S) -> Result<S::Ok, S::Error> {
    why.as_ref().map(ToString::to_string).serialize(to)
}

impl AnnounceStatus {
    /// Takes in which addresses there are.
    pub(super) fn set_wanted(&mut self, wanted: &BTreeMap<IpAddr, Wanted>) {
        self.addresses.retain(|address, _| wanted.contains_key(address));
        for (address, one) in wanted {
            let place = self.addresses.entry(*address).or_default();
            place.services = one.services.iter().map(ToString::to_string).collect();
        }
    }

    /// Takes in who has what now.
    pub(super) fn place(&mut self, owner: impl Fn(IpAddr) -> Option<Owner>) {
        for (address, place) in &mut self.addresses {
            let (node, why) = match owner(*address) {
                Some(owner) => (Some(owner.node), Some(owner.why)),
                None => (None, None),
            };
            if place.owner != node {
                place.since = node.is_some().then(Timestamp::now);
                place.owner = node;
            }
            place.why = why;
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
