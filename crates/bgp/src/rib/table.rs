//! Prefixes and the paths to them. Each prefix has a number while it is there, by which others speak of it.

use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::HashTable;
use ipnet::IpNet;

use super::PeerId;
use super::few::Few;
use super::hash::Keyed;
use crate::message::Attributes;

/// Prefixes are kept in pieces of so many, so that growing moves none of them.
const PIECE: usize = 1024;

/// A route to a prefix.
#[derive(Clone, Debug)]
pub struct Path {
    /// Its attributes, as policy has left them.
    pub attributes: Arc<Attributes>,
    /// Who told it.
    pub peer: PeerId,
    /// The number that the peer gave it.
    pub received: u32,
    /// The number by which it is told to others (RFC 7911): unlike that of any other path to the prefix.
    pub number: u32,
    /// Its peer is gone, and may come again.
    pub stale: bool,
    /// Its peer sends its routes again, and has not come to this one.
    pub awaited: bool,
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) prefix: IpNet,
    /// It is among what changed.
    pub(super) dirty: bool,
    paths: Few<Path>,
}

impl Slot {
    pub(super) fn paths(&self) -> &[Path] {
        self.paths.as_slice()
    }

    pub(super) fn paths_mut(&mut self) -> &mut [Path] {
        self.paths.as_mut_slice()
    }

    /// Puts a path in the place of that of the same peer and number. Says whether there was none.
    pub(super) fn put(&mut self, peer: PeerId, received: u32, attributes: Arc<Attributes>) -> bool {
        let same = |path: &&mut Path| path.peer == peer && path.received == received;
        if let Some(path) = self.paths_mut().iter_mut().find(same) {
            *path = Path { attributes, stale: false, awaited: false, ..*path };
            return false;
        }
        let number = (1..).find(|number| self.paths().iter().all(|path| path.number != *number));
        let number = number.unwrap_or_default();
        let path = Path { attributes, peer, received, number, stale: false, awaited: false };
        self.paths.push(path);
        true
    }

    /// Takes paths away. Says how many.
    pub(super) fn remove(&mut self, which: impl Fn(&Path) -> bool) -> usize {
        let before = self.paths().len();
        if self.paths().iter().any(&which) {
            self.paths.retain(|path| !which(path));
        }
        before - self.paths().len()
    }
}

/// A prefix's number, and half of its hash: a growing table need not look at the prefixes.
#[derive(Clone, Copy, Debug)]
struct Number {
    number: u32,
    half: u32,
}

impl Number {
    fn hash(&self) -> u64 {
        spread(self.half)
    }
}

/// The table goes by the lowest and the highest bits of a hash.
fn spread(half: u32) -> u64 {
    u64::from(half) << 32 | u64::from(half)
}

/// All prefixes.
#[derive(Debug)]
pub(super) struct Table {
    pieces: Vec<Vec<Slot>>,
    numbers: HashTable<Number>,
    free: Vec<u32>,
    hasher: Keyed,
}

impl Table {
    pub(super) fn new() -> Table {
        Table { pieces: Vec::new(), numbers: HashTable::new(), free: Vec::new(), hasher: Keyed::new() }
    }

    /// How many prefixes there are.
    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    /// One more than the highest number that there ever was.
    pub(super) fn end(&self) -> u32 {
        let last = self.pieces.last().map_or(0, Vec::len);
        (self.pieces.len().saturating_sub(1) * PIECE + last) as u32
    }

    pub(super) fn slot(&self, number: u32) -> Option<&Slot> {
        self.pieces.get(number as usize / PIECE)?.get(number as usize % PIECE)
    }

    pub(super) fn slot_mut(&mut self, number: u32) -> Option<&mut Slot> {
        self.pieces.get_mut(number as usize / PIECE)?.get_mut(number as usize % PIECE)
    }

    pub(super) fn find(&self, prefix: &IpNet) -> Option<u32> {
        self.find_by(self.half(prefix), prefix)
    }

    fn half(&self, prefix: &IpNet) -> u32 {
        (self.hasher.hash_one(prefix) >> 32) as u32
    }

    fn find_by(&self, half: u32, prefix: &IpNet) -> Option<u32> {
        let is = |known: &Number| {
            known.half == half && self.slot(known.number).is_some_and(|slot| slot.prefix == *prefix)
        };
        self.numbers.find(spread(half), is).map(|known| known.number)
    }

    /// The prefix's number, and its slot; both are made where there are none.
    pub(super) fn entry(&mut self, prefix: IpNet) -> (u32, &mut Slot) {
        let half = self.half(&prefix);
        let number = self.find_by(half, &prefix).unwrap_or_else(|| self.insert(half, prefix));
        let (piece, at) = (number as usize / PIECE, number as usize % PIECE);
        (number, &mut self.pieces[piece][at])
    }

    fn insert(&mut self, half: u32, prefix: IpNet) -> u32 {
        let slot = Slot { prefix, dirty: false, paths: Few::default() };
        let number = match self.free.pop() {
            Some(number) => {
                self.pieces[number as usize / PIECE][number as usize % PIECE] = slot;
                number
            }
            None => {
                if self.pieces.last().is_none_or(|piece| piece.len() == PIECE) {
                    self.pieces.push(Vec::with_capacity(PIECE));
                }
                let number = self.end();
                if let Some(piece) = self.pieces.last_mut() {
                    piece.push(slot);
                }
                number
            }
        };
        self.numbers.insert_unique(spread(half), Number { number, half }, Number::hash);
        number
    }

    /// Gives back the number of a prefix without paths.
    pub(super) fn remove(&mut self, number: u32) {
        let Some(prefix) = self.slot(number).map(|slot| slot.prefix) else { return };
        let hash = spread(self.half(&prefix));
        if let Ok(entry) = self.numbers.find_entry(hash, |known| known.number == number) {
            entry.remove();
            self.free.push(number);
        }
    }

    /// All prefixes that have paths, by number.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Slot)> {
        let slots = self.pieces.iter().flatten().enumerate();
        slots.map(|(number, slot)| (number as u32, slot)).filter(|(_, slot)| !slot.paths().is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_small() {
        assert!(size_of::<Slot>() <= 48, "{}", size_of::<Slot>());
    }

    #[test]
    fn numbers_are_given_again() {
        let mut table = Table::new();
        let prefix = |i: u32| -> IpNet { format!("10.{}.{}.0/24", i / 256, i % 256).parse().unwrap() };
        for i in 0..3000 {
            assert_eq!(table.entry(prefix(i)).0, i);
        }
        assert_eq!((table.find(&prefix(2500)), table.end()), (Some(2500), 3000));
        table.remove(7);
        assert_eq!((table.find(&prefix(7)), table.len()), (None, 2999));
        assert_eq!(table.entry(prefix(5000)).0, 7);
        assert_eq!((table.find(&prefix(5000)), table.end()), (Some(7), 3000));
    }
}
