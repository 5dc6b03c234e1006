//! Random numbers out of a seed: for jitter and transaction identifiers, not for secrets.

use std::time::Duration;

/// SplitMix64.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// `middle`, at most `spread` more or less.
    pub(crate) fn around(&mut self, middle: Duration, spread: Duration) -> Duration {
        let width = u64::try_from(spread.as_millis()).unwrap_or(u64::MAX / 4).saturating_mul(2);
        let offset = Duration::from_millis(self.next() % width.saturating_add(1));
        (middle + offset).saturating_sub(spread)
    }
}
