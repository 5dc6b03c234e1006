//! DHCP for IPv4: RFC 2131, RFC 2132, RFC 3396 (long options), RFC 3442 (routes).

mod client;
mod event;
mod lease;
mod message;

pub use client::Client;
pub use event::{Config, Event, Loss, Transmit};
pub use lease::{Lease, Unusable};
pub use message::{DecodeError, Message, Options, kind, option};

/// The port that servers listen on.
pub const SERVER_PORT: u16 = 67;
/// The port that clients listen on.
pub const CLIENT_PORT: u16 = 68;
