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
mod frames;
mod inject;
mod small_disk;
mod test_ns;

use std::time::{Duration, Instant};

pub use dump::MachineDump;
pub use frames::send_frames;
pub use inject::failing;
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;
    use crate::{Netlink, Netns};

    #[test]
    fn two_joined_namespaces_reach_each_other() {
        let mut test = TestNs::new();
        let (here, pod) = (test.ns().clone(), test.extra("pod"));
        assert_eq!(pod.id().unwrap(), test.extra("pod").id().unwrap());
        test.join((&here, "a", "10.0.0.1/24"), (&pod, "b", "10.0.0.2/24"));
        test.join((&here, "a6", "fd00::1/64"), (&pod, "b6", "fd00::2/64"));
        for target in ["10.0.0.2", "fd00::2"] {
            let ping = Command::new("ping").args(["-c1", "-W5", target]).output().unwrap();
            assert!(ping.status.success(), "{}", String::from_utf8_lossy(&ping.stdout));
        }
    }

    #[test]
    fn a_panicking_test_leaves_no_link_behind() {
        let outside = Netns::current().unwrap();
        let panicked = std::panic::catch_unwind(|| {
            let mut test = TestNs::new();
            let (here, pod) = (test.ns().clone(), test.extra("pod"));
            test.join((&here, "left0", "10.0.0.1/24"), (&pod, "left1", "10.0.0.2/24"));
            panic!("on purpose");
        });
        assert!(panicked.is_err());
        assert_eq!(Netns::current().unwrap().id().unwrap(), outside.id().unwrap());
        assert!(Netlink::open().unwrap().link("left0").unwrap().is_none());
    }

    #[test]
    fn a_full_disk_is_full_and_can_be_emptied() {
        let disk = SmallDisk::new(64 * 1024);
        let filler = disk.fill();
        let error = fs::write(disk.path().join("more"), [0; 4096]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
        fs::remove_file(filler).unwrap();
        fs::write(disk.path().join("more"), [0; 4096]).unwrap();
        let place = disk.path().to_path_buf();
        let mounts_of_process_1 = fs::read_to_string("/proc/1/mountinfo").unwrap();
        assert!(!mounts_of_process_1.contains(place.to_str().unwrap()));
        drop(disk);
        assert!(!place.exists());
    }

    #[test]
    #[should_panic(expected = "not within 10ms: pigs fly")]
    fn what_does_not_come_fails_with_its_name() {
        eventually(Duration::from_millis(10), "pigs fly", || false);
    }
}
