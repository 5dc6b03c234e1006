//! Times that differ from speaker to speaker (RFC 4271 10).

use std::time::Duration;

/// A generator of numbers that need not be secret (xorshift64*).
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(seed | 1)
    }

    /// Between three quarters of a time and all of it.
    pub(super) fn jittered(&mut self, time: Duration) -> Duration {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let part = (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 48) as u32;
        time - time / 4 * part / (1 << 16)
    }
}
