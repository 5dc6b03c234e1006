//! DHCP clients without I/O and without a clock: bytes, events and times go in, bytes, events
//! and times come out.
//!
//! [`v4::Client`] is the client of RFC 2131, [`v6::Client`] the one of RFC 8415 for one address
//! (IA_NA). Both are driven alike, by whoever has the sockets and the clock:
//!
//! 1. `start` (or `resume` with a lease that was on disk) once;
//! 2. whenever something comes in, `handle_message`; for IPv4 `handle_conflict` too, when somebody
//!    answers for the address; whenever the time of `poll_timeout` has come, `handle_timeout`;
//! 3. after each of these, `poll_transmit` until it has nothing more to send, then `poll_event`
//!    until nothing more has happened;
//! 4. `release` at the end, and once more 3.
//!
//! Times are durations since a moment that the driver chooses; they only go forward. Random
//! numbers come from a seed. The codecs ([`v4::Message`], [`v6::Message`]) take any bytes: what is
//! decoded is never larger than what came.

mod name;
mod random;
mod settings;
pub mod v4;
pub mod v6;
pub mod wire;

pub use settings::{Settings, StaticRoute};

/// FNV-1a of 128 bits: names things, guards nothing.
pub fn hash128(bytes: &[u8]) -> u128 {
    const START: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    bytes.iter().fold(START, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME))
}
