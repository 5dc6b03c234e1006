//! DHCP for IPv6: RFC 8415 with one address (IA_NA), RFC 3646 (DNS), RFC 5908 (NTP).

mod client;
mod lease;
mod message;

pub use client::{Client, Config, Event, Loss, Transmit};
pub use lease::{Lease, Unusable};
pub use message::{DecodeError, Message, Options, kind, option, status};

use std::net::Ipv6Addr;

/// The port that servers and relays listen on.
pub const SERVER_PORT: u16 = 547;
/// The port that clients listen on.
pub const CLIENT_PORT: u16 = 546;
/// All servers and relays on the link.
pub const SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

/// A DUID-UUID (RFC 6355) made of `name`: the same for the same name, on every node, for ever.
pub fn duid(name: &[u8]) -> Vec<u8> {
    let hash = crate::dhcp::hash128(name).to_be_bytes();
    [&[0, 4][..], &hash].concat()
}
