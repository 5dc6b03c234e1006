//! Attributes that many routes have in common, kept once.

use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::HashTable;

use super::hash::Keyed;
use crate::message::Attributes;

/// Fewer than so many are never looked through for what nobody has any more.
const FEW: usize = 1024;

/// All attributes that any route has.
#[derive(Debug)]
pub(super) struct Interner {
    blocks: HashTable<Arc<Attributes>>,
    hasher: Keyed,
    sweep_at: usize,
}

impl Interner {
    pub(super) fn new() -> Interner {
        Interner { blocks: HashTable::new(), hasher: Keyed::new(), sweep_at: FEW }
    }

    /// The one that is equal to this.
    pub(super) fn intern(&mut self, attributes: Attributes) -> Arc<Attributes> {
        let hash = self.hasher.hash_one(&attributes);
        if let Some(known) = self.blocks.find(hash, |known| **known == attributes) {
            return known.clone();
        }
        if self.blocks.len() >= self.sweep_at {
            self.blocks.retain(|block| Arc::strong_count(block) > 1);
            self.sweep_at = (self.blocks.len() * 2).max(FEW);
        }
        let new = Arc::new(attributes);
        let hasher = &self.hasher;
        self.blocks.insert_unique(hash, new.clone(), |block| hasher.hash_one(&**block));
        new
    }

    /// How many there are, those included that nobody has any more.
    pub(super) fn len(&self) -> usize {
        self.blocks.len()
    }
}
