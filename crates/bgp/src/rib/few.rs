//! A list that mostly has one element, and then takes no memory besides.

/// The list.
#[derive(Clone, Debug)]
pub(super) enum Few<T> {
    One(T),
    Others(Box<[T]>),
}

impl<T> Default for Few<T> {
    fn default() -> Few<T> {
        Few::Others(Box::default())
    }
}

impl<T> Few<T> {
    pub(super) fn as_slice(&self) -> &[T] {
        match self {
            Few::One(one) => std::slice::from_ref(one),
            Few::Others(others) => others,
        }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [T] {
        match self {
            Few::One(one) => std::slice::from_mut(one),
            Few::Others(others) => others,
        }
    }

    pub(super) fn push(&mut self, more: T) {
        *self = match std::mem::take(self) {
            Few::One(one) => Few::Others([one, more].into()),
            Few::Others(others) if others.is_empty() => Few::One(more),
            Few::Others(others) => Few::Others(others.into_iter().chain([more]).collect()),
        };
    }

    pub(super) fn retain(&mut self, which: impl FnMut(&T) -> bool) {
        let mut all = match std::mem::take(self) {
            Few::One(one) => vec![one],
            Few::Others(others) => others.into_vec(),
        };
        all.retain(which);
        *self = all.drain(..).collect();
    }
}

impl<T> FromIterator<T> for Few<T> {
    fn from_iter<I: IntoIterator<Item = T>>(all: I) -> Few<T> {
        let mut all = all.into_iter();
        match (all.next(), all.next()) {
            (None, _) => Few::default(),
            (Some(one), None) => Few::One(one),
            (Some(one), Some(two)) => Few::Others([one, two].into_iter().chain(all).collect()),
        }
    }
}
