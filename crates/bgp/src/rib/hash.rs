//! A fast hash for prefixes and attributes, keyed so that peers cannot choose what collides.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Makes hashers of one key.
#[derive(Clone, Debug)]
pub(super) struct Keyed {
    start: u64,
    key: u64,
}

impl Keyed {
    pub(super) fn new() -> Keyed {
        let random = RandomState::new();
        Keyed { start: random.hash_one(0), key: random.hash_one(1) | 1 }
    }
}

impl BuildHasher for Keyed {
    type Hasher = Folding;

    fn build_hasher(&self) -> Folding {
        Folding { state: self.start, key: self.key }
    }
}

/// Multiplies and folds (both halves of the product) word by word.
pub(super) struct Folding {
    state: u64,
    key: u64,
}

impl Hasher for Folding {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.write_u64(u64::from_ne_bytes(*word)));
        if !rest.is_empty() {
            let mut word = [0; 8];
            word.iter_mut().zip(rest).for_each(|(to, byte)| *to = *byte);
            self.write_u64(u64::from_ne_bytes(word));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(value.into());
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(value.into());
    }

    fn write_u64(&mut self, value: u64) {
        let product = u128::from(self.state ^ value) * u128::from(self.key);
        self.state = (product as u64 ^ (product >> 64) as u64).wrapping_add(self.key.rotate_left(32));
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }

    fn finish(&self) -> u64 {
        // The highest bits choose within a bucket, the lowest the bucket.
        self.state ^ self.state >> 32
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn neighbours_spread() {
        let keyed = Keyed::new();
        let of = |i: u32| keyed.hash_one(ipnet::Ipv4Net::new_assert((i << 8).into(), 24));
        let all: Vec<u64> = (0..65_536).map(of).collect();
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
        // As many different low ends as balls thrown at random would find, and high ends too.
        let low: HashSet<u64> = all.iter().map(|hash| hash & 0xffff).collect();
        let high: HashSet<u64> = all.iter().map(|hash| hash >> 57).collect();
        assert!(low.len() > 35_000, "{}", low.len());
        assert_eq!(high.len(), 128);
        assert_ne!(Keyed::new().hash_one(1), keyed.hash_one(1));
    }
}
