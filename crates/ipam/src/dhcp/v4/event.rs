//! What goes into a client and comes out of it.

use std::net::Ipv4Addr;
use std::time::Duration;

use weft_model::Mac;

use super::lease::{Lease, Unusable};
use super::message::Options;

/// What a client is and asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The interface's hardware address.
    pub mac: Mac,
    /// Options of every message to a server, the client identifier (61) among them.
    pub provided: Options,
    /// The options that it asks for (option 55), in order of preference.
    pub requested: Vec<u8>,
    /// Servers answer by broadcast.
    pub broadcast: bool,
    /// The first wait for an answer; later ones are twice as long each.
    pub first_wait: Duration,
    /// No wait is longer.
    pub longest_wait: Duration,
}

/// What is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transmit {
    /// A message to everybody on the link.
    Broadcast {
        /// The leased address; 0.0.0.0 before there is one.
        from: Ipv4Addr,
        /// The message.
        message: Vec<u8>,
    },
    /// A message from the leased address to a server.
    Unicast {
        /// The leased address.
        from: Ipv4Addr,
        /// The server.
        to: Ipv4Addr,
        /// The message.
        message: Vec<u8>,
    },
    /// An ARP probe for this address.
    Probe(Ipv4Addr),
}

/// What has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// There is a lease, a new one or an extended one.
    Bound(Lease),
    /// The address may not be used any longer; the client looks for another one.
    Lost(Ipv4Addr, Loss),
    /// What a server offered was passed over.
    PassedOver(Unusable),
}

/// Why an address may not be used any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// A server said so.
    Refused,
    /// Nobody extended the lease.
    Expired,
    /// Another host has it.
    Taken,
    /// The server gave another one instead.
    Changed,
}
