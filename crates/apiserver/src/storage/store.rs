//! The handle on the objects.

use std::path::Path;
use std::sync::Arc;

use super::embedded::Embedded;
use super::error::StorageError;
use super::state::Shared;
use super::view::{Answer, Change, View};
use crate::error::ApiError;

/// The objects; a handle that is cheap to clone.
#[derive(Clone)]
pub(crate) struct Store {
    pub(crate) shared: Arc<Shared>,
    backend: Arc<Embedded>,
}

impl Store {
    /// Opens the data directory.
    pub(crate) fn open(dir: &Path) -> Result<Self, StorageError> {
        let (backend, shared) = Embedded::open(dir)?;
        Ok(Self { shared, backend: Arc::new(backend) })
    }

    /// Runs `decide` on the newest state and returns when its change is durable and readers see it.
    pub(crate) async fn write(
        &self,
        decide: impl FnMut(&View<'_>) -> Result<Change, ApiError> + Send + 'static,
    ) -> Answer {
        self.backend.write(Box::new(decide)).await
    }

    /// A resourceVersion, already seen by readers, that is not before any acknowledged write's.
    pub(crate) async fn current(&self) -> Result<u64, ApiError> {
        Ok(self.shared.read().rv)
    }
}
