//! What readers see: the objects of the last commit, and the recent events of each kind.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::watch;

use super::claim::{Claim, Claims};
use super::log::{Event, EventKind, Log};
use super::object::Object;

/// Objects by their keys.
pub(crate) type Objects = BTreeMap<Arc<str>, Arc<Object>>;

/// What a backend holds when it is opened.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) objects: Objects,
    /// The newest resourceVersion.
    pub(crate) rv: u64,
    /// For each kind's prefix the resourceVersion up to which its events are not held.
    pub(crate) floors: BTreeMap<String, u64>,
    /// The same for kinds that are not in `floors`.
    pub(crate) floor: u64,
    /// The events that are held, in order.
    pub(crate) events: Vec<Arc<Event>>,
}

/// Objects and history as of one resourceVersion.
#[derive(Default)]
pub(crate) struct State {
    objects: Objects,
    /// The keys of the pods on each node.
    pods: HashMap<Box<str>, BTreeSet<Arc<str>>>,
    claims: Claims,
    pub(crate) rv: u64,
    logs: HashMap<String, Log>,
    /// The floor of kinds without a log.
    floor: u64,
    /// Counts how often everything was read anew without what happened in between.
    pub(super) era: u64,
}

/// Which objects of a kind, and as of when.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Slice<'a> {
    /// Start of their keys.
    pub(crate) scope: &'a str,
    /// Only keys after this one.
    pub(crate) after: &'a str,
    /// Only pods on this node.
    pub(crate) node: Option<&'a str>,
    /// As they were at this resourceVersion; None is now.
    pub(crate) at: Option<u64>,
    /// At most so many; 0 is all.
    pub(crate) limit: usize,
}

/// Objects with their keys, in order.
pub(crate) type Keyed = Vec<(Arc<str>, Arc<Object>)>;

impl State {
    /// Takes what a backend holds instead of what was believed; returns the events that have no room.
    pub(super) fn replace(&mut self, loaded: Loaded) -> Vec<Arc<Event>> {
        self.objects = loaded.objects;
        self.rv = loaded.rv;
        self.floor = loaded.floor;
        self.pods.clear();
        self.claims.clear();
        for (key, object) in &self.objects {
            index(&mut self.pods, key, object);
            self.claims.add(key, object.claims());
        }
        for (prefix, log) in &mut self.logs {
            log.forget(loaded.floors.get(prefix).copied().unwrap_or(loaded.floor));
        }
        for (prefix, floor) in loaded.floors {
            self.logs.entry(prefix).or_insert_with(|| Log::starting_at(floor));
        }
        let mut dropped = Vec::new();
        for event in loaded.events {
            self.log(kind_of(&event.key)).push(event, &mut dropped);
        }
        dropped
    }

    /// One object.
    pub(crate) fn get(&self, key: &str) -> Option<&Arc<Object>> {
        self.objects.get(key)
    }

    /// All objects.
    pub(crate) fn objects(&self) -> &Objects {
        &self.objects
    }

    /// The keys of those that have an address or a port.
    pub(super) fn holders(&self, claim: Claim) -> impl Iterator<Item = &Arc<str>> {
        self.claims.holders(claim)
    }

    /// All objects whose key starts with the prefix, in the order of their keys.
    pub(crate) fn range<'a>(
        &'a self,
        prefix: &'a str,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a Arc<Object>)> + 'a {
        self.beyond(prefix, "")
    }

    fn beyond<'a>(
        &'a self,
        prefix: &'a str,
        after: &'a str,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a Arc<Object>)> + 'a {
        let start = if after > prefix { Bound::Excluded(after) } else { Bound::Included(prefix) };
        self.objects
            .range::<str, _>((start, Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
    }

    /// The objects of a slice. The error is the oldest resourceVersion that can still be told.
    pub(crate) fn slice(&self, slice: &Slice<'_>) -> Result<Keyed, u64> {
        let limit = if slice.limit == 0 { usize::MAX } else { slice.limit };
        let clone = |(key, object): (&Arc<str>, &Arc<Object>)| (key.clone(), object.clone());
        match (slice.at.filter(|at| *at < self.rv), slice.node) {
            (Some(at), _) => self.past(slice, at, limit),
            (None, Some(node)) => {
                let keys = self.pods.get(node).into_iter().flatten();
                let keys = keys.filter(|key| key.starts_with(slice.scope) && &***key > slice.after);
                Ok(keys.filter_map(|key| self.objects.get_key_value(key)).take(limit).map(clone).collect())
            }
            (None, None) => Ok(self.beyond(slice.scope, slice.after).take(limit).map(clone).collect()),
        }
    }

    /// How many objects a slice has.
    pub(crate) fn count(&self, slice: &Slice<'_>) -> usize {
        match (slice.at.filter(|at| *at < self.rv), slice.node) {
            (None, None) => self.beyond(slice.scope, slice.after).count(),
            _ => self.slice(slice).map_or(0, |found| found.len()),
        }
    }

    fn past(&self, slice: &Slice<'_>, at: u64, limit: usize) -> Result<Keyed, u64> {
        let changed = match self.logs.get(kind_of(slice.scope)) {
            Some(log) => log.rewind(at)?,
            None if at < self.floor => return Err(self.floor),
            None => BTreeMap::new(),
        };
        let same = self.beyond(slice.scope, slice.after).filter(|(key, _)| !changed.contains_key(key));
        let former = changed.iter().filter_map(|(key, object)| Some((*key, (*object)?)));
        let former = former.filter(|(key, _)| key.starts_with(slice.scope) && &***key > slice.after);
        let on_node = |object: &Object| slice.node.is_none_or(|node| object.node() == Some(node));
        let mut all: Vec<_> = same.chain(former).filter(|(_, object)| on_node(object)).collect();
        all.sort_by_key(|(key, _)| *key);
        Ok(all.into_iter().take(limit).map(|(key, object)| (key.clone(), object.clone())).collect())
    }

    /// Makes the events of one commit visible, in order; returns those that are held no more.
    pub(super) fn publish(&mut self, events: Vec<Arc<Event>>, rv: u64) -> Vec<Arc<Event>> {
        self.rv = rv;
        let mut dropped = Vec::new();
        for event in events {
            if let Some(previous) = &event.previous {
                previous.node().into_iter().for_each(|node| unindex(&mut self.pods, node, &event.key));
                self.claims.remove(&event.key, previous.claims());
            }
            match event.kind {
                EventKind::Deleted => drop(self.objects.remove(&event.key)),
                _ => {
                    index(&mut self.pods, &event.key, &event.object);
                    self.claims.add(&event.key, event.object.claims());
                    self.objects.insert(event.key.clone(), event.object.clone());
                }
            }
            self.log(kind_of(&event.key)).push(event, &mut dropped);
        }
        dropped
    }

    fn log(&mut self, prefix: &str) -> &mut Log {
        let floor = self.floor;
        self.logs.entry(prefix.to_owned()).or_insert_with(|| Log::starting_at(floor))
    }

    /// The resourceVersion of the last change of a kind, given any start of its keys.
    pub(crate) fn last_change(&self, prefix: &str) -> u64 {
        self.logs.get(kind_of(prefix)).map_or(self.floor, |log| *log.tip.borrow())
    }

    /// Events of a kind after a resourceVersion; see [`Log::after`].
    pub(super) fn events_after(
        &self,
        prefix: &str,
        after: u64,
        limit: usize,
    ) -> Result<(Vec<Arc<Event>>, bool), u64> {
        match self.logs.get(prefix) {
            Some(log) => log.after(after, limit),
            None if after < self.floor => Err(self.floor),
            None => Ok((Vec::new(), true)),
        }
    }
}

fn index(pods: &mut HashMap<Box<str>, BTreeSet<Arc<str>>>, key: &Arc<str>, object: &Object) {
    let Some(node) = object.node() else { return };
    match pods.get_mut(node) {
        Some(keys) => drop(keys.insert(key.clone())),
        None => drop(pods.insert(node.into(), BTreeSet::from([key.clone()]))),
    }
}

fn unindex(pods: &mut HashMap<Box<str>, BTreeSet<Arc<str>>>, node: &str, key: &str) {
    if let Some(keys) = pods.get_mut(node) {
        keys.remove(key);
        if keys.is_empty() {
            pods.remove(node);
        }
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
