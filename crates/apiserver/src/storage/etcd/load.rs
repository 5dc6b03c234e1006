//! Reads everything that is there, and the history that etcd still holds.

use std::sync::Arc;

use futures_util::StreamExt;
use tonic::Status;

use super::client::Client;
use super::keys::{self, Keys, revision};
use super::messages::{DELETE, Header, KeyValue, RangeRequest, WatchCreate, WatchEvent};
use crate::storage::log::Event;
use crate::storage::object::Object;
use crate::storage::state::Loaded;

/// Keys read at once.
const PAGE: i64 = 500;
/// Revisions of history that are read again at most.
const HISTORY: u64 = 16_384;

/// Why etcd could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    /// It does not answer, or refuses.
    #[error("{} ({:?})", .0.message(), .0.code())]
    Away(#[from] Status),
    /// What it holds is not ours.
    #[error("{0}")]
    Content(String),
}

/// What etcd held at one revision.
pub(super) struct Snapshot {
    pub(super) loaded: Loaded,
    pub(super) cluster: u64,
    pub(super) base: u64,
}

/// Reads all objects and the history before them.
pub(super) async fn load(client: &Client, keys: &Keys) -> Result<Snapshot, LoadError> {
    let restored = client.range(Keys::one(keys.base())).await?.kvs.pop();
    let text = restored.as_ref().map_or(&[][..], |base| &base.value);
    let base = keys::read_base(text).map_err(LoadError::Content)?;
    let (mut loaded, header, tip) = objects(client, keys, base).await?;
    // A restore writes the tip last.
    if restored.is_some() && tip == 0 {
        return Err(LoadError::Content(keys.half()));
    }
    let now = revision(header.revision);
    loaded.rv = now + base;
    let (floor, events) = history(client, keys, base, tip, now).await?;
    loaded.floor = floor + base;
    loaded.events = events;
    Ok(Snapshot { loaded, cluster: header.cluster_id, base })
}

/// All objects at one revision, and the revision of the last write.
async fn objects(client: &Client, keys: &Keys, base: u64) -> Result<(Loaded, Header, u64), LoadError> {
    let (mut key, range_end) = keys.all();
    let (mut loaded, mut header, mut tip) = (Loaded::default(), Header::default(), 0);
    loop {
        let request =
            RangeRequest { key, range_end: range_end.clone(), limit: PAGE, revision: header.revision };
        let page = client.range(request).await?;
        if header.revision == 0 {
            header = page.header.unwrap_or_default();
        }
        for kv in &page.kvs {
            match keys.object_key(&kv.key) {
                Some(key) => {
                    let object = keys::object(key, kv, base).map_err(LoadError::Content)?;
                    loaded.objects.insert(key.into(), Arc::new(object));
                }
                None if kv.key == keys.tip() => tip = revision(kv.mod_revision),
                None => {}
            }
        }
        match page.kvs.last() {
            Some(last) if page.more => key = [&last.key, &[0][..]].concat(),
            _ => return Ok((loaded, header, tip)),
        }
    }
}

/// The events up to the last write, as far back as etcd holds them, and the revision before the first.
async fn history(
    client: &Client,
    keys: &Keys,
    base: u64,
    tip: u64,
    now: u64,
) -> Result<(u64, Vec<Arc<Event>>), LoadError> {
    let mut floor = now.saturating_sub(HISTORY);
    while floor < tip {
        match between(client, keys, base, floor, tip).await? {
            Ok(events) => return Ok((floor, events)),
            Err(oldest) if oldest > floor => floor = oldest,
            Err(_) => return Err(Status::unavailable("etcd refused to tell its history").into()),
        }
    }
    Ok((floor, Vec::new()))
}

/// The events after one revision up to another; the error is the revision from which etcd holds them.
async fn between(
    client: &Client,
    keys: &Keys,
    base: u64,
    after: u64,
    last: u64,
) -> Result<Result<Vec<Arc<Event>>, u64>, LoadError> {
    let mut stream = Box::pin(client.watch(from(keys, after + 1, true)).await?);
    let mut events = Vec::new();
    loop {
        let answer = stream.next().await.ok_or_else(|| Status::unavailable("the watch ended"))??;
        if answer.canceled {
            return Ok(Err(revision(answer.compact_revision)));
        }
        for event in answer.events {
            let at = event.kv.as_ref().map_or(0, |kv| revision(kv.mod_revision));
            if at > last {
                return Ok(Ok(events));
            }
            events.extend(told(keys, base, event).map_err(LoadError::Content)?.map(Arc::new));
            if at == last && !answer.fragment {
                return Ok(Ok(events));
            }
        }
    }
}

/// A watch of everything from a revision on.
pub(super) fn from(keys: &Keys, start: u64, prev_kv: bool) -> WatchCreate {
    let (key, range_end) = keys.all();
    let start_revision = i64::try_from(start).unwrap_or(i64::MAX);
    WatchCreate { key, range_end, start_revision, prev_kv, fragment: true }
}

/// What a change that carries its former value tells; None when it is not an object's.
fn told(keys: &Keys, base: u64, event: WatchEvent) -> Result<Option<Event>, String> {
    let kv = event.kv.unwrap_or_default();
    let Some(key) = keys.object_key(&kv.key) else { return Ok(None) };
    let object = |kv: &KeyValue| keys::object(key, kv, base).map(Arc::new);
    let previous: Option<Arc<Object>> = event.prev_kv.as_ref().map(object).transpose()?;
    let now = if event.kind == DELETE { None } else { Some(object(&kv)?) };
    Ok(Event::new(key.into(), revision(kv.mod_revision) + base, previous, now))
}
