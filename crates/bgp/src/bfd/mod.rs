//! Bidirectional forwarding detection (RFC 5880) over one hop (RFC 5881): whether packets pass to a neighbour and
//! back, known within a part of a second.
//!
//! [`Sessions`] has neither socket nor clock. Who holds it calls, with the time since any fixed moment:
//!
//! 1. [`Sessions::set`], [`Sessions::handle_packet`], [`Sessions::handle_link_down`] for what happens, and
//!    [`Sessions::handle_timeout`] at [`Sessions::wakes`], after what has come was read;
//! 2. after each of these [`Sessions::poll_transmit`] and [`Sessions::poll`] until there is nothing more.
//!
//! [`Bfd`] does that, in a thread of its own.
//!
//! Asynchronous mode without echo and without authentication; a peer that
//! asks for demand mode is left alone, as it wishes, and watched as before.

mod packet;
mod session;
mod shell;
mod status;
mod table;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

pub use packet::{Diagnostic, LENGTH, Malformed, Packet, State};
pub use shell::{Bfd, Error};
pub use status::{Discarded, SessionStatus, Status};
pub use table::{Arrival, MAX_SESSIONS, Outgoing, Sessions};

/// Where packets of sessions over one hop are sent (RFC 5881 4).
pub const PORT: u16 = 3784;
/// The TTL or hop limit that they are sent with, and must come with (RFC 5881 5).
pub const HOPS: u8 = 255;

/// What a session is known by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The neighbour's address.
    pub peer: IpAddr,
    /// One's own; absent: the one that the route gives.
    pub local: Option<IpAddr>,
    /// The interface that packets must take; absent: the one that the route gives. A link-local address needs it.
    pub interface: Option<Arc<str>>,
}

/// How often packets go and come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Intervals {
    /// The interval at which to send, once the session is up: where the peer takes packets as often.
    pub transmit: Duration,
    /// The shortest interval at which to take packets.
    pub receive: Duration,
    /// So many of the intervals at which this side sends may pass without a packet, before the peer takes the session
    /// to be down.
    pub multiplier: u8,
}

impl Intervals {
    /// The shortest interval; a shorter one is taken as this.
    pub const SHORTEST: Duration = Duration::from_millis(10);

    /// As they are used: no interval is shorter than [`Intervals::SHORTEST`], and the multiplier is not 0.
    pub fn bounded(self) -> Intervals {
        let bound = |interval: Duration| {
            let interval = interval.clamp(Intervals::SHORTEST, Duration::from_micros(u32::MAX.into()));
            Duration::from_micros(packet::micros(interval).into())
        };
        Intervals {
            transmit: bound(self.transmit),
            receive: bound(self.receive),
            multiplier: self.multiplier.max(1),
        }
    }
}

/// Three packets at 300 ms.
impl Default for Intervals {
    fn default() -> Intervals {
        let interval = Duration::from_millis(300);
        Intervals { transmit: interval, receive: interval, multiplier: 3 }
    }
}

/// What becomes of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    /// Packets pass both ways.
    Up,
    /// It was up and is no longer, since packets do not pass.
    Down(Diagnostic),
    /// The peer holds it down on purpose: nothing is known of the path, and nothing is to be taken from it.
    AdminDown,
}
