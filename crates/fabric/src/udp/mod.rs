//! The backend udp: packets in UDP, one in each datagram and nothing around it, as Flannel's
//! first backend sends them.
//!
//! What costs is not the bytes but the calls and copies for each packet; so everything is moved
//! in trains. The device gives and takes 64 KiB of one flow at a time (virtio-net header), the
//! underlay's socket up to 64 datagrams (UDP_SEGMENT, UDP_GRO). `egress` cuts the one into the
//! other and `ingress` joins, both without copying a payload: they write new headers and say
//! which pieces of memory follow on one another.
//!
//! `egress`, `ingress` and all below them know neither socket nor clock: bytes in, pieces out.
//! `tunnel` and `worker` are the threads around them.

mod batch;
mod checksum;
mod counters;
mod cut;
mod ecn;
mod egress;
mod engine;
mod fragment;
mod frame;
#[cfg(fuzzing)]
pub mod fuzz;
mod icmp;
mod ingress;
mod join;
mod packet;
mod table;
#[cfg(test)]
mod tests;
mod tunnel;
mod worker;

pub(crate) use engine::Engine;

pub use counters::{Counters, Reason};
pub use table::UdpPeer;
pub use tunnel::Tunnel;
