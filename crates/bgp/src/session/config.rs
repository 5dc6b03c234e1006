//! What a session is told beforehand, and what it tells.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use crate::message::{
    Capabilities, GracefulRestart, Negotiated, Notification, Open, RefreshKind, Relation, Update,
};
use crate::{Family, PerFamily};

/// Which AS a peer may be of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerAs {
    /// This one.
    Is(u32),
    /// One's own.
    Internal,
    /// Any but one's own.
    External,
}

/// A session's configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// One's own AS, as the peer is told.
    pub local_as: u32,
    /// The other members of one's confederation (RFC 5065).
    pub members: BTreeSet<u32>,
    /// One's own BGP identifier.
    pub id: Ipv4Addr,
    /// The peer's AS.
    pub peer_as: PeerAs,
    /// The hold time to propose, in seconds: 0, or at least 3.
    pub hold: u16,
    /// Waits for the peer to connect.
    pub passive: bool,
    /// What to offer; the AS number is put in.
    pub capabilities: Capabilities,
    /// How long a peer may take nothing of what is sent (RFC 9687).
    pub send_hold: Duration,
    /// How long a peer that is back may take to tell its routes again, before the old ones go.
    pub stale_routes: Duration,
}

impl Config {
    /// One with usual times: 90 seconds of hold, and all that there is to offer but several paths and restarts.
    pub fn new(local_as: u32, id: Ipv4Addr, peer_as: PeerAs) -> Config {
        Config {
            local_as,
            members: BTreeSet::new(),
            id,
            peer_as,
            hold: 90,
            passive: false,
            capabilities: Capabilities {
                families: Some(PerFamily { ipv4: true, ipv6: true }),
                route_refresh: true,
                enhanced_refresh: true,
                extended_next_hop: true,
                extended_messages: true,
                ..Capabilities::default()
            },
            send_hold: Duration::from_secs(480),
            stale_routes: Duration::from_secs(360),
        }
    }

    /// Offers graceful restart (RFC 4724, RFC 8538) of all families offered, which others may wait `time` for.
    pub fn with_graceful_restart(mut self, time: Duration) -> Config {
        let spoken = self.capabilities.families.unwrap_or_default();
        self.capabilities.graceful_restart = Some(GracefulRestart {
            restarted: false,
            notification: true,
            time: u16::try_from(time.as_secs()).unwrap_or(u16::MAX),
            families: PerFamily::from_fn(|family| spoken[family].then_some(false)),
        });
        self
    }

    pub(super) fn open(&self) -> Open {
        let capabilities = Capabilities { four_octet_as: Some(self.local_as), ..self.capabilities.clone() };
        Open { asn: self.local_as, hold: self.hold, id: self.id, capabilities }
    }

    /// How an AS stands to one's own, where it is one that the peer may be of.
    pub(super) fn relation(&self, asn: u32) -> Option<Relation> {
        let relation = match asn {
            asn if asn == self.local_as => Relation::Internal,
            asn if self.members.contains(&asn) => Relation::Confederation,
            _ => Relation::External,
        };
        let may = match self.peer_as {
            PeerAs::Is(peer) => asn == peer,
            PeerAs::Internal => relation == Relation::Internal,
            PeerAs::External => relation != Relation::Internal,
        };
        may.then_some(relation)
    }
}

/// Which of the two connections that there may be for a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// The one that was dialled here.
    Dialled,
    /// The one that the peer dialled.
    Accepted,
}

impl Side {
    /// The other one.
    pub fn other(self) -> Side {
        match self {
            Side::Dialled => Side::Accepted,
            Side::Accepted => Side::Dialled,
        }
    }
}

/// Where a session stands (RFC 4271 8.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// It is stopped, or rests after a failure.
    Idle,
    /// It dials.
    Connect,
    /// It waits for a connection, or until it is to dial.
    Active,
    /// A connection is there, and the OPEN is sent.
    OpenSent,
    /// The peer's OPEN is good.
    OpenConfirm,
    /// Routes go.
    Established,
}

/// Why a session fell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fall {
    /// The connection ended.
    Closed,
    /// It was ended here.
    Sent(Notification),
    /// The peer ended it.
    Received(Notification),
    /// The peer has come back by another connection, having lost this one (RFC 4724).
    Replaced,
}

/// What a session tells.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "lives for a call, and most events are UPDATEs")]
pub enum Event<'a> {
    /// Dial the peer, and tell by [`super::Session::handle_connected`] or [`super::Session::handle_unreachable`].
    Dial,
    /// Close the connection; before that write the rest of what is half written, and `last`, as far as both can be
    /// done at once.
    Close {
        /// Which.
        side: Side,
        /// A NOTIFICATION or nothing.
        last: Vec<u8>,
    },
    /// Routes may go.
    Up {
        /// By which connection.
        side: Side,
        /// And terms.
        terms: Box<Negotiated>,
    },
    /// No more.
    Down {
        /// Why.
        fall: Fall,
        /// Families whose routes are to be kept as stale; those of others are gone.
        kept: PerFamily<bool>,
    },
    /// A connection ended before any routes went.
    Failed(Fall),
    /// Stale routes of this family are now long-lived stale ones (RFC 9494).
    LongLived(Family),
    /// Stale routes of this family are gone.
    Sweep(Family),
    /// The peer's routes.
    Update(Update<'a>),
    /// The peer wants one's routes again, or marks that it sends its own again.
    Refresh(Family, RefreshKind),
    /// The peer sent what ends the session; [`Event::Down`] comes next.
    Fatal(Notification),
}
