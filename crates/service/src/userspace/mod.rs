//! The userspace proxy: every frontend has a socket here, and this process connects its clients to
//! endpoints. Slower than what the kernel does by itself, and the only one that can try another
//! endpoint when the first does not answer, or that needs no netfilter.
//!
//! `balance` and `flows` decide and know neither socket nor clock. `way` moves the bytes of one
//! direction, `connection` and `datagrams` are a thread's connections and flows, `worker` is the
//! thread, [`Proxy`] its owner. [`Userspace`] has the proxy serve a plan: `tables` lead clients to it where
//! the kernel has nftables, and where it has not, it listens on the frontends' own addresses.

mod backend;
mod balance;
mod connection;
mod datagrams;
mod flows;
mod limits;
mod pipe;
mod proxy;
mod shared;
mod tables;
mod token;
mod way;
mod worker;

pub use backend::{Userspace, remove_routes};
pub use limits::{Counters, Limits};
pub use proxy::{ListenerId, Proxy, Transport};
pub use shared::Target;

/// How long a UDP flow lives without traffic.
pub const UDP_IDLE: std::time::Duration = std::time::Duration::from_secs(10);

/// What could not be done, and why.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}")]
pub struct Error {
    what: String,
    #[source]
    source: std::io::Error,
}

impl Error {
    fn new(what: impl Into<String>, source: std::io::Error) -> Error {
        Error { what: what.into(), source }
    }
}
