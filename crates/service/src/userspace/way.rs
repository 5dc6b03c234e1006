//! One direction of a connection: bytes of one socket to the other.
//!
//! Small reads are copied through the thread's one buffer, so that a connection at rest has no
//! memory here. What the receiver does not take at once is kept, of that much and no more is read
//! before it is gone; where too much is kept already, bytes stay in the sender's socket: they are
//! looked at, sent, and only what was sent is taken. A stream that fills the buffer goes through a pipe.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};
use rustix::pipe::{SpliceFlags, splice};

use super::pipe::{CAPACITY, Pipe, Pipes};
use super::shared::Shared;

/// Rounds of reading and writing before others have their turn.
const ROUNDS: usize = 16;
/// Reads that fill the buffer, one after another, before a pipe is taken.
const FULL_READS: u8 = 2;
/// A stream that brings less than this at once is copied again.
const WORTH_A_PIPE: usize = 16 << 10;

/// A socket of a connection. What epoll told stays true until a call says otherwise.
#[derive(Debug)]
pub(super) struct Side {
    pub socket: OwnedFd,
    /// Whom events belong to.
    pub token: u64,
    pub readable: bool,
    pub writable: bool,
    /// It took no more bytes: what it still says is passed on, then the other end is reset.
    pub broken: bool,
    /// It told an error. What cannot be passed on at once is then lost, as with any reset.
    pub failed: bool,
    /// Its end or urgent data has come, so that a short read says nothing about what is left: epoll
    /// may have told of both at once.
    pub thorough: bool,
}

/// What a thread lends to the connections it works on.
#[derive(Debug)]
pub(super) struct Tools {
    pub buffer: Box<[u8]>,
    pub pipes: Pipes,
    pub shared: Arc<Shared>,
}

/// Bytes between the two sockets.
#[derive(Debug, Default)]
enum Between {
    #[default]
    Nothing,
    Bytes {
        bytes: Vec<u8>,
        sent: usize,
    },
    Pipe(Pipe),
}

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Way {
    between: Between,
    full_reads: u8,
    /// The sender said that nothing more comes.
    ended: bool,
    /// And the receiver was told, or wants nothing.
    pub finished: bool,
}

/// What a turn of a direction came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Turn {
    /// It waits for one of the sockets.
    Waits,
    /// There may be more to do at once.
    More,
    /// The receiver is gone; the other direction is to be looked at.
    Broken,
    /// The sender is gone without having ended.
    Reset,
}

impl Way {
    /// Moves what can be moved.
    pub(super) fn turn(&mut self, from: &mut Side, to: &mut Side, tools: &mut Tools) -> Turn {
        for _ in 0..ROUNDS {
            if self.finished {
                return Turn::Waits;
            }
            match self.round(from, to, tools) {
                Ok(true) => {}
                Ok(false) => return Turn::Waits,
                Err(turn) => {
                    if turn == Turn::Broken {
                        self.finished = true;
                        self.clear(tools);
                        to.broken = true;
                        to.readable = true;
                    }
                    return turn;
                }
            }
        }
        Turn::More
    }

    /// Gives back what it holds.
    pub(super) fn clear(&mut self, tools: &mut Tools) {
        match std::mem::take(&mut self.between) {
            Between::Nothing => {}
            Between::Bytes { bytes, .. } => tools.shared.held.bytes.give(bytes.len()),
            Between::Pipe(pipe) => tools.pipes.give(pipe),
        }
    }

    /// One write of what is between, or one read and the write of it. Whether to go on.
    fn round(&mut self, from: &mut Side, to: &mut Side, tools: &mut Tools) -> Result<bool, Turn> {
        if !to.writable {
            return Ok(false);
        }
        match &mut self.between {
            Between::Bytes { bytes, sent } => {
                let wrote =
                    sent_of(retry_on_intr(|| send(&to.socket, &bytes[*sent..], SendFlags::NOSIGNAL)), to)?;
                *sent += wrote;
                if *sent < bytes.len() {
                    to.writable = false;
                } else {
                    self.clear(tools);
                }
                return Ok(to.writable);
            }
            Between::Pipe(pipe) if pipe.inside > 0 => {
                let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
                let write = || splice(&pipe.read, None, &to.socket, None, pipe.inside, flags);
                let wrote = sent_of(retry_on_intr(write), to)?;
                pipe.inside -= wrote;
                if wrote == 0 {
                    to.writable = false;
                }
                return Ok(to.writable);
            }
            Between::Pipe(_) | Between::Nothing => {}
        }
        if self.ended {
            self.clear(tools);
            self.finished = true;
            // It may be gone already, and then needs not be told.
            let _ = shutdown(&to.socket, Shutdown::Write);
            return Ok(false);
        }
        if !from.readable {
            self.clear(tools);
            return Ok(false);
        }
        if self.full_reads >= FULL_READS && self.through_pipe(from, tools)? {
            return Ok(true);
        }
        self.through_buffer(from, to, tools)
    }

    /// Moves what came into a pipe, if there is one to be had.
    fn through_pipe(&mut self, from: &mut Side, tools: &mut Tools) -> Result<bool, Turn> {
        if matches!(self.between, Between::Nothing) {
            let shared = tools.shared.clone();
            match tools.pipes.take(&shared, &shared.limits) {
                Some(pipe) => self.between = Between::Pipe(pipe),
                None => {
                    self.full_reads = 0;
                    return Ok(false);
                }
            }
        }
        let Between::Pipe(pipe) = &mut self.between else { return Ok(false) };
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        let read = || splice(&from.socket, None, &pipe.write, None, CAPACITY, flags);
        let Some(came) = came_of(retry_on_intr(read), from)? else { return Ok(true) };
        pipe.inside = came;
        self.ended = came == 0;
        if came < WORTH_A_PIPE {
            self.full_reads = 0;
        }
        Ok(true)
    }

    /// Reads into the thread's buffer and sends it on.
    fn through_buffer(&mut self, from: &mut Side, to: &mut Side, tools: &mut Tools) -> Result<bool, Turn> {
        self.clear(tools);
        let held = &tools.shared.held.bytes;
        let most = tools.shared.limits.held;
        let look = held.now() + tools.buffer.len() > most;
        let flags = if look { RecvFlags::PEEK } else { RecvFlags::empty() };
        let room = tools.buffer.len();
        let came = retry_on_intr(|| recv(&from.socket, &mut tools.buffer[..], flags));
        let Some(came) = came_of(came.map(|(count, _)| count), from)? else { return Ok(false) };
        if came == 0 {
            self.ended = true;
            return Ok(true);
        }
        if came == room {
            self.full_reads = self.full_reads.saturating_add(1);
        } else {
            self.full_reads = 0;
            from.readable = from.thorough || look;
        }
        let write = || send(&to.socket, &tools.buffer[..came], SendFlags::NOSIGNAL);
        let wrote = sent_of(retry_on_intr(write), to)?;
        if look {
            let mut left = wrote;
            while left > 0 {
                let taken = recv(&from.socket, &mut tools.buffer[..left], RecvFlags::empty());
                left -= taken.map(|(count, _)| count).ok().filter(|count| *count > 0).ok_or(Turn::Reset)?;
            }
            to.writable &= wrote == came;
        } else if wrote < came {
            to.writable = false;
            tools.shared.held.bytes.take(came - wrote, usize::MAX);
            self.between = Between::Bytes { bytes: tools.buffer[wrote..came].to_vec(), sent: 0 };
        }
        Ok(to.writable)
    }
}

/// How many bytes were taken; none and no longer writable where there was no room.
fn sent_of(result: Result<usize, Errno>, to: &mut Side) -> Result<usize, Turn> {
    match result {
        Ok(count) => Ok(count),
        Err(Errno::AGAIN) => {
            to.writable = false;
            Ok(0)
        }
        Err(_) => Err(Turn::Broken),
    }
}

/// How many bytes came, 0 at the end; `None` and no longer readable where there are none yet.
fn came_of(result: Result<usize, Errno>, from: &mut Side) -> Result<Option<usize>, Turn> {
    match result {
        Ok(0) if from.broken => Err(Turn::Reset),
        Ok(count) => Ok(Some(count)),
        Err(Errno::AGAIN) => {
            from.readable = false;
            Ok(None)
        }
        Err(_) => Err(Turn::Reset),
    }
}
