//! What the RIB knows of peers.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::decision::Facts;
use crate::PerFamily;
use crate::message::{Negotiated, NextHop, Relation};
use crate::policy::Policy;

/// A peer's number in a [`super::Rib`], until it is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub(super) u32);

impl PeerId {
    /// Whose routes of our own are.
    pub const OWN: PeerId = PeerId(u32::MAX);
}

/// A peer's configuration.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address.
    pub address: IpAddr,
    /// It is a client of ours as a route reflector (RFC 4456).
    pub client: bool,
    /// Which routes are taken from it. Without one none is, from another AS (RFC 8212); inside all are.
    pub import: Option<Arc<Policy>>,
    /// Which routes are told to it; the same holds.
    pub export: Option<Arc<Policy>>,
    /// Our own addresses towards it, of each family's next hops.
    pub next_hop: PerFamily<Option<NextHop>>,
    /// Inside the AS, routes from outside of it are told with our own address as their next hop.
    pub next_hop_self: bool,
    /// Routes that others told are told to another AS with their next hop as it is.
    pub keep_next_hop: bool,
    /// More prefixes than these end the session.
    pub max_prefixes: PerFamily<Option<usize>>,
    /// So often may our own AS be in its routes' paths.
    pub own_as: usize,
    /// Its routes need not begin with its AS: it is a route server.
    pub route_server: bool,
}

impl Peer {
    /// One without policy and limits.
    pub fn new(address: IpAddr) -> Peer {
        Peer {
            address,
            client: false,
            import: None,
            export: None,
            next_hop: PerFamily::default(),
            next_hop_self: false,
            keep_next_hop: false,
            max_prefixes: PerFamily::default(),
            own_as: 0,
            route_server: false,
        }
    }
}

/// Why a route was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// Our own AS is in its path.
    AsLoop,
    /// We brought it into the AS, or it has been through our cluster.
    ReflectionLoop,
    /// Its path does not begin with the peer's AS.
    FirstAs,
    /// Its next hop is our own address.
    OwnNextHop,
    /// Its prefix is one that nobody routes: loopback, link-local, multicast, reserved.
    Prefix,
    /// By policy, or for the lack of one.
    Policy,
}

/// What has been counted of a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Paths that it has told and that are taken.
    pub paths: PerFamily<usize>,
    /// Routes that were refused, ever, by [`Refusal`].
    pub refused: [u64; 6],
}

/// A peer and its session.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) config: Peer,
    /// The last session's; routes of a peer that is gone are kept by them.
    pub(super) terms: Option<Negotiated>,
    /// Whose members it is among, while it is up.
    pub(super) group: Option<usize>,
    pub(super) counters: Counters,
}

impl Known {
    pub(super) fn facts(&self, metric: Option<u32>) -> Facts {
        Facts {
            relation: Some(self.terms.as_ref().map_or(Relation::Internal, |terms| terms.relation)),
            id: self.terms.as_ref().map_or(Ipv4Addr::BROADCAST, |terms| terms.peer_id),
            address: self.config.address,
            metric,
        }
    }
}
