//! A reader of one kind's events that misses none.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::watch;

use super::log::Event;
use super::state::Shared;
use crate::error::ApiError;

/// Events taken from the history at once.
const CHUNK: usize = 256;

/// A position in a kind's history. It pulls, so that a slow reader costs no memory: one that is
/// further behind than the history is long is told to list again.
pub struct Watch {
    shared: Arc<Shared>,
    kind: String,
    scope: String,
    position: u64,
    era: u64,
    tip: watch::Receiver<u64>,
    buffer: VecDeque<Arc<Event>>,
}

impl Watch {
    pub(crate) fn new(
        shared: Arc<Shared>,
        kind: String,
        scope: String,
        after: u64,
    ) -> Result<Self, ApiError> {
        let tip = shared.subscribe(&kind);
        let (now, era) = {
            let state = shared.read();
            (state.rv, state.era)
        };
        if after > now {
            // From the history of another file: only a new list can help that client.
            return Err(ApiError::expired(after, now));
        }
        let mut watch = Self { shared, kind, scope, position: after, era, tip, buffer: VecDeque::new() };
        watch.fill()?;
        Ok(watch)
    }

    /// Takes what is new from the history.
    fn fill(&mut self) -> Result<(), ApiError> {
        self.tip.borrow_and_update();
        let state = self.shared.read();
        let expired = |oldest| ApiError::expired(self.position, oldest);
        if state.era != self.era {
            return Err(expired(state.rv));
        }
        let (events, all) = state.events_after(&self.kind, self.position, CHUNK).map_err(expired)?;
        self.position = match events.last() {
            Some(last) if !all => last.rv,
            _ => state.rv,
        };
        self.buffer.extend(events.into_iter().filter(|e| e.key.starts_with(&self.scope)));
        Ok(())
    }

    /// The next event. May be dropped and called again without losing one. The error is `Expired`:
    /// list, and watch from there.
    pub async fn next(&mut self) -> Result<Arc<Event>, ApiError> {
        loop {
            if let Some(event) = self.buffer.pop_front() {
                return Ok(event);
            }
            self.fill()?;
            if self.buffer.is_empty() && self.tip.changed().await.is_err() {
                return Err(ApiError::internal("the store is closed"));
            }
        }
    }

    /// The next event if there is one already.
    pub fn try_next(&mut self) -> Result<Option<Arc<Event>>, ApiError> {
        if self.buffer.is_empty() {
            self.fill()?;
        }
        Ok(self.buffer.pop_front())
    }

    /// A resourceVersion up to which everything was handed out, if nothing waits.
    pub fn bookmark(&mut self) -> Result<Option<u64>, ApiError> {
        if self.buffer.is_empty() {
            self.fill()?;
        }
        Ok(self.buffer.is_empty().then_some(self.position))
    }
}
