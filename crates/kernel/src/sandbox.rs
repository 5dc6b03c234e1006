//! A machine inside the machine: user, mount, network and process namespaces.

use std::os::fd::BorrowedFd;
use std::path::Path;

use crate::Result;

/// Moves the calling process into a mount, network and process-number namespace of its own, and
/// with `user` into a user namespace where it is root. Mounts made from then on are not seen
/// outside. The process must have one thread; its *children* are in the new process-number
/// namespace, the first of them as number 1.
pub fn unshare_lab(_user: bool) -> Result<()> {
    todo!()
}

/// Joins the namespaces [`unshare_lab`] made, those of the process behind `pidfd`. The process
/// must have one thread; its children are in the process-number namespace.
pub fn enter(_pidfd: BorrowedFd<'_>, _user: bool) -> Result<()> {
    todo!()
}

/// Mounts the `/proc` of the calling process's own process-number namespace over `/proc`.
pub fn mount_proc() -> Result<()> {
    todo!()
}

/// Mounts a `/sys` that shows the calling thread's network namespace over `/sys`.
pub fn mount_sysfs() -> Result<()> {
    todo!()
}

/// Shows directory or file `source` at `target` also.
pub fn bind_mount(_source: &Path, _target: &Path) -> Result<()> {
    todo!()
}

/// Mounts an empty memory file system of at most `bytes` at `target`.
pub fn mount_tmpfs(_target: &Path, _bytes: u64) -> Result<()> {
    todo!()
}

/// Moves the calling process into a host-name namespace of its own and names it.
pub fn set_hostname(_name: &str) -> Result<()> {
    todo!()
}
