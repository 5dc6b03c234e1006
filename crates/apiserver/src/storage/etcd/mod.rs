//! The store in etcd, shared by any number of servers.
//!
//! Each server holds all objects in memory and follows etcd's changes. A write decides on what is in
//! memory and commits only if nothing that it looked at has changed in etcd: else it waits for the
//! change and decides again. A write is answered when this server itself has seen it; a read asks etcd for
//! the revision of the last write and waits until this server has seen that.

mod client;
mod feed;
mod fill;
mod keys;
mod leased;
mod load;
mod messages;
mod reader;
mod write;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::backend::Backend;
use super::error::StorageError;
use super::state::{Shared, State};
use super::view::{Answer, Decide};
use crate::error::ApiError;
use client::Client;
pub use client::EtcdConfig;
use feed::{Feed, Position};
pub(super) use fill::{fill, read};
use keys::Keys;
pub(crate) use leased::{Leased, Pair};
use load::LoadError;
use reader::Reader;

/// How long a start waits for etcd to answer.
const START: Duration = Duration::from_secs(30);
/// How long a request waits until this server has seen a revision that etcd has.
const PATIENCE: Duration = Duration::from_secs(5);

/// A server's part of the shared store.
pub(crate) struct Etcd {
    shared: Arc<Shared>,
    client: Arc<Client>,
    keys: Keys,
    seen: Position,
    reader: Reader,
    /// Held by writes that met a conflict, so that those of one server do not meet each other again.
    turn: Mutex<()>,
    _tasks: JoinSet<()>,
}

impl Etcd {
    /// Reads everything and follows the changes from there. Must be called within a Tokio runtime.
    pub(crate) async fn open(config: &EtcdConfig) -> Result<(Self, Arc<Shared>), StorageError> {
        let client = Arc::new(Client::new(config)?);
        let keys = Keys::new(&config.prefix);
        let snapshot = start(&client, &keys).await?;
        let mut state = State::default();
        let base = snapshot.base;
        state.replace(snapshot.loaded);
        let seen = Position::new(state.rv, base);
        let shared = Arc::new(Shared::new(state));
        let mut tasks = JoinSet::new();
        let feed = Feed {
            client: client.clone(),
            keys: keys.clone(),
            shared: shared.clone(),
            seen: seen.clone(),
            cluster: snapshot.cluster,
        };
        tasks.spawn(feed.run());
        let (reader, answering) = reader::start(client.clone(), keys.tip());
        tasks.spawn(answering);
        if !config.compaction_interval.is_zero() {
            tasks.spawn(compact(client.clone(), seen.clone(), config.compaction_interval));
        }
        let etcd = Self {
            shared: shared.clone(),
            client,
            keys,
            seen,
            reader,
            turn: Mutex::default(),
            _tasks: tasks,
        };
        Ok((etcd, shared))
    }

    async fn latest(&self) -> Result<u64, ApiError> {
        let tip = self.reader.tip().await.map_err(|status| self.away(&status))?;
        let rv = tip + self.seen.base();
        self.reach(rv).await?;
        Ok(rv)
    }

    /// Waits until readers of this server see a resourceVersion.
    async fn reach(&self, rv: u64) -> Result<(), ApiError> {
        if self.seen.reach(rv, PATIENCE).await {
            return Ok(());
        }
        let message = format!("etcd at {} does not tell its changes; try again", self.client.names());
        Err(ApiError::new(503, "ServiceUnavailable", message))
    }

    fn away(&self, status: &tonic::Status) -> ApiError {
        let message = format!("etcd at {} does not answer: {}", self.client.names(), status.message());
        ApiError::new(503, "ServiceUnavailable", message)
    }
}

impl Backend for Etcd {
    fn write(&self, decide: Decide) -> BoxFuture<'_, Answer> {
        Box::pin(self.commit(decide))
    }

    fn current(&self) -> BoxFuture<'_, Result<u64, ApiError>> {
        Box::pin(self.latest())
    }
}

async fn start(client: &Client, keys: &Keys) -> Result<load::Snapshot, StorageError> {
    let deadline = Instant::now() + START;
    loop {
        match load::load(client, keys).await {
            Err(LoadError::Away(status)) if Instant::now() < deadline => {
                tracing::warn!(etcd = client.names(), why = status.message(), "waiting for etcd");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Ok(snapshot) => return Ok(snapshot),
            Err(error) => {
                let cause = error.to_string();
                return Err(StorageError::Store { path: client.names().to_owned(), op: "be read", cause });
            }
        }
    }
}

/// Lets etcd forget what every server and every client has had time to see. Each server does: that another
/// one did it before is no failure.
async fn compact(client: Arc<Client>, seen: Position, interval: Duration) {
    let mut before = seen.revision();
    loop {
        tokio::time::sleep(interval).await;
        let revision = i64::try_from(std::mem::replace(&mut before, seen.revision())).unwrap_or(0);
        if let Err(status) = client.compact(revision).await {
            tracing::debug!(revision, why = status.message(), "etcd was not compacted");
        }
    }
}
