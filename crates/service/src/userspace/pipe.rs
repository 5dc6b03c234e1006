//! Pipes that streams go through without being copied.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

use super::limits::Limits;
use super::shared::Shared;

/// What a pipe is asked to hold, in bytes.
pub(super) const CAPACITY: usize = 1 << 20;
/// Pipes a thread keeps for the next stream.
const KEPT: usize = 16;

/// A pipe and how many bytes are in it.
#[derive(Debug)]
pub(super) struct Pipe {
    pub read: OwnedFd,
    pub write: OwnedFd,
    pub inside: usize,
    shared: Arc<Shared>,
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.shared.held.pipes.give(1);
    }
}

/// A thread's empty pipes.
#[derive(Debug, Default)]
pub(super) struct Pipes {
    spare: Vec<Pipe>,
}

impl Pipes {
    /// An empty pipe; `None` when there are as many as there may be.
    pub(super) fn take(&mut self, shared: &Arc<Shared>, limits: &Limits) -> Option<Pipe> {
        if let Some(pipe) = self.spare.pop() {
            return Some(pipe);
        }
        if !shared.held.pipes.take(1, limits.pipes) {
            return None;
        }
        let Ok((read, write)) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK) else {
            shared.held.pipes.give(1);
            return None;
        };
        // What the machine allows less is less fast, and no error.
        let _ = fcntl_setpipe_size(&write, CAPACITY);
        Some(Pipe { read, write, inside: 0, shared: shared.clone() })
    }

    /// Takes back a pipe; one with something left in it is closed.
    pub(super) fn give(&mut self, pipe: Pipe) {
        if pipe.inside == 0 && self.spare.len() < KEPT {
            self.spare.push(pipe);
        }
    }
}
