//! Follows etcd's changes into the state that readers see.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::watch;
use tonic::Status;

use super::client::Client;
use super::keys::{self, Keys, revision};
use super::load;
use super::messages::{DELETE, KeyValue, WatchEvent, WatchResponse};
use crate::storage::log::Event;
use crate::storage::state::Shared;

/// Between attempts while etcd is away.
const PAUSE: Duration = Duration::from_millis(200);

/// How far this server has seen, and what it adds to etcd's revisions.
#[derive(Clone)]
pub(super) struct Position {
    rv: Arc<watch::Sender<u64>>,
    base: Arc<AtomicU64>,
}

impl Position {
    pub(super) fn new(rv: u64, base: u64) -> Self {
        Self { rv: Arc::new(watch::Sender::new(rv)), base: Arc::new(AtomicU64::new(base)) }
    }

    pub(super) fn base(&self) -> u64 {
        self.base.load(Ordering::Relaxed)
    }

    /// The etcd revision that was seen last.
    pub(super) fn revision(&self) -> u64 {
        self.rv.borrow().saturating_sub(self.base())
    }

    /// Waits until a resourceVersion was seen; false when that takes too long.
    pub(super) async fn reach(&self, rv: u64, patience: Duration) -> bool {
        let mut seen = self.rv.subscribe();
        tokio::time::timeout(patience, seen.wait_for(|seen| *seen >= rv)).await.is_ok()
    }
}

/// Why following ended.
enum End {
    Away(Status),
    /// What was missed is not held by etcd any more, or it is another etcd: everything must be read.
    Lost(&'static str),
}

impl From<Status> for End {
    fn from(status: Status) -> Self {
        Self::Away(status)
    }
}

pub(super) struct Feed {
    pub(super) client: Arc<Client>,
    pub(super) keys: Keys,
    pub(super) shared: Arc<Shared>,
    pub(super) seen: Position,
    pub(super) cluster: u64,
}

impl Feed {
    pub(super) async fn run(mut self) {
        let mut told = false;
        loop {
            let end = match self.follow(&mut told).await {
                End::Away(status) => status.message().to_owned(),
                End::Lost(why) => {
                    tracing::warn!(why, "everything is read from etcd again");
                    match self.reload().await {
                        Ok(()) => continue,
                        Err(error) => error.to_string(),
                    }
                }
            };
            if !told {
                tracing::warn!(etcd = self.client.names(), why = end, "etcd is away");
                told = true;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn follow(&self, told: &mut bool) -> End {
        match self.events(told).await {
            Err(end) => end,
            Ok(()) => End::Away(Status::unavailable("the watch ended")),
        }
    }

    async fn events(&self, told: &mut bool) -> Result<(), End> {
        // Finds a server that answers, and whether it is the etcd that it was.
        let tip = self.client.range(Keys::one(self.keys.tip())).await?;
        let header = tip.header.unwrap_or_default();
        if header.cluster_id != self.cluster || revision(header.revision) < self.seen.revision() {
            return Err(End::Lost("it is another etcd, or one that was set back"));
        }
        let start = self.seen.revision() + 1;
        let mut stream = Box::pin(self.client.watch(load::from(&self.keys, start, false)).await?);
        if std::mem::take(told) {
            tracing::info!(etcd = self.client.names(), "etcd is back");
        }
        let mut events = Vec::new();
        while let Some(answer) = stream.next().await {
            self.take(answer?, &mut events)?;
        }
        Ok(())
    }

    fn take(&self, answer: WatchResponse, events: &mut Vec<WatchEvent>) -> Result<(), End> {
        if answer.compact_revision > 0 {
            return Err(End::Lost("etcd has forgotten what was missed"));
        }
        if answer.canceled {
            return Err(End::Away(Status::unavailable(answer.cancel_reason)));
        }
        events.extend(answer.events);
        // The rest of a transaction may be in the next part.
        let last = if answer.fragment { events.last().map(at) } else { None };
        let whole = events.iter().position(|event| Some(at(event)) == last).unwrap_or(events.len());
        let whole: Vec<WatchEvent> = events.drain(..whole).collect();
        if whole.iter().any(|event| event.kv.as_ref().is_some_and(|kv| kv.key == self.keys.base())) {
            return Err(End::Lost("a backup was restored"));
        }
        self.publish(&whole);
        Ok(())
    }

    fn publish(&self, changes: &[WatchEvent]) {
        let Some(last) = changes.last() else { return };
        let base = self.seen.base();
        let mut events: Vec<Arc<Event>> = Vec::new();
        for change in changes {
            let Some(kv) = &change.kv else { continue };
            let Some(key) = self.keys.object_key(&kv.key) else { continue };
            match self.event(key, kv, change.kind == DELETE, &events) {
                Ok(event) => events.extend(event.map(Arc::new)),
                Err(why) => tracing::error!(why, "a change in etcd is left out"),
            }
        }
        let rv = at(last) + base;
        self.shared.write().publish(events, rv);
        self.seen.rv.send_replace(rv);
    }

    fn event(
        &self,
        key: &str,
        kv: &KeyValue,
        deleted: bool,
        before: &[Arc<Event>],
    ) -> Result<Option<Event>, String> {
        let base = self.seen.base();
        let previous = match before.iter().rev().find(|event| &*event.key == key) {
            Some(event) => event.left(),
            None => self.shared.read().get(key).cloned(),
        };
        let object = if deleted { None } else { Some(Arc::new(keys::object(key, kv, base)?)) };
        Ok(Event::new(key.into(), revision(kv.mod_revision) + base, previous, object))
    }

    async fn reload(&mut self) -> Result<(), load::LoadError> {
        let snapshot = load::load(&self.client, &self.keys).await?;
        self.cluster = snapshot.cluster;
        let rv = snapshot.loaded.rv;
        // Those who watch cannot know what they missed.
        let loaded = crate::storage::state::Loaded { events: Vec::new(), floor: rv, ..snapshot.loaded };
        {
            let mut state = self.shared.write();
            state.replace(loaded);
            state.era += 1;
        }
        self.seen.base.store(snapshot.base, Ordering::Relaxed);
        self.seen.rv.send_replace(rv);
        Ok(())
    }
}

fn at(event: &WatchEvent) -> u64 {
    event.kv.as_ref().map_or(0, |kv| revision(kv.mod_revision))
}
