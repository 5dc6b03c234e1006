/// What a proxy could not do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] weft_kernel::Error),
    /// The userspace proxy could not start.
    #[error(transparent)]
    Userspace(#[from] crate::userspace::Error),
}
