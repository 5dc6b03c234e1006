//! The store in one redb file.
//!
//! One thread writes. It drains the queue of changes, commits all of them in one durable
//! transaction, then publishes the events in the order of their resourceVersions, then answers.

mod file;
mod history;
mod writer;

use std::path::Path;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use super::backend::Backend;
use super::error::StorageError;
use super::state::{Loaded, Objects, Shared, State};
use super::view::{Answer, Decide};
use crate::error::ApiError;
use crate::files::sync_folder;
use file::File;
use writer::{Job, Writer};

/// Writes that may wait; more callers wait for a place.
const QUEUE: usize = 4096;
const FILE: &str = "objects.redb";
/// A file that is being filled; it has its name when it is whole.
const PART: &str = "objects.redb.part";

/// The queue of the thread that writes, which ends with it.
pub(crate) struct Embedded {
    queue: mpsc::Sender<Job>,
    shared: Arc<Shared>,
}

impl Embedded {
    /// Opens the data directory and starts the writer.
    pub(crate) fn open(dir: &Path) -> Result<(Self, Arc<Shared>), StorageError> {
        let path = dir.join(FILE);
        let file = File::open(&path)?;
        let mut state = State::default();
        let forget = state.replace(file.load()?);
        let shared = Arc::new(Shared::new(state));
        let (queue, jobs) = mpsc::channel(QUEUE);
        let writer = Writer { path, file: Some(file), shared: shared.clone(), forget };
        let failed = |e: std::io::Error| StorageError::Store {
            path: dir.display().to_string(),
            op: "start its writer",
            cause: e.to_string(),
        };
        std::thread::Builder::new().name("store".into()).spawn(move || writer.run(jobs)).map_err(failed)?;
        Ok((Self { queue, shared: shared.clone() }, shared))
    }
}

/// Everything in the file of a data directory that no server uses.
pub(super) fn read(dir: &Path) -> Result<Loaded, StorageError> {
    let path = dir.join(FILE);
    if !path.exists() {
        let cause = "there is no such file; is it the right --data-dir?".to_owned();
        return Err(StorageError::Store { path: path.display().to_string(), op: "be read", cause });
    }
    File::open(&path)?.load()
}

/// Fills the file of a data directory that has none.
pub(super) fn fill(dir: &Path, objects: &Objects, rv: u64) -> Result<(), StorageError> {
    use std::os::unix::fs::DirBuilderExt;
    let path = dir.join(FILE);
    let failed =
        |cause: String| StorageError::Store { path: path.display().to_string(), op: "be written", cause };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| failed(e.to_string()))?;
    if path.exists() {
        return Err(failed("there are objects already; move that file away first".to_owned()));
    }
    let part = dir.join(PART);
    // Of a restore that was cut short.
    let _ = std::fs::remove_file(&part);
    File::open(&part)?.fill(objects, rv)?;
    let named = std::fs::rename(&part, &path).and_then(|()| sync_folder(&path));
    named.map_err(|e| failed(e.to_string()))
}

impl Backend for Embedded {
    fn write(&self, decide: Decide) -> BoxFuture<'_, Answer> {
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            let closed = || ApiError::internal("the store is closed");
            self.queue.send(Job { decide, reply }).await.map_err(|_| closed())?;
            answer.await.map_err(|_| closed())?
        })
    }

    fn current(&self) -> BoxFuture<'_, Result<u64, ApiError>> {
        // Nobody else writes, and a write is published before it is answered.
        Box::pin(std::future::ready(Ok(self.shared.read().rv)))
    }
}
