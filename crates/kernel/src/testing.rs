//! The harness of tests that need network namespaces of their own.
//!
//! Everything it makes is gone when its values are dropped, after a panic too. It needs root and
//! says so: no test is skipped silently. As its callers are tests, it panics where it fails.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a harness fails the test that uses it"
)]

mod dump;
mod small_disk;
mod test_ns;

use std::time::{Duration, Instant};

pub use dump::MachineDump;
pub use small_disk::SmallDisk;
pub use test_ns::TestNs;

/// Stops the test with a clear message unless it runs as root.
pub fn require_root() {
    let root = rustix::process::geteuid().is_root();
    assert!(root, "this test makes network namespaces and needs root: run it as root or in a user namespace");
}

/// Waits until `condition` holds; after `deadline` the test fails with `what`.
pub fn eventually(deadline: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + deadline;
    // Short at first, so that a test takes as long as what it waits for.
    let mut pause = Duration::from_millis(1);
    while !condition() {
        assert!(Instant::now() < end, "not within {deadline:?}: {what}");
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}
