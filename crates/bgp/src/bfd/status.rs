//! What a look at the sessions shows.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Diagnostic, Intervals, State};

/// All sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Each.
    pub sessions: Vec<SessionStatus>,
    /// Packets that were for none of them.
    pub discarded: Discarded,
    /// Sessions that were wanted and are more than there may be.
    pub refused: usize,
    /// Whether the thread has a real-time priority.
    pub realtime: bool,
}

/// Packets that were discarded, by the first reason that there was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discarded {
    /// They came by a router, or pretended not to (RFC 5881 5).
    pub far: u64,
    /// They could not be read.
    pub malformed: u64,
    /// They were authenticated, which no session is.
    pub authenticated: u64,
    /// They belonged to no session.
    pub unknown: u64,
}

/// One session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStatus {
    /// The neighbour.
    pub peer: IpAddr,
    /// One's own address, where it was given.
    pub local: Option<IpAddr>,
    /// The interface: the one that was given, or that packets came by last.
    pub interface: Option<Arc<str>>,
    /// Where it stands.
    pub state: State,
    /// Why it changed its state last, as the peer is told.
    pub diagnostic: Diagnostic,
    /// How long it is in this state.
    pub since: Duration,
    /// One's own number of it.
    pub discriminator: u32,
    /// Where the peer says that it stands.
    pub remote_state: State,
    /// Why the peer says that it changed its state last.
    pub remote_diagnostic: Diagnostic,
    /// The peer's number of it; 0 where none is known.
    pub remote_discriminator: u32,
    /// What is wanted.
    pub wanted: Intervals,
    /// The interval at which packets go, before jitter.
    pub interval: Duration,
    /// So long nothing may come; 0 where the peer is not known.
    pub detection: Duration,
    /// How often it came up.
    pub ups: u64,
    /// How often it fell from being up.
    pub downs: u64,
    /// Packets sent.
    pub sent: u64,
    /// Packets taken.
    pub received: u64,
}
