//! When what must be looked at again although nothing changes.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::world::Key;

/// One time for each object.
#[derive(Default)]
pub(super) struct Alarms {
    at: BTreeMap<Key, Timestamp>,
}

impl Alarms {
    /// Looks at the object again at this time, and at no other that was set before.
    pub(super) fn set(&mut self, key: &Key, at: Timestamp) {
        self.at.insert(key.clone(), at);
    }

    /// The first time.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.at.values().min().copied()
    }

    /// Takes those whose time has come.
    pub(super) fn take(&mut self, now: Timestamp) -> Vec<Key> {
        let due: Vec<Key> =
            self.at.iter().filter(|(_, at)| **at <= now).map(|(key, _)| key.clone()).collect();
        self.at.retain(|_, at| *at > now);
        due
    }
}
