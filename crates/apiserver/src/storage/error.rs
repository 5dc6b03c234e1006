//! Why the store cannot be used.

/// The data directory's file, or etcd, cannot be read or written.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the store {path} could not {op}: {cause}")]
pub struct StorageError {
    /// The file, or the servers.
    pub path: String,
    /// What was attempted.
    pub op: &'static str,
    /// What the file system, the database or etcd said, and what to do.
    pub cause: String,
}
