//! The difference between what should be and what is. Pure: it touches no kernel.

use std::collections::{BTreeMap, BTreeSet};

/// Tracks desired and actual values by key and which keys differ. Each change costs
/// O(log n); reading what is pending costs only what is pending.
#[derive(Clone, Debug)]
pub struct Delta<K, V> {
    desired: BTreeMap<K, V>,
    actual: BTreeMap<K, V>,
    /// Desired, and absent or different in `actual`.
    updates: BTreeSet<K>,
    /// In `actual`, and not desired.
    deletions: BTreeSet<K>,
}

impl<K: Ord + Clone, V: Eq + Clone> Default for Delta<K, V> {
    fn default() -> Self {
        Delta::new()
    }
}

impl<K: Ord + Clone, V: Eq + Clone> Delta<K, V> {
    /// Nothing desired, nothing there.
    pub fn new() -> Self {
        Delta {
            desired: BTreeMap::new(),
            actual: BTreeMap::new(),
            updates: BTreeSet::new(),
            deletions: BTreeSet::new(),
        }
    }

    /// `key` should be `value`.
    pub fn set_desired(&mut self, key: K, value: V) {
        self.desired.insert(key.clone(), value);
        self.settle(key);
    }

    /// `key` should not be.
    pub fn remove_desired(&mut self, key: &K) {
        self.desired.remove(key);
        self.settle(key.clone());
    }

    /// Exactly these should be.
    pub fn replace_desired(&mut self, all: impl IntoIterator<Item = (K, V)>) {
        let all: BTreeMap<K, V> = all.into_iter().collect();
        let gone: Vec<K> = self.desired.keys().filter(|k| !all.contains_key(k)).cloned().collect();
        gone.iter().for_each(|key| self.remove_desired(key));
        all.into_iter().for_each(|(key, value)| self.set_desired(key, value));
    }

    /// `key` was seen to be `value`, or was just made so.
    pub fn observe(&mut self, key: K, value: V) {
        self.actual.insert(key.clone(), value);
        self.settle(key);
    }

    /// `key` was seen to be gone, or was just removed.
    pub fn unobserve(&mut self, key: &K) {
        self.actual.remove(key);
        self.settle(key.clone());
    }

    /// The whole of what is, read anew.
    pub fn replace_actual(&mut self, all: impl IntoIterator<Item = (K, V)>) {
        let all: BTreeMap<K, V> = all.into_iter().collect();
        let gone: Vec<K> = self.actual.keys().filter(|k| !all.contains_key(k)).cloned().collect();
        gone.iter().for_each(|key| self.unobserve(key));
        all.into_iter().for_each(|(key, value)| self.observe(key, value));
    }

    /// What must be added or changed, in key order.
    pub fn pending_updates(&self) -> impl Iterator<Item = (&K, &V)> {
        self.updates.iter().filter_map(|key| self.desired.get_key_value(key))
    }

    /// What must be removed, with its actual value, in key order.
    pub fn pending_deletions(&self) -> impl Iterator<Item = (&K, &V)> {
        self.deletions.iter().filter_map(|key| self.actual.get_key_value(key))
    }

    /// Whether what is equals what should be.
    pub fn in_sync(&self) -> bool {
        self.updates.is_empty() && self.deletions.is_empty()
    }

    /// What should be.
    pub fn desired(&self) -> &BTreeMap<K, V> {
        &self.desired
    }

    /// What is, as far as observed.
    pub fn actual(&self) -> &BTreeMap<K, V> {
        &self.actual
    }

    fn settle(&mut self, key: K) {
        let (desired, actual) = (self.desired.get(&key), self.actual.get(&key));
        let (update, deletion) =
            (desired.is_some() && desired != actual, desired.is_none() && actual.is_some());
        mark(&mut self.updates, &key, update);
        mark(&mut self.deletions, &key, deletion);
    }
}

fn mark<K: Ord + Clone>(set: &mut BTreeSet<K>, key: &K, member: bool) {
    if member {
        set.insert(key.clone());
    } else {
        set.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        SetDesired(u8, u8),
        RemoveDesired(u8),
        ReplaceDesired(BTreeMap<u8, u8>),
        Observe(u8, u8),
        Unobserve(u8),
        ReplaceActual(BTreeMap<u8, u8>),
    }

    fn step() -> impl Strategy<Value = Step> {
        let (key, value) = (0..8u8, 0..3u8);
        let map = btree_map(0..8u8, 0..3u8, 0..8);
        prop_oneof![
            (key.clone(), value.clone()).prop_map(|(k, v)| Step::SetDesired(k, v)),
            key.clone().prop_map(Step::RemoveDesired),
            map.clone().prop_map(Step::ReplaceDesired),
            (key.clone(), value).prop_map(|(k, v)| Step::Observe(k, v)),
            key.prop_map(Step::Unobserve),
            map.prop_map(Step::ReplaceActual),
        ]
    }

    fn take(delta: &mut Delta<u8, u8>, step: Step) {
        match step {
            Step::SetDesired(k, v) => delta.set_desired(k, v),
            Step::RemoveDesired(k) => delta.remove_desired(&k),
            Step::ReplaceDesired(all) => delta.replace_desired(all),
            Step::Observe(k, v) => delta.observe(k, v),
            Step::Unobserve(k) => delta.unobserve(&k),
            Step::ReplaceActual(all) => delta.replace_actual(all),
        }
    }

    fn pending(delta: &Delta<u8, u8>) -> [BTreeMap<u8, u8>; 2] {
        let own = |(k, v): (&u8, &u8)| (*k, *v);
        [delta.pending_updates().map(own).collect(), delta.pending_deletions().map(own).collect()]
    }

    proptest! {
        #[test]
        fn pending_is_the_plain_difference_whatever_came_before(steps in vec(step(), 0..60)) {
            let mut delta = Delta::new();
            for next in steps {
                take(&mut delta, next);
                let (desired, actual) = (delta.desired().clone(), delta.actual().clone());
                let updates = desired.iter().filter(|(k, v)| actual.get(k) != Some(v)).map(|(k, v)| (*k, *v));
                let deletions = actual.iter().filter(|(k, _)| !desired.contains_key(k)).map(|(k, v)| (*k, *v));
                prop_assert_eq!(pending(&delta), [updates.collect(), deletions.collect()]);
                prop_assert_eq!(delta.in_sync(), desired == actual);
            }
        }

        #[test]
        fn doing_what_is_pending_ends_in_sync(steps in vec(step(), 0..60)) {
            let mut delta = Delta::new();
            steps.into_iter().for_each(|next| take(&mut delta, next));
            let [updates, deletions] = pending(&delta);
            deletions.keys().for_each(|key| delta.unobserve(key));
            updates.into_iter().for_each(|(key, value)| delta.observe(key, value));
            prop_assert!(delta.in_sync());
            prop_assert_eq!(delta.desired(), delta.actual());
        }
    }
}
