//! Why the store cannot be used.

/// The objects cannot be read or written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StorageError {
    /// The data directory's file, or etcd.
    #[error("the store {path} could not {op}: {cause}")]
    Store {
        /// The file, or the servers.
        path: String,
        /// What was attempted.
        op: &'static str,
        /// What the file system, the database or etcd said, and what to do.
        cause: String,
    },
    /// The data directory's file has its server already.
    #[error("the store {path} could not be opened: another weft apiserver uses it; stop that one first")]
    InUse {
        /// The file.
        path: String,
    },
    /// A backup.
    #[error("the backup {path} could not {op}: {cause}")]
    Backup {
        /// The file.
        path: String,
        /// What was attempted.
        op: &'static str,
        /// What the file system said, or what is wrong with it.
        cause: String,
    },
}
