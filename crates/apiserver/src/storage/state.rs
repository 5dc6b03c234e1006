//! What readers see: the objects of the last commit, and the recent events of each kind.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::watch;

use super::database::Loaded;

/// Events kept for each kind; a watcher that is further behind must list again.
const HISTORY: usize = 8192;

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// It is new.
    Added,
    /// It was there and differs now.
    Modified,
    /// It is gone.
    Deleted,
}

/// One change of one object.
#[derive(Debug)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The object after the change; for `Deleted` its last state, with the deletion's resourceVersion.
    pub object: Arc<Value>,
    /// The object before the change, so that a selector can tell who enters and leaves it.
    pub previous: Option<Arc<Value>>,
    /// The resourceVersion of the change; unique, and grows.
    pub rv: u64,
    pub(crate) key: Arc<str>,
    pub(super) json: OnceLock<Bytes>,
}

impl Event {
    /// The object as JSON; written once for all who watch.
    pub(crate) fn json(&self) -> &Bytes {
        self.json.get_or_init(|| Bytes::from(self.object.to_string()))
    }
}

/// What a write wants to happen.
pub(crate) enum Change {
    /// The key has this object from now on.
    Put(String, Value),
    /// The key is gone; the object is its last state.
    Delete(String, Value),
    /// Nothing changes; the object is the answer.
    Nothing(Arc<Value>),
}

/// The recent events of one kind.
pub(crate) struct Log {
    events: VecDeque<Arc<Event>>,
    /// Events up to this resourceVersion are not held any more.
    floor: u64,
    tip: watch::Sender<u64>,
}

impl Log {
    fn starting_at(floor: u64) -> Self {
        Self { events: VecDeque::new(), floor, tip: watch::Sender::new(floor) }
    }
}

/// Objects and history as of one resourceVersion.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) objects: BTreeMap<Arc<str>, Arc<Value>>,
    pub(crate) rv: u64,
    logs: HashMap<String, Log>,
}

impl State {
    pub(crate) fn from_loaded(loaded: Loaded) -> Self {
        let logs = loaded.tips.into_iter().map(|(prefix, tip)| (prefix, Log::starting_at(tip))).collect();
        Self { objects: loaded.objects, rv: loaded.rv, logs }
    }

    /// All objects whose key starts with the prefix, in the order of their keys.
    pub(crate) fn range<'a>(
        &'a self,
        prefix: &'a str,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a Arc<Value>)> + 'a {
        self.objects
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
    }

    /// Makes the events of one commit visible, in order.
    pub(super) fn publish(&mut self, events: Vec<Arc<Event>>, rv: u64) {
        self.rv = rv;
        for event in events {
            match event.kind {
                EventKind::Deleted => drop(self.objects.remove(&event.key)),
                _ => drop(self.objects.insert(event.key.clone(), event.object.clone())),
            }
            let log = self.log(kind_of(&event.key));
            if log.events.len() == HISTORY
                && let Some(oldest) = log.events.pop_front()
            {
                log.floor = oldest.rv;
            }
            log.tip.send_replace(event.rv);
            log.events.push_back(event);
        }
    }

    /// Takes what the file holds instead of what was believed; watchers must list again.
    pub(super) fn replace(&mut self, loaded: Loaded) {
        self.objects = loaded.objects;
        self.rv = loaded.rv;
        for log in self.logs.values_mut() {
            log.events.clear();
            log.floor = loaded.rv;
            log.tip.send_replace(loaded.rv);
        }
    }

    fn log(&mut self, prefix: &str) -> &mut Log {
        self.logs.entry(prefix.to_owned()).or_insert_with(|| Log::starting_at(0))
    }

    /// Up to `limit` events of a kind after a resourceVersion, and whether these were all;
    /// the error is the oldest resourceVersion from which a watch may start.
    pub(super) fn events_after(
        &self,
        prefix: &str,
        after: u64,
        limit: usize,
    ) -> Result<(Vec<Arc<Event>>, bool), u64> {
        let Some(log) = self.logs.get(prefix) else { return Ok((Vec::new(), true)) };
        if after < log.floor {
            return Err(log.floor);
        }
        let start = log.events.partition_point(|e| e.rv <= after);
        let events: Vec<_> = log.events.iter().skip(start).take(limit).cloned().collect();
        let all = start + events.len() == log.events.len();
        Ok((events, all))
    }
}

/// The kind's prefix in an object's key: `group/plural/`.
pub(super) fn kind_of(key: &str) -> &str {
    let end = key.match_indices('/').nth(1).map_or(key.len(), |(at, _)| at + 1);
    &key[..end]
}

/// The state, shared by the writer and all readers.
#[derive(Default)]
pub(crate) struct Shared {
    state: RwLock<State>,
}

impl Shared {
    pub(super) fn new(state: State) -> Self {
        Self { state: RwLock::new(state) }
    }

    /// The state to read. Never held across an await.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells when something of a kind changes.
    pub(super) fn subscribe(&self, prefix: &str) -> watch::Receiver<u64> {
        self.write().log(prefix).tip.subscribe()
    }
}
