//! The process's own file descriptors.

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
