//! The handle on the objects.

use std::path::Path;
use std::sync::Arc;

use super::backend::Backend;
use super::embedded::Embedded;
use super::error::StorageError;
use super::etcd::{Etcd, EtcdConfig};
use super::state::Shared;
use super::view::{Answer, Change, View};
use crate::error::ApiError;

/// The objects; a handle that is cheap to clone.
#[derive(Clone)]
pub(crate) struct Store {
    pub(crate) shared: Arc<Shared>,
    backend: Arc<dyn Backend>,
}

impl Store {
    /// Opens the file of a data directory.
    pub(crate) fn open(dir: &Path) -> Result<Self, StorageError> {
        let (backend, shared) = Embedded::open(dir)?;
        Ok(Self { shared, backend: Arc::new(backend) })
    }

    /// Joins the servers of an etcd.
    pub(crate) async fn open_etcd(config: &EtcdConfig) -> Result<Self, StorageError> {
        let (backend, shared) = Etcd::open(config).await?;
        Ok(Self { shared, backend: Arc::new(backend) })
    }

    /// See [`Backend::write`].
    pub(crate) async fn write(
        &self,
        decide: impl FnMut(&View<'_>) -> Result<Change, ApiError> + Send + 'static,
    ) -> Answer {
        self.backend.write(Box::new(decide)).await
    }

    /// See [`Backend::current`].
    pub(crate) async fn current(&self) -> Result<u64, ApiError> {
        self.backend.current().await
    }
}
