//! The harness of tests that need network namespaces of their own.
//!
//! Everything it makes is gone when its values are dropped, after a panic too. It needs root and
//! says so: no test is skipped silently.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{Netlink, Netns};

/// Stops the test with a clear message unless it runs as root.
pub fn require_root() {
    todo!()
}

/// A fresh network namespace that the calling test thread is in until this is dropped. Child
/// processes started from the thread are in it too.
#[derive(Debug)]
pub struct TestNs {}

impl TestNs {
    /// Moves the calling thread into a fresh namespace whose loopback is up.
    #[expect(clippy::new_without_default, reason = "it moves the thread, which a default should not")]
    pub fn new() -> TestNs {
        todo!()
    }

    /// The namespace the thread is in.
    pub fn ns(&self) -> &Netns {
        todo!()
    }

    /// A routing socket in it.
    pub fn netlink(&self) -> Netlink {
        todo!()
    }

    /// One more namespace, unpinned, known by `name` from now on (the same one on a second
    /// call).
    pub fn extra(&mut self, _name: &str) -> Netns {
        todo!()
    }

    /// Joins two namespaces by a veth pair that is up, with these addresses (`10.0.0.1/24`) on
    /// its ends.
    pub fn join(&mut self, _a: (&Netns, &str, &str), _b: (&Netns, &str, &str)) {
        todo!()
    }
}

/// Waits until `condition` holds; after `deadline` the test fails with `what`.
pub fn eventually(_deadline: Duration, _what: &str, _condition: impl FnMut() -> bool) {
    todo!()
}

/// The network state of one namespace as text: links, addresses, routes of all tables, rules,
/// neighbours that do not expire, nftables and network sysctls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineDump {}

impl MachineDump {
    /// Reads the calling thread's namespace with `ip`, `bridge` and `nft`.
    pub fn take() -> MachineDump {
        todo!()
    }

    /// Fails the test, showing the lines that differ, unless the namespace is as it was.
    pub fn assert_unchanged(&self) {
        todo!()
    }
}

/// A private mount namespace of the calling thread with a small memory file system in it, for
/// tests of a full disk.
#[derive(Debug)]
pub struct SmallDisk {}

impl SmallDisk {
    /// A file system of at most `bytes`.
    pub fn new(_bytes: u64) -> SmallDisk {
        todo!()
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        todo!()
    }

    /// Fills what is left of it; remove the file that this returns to make room again.
    pub fn fill(&self) -> PathBuf {
        todo!()
    }
}
