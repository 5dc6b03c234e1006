//! One connection to a peer: what has come and is not read, what is to be sent, and its timers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::message::{self, Frame, Kind, LONGEST_EXTENDED, Negotiated, Notification, Open};
use crate::random::Random;

/// So much of what came is held unread: the longest message, and as much of the next.
pub const INPUT: usize = 2 * LONGEST_EXTENDED;
/// So much waits to be sent before no more routes are taken.
pub const OUTPUT: usize = 256 * 1024;
/// How long a peer may take for its OPEN (RFC 4271 8.2.2).
const OPENING: Duration = Duration::from_secs(240);
/// How long the connection that is spoken on may take for it while another one waits.
const WAITING: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// The other connection is spoken on: nothing is said on this one before the peer's OPEN has come.
    Waits,
    OpenSent,
    OpenConfirm,
    Established,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) phase: Phase,
    /// Once the peer's OPEN was good.
    pub(super) terms: Option<Negotiated>,
    input: Vec<u8>,
    read: usize,
    output: VecDeque<Arc<[u8]>>,
    queued: usize,
    hold_at: Option<Duration>,
    keepalive_at: Option<Duration>,
    /// When a peer that takes nothing has had its time.
    stuck_at: Option<Duration>,
    send_hold: Duration,
}

/// Which timer has run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expired {
    Hold,
    SendHold,
}

impl Connection {
    pub(super) fn new(send_hold: Duration, now: Duration) -> Connection {
        Connection {
            phase: Phase::Waits,
            terms: None,
            input: Vec::new(),
            read: 0,
            output: VecDeque::new(),
            queued: 0,
            hold_at: Some(now + WAITING),
            keepalive_at: None,
            stuck_at: None,
            send_hold,
        }
    }

    /// Says our OPEN.
    pub(super) fn open(&mut self, open: &Open, now: Duration) {
        let mut bytes = Vec::new();
        message::open(&mut bytes, open);
        self.send(bytes.into(), now);
        self.phase = Phase::OpenSent;
        self.hold_at = Some(now + OPENING);
    }

    /// Takes in as much as there is room for.
    pub(super) fn receive(&mut self, bytes: &[u8]) -> usize {
        self.input.drain(..std::mem::take(&mut self.read));
        let taken = bytes.len().min(INPUT.saturating_sub(self.input.len()));
        self.input.extend(bytes.iter().take(taken));
        taken
    }

    /// The next whole message: its kind and its body's place.
    pub(super) fn next(&mut self) -> Result<Option<(Kind, std::ops::Range<usize>)>, Notification> {
        let extended = self.terms.as_ref().is_some_and(|terms| terms.extended_messages);
        let unread = self.input.get(self.read..).unwrap_or_default();
        let Some(frame) = message::frame(unread, extended)? else { return Ok(None) };
        let (kind, end) = (frame.kind, self.read + frame.length());
        let start = end - frame.body.len();
        self.read = end;
        Ok(Some((kind, start..end)))
    }

    /// The message that `next` said is there.
    pub(super) fn frame(&self, kind: Kind, body: std::ops::Range<usize>) -> Frame<'_> {
        Frame { kind, body: self.input.get(body).unwrap_or_default() }
    }

    pub(super) fn send(&mut self, bytes: Arc<[u8]>, now: Duration) {
        if self.output.is_empty() {
            self.stuck_at = Some(now + self.send_hold);
        }
        self.queued += bytes.len();
        self.output.push_back(bytes);
    }

    pub(super) fn room(&self) -> usize {
        OUTPUT.saturating_sub(self.queued)
    }

    pub(super) fn transmit(&mut self, now: Duration) -> Option<Arc<[u8]>> {
        let bytes = self.output.pop_front()?;
        self.queued -= bytes.len();
        self.stuck_at = Some(now + self.send_hold).filter(|_| !self.output.is_empty());
        Some(bytes)
    }

    /// The peer is there.
    pub(super) fn heard(&mut self, now: Duration) {
        if let Some(terms) = &self.terms {
            self.hold_at = (terms.hold > 0).then(|| now + Duration::from_secs(terms.hold.into()));
        }
    }

    /// Terms are agreed on: from now on the peer must be heard, and hears.
    pub(super) fn confirm(&mut self, terms: Negotiated, random: &mut Random, now: Duration) {
        self.keepalive_at = keepalive_after(&terms, random).map(|after| now + after);
        self.terms = Some(terms);
        self.phase = Phase::OpenConfirm;
        self.heard(now);
        self.send_keepalive(now);
    }

    fn send_keepalive(&mut self, now: Duration) {
        let mut bytes = Vec::new();
        message::keepalive(&mut bytes);
        self.send(bytes.into(), now);
    }

    /// Does what is due. What has run out ends the connection.
    pub(super) fn timeout(&mut self, random: &mut Random, now: Duration) -> Option<Expired> {
        if self.hold_at.is_some_and(|at| at <= now) {
            return Some(Expired::Hold);
        }
        if self.stuck_at.is_some_and(|at| at <= now) {
            return Some(Expired::SendHold);
        }
        if self.keepalive_at.is_some_and(|at| at <= now) {
            self.keepalive_at =
                self.terms.as_ref().and_then(|terms| keepalive_after(terms, random)).map(|after| now + after);
            // Behind what waits to be sent it would say nothing.
            if self.output.is_empty() {
                self.send_keepalive(now);
            }
        }
        None
    }

    pub(super) fn wakes(&self) -> Option<Duration> {
        [self.hold_at, self.stuck_at, self.keepalive_at].into_iter().flatten().min()
    }
}

fn keepalive_after(terms: &Negotiated, random: &mut Random) -> Option<Duration> {
    (terms.hold > 0).then(|| random.jittered(Duration::from_secs(terms.hold.into()) / 3))
}
