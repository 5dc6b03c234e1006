use std::collections::BTreeMap;

/// How many need something, and what is new or gone since it was last asked.
#[derive(Clone, Debug)]
pub(crate) struct Counts<K> {
    counts: BTreeMap<K, usize>,
    /// What was touched, and whether it was needed before.
    touched: BTreeMap<K, bool>,
}

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Counts { counts: BTreeMap::new(), touched: BTreeMap::new() }
    }
}

impl<K: Ord + Clone> Counts<K> {
    /// One more needs it.
    pub(crate) fn add(&mut self, key: &K) {
        let needed = self.counts.contains_key(key);
        self.touched.entry(key.clone()).or_insert(needed);
        *self.counts.entry(key.clone()).or_default() += 1;
    }

    /// One less needs it.
    pub(crate) fn remove(&mut self, key: &K) {
        if let Some(count) = self.counts.get_mut(key) {
            self.touched.entry(key.clone()).or_insert(true);
            *count -= 1;
            if *count == 0 {
                self.counts.remove(key);
            }
        }
    }

    /// One more needs it, or one less.
    pub(crate) fn step(&mut self, key: &K, more: bool) {
        if more { self.add(key) } else { self.remove(key) }
    }

    /// Whether any needs it.
    pub(crate) fn is_needed(&self, key: &K) -> bool {
        self.counts.contains_key(key)
    }

    /// What is needed.
    pub(crate) fn needed(&self) -> impl Iterator<Item = &K> {
        self.counts.keys()
    }

    /// What is needed now and was not, and the other way round, since this was last called.
    pub(crate) fn settle(&mut self) -> (Vec<K>, Vec<K>) {
        let (mut new, mut gone) = (Vec::new(), Vec::new());
        for (key, before) in std::mem::take(&mut self.touched) {
            match (before, self.counts.contains_key(&key)) {
                (false, true) => new.push(key),
                (true, false) => gone.push(key),
                _ => {}
            }
        }
        (new, gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_and_goes_between_two_questions_is_neither() {
        let mut counts = Counts::default();
        counts.add(&1);
        counts.add(&1);
        counts.add(&2);
        counts.remove(&2);
        counts.remove(&3);
        assert_eq!(counts.settle(), (vec![1], vec![]));
        counts.remove(&1);
        assert_eq!(counts.settle(), (vec![], vec![]));
        counts.remove(&1);
        counts.add(&4);
        assert_eq!(counts.settle(), (vec![4], vec![1]));
    }
}
