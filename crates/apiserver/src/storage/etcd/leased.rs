//! Keys of another program in the same etcd, that end with their leases.

use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::Notify;
use tonic::Status;

use super::EtcdConfig;
use super::client::Client;
use super::keys::end_of;
use super::messages::{
    Compare, DeleteRequest, EQUAL, MOD, Op, Operation, PutRequest, RangeRequest, TxnRequest, WatchCreate,
};
use crate::storage::error::StorageError;

/// Keys read at once.
const PAGE: i64 = 500;
/// Keys that are read at most.
const MOST: usize = 65_536;
/// Between two tries to follow the changes.
const PAUSE: Duration = Duration::from_secs(1);

/// A key as it is now.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Pair {
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
    /// Of its last change.
    pub(crate) revision: i64,
    /// The lease that it ends with; 0 is none.
    pub(crate) lease: i64,
}

/// The etcd that has such keys.
pub(crate) struct Leased(Client);

impl Leased {
    pub(crate) fn new(config: &EtcdConfig) -> Result<Self, StorageError> {
        Client::new(config).map(Self)
    }

    /// All keys that begin with a prefix, as they were at one revision.
    pub(crate) async fn list(&self, prefix: &str) -> Result<Vec<Pair>, Status> {
        let range_end = end_of(prefix.as_bytes().to_vec());
        let (mut key, mut revision, mut pairs) = (prefix.as_bytes().to_vec(), 0, Vec::new());
        loop {
            let request = RangeRequest { key, range_end: range_end.clone(), limit: PAGE, revision };
            let page = self.0.range(request).await?;
            revision =
                page.header.map_or(revision, |header| if revision == 0 { header.revision } else { revision });
            let next = page.kvs.last().filter(|_| page.more).map(|last| [&last.key, &[0][..]].concat());
            pairs.extend(page.kvs.into_iter().map(|kv| Pair {
                key: kv.key,
                value: kv.value,
                revision: kv.mod_revision,
                lease: kv.lease,
            }));
            match next {
                Some(_) if pairs.len() > MOST => {
                    return Err(Status::out_of_range(format!("more than {MOST} keys under {prefix}")));
                }
                Some(next) => key = next,
                None => return Ok(pairs),
            }
        }
    }

    /// Writes a key with a new lease, if its last change is still that of `revision`; 0 is for a key that is
    /// not there. Whether it was written.
    pub(crate) async fn put(
        &self,
        key: Vec<u8>,
        value: Vec<u8>,
        revision: i64,
        lease: Duration,
    ) -> Result<bool, Status> {
        let lease = self.0.grant(i64::try_from(lease.as_secs()).unwrap_or(i64::MAX)).await?;
        let op = Op::Put(PutRequest { key: key.clone(), value, lease });
        let written = self.change(key, revision, op).await?;
        if !written {
            // Nothing is held by it; if this fails it ends by itself.
            let _ = self.0.revoke(lease).await;
        }
        Ok(written)
    }

    /// Deletes a key, if its last change is still that of `revision`. Whether it did.
    pub(crate) async fn delete(&self, key: Vec<u8>, revision: i64) -> Result<bool, Status> {
        self.change(key.clone(), revision, Op::Delete(DeleteRequest { key })).await
    }

    async fn change(&self, key: Vec<u8>, revision: i64, op: Op) -> Result<bool, Status> {
        let same =
            Compare { result: EQUAL, target: MOD, key, mod_revision: Some(revision), range_end: Vec::new() };
        let success = vec![Operation { op: Some(op) }];
        Ok(self.0.txn(TxnRequest { compare: vec![same], success }).await?.succeeded)
    }

    /// How long a lease lasts; nothing where it has ended.
    pub(crate) async fn left(&self, lease: i64) -> Result<Option<Duration>, Status> {
        let seconds = self.0.time_to_live(lease).await?;
        Ok(u64::try_from(seconds).ok().map(Duration::from_secs))
    }

    /// Tells `changed` after every change of a key with this prefix, and whenever some may have been missed.
    pub(crate) async fn follow(&self, prefix: &str, changed: &Notify) {
        loop {
            let key = prefix.as_bytes().to_vec();
            let create = WatchCreate { range_end: end_of(key.clone()), key, ..WatchCreate::default() };
            match self.0.watch(create).await {
                Ok(changes) => {
                    let mut changes = Box::pin(changes);
                    // Its first answer says that it has begun.
                    while let Some(Ok(answer)) = changes.next().await {
                        changed.notify_one();
                        if answer.canceled {
                            break;
                        }
                    }
                }
                Err(status) => tracing::debug!(prefix, why = status.message(), "etcd's changes are not told"),
            }
            tokio::time::sleep(PAUSE).await;
            changed.notify_one();
        }
    }
}
