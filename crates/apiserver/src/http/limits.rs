//! How many requests are answered at once, and for how long.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::BodyExt;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::Reply;
use crate::auth::User;
use crate::error::ApiError;

/// Bounds on what clients may ask for.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Requests that read, at once.
    pub requests: usize,
    /// Requests that write, at once.
    pub mutating_requests: usize,
    /// Watches of one user, at once; the administrators' are not counted.
    pub watches_per_user: usize,
    /// Connections of one address, at once.
    pub connections_per_address: usize,
    /// Time for a request that is no watch.
    pub request_time: Duration,
    /// Time for which a client may leave what is sent to it unread.
    pub unread_time: Duration,
    /// Time for a request's headers, and for the next request on a connection.
    pub idle_time: Duration,
}

impl Default for Limits {
    /// kube-apiserver's numbers where it has them.
    fn default() -> Self {
        Self {
            requests: 400,
            mutating_requests: 200,
            watches_per_user: 1000,
            connections_per_address: 1000,
            request_time: Duration::from_secs(60),
            unread_time: Duration::from_secs(60),
            // Clients drop idle connections after 90 s; a server that does so earlier would meet requests
            // that are on their way.
            idle_time: Duration::from_secs(100),
        }
    }
}

/// What is going on, by those bounds.
pub(crate) struct InFlight {
    pub(crate) limits: Limits,
    reads: Semaphore,
    writes: Semaphore,
    watches: Counts<String>,
}

impl InFlight {
    pub(crate) fn new(limits: Limits) -> Self {
        let (reads, writes) = (Semaphore::new(limits.requests), Semaphore::new(limits.mutating_requests));
        Self { limits, reads, writes, watches: Counts::default() }
    }

    /// A place for a request that is no watch; none is needed by an administrator, who must be able to help.
    pub(super) fn enter(&self, user: &User, writes: bool) -> Result<Option<SemaphorePermit<'_>>, ApiError> {
        if user.is_master() {
            return Ok(None);
        }
        let places = if writes { &self.writes } else { &self.reads };
        places.try_acquire().map(Some).map_err(|_| too_many())
    }

    /// Waits for an answer, as long as one may take.
    pub(super) async fn in_time(
        &self,
        answer: impl Future<Output = Result<Reply, ApiError>>,
    ) -> Result<Reply, ApiError> {
        let late = || {
            let message = "Timeout: request did not complete within the allotted timeout";
            ApiError::new(504, "Timeout", message)
        };
        tokio::time::timeout(self.limits.request_time, answer).await.unwrap_or_else(|_| Err(late()))
    }

    /// A place for a watch.
    pub(super) fn watch(&self, user: &User) -> Result<Option<Counted<String>>, ApiError> {
        if user.is_master() {
            return Ok(None);
        }
        self.watches.enter(user.name.clone(), self.limits.watches_per_user).map(Some).ok_or_else(too_many)
    }
}

fn too_many() -> ApiError {
    ApiError::new(429, "TooManyRequests", "Too many requests, please try again later.")
}

/// How many of something each has.
#[derive(Clone)]
pub(crate) struct Counts<K>(Arc<Mutex<HashMap<K, usize>>>);

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Hash + Eq + Clone> Counts<K> {
    /// One more, until what is returned is dropped; None for who has `limit` already.
    pub(crate) fn enter(&self, key: K, limit: usize) -> Option<Counted<K>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = all.entry(key.clone()).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        Some(Counted { all: self.clone(), key })
    }
}

/// One that counts.
pub(crate) struct Counted<K: Hash + Eq + Clone> {
    all: Counts<K>,
    key: K,
}

impl<K: Hash + Eq + Clone + Send + 'static> Counted<K> {
    /// Counts for as long as the answer lasts.
    pub(super) fn hold(self, reply: Reply) -> Reply {
        reply.map(|body| {
            body.map_frame(move |frame| {
                // Owned by the body, and so given back with it.
                let _held = &self;
                frame
            })
            .boxed_unsync()
        })
    }
}

impl<K: Hash + Eq + Clone> Drop for Counted<K> {
    fn drop(&mut self) {
        let mut all = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.key);
            }
        }
    }
}
