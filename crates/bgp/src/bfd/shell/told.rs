//! What the owner is told, who may be slow: for each session no more than its last fall and what it is now.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use super::super::{Change, Key};

#[derive(Debug, Default)]
struct Pending {
    fell: Option<Change>,
    now: Option<Change>,
}

#[derive(Debug)]
pub(super) struct Told {
    pending: Mutex<BTreeMap<Key, Pending>>,
    ready: OwnedFd,
}

impl Told {
    pub(super) fn new(ready: OwnedFd) -> Told {
        Told { pending: Mutex::default(), ready }
    }

    pub(super) fn put(&self, key: Key, change: Change) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let of_key = pending.entry(key).or_default();
        match change {
            Change::Down(_) => *of_key = Pending { fell: Some(change), now: None },
            Change::Up | Change::AdminDown => of_key.now = Some(change),
        }
        // An eventfd only refuses when it is readable already.
        let _ = rustix::io::write(&self.ready, &1u64.to_ne_bytes());
    }

    pub(super) fn take(&self) -> Option<(Key, Change)> {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mut first) = pending.first_entry() else {
            let _ = rustix::io::read(&self.ready, &mut [0; 8]);
            return None;
        };
        let key = first.key().clone();
        let change = first.get_mut().fell.take().or_else(|| first.get_mut().now.take());
        if first.get().now.is_none() {
            first.remove();
        }
        change.map(|change| (key, change))
    }
}

impl AsFd for Told {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ready.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

    use super::*;
    use crate::bfd::Diagnostic;

    fn ready(told: &Told) -> bool {
        let now = Timespec::default();
        poll(&mut [PollFd::new(&told.ready, PollFlags::IN)], Some(&now)).unwrap() == 1
    }

    #[test]
    fn a_slow_owner_misses_no_fall() {
        let told = Told::new(eventfd(0, EventfdFlags::NONBLOCK).unwrap());
        let key = |peer: [u8; 4]| Key { peer: peer.into(), local: None, interface: None };
        let (one, two) = (key([10, 0, 0, 1]), key([10, 0, 0, 2]));
        let (expired, signalled) = (Change::Down(Diagnostic::Expired), Change::Down(Diagnostic::Signalled));
        for change in [Change::Up, expired, Change::Up, signalled, Change::Up] {
            told.put(one.clone(), change);
        }
        told.put(two.clone(), Change::Up);
        told.put(two.clone(), expired);
        assert!(ready(&told));
        let all: Vec<_> = std::iter::from_fn(|| told.take()).collect();
        assert_eq!(all, [(one.clone(), signalled), (one, Change::Up), (two, expired)]);
        assert!(!ready(&told));
    }
}
