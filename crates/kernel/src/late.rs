//! Closing a descriptor without waiting for what the kernel does at its last release.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const REGISTER_FILES: libc::c_uint = 2;

/// Closes `fd` in a worker of the kernel. The release of a netfilter socket waits until what was
/// deleted in its namespace is destroyed, for one or two RCU grace periods (10 to 20 ms), with
/// the lock held that the next transaction needs. An io_uring that holds the last reference is
/// torn down by the kernel's own worker, after a grace period. Where io_uring is forbidden or
/// missing, the caller waits.
pub(crate) fn close(fd: OwnedFd) {
    drop(ring_with(&fd));
    drop(fd);
}

fn ring_with(fd: &OwnedFd) -> Option<OwnedFd> {
    // struct io_uring_params: 120 bytes, zero for the defaults.
    let mut params = [0u32; 30];
    // SAFETY: `params` has the size of the structure that the kernel reads and writes, and lives
    // through the call; a negative result is no descriptor and is not wrapped.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, params.as_mut_ptr()) };
    let ring = i32::try_from(ring).ok().filter(|ring| *ring >= 0)?;
    // SAFETY: the call above just made it and nobody else has it.
    let ring = unsafe { OwnedFd::from_raw_fd(ring) };
    let files = [fd.as_raw_fd()];
    // SAFETY: `files` is an array of one descriptor, as the count says, and lives through the call.
    let done = unsafe {
        libc::syscall(libc::SYS_io_uring_register, ring.as_raw_fd(), REGISTER_FILES, files.as_ptr(), 1)
    };
    (done == 0).then_some(ring)
}
