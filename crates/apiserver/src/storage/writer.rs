//! The one thread that writes, and the queue before it.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::database::{File, Record, StorageError};
use super::state::{Change, Event, EventKind, Shared, State, kind_of};
use crate::error::ApiError;

/// Writes that may wait; more callers wait for a place.
const QUEUE: usize = 4096;
/// Writes in one transaction at most.
const BATCH: usize = 1024;
/// Bytes of one object; patches could make it grow without end.
const LARGEST: usize = 3 * 1024 * 1024;
const FILE: &str = "objects.redb";

type Decide = Box<dyn FnOnce(&View<'_>) -> Result<Change, ApiError> + Send>;
type Answer = Result<Arc<Value>, ApiError>;

struct Job {
    decide: Decide,
    reply: oneshot::Sender<Answer>,
}

/// The objects; a handle that is cheap to clone.
#[derive(Clone)]
pub(crate) struct Store {
    pub(crate) shared: Arc<Shared>,
    queue: mpsc::Sender<Job>,
}

impl Store {
    /// Opens the data directory and starts the writer, which ends with the last handle.
    pub(crate) fn open(dir: &Path) -> Result<Self, StorageError> {
        let path = dir.join(FILE);
        let file = File::open(&path)?;
        let shared = Arc::new(Shared::new(State::from_loaded(file.load()?)));
        let (queue, jobs) = mpsc::channel(QUEUE);
        let writer = Writer { dir: dir.to_owned(), path, file: Some(file), shared: shared.clone() };
        let failed = |e: std::io::Error| StorageError {
            path: dir.display().to_string(),
            op: "start its writer",
            cause: e.to_string(),
        };
        std::thread::Builder::new().name("store".into()).spawn(move || writer.run(jobs)).map_err(failed)?;
        Ok(Self { shared, queue })
    }

    /// Runs `decide` on the newest state, alone, and returns when its change is durable.
    pub(crate) async fn write(
        &self,
        decide: impl FnOnce(&View<'_>) -> Result<Change, ApiError> + Send + 'static,
    ) -> Answer {
        let (reply, answer) = oneshot::channel();
        let job = Job { decide: Box::new(decide), reply };
        let closed = || ApiError::internal("the store is closed");
        self.queue.send(job).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}

/// The newest state as a write sees it: what is committed, and what is before it in its batch.
pub(crate) struct View<'a> {
    shared: &'a Shared,
    pending: &'a HashMap<Arc<str>, Option<Arc<Value>>>,
}

impl View<'_> {
    /// One object.
    pub(crate) fn get(&self, key: &str) -> Option<Arc<Value>> {
        match self.pending.get(key) {
            Some(pending) => pending.clone(),
            None => self.shared.read().objects.get(key).cloned(),
        }
    }

    /// All objects whose key starts with the prefix.
    pub(crate) fn list(&self, prefix: &str) -> Vec<Arc<Value>> {
        let state = self.shared.read();
        let committed = state.range(prefix).filter(|(key, _)| !self.pending.contains_key(*key));
        let mut all: Vec<_> = committed.map(|(_, value)| value.clone()).collect();
        all.extend(self.pending.iter().filter(|(k, _)| k.starts_with(prefix)).filter_map(|(_, v)| v.clone()));
        all
    }
}

#[derive(Default)]
struct Batch {
    pending: HashMap<Arc<str>, Option<Arc<Value>>>,
    records: Vec<Record>,
    events: Vec<Arc<Event>>,
    tips: BTreeMap<String, u64>,
    answers: Vec<(oneshot::Sender<Answer>, Answer)>,
    rv: u64,
}

struct Writer {
    dir: PathBuf,
    path: PathBuf,
    /// None after a failed write, until the file can be opened again.
    file: Option<File>,
    shared: Arc<Shared>,
}

impl Writer {
    fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(first) = jobs.blocking_recv() {
            let mut batch = Batch { rv: self.shared.read().rv, ..Batch::default() };
            if let Err(error) = self.reopen() {
                let _ = first.reply.send(Err(self.refused(&error)));
                continue;
            }
            batch.rv = self.shared.read().rv;
            self.add(&mut batch, first);
            while batch.answers.len() < BATCH
                && let Ok(job) = jobs.try_recv()
            {
                self.add(&mut batch, job);
            }
            self.finish(batch);
        }
    }

    fn add(&self, batch: &mut Batch, job: Job) {
        let view = View { shared: &self.shared, pending: &batch.pending };
        // A panic in one write must not end all writing.
        let decided = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (job.decide)(&view)))
            .unwrap_or_else(|_| Err(ApiError::internal("the request made the server fail; see its log")));
        let answer = match decided {
            Ok(Change::Nothing(value)) => Ok(value),
            Ok(Change::Put(key, value)) => batch.change(&self.shared, key, value, false),
            Ok(Change::Delete(key, value)) => batch.change(&self.shared, key, value, true),
            Err(error) => Err(error),
        };
        batch.answers.push((job.reply, answer));
    }

    fn finish(&mut self, mut batch: Batch) {
        if !batch.records.is_empty()
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
            self.shared.write().publish(batch.events, batch.rv);
        }
        batch.answers.into_iter().for_each(|(reply, answer)| drop(reply.send(answer)));
    }

    fn commit(&self, batch: &Batch) -> Result<(), StorageError> {
        match &self.file {
            Some(file) => file.commit(&batch.records, batch.rv, &batch.tips),
            None => Ok(()),
        }
    }

    /// After a failed write: opens the file again and believes what it holds.
    fn reopen(&mut self) -> Result<(), StorageError> {
        if self.file.is_some() {
            return Ok(());
        }
        let file = File::open(&self.path)?;
        self.shared.write().replace(file.load()?);
        self.file = Some(file);
        tracing::info!(path = %self.path.display(), "the store is open again");
        Ok(())
    }

    fn refused(&self, error: &StorageError) -> ApiError {
        let message = format!(
            "nothing was written: {error}; make room in or repair the data directory {}",
            self.dir.display()
        );
        ApiError::new(507, "InsufficientStorage", message)
    }
}

impl Batch {
    fn change(&mut self, shared: &Shared, key: String, mut value: Value, delete: bool) -> Answer {
        self.rv += 1;
        value["metadata"]["resourceVersion"] = json!(self.rv.to_string());
        let bytes = match (delete, serde_json::to_vec(&value)) {
            (true, _) => None,
            (false, Ok(bytes)) if bytes.len() > LARGEST => {
                self.rv -= 1;
                let message = format!(
                    "Request entity too large: {key} would have {} bytes, the limit is {LARGEST}",
                    bytes.len()
                );
                return Err(ApiError::new(413, "RequestEntityTooLarge", message));
            }
            (false, Ok(bytes)) => Some(bytes),
            (false, Err(e)) => {
                self.rv -= 1;
                return Err(ApiError::internal(format!("the object {key} is no JSON: {e}")));
            }
        };
        let key: Arc<str> = Arc::from(key);
        let value = Arc::new(value);
        let previous = View { shared, pending: &self.pending }.get(&key);
        let kind = match (delete, &previous) {
            (true, _) => EventKind::Deleted,
            (false, None) => EventKind::Added,
            (false, Some(_)) => EventKind::Modified,
        };
        self.tips.insert(kind_of(&key).to_owned(), self.rv);
        self.records.push(Record { key: key.clone(), value: bytes });
        self.pending.insert(key.clone(), (!delete).then(|| value.clone()));
        self.events.push(Arc::new(Event {
            kind,
            object: value.clone(),
            previous,
            rv: self.rv,
            key,
            json: OnceLock::new(),
        }));
        Ok(value)
    }
}
