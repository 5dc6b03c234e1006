//! The process's own file descriptors.

use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Error, Result};

/// Marks every descriptor from `first` on so that no child inherits it, as those a shell or a
/// build tool leaked into this process.
pub fn close_on_exec_from(first: u32) -> Result<()> {
    // SAFETY: only sets a flag on open descriptors; CLOSE_RANGE_CLOEXEC (Linux 5.11) closes none.
    let done = unsafe { libc::close_range(first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as libc::c_int) };
    if done == 0 {
        return Ok(());
    }
    Err(Error::sys("mark for closing", format!("descriptors from {first}"), std::io::Error::last_os_error()))
}

/// The first descriptor of socket activation (`SD_LISTEN_FDS_START`).
const FIRST_PASSED: i32 = 3;

/// Takes the sockets this process was started with by systemd's protocol (`sd_listen_fds(3)`):
/// none unless `LISTEN_PID` is this process. The second call finds none.
pub fn passed() -> Vec<OwnedFd> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    let ours = number("LISTEN_PID") == Some(std::process::id());
    let count = number("LISTEN_FDS").filter(|count| ours && *count <= 64).unwrap_or(0);
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Vec::new();
    }
    let numbers = (FIRST_PASSED..).take(count as usize);
    // SAFETY: fcntl with F_GETFD reads a flag and fails on a number that is not open.
    let open = numbers.take_while(|fd| unsafe { libc::fcntl(*fd, libc::F_GETFD) } >= 0);
    // SAFETY: the protocol makes these ours, each is open, and TAKEN lets nobody take one twice.
    let passed: Vec<OwnedFd> = open.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect();
    for fd in &passed {
        // No child of ours is to hold the socket; a failure here would only leak it there.
        let _ = rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC);
    }
    passed
}
