//! A write: decided on what this server has seen, committed only if that is still so.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;
use tonic::{Code, Status};

use super::client::{is_too_large, was_never_sent};
use super::keys::{Keys, end_of, revision};
use super::messages::{Compare, DeleteRequest, EQUAL, LESS, MOD, Op, Operation, PutRequest, TxnRequest};
use super::{Etcd, PATIENCE};
use crate::error::ApiError;
use crate::storage::object;
use crate::storage::view::{Answer, Change, Decide, Pending, Reads, View};

/// How long a write is decided again when others come before it.
const CONTENTION: Duration = Duration::from_secs(10);

/// What was decided, and on what.
struct Decision {
    change: Result<Change, ApiError>,
    reads: Reads,
}

/// How a transaction ended.
enum Outcome {
    /// It is durable.
    Done(Arc<Value>, u64),
    /// Something that the decision looked at has changed.
    Outdated,
}

impl Etcd {
    pub(super) async fn commit(&self, mut decide: Decide) -> Answer {
        let deadline = Instant::now() + CONTENTION;
        let mut turn = None;
        loop {
            let Decision { change, reads } = self.decide(&mut decide);
            let (key, value, delete) = match change {
                Ok(Change::Put(key, value)) => (key, value, false),
                Ok(Change::Delete(key, value)) => (key, value, true),
                // Another server may have made this untrue.
                refused_or_same => {
                    self.latest().await?;
                    if self.unchanged(&reads) {
                        return match refused_or_same {
                            Ok(Change::Nothing(value)) => Ok(value),
                            Err(error) => Err(error),
                            Ok(_) => Err(ApiError::internal("a change was not written")),
                        };
                    }
                    continue;
                }
            };
            match self.attempt(&key, value, delete, &reads).await? {
                Outcome::Done(value, rv) => {
                    // It is durable either way; a reader that must see it waits for it itself.
                    self.seen.reach(rv, PATIENCE).await;
                    return Ok(value);
                }
                Outcome::Outdated => {
                    if Instant::now() > deadline {
                        let message = "too many others write the same objects; try again";
                        return Err(ApiError::new(503, "ServiceUnavailable", message));
                    }
                    if turn.is_none() {
                        turn = Some(self.turn.lock().await);
                    }
                    self.latest().await?;
                }
            }
        }
    }

    fn decide(&self, decide: &mut Decide) -> Decision {
        let pending = Pending::default();
        let view = View::new(&self.shared, &pending);
        // A panic in one write must not poison what others use.
        let change = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| decide(&view)))
            .unwrap_or_else(|_| Err(ApiError::internal("the request made the server fail; see its log")));
        Decision { change, reads: view.into_reads() }
    }

    fn unchanged(&self, reads: &Reads) -> bool {
        let state = self.shared.read();
        let same = |(key, rv): (&String, &u64)| state.get(key).map_or(0, |o| o.rv()) == *rv;
        reads.keys.iter().all(same)
            && reads.prefixes.iter().all(|prefix| state.last_change(prefix) <= reads.rv)
    }

    async fn attempt(
        &self,
        key: &str,
        mut value: Value,
        delete: bool,
        reads: &Reads,
    ) -> Result<Outcome, ApiError> {
        let place = self.keys.object(key);
        let known = || self.shared.read().get(key).map_or(0, |o| o.rv());
        let before = reads.keys.get(key).copied().unwrap_or_else(known);
        let change = if delete {
            Op::Delete(DeleteRequest { key: place })
        } else {
            if let Some(meta) = value["metadata"].as_object_mut() {
                meta.remove("resourceVersion");
            }
            Op::Put(PutRequest { key: place, value: object::text(key, &value)?.into_bytes(), lease: 0 })
        };
        let tip = Op::Put(PutRequest { key: self.keys.tip(), value: Vec::new(), lease: 0 });
        let success = [change, tip].map(|op| Operation { op: Some(op) }).into();
        let request = TxnRequest { compare: self.compares(key, before, reads), success };
        let rv = match self.client.txn(request).await {
            Ok(answer) if answer.succeeded => revision(answer.header.unwrap_or_default().revision),
            Ok(_) => return Ok(Outcome::Outdated),
            Err(status) if is_full(&status) => {
                let wanted = if delete { None } else { Some(object::text(key, &value)?) };
                let done = self.done_nevertheless(key, before, wanted).await?;
                done.ok_or_else(|| self.refused(&status))?
            }
            Err(status) => return Err(self.refused(&status)),
        };
        let rv = rv + self.seen.base();
        value["metadata"]["resourceVersion"] = rv.to_string().into();
        Ok(Outcome::Done(Arc::new(value), rv))
    }

    /// The revision of a write that etcd has refused since it is full, if it is there: of the write with
    /// which it becomes full, etcd says that it was refused, and does it.
    async fn done_nevertheless(
        &self,
        key: &str,
        before: u64,
        wanted: Option<String>,
    ) -> Result<Option<u64>, ApiError> {
        let doubt = |status: Status| {
            let (names, why) = (self.client.names(), status.message());
            let message = format!("etcd at {names} is full: {why}; the write may be done or not");
            ApiError::new(507, "InsufficientStorage", message)
        };
        let found = self.client.range(Keys::one(self.keys.object(key))).await.map_err(doubt)?;
        let now = revision(found.header.unwrap_or_default().revision);
        Ok(match (found.kvs.first(), wanted) {
            (None, None) => Some(now),
            (Some(kv), Some(wanted)) => {
                let new = revision(kv.mod_revision) + self.seen.base() > before;
                (new && kv.value == wanted.as_bytes()).then(|| revision(kv.mod_revision))
            }
            _ => None,
        })
    }

    /// What must still be so: the key that is written, and all that was looked at.
    fn compares(&self, key: &str, before: u64, reads: &Reads) -> Vec<Compare> {
        let base = self.seen.base();
        let revision = |rv: u64| Some(i64::try_from(rv.saturating_sub(base)).unwrap_or(i64::MAX));
        let written = (!reads.keys.contains_key(key)).then_some((key, before));
        let keys = reads.keys.iter().map(|(key, rv)| (key.as_str(), *rv)).chain(written);
        let one = |(key, rv): (&str, u64)| Compare {
            result: EQUAL,
            target: MOD,
            key: self.keys.object(key),
            mod_revision: revision(rv),
            range_end: Vec::new(),
        };
        // Sees what is new or changed, not what is gone: no rule fails because an object is missing.
        let range = |prefix: &String| Compare {
            result: LESS,
            target: MOD,
            key: self.keys.object(prefix),
            mod_revision: revision(reads.rv + 1),
            range_end: end_of(self.keys.object(prefix)),
        };
        keys.map(one).chain(reads.prefixes.iter().map(range)).collect()
    }

    fn refused(&self, status: &Status) -> ApiError {
        match status.code() {
            _ if is_full(status) => {
                let message = format!(
                    "nothing was written: etcd at {} is full: {}; make room with etcdctl compact and defrag, or raise its --quota-backend-bytes, then etcdctl alarm disarm",
                    self.client.names(),
                    status.message()
                );
                ApiError::new(507, "InsufficientStorage", message)
            }
            _ if is_too_large(status) => {
                let message = format!("Request entity too large: {}", status.message());
                ApiError::new(413, "RequestEntityTooLarge", message)
            }
            _ if was_never_sent(status) => {
                let (names, why) = (self.client.names(), status.message());
                let message = format!("nothing was written: etcd at {names} does not answer: {why}");
                ApiError::new(503, "ServiceUnavailable", message)
            }
            _ => {
                let message = format!(
                    "etcd at {} does not answer: {}; the write may be done or not",
                    self.client.names(),
                    status.message()
                );
                ApiError::new(503, "ServiceUnavailable", message)
            }
        }
    }
}

fn is_full(status: &Status) -> bool {
    status.code() == Code::ResourceExhausted && status.message().contains("database space")
}
