//! Which address comes next.
//!
//! - [`node_cidr`]: which part of the cluster's pod CIDR a node gets. Pure.
//! - [`range`]: the ranges of a node's pool and the order in which their addresses are handed out. Pure.
//! - [`host_local`]: the node's allocations on disk, in the format of the reference CNI plugin
//!   `host-local`, so that both can share one directory; killed at any instruction, the directory
//!   is right, and what an interrupted ADD had taken comes back.
//! - [`pools`]: pools whose blocks nodes claim, borrow from and give back. Pure.
//! - [`load_balancer`]: which Service of type LoadBalancer has which address. Pure.
//! - [`dhcp`]: DHCP clients for IPv4 and IPv6. Pure.

#![forbid(unsafe_code)]

mod address;
pub mod dhcp;
pub mod host_local;
pub mod load_balancer;
pub mod node_cidr;
pub mod pools;
pub mod range;
