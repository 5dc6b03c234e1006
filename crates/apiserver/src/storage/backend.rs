//! Where objects are durable.

use futures_util::future::BoxFuture;

use super::view::{Answer, Decide};
use crate::error::ApiError;

/// Makes writes durable, and says how new the state is that readers see.
pub(crate) trait Backend: Send + Sync {
    /// Runs `decide` on the newest state, and returns when its change is durable and readers see it.
    fn write(&self, decide: Decide) -> BoxFuture<'_, Answer>;

    /// Waits until readers see every write that was acknowledged before the call, by any server of the
    /// same store; returns a resourceVersion that is not before any of theirs.
    fn current(&self) -> BoxFuture<'_, Result<u64, ApiError>>;
}
