//! The recent events of one kind.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tokio::sync::watch;

use super::object::Object;

/// Events kept for each kind; a watcher that is further behind must list again.
const EVENTS: usize = 8192;
/// Bytes of former objects kept for each kind.
const BYTES: usize = 16 * 1024 * 1024;

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
    pub object: Arc<Object>,
    /// The object before the change, so that a selector can tell who enters and leaves it.
    pub previous: Option<Arc<Object>>,
    /// The resourceVersion of the change; it grows.
    pub rv: u64,
    pub(crate) key: Arc<str>,
}

impl Event {
    /// A change from one state of a key to another; None where there is none.
    pub(crate) fn new(
        key: Arc<str>,
        rv: u64,
        previous: Option<Arc<Object>>,
        object: Option<Arc<Object>>,
    ) -> Option<Self> {
        let (kind, object) = match (&previous, object) {
            (None, None) => return None,
            (None, Some(object)) => (EventKind::Added, object),
            (Some(_), Some(object)) => (EventKind::Modified, object),
            // Fails for no object that could be written with its former, not longer resourceVersion.
            (Some(last), None) => {
                (EventKind::Deleted, last.at(&key, rv).map_or_else(|_| last.clone(), Arc::new))
            }
        };
        Some(Self { kind, object, previous, rv, key })
    }

    /// What the key holds after the change.
    pub(crate) fn left(&self) -> Option<Arc<Object>> {
        (self.kind != EventKind::Deleted).then(|| self.object.clone())
    }

    fn cost(&self) -> usize {
        let object = if self.kind == EventKind::Deleted { self.object.json().len() } else { 0 };
        object + self.previous.as_ref().map_or(0, |o| o.json().len())
    }
}

/// A kind's events, bounded in number and bytes.
pub(crate) struct Log {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    /// Events up to this resourceVersion are not held any more.
    floor: u64,
    pub(super) tip: watch::Sender<u64>,
}

impl Log {
    pub(super) fn starting_at(floor: u64) -> Self {
        Self { events: VecDeque::new(), bytes: 0, floor, tip: watch::Sender::new(floor) }
    }

    /// Adds an event; moves those that have no room any more to `dropped`.
    pub(super) fn push(&mut self, event: Arc<Event>, dropped: &mut Vec<Arc<Event>>) {
        self.bytes += event.cost();
        self.tip.send_replace(event.rv);
        self.events.push_back(event);
        while self.events.len() > EVENTS || self.bytes > BYTES {
            let Some(oldest) = self.events.pop_front() else { return };
            self.bytes -= oldest.cost();
            self.floor = oldest.rv;
            dropped.push(oldest);
        }
    }

    /// Forgets all; watchers must list again.
    pub(super) fn forget(&mut self, rv: u64) {
        self.events.clear();
        self.bytes = 0;
        self.floor = rv;
        self.tip.send_replace(rv);
    }

    /// About `limit` events after a resourceVersion, and whether these were all;
    /// the error is the oldest resourceVersion from which a watch may start.
    pub(super) fn after(&self, after: u64, limit: usize) -> Result<(Vec<Arc<Event>>, bool), u64> {
        if after < self.floor {
            return Err(self.floor);
        }
        let start = self.events.partition_point(|e| e.rv <= after);
        let mut events: Vec<Arc<Event>> = self.events.iter().skip(start).take(limit).cloned().collect();
        // Those of one transaction stay together: a position cannot lie between them.
        let last = events.last().map(|e| e.rv);
        let rest = self.events.iter().skip(start + events.len()).take_while(|e| Some(e.rv) == last);
        events.extend(rest.cloned());
        let all = start + events.len() == self.events.len();
        Ok((events, all))
    }

    /// What the keys that changed since held at a resourceVersion; the error is as in [`Log::after`].
    pub(super) fn rewind(&self, to: u64) -> Result<BTreeMap<&Arc<str>, Option<&Arc<Object>>>, u64> {
        if to < self.floor {
            return Err(self.floor);
        }
        let newer = self.events.iter().rev().take_while(|e| e.rv > to);
        Ok(newer.map(|e| (&e.key, e.previous.as_ref())).collect())
    }
}
