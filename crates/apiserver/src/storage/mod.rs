//! The objects: durable in one redb file, read from memory.
//!
//! One thread writes. It drains the queue of changes, commits all of them in one durable
//! transaction, then publishes the events in the order of their resourceVersions, then answers.

mod database;
mod state;
mod watch;
mod writer;

pub use database::StorageError;
pub(crate) use state::Change;
pub use state::{Event, EventKind};
pub use watch::Watch;
pub(crate) use writer::{Store, View};
