//! Addresses of Services that a segment is told of: which node answers for which, and by what packets.
//!
//! [`wanted`] says which addresses there are and who may have them, [`Election`] which of them this node has,
//! [`beat`] what nodes tell one another, [`arp`] and [`ndp`] what they tell the segment. No sockets and no clock
//! here: packets are bytes, and time is what has passed since some start.
#![forbid(unsafe_code)]

pub mod arp;
pub mod beat;
pub mod datagram;
mod election;
pub mod ndp;
mod place;
mod rank;
#[cfg(test)]
mod simulation;
mod wanted;

pub use beat::{Beat, Stranger, Word};
pub use election::{Action, Election, Owner, Why};
pub use wanted::{Wanted, Wants};
