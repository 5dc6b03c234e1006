//! Numbers that differ from speaker to speaker: times (RFC 4271 10, RFC 5880 6.8.7) and discriminators.

use std::time::Duration;

/// A generator of numbers that need not be secret (xorshift64*).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed | 1)
    }

    pub(crate) fn number(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }

    /// Between three quarters of a time and all of it.
    pub(crate) fn jittered(&mut self, time: Duration) -> Duration {
        time - time / 4 * (self.number() >> 16) / (1 << 16)
    }
}
