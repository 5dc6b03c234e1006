//! The cluster as the store tells it, for a reader that may be busy meanwhile.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;
use weft_model::{Changes, Cluster};
use weft_store::{Freshness, Update};

/// The newest view, and what changed since the last was taken.
#[derive(Default)]
pub struct Views {
    state: Mutex<State>,
    told: Notify,
}

#[derive(Default)]
struct State {
    cluster: Option<Cluster>,
    changes: Changes,
    /// Whether the API itself has told it in this run. What a disk's cache says may be long gone: a
    /// block that this node had is another's by now.
    live: bool,
    /// Whether it is what the API says now.
    current: bool,
    taken: bool,
}

impl Views {
    /// Takes in an update.
    pub fn tell(&self, update: &Update) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.current = update.freshness == Freshness::Fresh;
        state.live |= state.current;
        state.cluster = Some(update.cluster.clone());
        state.changes.merge(update.changes.clone());
        drop(state);
        self.told.notify_one();
    }

    /// Waits for an update. Cancel safe.
    pub(crate) async fn changed(&self) {
        self.told.notified().await;
    }

    /// Whether the view is what the API says now, and not what it said once.
    pub(crate) fn are_current(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).current
    }

    /// The view and what changed since the last call; none before the first, or where nothing changed.
    pub(crate) fn take(&self) -> Option<(Cluster, Changes)> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let cluster = state.cluster.clone().filter(|_| !state.taken || !state.changes.is_empty())?;
        state.taken = true;
        Some((cluster, std::mem::take(&mut state.changes)))
    }

    /// The same without what a disk's cache says; none before the API told it.
    pub(crate) fn take_live(&self) -> Option<(Cluster, Changes)> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let cluster = state.cluster.clone().filter(|_| state.live)?;
        Some((cluster, std::mem::take(&mut state.changes)))
    }
}
