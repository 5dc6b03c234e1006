//! What a write sees, and what it wants.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, RwLockReadGuard};

use serde_json::Value;

use super::claim::{self, Claim};
use super::object::Object;
use super::state::{Shared, State};
use crate::error::ApiError;

/// What a write wants to happen.
pub(crate) enum Change {
    /// The key has this object from now on.
    Put(String, Value),
    /// The key is gone; the object is its last state.
    Delete(String, Value),
    /// Nothing changes; the object is the answer.
    Nothing(Arc<Value>),
}

/// A write: looks at the newest state and says what should happen. Runs again when what it looked at
/// changed before its change was durable.
pub(crate) type Decide = Box<dyn FnMut(&View<'_>) -> Result<Change, ApiError> + Send>;

/// A write's answer: the object as it is then.
pub(crate) type Answer = Result<Arc<Value>, ApiError>;

/// Changes that are decided and not durable yet.
pub(super) type Pending = HashMap<Arc<str>, Option<Arc<Object>>>;

/// What a write looked at.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// Each key with its resourceVersion; 0 for none.
    pub(super) keys: BTreeMap<String, u64>,
    /// Prefixes that were listed.
    pub(super) prefixes: BTreeSet<String>,
    /// The resourceVersion of the state that was looked at.
    pub(super) rv: u64,
}

/// The newest state as a write sees it: what is committed, and what is before it in its batch.
pub(crate) struct View<'a> {
    state: RwLockReadGuard<'a, State>,
    pending: &'a Pending,
    reads: RefCell<Reads>,
}

impl<'a> View<'a> {
    pub(super) fn new(shared: &'a Shared, pending: &'a Pending) -> Self {
        let state = shared.read();
        let reads = RefCell::new(Reads { rv: state.rv, ..Reads::default() });
        Self { state, pending, reads }
    }

    /// What was looked at.
    pub(super) fn into_reads(self) -> Reads {
        self.reads.into_inner()
    }

    /// One object.
    pub(crate) fn get(&self, key: &str) -> Option<Arc<Value>> {
        let object = self.object(key);
        let rv = object.as_ref().map_or(0, |o| o.rv());
        self.reads.borrow_mut().keys.insert(key.to_owned(), rv);
        object.map(|o| o.parse())
    }

    /// All objects whose key starts with the prefix.
    pub(crate) fn list(&self, prefix: &str) -> Vec<Arc<Value>> {
        self.reads.borrow_mut().prefixes.insert(prefix.to_owned());
        let committed = self.state.range(prefix).filter(|(key, _)| !self.pending.contains_key(*key));
        let mut all: Vec<_> = committed.map(|(_, object)| object.parse()).collect();
        let pending = self.pending.iter().filter(|(key, _)| key.starts_with(prefix));
        all.extend(pending.filter_map(|(_, object)| Some(object.as_ref()?.parse())));
        all
    }

    /// Whether anyone but the object under `own` has an address or a port. Counts as a look at all Services.
    pub(crate) fn claimed(&self, claim: Claim, own: Option<&str>) -> bool {
        self.reads.borrow_mut().prefixes.insert(claim::SERVICES.to_owned());
        let other = |key: &str| Some(key) != own;
        let mut committed = self.state.holders(claim).filter(|key| !self.pending.contains_key(*key));
        let mut pending = self.pending.iter().filter_map(|(key, object)| Some((key, object.as_ref()?)));
        committed.any(|key| other(key))
            || pending.any(|(key, object)| other(key) && object.claims().contains(&claim))
    }

    /// One object as it is stored; the look is not noted.
    pub(super) fn object(&self, key: &str) -> Option<Arc<Object>> {
        match self.pending.get(key) {
            Some(pending) => pending.clone(),
            None => self.state.get(key).cloned(),
        }
    }
}
