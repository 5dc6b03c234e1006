//! The kinds of patch.

use serde_json::Value;

use crate::error::ApiError;

/// A change to an object, as a client sends it.
#[derive(Debug, Clone)]
pub enum Patch {
    /// RFC 7396: objects merge, null removes, lists are replaced.
    Merge(Value),
    /// RFC 6902: a list of operations.
    Json(json_patch::Patch),
}

impl Patch {
    /// Changes the object.
    pub(crate) fn apply(&self, object: &mut Value) -> Result<(), ApiError> {
        match self {
            Self::Merge(patch) => json_patch::merge(object, patch),
            Self::Json(patch) => json_patch::patch(object, patch)
                .map_err(|e| ApiError::new(422, "Invalid", format!("the patch does not apply: {e}")))?,
        }
        Ok(())
    }
}
