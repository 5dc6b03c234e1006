//! The one thread that writes, and the queue before it.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use super::file::File;
use crate::error::ApiError;
use crate::storage::error::StorageError;
use crate::storage::log::Event;
use crate::storage::object::Object;
use crate::storage::state::Shared;
use crate::storage::view::{Answer, Change, Decide, Pending, View};

/// Writes in one transaction at most.
const BATCH: usize = 1024;

/// A write that waits, and where its answer goes.
pub(super) struct Job {
    pub(super) decide: Decide,
    pub(super) reply: oneshot::Sender<Answer>,
}

/// What is decided and not durable yet.
#[derive(Default)]
struct Batch {
    pending: Pending,
    events: Vec<Arc<Event>>,
    answers: Vec<(oneshot::Sender<Answer>, Answer)>,
    rv: u64,
}

pub(super) struct Writer {
    pub(super) path: PathBuf,
    /// None after a failed write, until the file can be opened again.
    pub(super) file: Option<File>,
    pub(super) shared: Arc<Shared>,
    /// Events that memory holds no more, and the file still does.
    pub(super) forget: Vec<Arc<Event>>,
}

impl Writer {
    /// Writes until the last handle on the queue is gone.
    pub(super) fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(first) = jobs.blocking_recv() {
            if let Err(error) = self.reopen() {
                let _ = first.reply.send(Err(self.refused(&error)));
                continue;
            }
            let mut batch = Batch { rv: self.shared.read().rv, ..Batch::default() };
            self.add(&mut batch, first);
            while batch.answers.len() < BATCH
                && let Ok(job) = jobs.try_recv()
            {
                self.add(&mut batch, job);
            }
            self.finish(batch);
        }
    }

    fn add(&self, batch: &mut Batch, mut job: Job) {
        let view = View::new(&self.shared, &batch.pending);
        // A panic in one write must not end all writing.
        let decided = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (job.decide)(&view)))
            .unwrap_or_else(|_| Err(ApiError::internal("the request made the server fail; see its log")));
        let previous = match &decided {
            Ok(Change::Put(key, _) | Change::Delete(key, _)) => view.object(key),
            _ => None,
        };
        drop(view);
        let answer = decided.and_then(|change| batch.change(change, previous));
        batch.answers.push((job.reply, answer));
    }

    fn finish(&mut self, mut batch: Batch) {
        if !batch.events.is_empty()
            && let Err(error) = self.commit(&batch)
        {
            // redb refuses everything after an error; the file, opened again, tells what is on the disk.
            self.file = None;
            if self.reopen().is_err() || self.shared.read().rv != batch.rv {
                tracing::error!(%error, "writes refused");
                let refused = self.refused(&error);
                batch.answers.into_iter().for_each(|(reply, _)| drop(reply.send(Err(refused.clone()))));
                return;
            }
            batch.events.clear();
        }
        if !batch.events.is_empty() {
            self.forget = self.shared.write().publish(batch.events, batch.rv);
        }
        batch.answers.into_iter().for_each(|(reply, answer)| drop(reply.send(answer)));
    }

    fn commit(&self, batch: &Batch) -> Result<(), StorageError> {
        match &self.file {
            Some(file) => file.commit(&batch.events, batch.rv, &self.forget),
            None => Ok(()),
        }
    }

    /// After a failed write: opens the file again and believes what it holds.
    fn reopen(&mut self) -> Result<(), StorageError> {
        if self.file.is_some() {
            return Ok(());
        }
        let file = File::open(&self.path)?;
        self.forget = self.shared.write().replace(file.load()?);
        self.file = Some(file);
        tracing::info!(path = %self.path.display(), "the store is open again");
        Ok(())
    }

    fn refused(&self, error: &StorageError) -> ApiError {
        let dir = self.path.parent().unwrap_or(&self.path).display();
        let message =
            format!("nothing was written: {error}; make room in or repair the data directory {dir}");
        ApiError::new(507, "InsufficientStorage", message)
    }
}

impl Batch {
    /// Takes a decision in; the answer counts once the batch is durable.
    fn change(&mut self, change: Change, previous: Option<Arc<Object>>) -> Answer {
        let rv = self.rv + 1;
        let (key, value, object) = match change {
            Change::Nothing(value) => return Ok(value),
            Change::Put(key, mut value) => {
                let object = Object::new(&key, &mut value, rv)?;
                (key, value, Some(Arc::new(object)))
            }
            Change::Delete(key, mut value) => {
                value["metadata"]["resourceVersion"] = json!(rv.to_string());
                (key, value, None)
            }
        };
        let key: Arc<str> = Arc::from(key);
        self.pending.insert(key.clone(), object.clone());
        if let Some(event) = Event::new(key, rv, previous, object) {
            self.rv = rv;
            self.events.push(Arc::new(event));
        }
        Ok(Arc::new(value))
    }
}
