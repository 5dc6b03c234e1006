//! One kind's list and watch as a state machine: what the API sends comes in, changed keys and
//! the next request go out. No I/O and no clock.
//!
//! Order of calls: [`Reflector::request`] says what to ask; its answer goes to
//! [`Reflector::handle_page`], or for a watch each event to [`Reflector::handle_event`] and its
//! end to [`Reflector::handle_end`]; any failure goes to [`Reflector::handle_error`]. The last
//! two say how long to wait before the next request.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use imbl::OrdMap;
use serde_json::value::RawValue;

use crate::decode::{self, Kind, Meta};
use crate::{Error, Event, EventKind, Page};

/// The longest wait between two attempts, unless the API asks for more.
pub(crate) const BACKOFF_CAP: Duration = Duration::from_secs(30);
const BACKOFF_BASE: Duration = Duration::from_millis(200);
/// The longest wait that the API may ask for.
const RETRY_AFTER_CAP: Duration = Duration::from_secs(300);
/// A watch that ends sooner than this and brought nothing counts as a failure.
const SHORT_WATCH: Duration = Duration::from_secs(1);
/// Deleted objects remembered so that a late event does not bring them back.
const TOMBSTONES: usize = 4096;

/// What to ask the API next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// A page of the list; all in one page when `whole`.
    Page { token: Option<String>, whole: bool },
    /// Events after this version.
    Watch { version: String },
}

/// Where one kind's list and watch stands.
pub(crate) struct Reflector<K: Kind> {
    objects: OrdMap<K::Key, Arc<K>>,
    /// The newest version seen of each object, deleted ones included.
    versions: HashMap<K::Key, u64>,
    tombstones: VecDeque<K::Key>,
    phase: Phase<K>,
    failures: u32,
    synced: bool,
}

enum Phase<K: Kind> {
    Listing(Listing<K>),
    Watching { version: String },
}

/// Pages of a list, aside until the last has come.
struct Listing<K: Kind> {
    objects: OrdMap<K::Key, Arc<K>>,
    versions: HashMap<K::Key, u64>,
    /// Of the first page: all pages must be of one version.
    version: Option<String>,
    token: Option<String>,
    whole: bool,
}

impl<K: Kind> Listing<K> {
    fn new(whole: bool) -> Self {
        Listing { objects: OrdMap::new(), versions: HashMap::new(), version: None, token: None, whole }
    }
}

impl<K: Kind> Reflector<K> {
    /// Starts with `objects` as the last known state.
    pub(crate) fn new(objects: OrdMap<K::Key, Arc<K>>) -> Self {
        Reflector {
            objects,
            versions: HashMap::new(),
            tombstones: VecDeque::new(),
            phase: Phase::Listing(Listing::new(false)),
            failures: 0,
            synced: false,
        }
    }

    /// The objects: the last whole list and the events since.
    pub(crate) fn objects(&self) -> &OrdMap<K::Key, Arc<K>> {
        &self.objects
    }

    /// Whether a whole list has come since the start.
    pub(crate) fn synced(&self) -> bool {
        self.synced
    }

    /// Failures since the API last answered well.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// What to ask next.
    pub(crate) fn request(&self) -> Ask {
        match &self.phase {
            Phase::Listing(listing) => Ask::Page { token: listing.token.clone(), whole: listing.whole },
            Phase::Watching { version } => Ask::Watch { version: version.clone() },
        }
    }

    /// Takes a page. Nothing changes before the last one; then the keys that differ are returned.
    pub(crate) fn handle_page(&mut self, page: Page) -> BTreeSet<K::Key> {
        let Phase::Listing(listing) = &mut self.phase else { return BTreeSet::new() };
        let version = listing.version.get_or_insert_with(|| page.resource_version.clone()).clone();
        if version != page.resource_version && !listing.whole {
            tracing::warn!("the list of {}s changed between two pages: listing in one page", K::NAME);
            self.phase = Phase::Listing(Listing::new(true));
            return BTreeSet::new();
        }
        for item in &page.items {
            listing.take(item, &self.objects);
        }
        listing.token = page.token;
        if listing.token.is_some() {
            return BTreeSet::new();
        }
        let done = std::mem::replace(&mut self.phase, Phase::Watching { version });
        let Phase::Listing(listing) = done else { return BTreeSet::new() };
        (self.failures, self.synced) = (0, true);
        self.versions = listing.versions;
        self.tombstones.clear();
        let changed = difference(&self.objects, &listing.objects);
        // What did not change keeps its allocation, so that snapshots go on sharing it.
        for key in &changed {
            match listing.objects.get(key) {
                Some(object) => self.objects.insert(key.clone(), object.clone()),
                None => self.objects.remove(key),
            };
        }
        changed
    }

    /// The API has no such kind, which is as good as an empty list; returns the keys that it had.
    pub(crate) fn handle_absence(&mut self) -> BTreeSet<K::Key> {
        self.phase = Phase::Listing(Listing::new(false));
        (self.failures, self.synced) = (0, true);
        self.versions.clear();
        self.tombstones.clear();
        std::mem::take(&mut self.objects).keys().cloned().collect()
    }

    /// Takes one event of a watch and returns the key that it changed. `Err` says that the
    /// watch is over (an ERROR event) and how long to wait.
    pub(crate) fn handle_event(&mut self, event: &Event, jitter: f64) -> Result<Option<K::Key>, Duration> {
        if event.kind == EventKind::Error {
            let status = Error::refusal(K::PATH, 500, event.object.get().as_bytes(), None);
            tracing::info!("the watch of {}s failed, listing again: {status}", K::NAME);
            self.phase = Phase::Listing(Listing::new(false));
            return Err(self.back_off(None, jitter));
        }
        self.failures = 0;
        let json = event.object.get();
        let meta = match (decode::meta(json), event.kind) {
            (Ok(meta), _) => meta,
            // A bookmark has no name.
            (Err(_), EventKind::Bookmark) => {
                self.advance(decode::version(json));
                return Ok(None);
            }
            (Err(error), _) => {
                tracing::warn!("skipped an event of a {} without usable metadata: {error}", K::NAME);
                return Ok(None);
            }
        };
        self.advance(Some(meta.resource_version.to_string()));
        if event.kind == EventKind::Bookmark {
            return Ok(None);
        }
        let key = K::key(&meta);
        if !self.is_news(&key, &meta.resource_version, event.kind) {
            return Ok(None);
        }
        Ok(match event.kind {
            EventKind::Deleted => self.objects.remove(&key).map(|_| key),
            _ => self.put(key, &meta, json),
        })
    }

    /// The watch ended between two events after `lasted`; `quiet` when it brought none.
    pub(crate) fn handle_end(&mut self, lasted: Duration, quiet: bool, jitter: f64) -> Duration {
        if quiet && lasted < SHORT_WATCH {
            return self.back_off(None, jitter);
        }
        self.failures = 0;
        Duration::ZERO
    }

    /// A request failed or a watch was torn.
    pub(crate) fn handle_error(&mut self, error: &Error, jitter: f64) -> Duration {
        if error.expired() {
            // An expired token is answered by a list without pages, which cannot expire.
            let paging = matches!(&self.phase, Phase::Listing(listing) if listing.token.is_some());
            self.phase = Phase::Listing(Listing::new(paging));
        } else if matches!(self.phase, Phase::Watching { .. }) && self.only_a_list_helps(error) {
            self.phase = Phase::Listing(Listing::new(false));
        }
        self.back_off(error.api().and_then(|refusal| refusal.retry_after), jitter)
    }

    /// Whether the API refuses this version, and not only this moment or this token.
    fn only_a_list_helps(&self, error: &Error) -> bool {
        match error.code() {
            None | Some(401 | 403 | 408 | 429) => false,
            Some(400..=499) => true,
            // "Too large resource version", after a restore, is a 504 without end.
            Some(_) => self.failures >= 3,
        }
    }

    /// The wait before the next attempt: doubled with each failure, half of it random
    /// (`jitter` is in 0..1), and no less than the API asked for.
    fn back_off(&mut self, asked: Option<Duration>, jitter: f64) -> Duration {
        let doubled = BACKOFF_BASE.saturating_mul(1 << self.failures.min(16)).min(BACKOFF_CAP);
        self.failures = self.failures.saturating_add(1);
        let wait = doubled.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0));
        wait.max(asked.unwrap_or_default().min(RETRY_AFTER_CAP))
    }

    fn advance(&mut self, to: Option<String>) {
        if let (Phase::Watching { version }, Some(to)) = (&mut self.phase, to.filter(|v| !v.is_empty())) {
            // An event may be delivered late or twice: the watch must not start again from its version.
            let backwards =
                matches!((to.parse::<u64>(), version.parse::<u64>()), (Ok(to), Ok(at)) if to < at);
            if !backwards {
                *version = to;
            }
        }
    }

    /// Whether an event is newer than what is known of its object, and notes its version.
    fn is_news(&mut self, key: &K::Key, version: &str, kind: EventKind) -> bool {
        let Ok(version) = version.parse::<u64>() else { return true };
        match self.versions.get(key) {
            Some(known) if version < *known => return false,
            // A deletion may carry the version of the last change.
            Some(known) if version == *known && kind != EventKind::Deleted => return false,
            _ => {}
        }
        self.versions.insert(key.clone(), version);
        if kind == EventKind::Deleted {
            self.bury(key.clone());
        }
        true
    }

    fn bury(&mut self, key: K::Key) {
        self.tombstones.push_back(key);
        while self.tombstones.len() > TOMBSTONES {
            if let Some(oldest) = self.tombstones.pop_front()
                && !self.objects.contains_key(&oldest)
            {
                self.versions.remove(&oldest);
            }
        }
    }

    fn put(&mut self, key: K::Key, meta: &Meta, json: &str) -> Option<K::Key> {
        match K::decode(meta, json) {
            Ok(object) if self.objects.get(&key).is_some_and(|old| **old == object) => None,
            Ok(object) => {
                self.objects.insert(key.clone(), Arc::new(object));
                Some(key)
            }
            Err(error) => {
                tracing::warn!("skipped {} {key}, which makes no sense: {error}", K::NAME);
                None
            }
        }
    }
}

impl<K: Kind> Listing<K> {
    /// Adds an object; one that cannot be read stays as it was `before`.
    fn take(&mut self, item: &RawValue, before: &OrdMap<K::Key, Arc<K>>) {
        let meta = match decode::meta(item.get()) {
            Ok(meta) => meta,
            Err(error) => {
                tracing::warn!("skipped a {} without usable metadata: {error}", K::NAME);
                return;
            }
        };
        let key = K::key(&meta);
        if let Ok(version) = meta.resource_version.parse() {
            self.versions.insert(key.clone(), version);
        }
        match K::decode(&meta, item.get()) {
            Ok(object) => {
                self.objects.insert(key, Arc::new(object));
            }
            Err(error) => {
                tracing::warn!("skipped {} {key}, which makes no sense: {error}", K::NAME);
                if let Some(known) = before.get(&key) {
                    self.objects.insert(key, known.clone());
                }
            }
        }
    }
}

fn difference<Key: Clone + Ord, T: PartialEq>(
    old: &OrdMap<Key, Arc<T>>,
    new: &OrdMap<Key, Arc<T>>,
) -> BTreeSet<Key> {
    let gone = old.keys().filter(|key| !new.contains_key(*key));
    let come = new.iter().filter(|(key, value)| old.get(*key) != Some(*value)).map(|(key, _)| key);
    gone.chain(come).cloned().collect()
}

#[cfg(test)]
#[path = "reflector_tests.rs"]
mod tests;
