//! Processes held by pidfd, so that a recycled process number is never signalled.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use crate::Result;

/// A process, whether child or not.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    fd: OwnedFd,
}

impl Process {
    /// The process `pid`, which must be running (or a zombie).
    pub fn open(_pid: i32) -> Result<Process> {
        todo!()
    }

    /// The process `pid` if it is the one that started at `start_time` ([`start_time`]); none if
    /// it has ended, or if the number belongs to another one now.
    pub fn open_started(_pid: i32, _start_time: u64) -> Result<Option<Process>> {
        todo!()
    }

    /// Its number.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Sends `signal` (`libc::SIGTERM`). A process that has ended is no error.
    pub fn signal(&self, _signal: i32) -> Result<()> {
        todo!()
    }

    /// Waits until it has ended, at most `timeout`; says whether it has. Zero asks only.
    pub fn wait_exit(&self, _timeout: Duration) -> Result<bool> {
        todo!()
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// When process `pid` started, in clock ticks since boot (`/proc/PID/stat`, field 22); with the
/// number it names one process for as long as the machine runs.
pub fn start_time(_pid: i32) -> Result<u64> {
    todo!()
}

/// The calling process gets `signal` when the thread that started it ends.
pub fn set_parent_death_signal(_signal: i32) -> Result<()> {
    todo!()
}

/// Orphaned descendants become children of the calling process.
pub fn become_subreaper() -> Result<()> {
    todo!()
}
