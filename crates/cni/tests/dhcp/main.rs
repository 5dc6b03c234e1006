//! The DHCP plugin and its daemon with servers on a network.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    unreachable_pub,
    reason = "a test fails where its expectation does"
)]

#[path = "../common/mod.rs"]
mod common;

mod chain;
mod daemon;
mod fake;
mod faults;
mod harness;
mod leases;
mod parity;
