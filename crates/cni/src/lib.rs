//! The CNI plugins as one program: `bridge`, `host-local` and `loopback`.
//!
//! A container runtime starts it for every pod: it links only what it needs, makes few system
//! calls, and either the pod's network is there when it ends or nothing is. [`run`] is the whole
//! exchange: environment and standard input in, one JSON object on standard output, an exit code.
//!
//! [`args`] and [`config`] read what the runtime says and refuse what cannot be before anything
//! is touched; [`ipam_call`] gets the addresses (our own `host-local` in this process, any other
//! IPAM plugin by executing it); `bridge` and `loopback` change the kernel; [`result`] speaks
//! every version of the specification.

#![forbid(unsafe_code)]

pub mod args;
mod bridge;
pub mod config;
mod error;
mod exec;
mod host_local;
pub mod ipam_call;
mod loopback;
mod plugin;
pub mod result;
mod sandbox;
pub mod version;

pub use error::{CniError, code};
pub use plugin::run;
