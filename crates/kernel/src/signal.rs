//! The wish that this process ends, as something to wait for.

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::{Error, Result};

/// SIGTERM and SIGINT, which end the process no longer by themselves.
#[derive(Debug)]
pub struct Termination(SignalFd);

impl Termination {
    /// Takes them over. Threads started from now on leave them alone too.
    pub fn take_over() -> Result<Termination> {
        let failed = |e: nix::Error| Error::sys("take over", "SIGTERM and SIGINT", e);
        let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
        signals.thread_block().map_err(failed)?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        SignalFd::with_flags(&signals, flags).map(Termination).map_err(failed)
    }
}

impl AsFd for Termination {
    /// Readable once one of them has come.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
