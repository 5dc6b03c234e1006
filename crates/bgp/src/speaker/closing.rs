//! Connections that have been told why they end: whoever closes while something unread is there takes the last words
//! back from a peer that has not read them.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};

use super::link::Link;
use super::token::Token;

/// So long the peer may take to close, too.
const PATIENCE: Duration = Duration::from_secs(2);
/// So many at once; others are closed without waiting.
const MOST: usize = 64;
/// So much is read of one at a time.
const READS: usize = 16;

#[derive(Debug, Default)]
pub(super) struct Closing {
    sockets: BTreeMap<u32, (OwnedFd, Duration)>,
    next: u32,
}

impl Closing {
    /// Writes the last words and closes.
    pub(super) fn end(&mut self, poll: &OwnedFd, link: Link, last: Vec<u8>, now: Duration) {
        let waits = !last.is_empty() && self.sockets.len() < MOST;
        let (socket, written) = link.last(last);
        if !waits || !written || shutdown(&socket, Shutdown::Write).is_err() {
            return;
        }
        self.next = self.next.wrapping_add(1);
        let token = EventData::new_u64(Token::Closing(self.next).write());
        if epoll::modify(poll, &socket, token, EventFlags::IN).is_ok() {
            self.sockets.insert(self.next, (socket, now + PATIENCE));
        }
    }

    /// Something has come by one of them; it is for nobody.
    pub(super) fn event(&mut self, number: u32) {
        let Some((socket, _)) = self.sockets.get(&number) else { return };
        let mut nobody = [0; 4096];
        for turn in 0.. {
            if turn == READS {
                return;
            }
            match rustix::io::read(socket, &mut nobody) {
                Ok(0) => break,
                Ok(_) => {}
                Err(Errno::AGAIN | Errno::INTR) => return,
                Err(_) => break,
            }
        }
        self.sockets.remove(&number);
    }

    pub(super) fn expire(&mut self, now: Duration) {
        self.sockets.retain(|_, (_, until)| *until > now);
    }

    pub(super) fn wakes(&self) -> Option<Duration> {
        self.sockets.values().map(|(_, until)| *until).min()
    }
}
