//! What a client is told when it applies a value that is another manager's.

use serde_json::json;

use super::managers::Manager;
use super::set::FieldSet;
use crate::error::ApiError;

/// Fields named in one error; an object may have very many.
const MOST: usize = 1000;

/// The error for fields that other managers own; fine when there are none.
pub(super) fn check(conflicts: &[(Manager, FieldSet)]) -> Result<(), ApiError> {
    let mut all: Vec<(String, String)> = Vec::new();
    for (manager, fields) in conflicts {
        all.extend(fields.paths().into_iter().map(|path| (manager.shown(), path)));
    }
    if all.is_empty() {
        return Ok(());
    }
    all.sort();
    let count = all.len();
    all.truncate(MOST);
    let mut error = ApiError::new(409, "Conflict", message(&all, count));
    let causes = all.iter().map(|(manager, path)| {
        json!({"reason": "FieldManagerConflict", "message": format!("conflict with {manager}"), "field": path})
    });
    *error.details = json!({"causes": causes.collect::<Vec<_>>()});
    Err(error)
}

fn message(all: &[(String, String)], count: usize) -> String {
    if let [(manager, path)] = all {
        return format!("Apply failed with 1 conflict: conflict with {manager}: {path}");
    }
    let mut lines = Vec::new();
    let mut last = "";
    for (manager, path) in all {
        if manager != last {
            lines.push(format!("conflicts with {manager}:"));
            last = manager;
        }
        lines.push(format!("- {path}"));
    }
    format!("Apply failed with {count} conflicts: {}", lines.join("\n"))
}
