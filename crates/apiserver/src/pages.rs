//! Lists in pages, and reads that may not be older than a version.

use std::sync::Arc;

use crate::error::ApiError;
use crate::registry::Registry;
use crate::resource::Resource;
use crate::storage::{Object, Slice};

/// How long a read waits for a resourceVersion that is not there yet; as kube-apiserver has it.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(3);

impl Registry {
    /// Waits a little until reads are at least of this resourceVersion; the error says that it is too large.
    pub(crate) async fn reach(&self, least: u64) -> Result<(), ApiError> {
        if self.seen() >= least {
            return Ok(());
        }
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let current = self.current().await?;
            if current >= least {
                return Ok(());
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(ApiError::too_large_version(least, current));
            }
            tokio::time::sleep(PATIENCE / 100).await;
        }
    }

    /// A part of a list: those that are wanted (None is all), up to `slice.limit`. `Expired` when the
    /// history does not reach back to `slice.at`.
    pub(crate) fn page(
        &self,
        r: &Resource,
        ns: Option<&str>,
        slice: Slice<'_>,
        wanted: Option<&Wanted<'_>>,
    ) -> Result<Page, ApiError> {
        let scope = r.scope(ns);
        let (found, rv, after) = {
            let state = self.store.shared.read();
            let at = slice.at.unwrap_or(state.rv);
            if at > state.rv {
                return Err(ApiError::expired(at, state.rv));
            }
            // One more than is asked for tells whether there is more.
            let limit = if wanted.is_none() && slice.limit > 0 { slice.limit + 1 } else { 0 };
            let slice = Slice { scope: &scope, limit, ..slice };
            let found = state.slice(&slice).map_err(|oldest| ApiError::expired(at, oldest))?;
            // Whether a page has more behind it, and how much, is counted of the whole.
            let full = limit > 0 && found.len() == limit;
            let last = found.iter().rev().nth(1).filter(|_| full).map(|(key, _)| key.clone());
            let after = last.map(|last| state.count(&Slice { after: &last, limit: 0, ..slice }));
            (found, at, after)
        };
        let mut page = Page { objects: Vec::new(), rv, next: None, remaining: after };
        let mut last = None;
        let wanted = |key: &str, object: &Object| wanted.is_none_or(|wanted| wanted(key, object));
        for (key, object) in found.into_iter().filter(|(key, object)| wanted(key, object)) {
            if slice.limit > 0 && page.objects.len() == slice.limit {
                page.next = last.map(|key: Arc<str>| key.to_string());
                break;
            }
            page.objects.push(object);
            last = Some(key);
        }
        Ok(page)
    }
}

/// Tells by its key and text whether an object belongs to a list.
pub(crate) type Wanted<'a> = dyn Fn(&str, &Object) -> bool + 'a;

/// A part of a list.
pub(crate) struct Page {
    pub(crate) objects: Vec<Arc<Object>>,
    pub(crate) rv: u64,
    /// The key after which the next page starts, if there is more.
    pub(crate) next: Option<String>,
    /// How many objects are behind this page, where nothing is filtered.
    pub(crate) remaining: Option<usize>,
}
