//! BGP-4 (RFC 4271). The core is without sockets and clock: bytes, events and time come in, bytes and events go out.
//!
//! - [`message`]: messages as bytes and as values; what is malformed is told apart by what RFC 7606 wants of it.
//! - [`session`]: the state machine with one peer.
//! - [`rib`]: which routes are the best, and who is told of them.
//! - [`policy`]: which routes are taken and told at all.
//! - [`plan`]: with whom a node of a cluster speaks, and what it tells.
//! - [`bfd`]: whether packets pass to a neighbour and back.
//! - [`speaker`]: these over sockets, with a thread.
//!
//! Unicast routes of IPv4 and IPv6; other families that a peer speaks of are passed over.
#![forbid(unsafe_code)]

pub mod bfd;
mod family;
pub mod message;
pub mod plan;
pub mod policy;
mod random;
pub mod rib;
pub mod session;
pub mod speaker;

pub use family::{Family, PerFamily};
