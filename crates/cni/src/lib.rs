//! The CNI plugins as one program: interface plugins, chained plugins and IPAM plugins.
//!
//! A container runtime starts it for every pod: it links only what it needs, makes few system
//! calls, and either the pod's network is there when it ends or nothing is. [`run`] is the whole
//! exchange: environment and standard input in, one JSON object on standard output, an exit code.
//! [`perform`] is the same for a caller in this process.
//!
//! [`protocol`] reads what the runtime says, refuses what cannot be before anything is touched,
//! and speaks every version of the specification; `interface` makes the container's interface;
//! `ipam` gets its addresses (our own IPAM plugins in this process, any other by executing it);
//! `chained` adds to what the plugins before made. [`runtime`] is the other side: it calls a
//! whole network's plugins; [`validate`] explains a network's configuration; [`install`] puts
//! the plugins where a runtime looks.

#![forbid(unsafe_code)]

mod chained;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod install;
mod interface;
mod ipam;
mod netfilter;
pub mod protocol;
pub mod runtime;
mod sandbox;
pub mod validate;

pub use ipam::dhcp::daemon::run as dhcp_daemon;
pub use protocol::error::{CniError, code};
pub use protocol::plugin::{is_own, names, perform, run};
