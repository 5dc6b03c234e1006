//! What all members of a group are sent, encoded once; each reads on at its own pace.

use std::collections::VecDeque;
use std::sync::Arc;

use super::PeerId;

/// So many bytes wait for the slowest member; who is farther behind is sent what is current instead.
const LONGEST: usize = 8 * 1024 * 1024;

/// UPDATEs for the members.
#[derive(Debug)]
struct Entry {
    bytes: Arc<[u8]>,
    to: To,
    /// So many members have not come to it.
    waited_for: usize,
}

/// Which members something is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum To {
    /// All but the one that it is from.
    AllBut(PeerId),
    /// One.
    Only(PeerId),
}

impl To {
    pub(super) fn is_for(self, peer: PeerId) -> bool {
        match self {
            To::AllBut(other) => peer != other,
            To::Only(only) => peer == only,
        }
    }
}

/// The log of a group. Places in it are counted from the beginning of time.
#[derive(Debug, Default)]
pub(super) struct Log {
    entries: VecDeque<Entry>,
    first: u64,
    bytes: usize,
}

impl Log {
    /// The place where the next entry will be.
    pub(super) fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// Appends what so many members are to read.
    pub(super) fn push(&mut self, bytes: Vec<u8>, to: To, readers: usize) {
        if readers > 0 {
            self.bytes += bytes.len();
            self.entries.push_back(Entry { bytes: bytes.into(), to, waited_for: readers });
        }
    }

    /// The next that is for this member at this place, which moves on.
    pub(super) fn read(&mut self, peer: PeerId, place: &mut u64) -> Option<Arc<[u8]>> {
        let mut found = None;
        while found.is_none()
            && let Some(entry) = self.entries.get_mut((*place - self.first) as usize)
        {
            *place += 1;
            entry.waited_for -= 1;
            found = entry.to.is_for(peer).then(|| entry.bytes.clone());
        }
        self.trim();
        found
    }

    /// A member at this place reads no more. What it has not read of what is for it.
    pub(super) fn leave(&mut self, peer: PeerId, mut place: u64) -> Vec<Arc<[u8]>> {
        let mut unread = Vec::new();
        while let Some(bytes) = self.read(peer, &mut place) {
            unread.push(bytes);
        }
        unread
    }

    /// The place up to which members must have read, or be sent what is current instead.
    pub(super) fn too_far_behind(&self) -> u64 {
        let mut surplus = self.bytes.saturating_sub(LONGEST);
        let mut place = self.first;
        for entry in &self.entries {
            if surplus == 0 {
                break;
            }
            surplus = surplus.saturating_sub(entry.bytes.len());
            place += 1;
        }
        place
    }

    fn trim(&mut self) {
        while let Some(front) = self.entries.pop_front_if(|entry| entry.waited_for == 0) {
            self.bytes -= front.bytes.len();
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reads_what_is_for_it_and_nothing_is_kept_longer() {
        let (a, b) = (PeerId(1), PeerId(2));
        let mut log = Log::default();
        let (mut at_a, mut at_b) = (log.end(), log.end());
        log.push(vec![1], To::AllBut(a), 2);
        log.push(vec![2], To::Only(a), 2);
        log.push(vec![3], To::AllBut(PeerId::OWN), 2);
        assert_eq!(log.read(a, &mut at_a).as_deref(), Some(&[2][..]));
        assert_eq!(log.read(b, &mut at_b).as_deref(), Some(&[1][..]));
        assert_eq!((log.first, log.bytes), (1, 2));
        assert_eq!(log.leave(b, at_b), [Arc::from([3])]);
        assert_eq!(log.read(a, &mut at_a).as_deref(), Some(&[3][..]));
        assert_eq!((log.read(a, &mut at_a), log.bytes, log.end()), (None, 0, 3));
        log.push(vec![4], To::AllBut(a), 0);
        assert_eq!(log.end(), 3, "nobody is there to read it");
    }

    #[test]
    fn who_is_far_behind_is_told_so() {
        let mut log = Log::default();
        for _ in 0..10 {
            log.push(vec![0; 1024 * 1024], To::AllBut(PeerId::OWN), 1);
        }
        assert_eq!(log.too_far_behind(), 2);
    }
}
