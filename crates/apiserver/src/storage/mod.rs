//! The objects: durable in a backend, read from memory.
//!
//! [`state`] is what readers see: every object as text, and each kind's recent events. The backend makes
//! changes durable before it publishes them there.

mod backend;
mod claim;
mod embedded;
mod error;
mod etcd;
mod log;
mod object;
mod state;
mod store;
mod transfer;
mod view;
mod watch;

pub(crate) use claim::Claim;
pub use error::StorageError;
pub use etcd::EtcdConfig;
pub(crate) use etcd::{Leased, Pair};
pub use log::{Event, EventKind};
pub use object::Object;
pub(crate) use state::{Keyed, Slice};
pub(crate) use store::Store;
pub use transfer::{Backup, Place};
pub(crate) use view::{Change, View};
pub use watch::Watch;
