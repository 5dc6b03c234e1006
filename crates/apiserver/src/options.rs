//! How a caller wants a write done.

/// Which part of an object a write may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All but the status, if the kind has a status subresource.
    Whole,
    /// The status alone.
    Status,
    /// A namespace's `spec.finalizers` alone.
    Finalize,
    /// A pod's ephemeral containers alone.
    Ephemeral,
    /// What a pod's containers take, alone.
    Resize,
    /// Spec and status in one write; for the server's own parts.
    Both,
}

/// How to delete.
#[derive(Debug, Clone, Default)]
pub struct DeleteOptions {
    /// Only if the object has this uid.
    pub uid: Option<String>,
    /// Only if the object has this resourceVersion.
    pub resource_version: Option<String>,
    /// Seconds that a pod has to end; 0 is at once. None is the pod's own
    /// `terminationGracePeriodSeconds`. Other kinds have no grace.
    pub grace_seconds: Option<i64>,
    /// What becomes of the dependents; None is in the background, unless the object's finalizers say else.
    pub propagation: Option<Propagation>,
    /// Decide and answer, but write nothing.
    pub dry_run: bool,
}

/// What becomes of the objects that a deleted object owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// They stay, without that owner.
    Orphan,
    /// They go after it.
    Background,
    /// Those that block its deletion go before it.
    Foreground,
}

/// How to write, beside what.
#[derive(Debug, Clone, Default)]
pub struct WriteOptions {
    /// Decide and answer, but write nothing.
    pub dry_run: bool,
    /// Who writes, for the ownership of fields; None leaves `metadata.managedFields` as it is.
    pub manager: Option<String>,
    /// The subresource that is written, such as `status`; empty for the object.
    pub subresource: &'static str,
}

impl From<bool> for WriteOptions {
    /// A write of the server's own, perhaps a dry run.
    fn from(dry_run: bool) -> Self {
        Self { dry_run, ..Self::default() }
    }
}
