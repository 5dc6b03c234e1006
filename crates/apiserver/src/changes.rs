//! From what a write wants to the change of the store.

use std::sync::Arc;

use serde_json::Value;

use crate::error::ApiError;
use crate::resource::Resource;
use crate::storage::{Change, View};
use crate::strategy::{self, Context};

/// Names that are tried for a `generateName`.
const NAMES: usize = 8;

/// The creation of an object; `own` says who owns its fields, given what the author wrote.
pub(crate) fn create_in(
    view: &View<'_>,
    r: &Resource,
    ns: Option<&str>,
    given: &Value,
    context: &Context,
    own: impl Fn(&Value, &mut Value),
) -> Result<Change, ApiError> {
    let generated = strategy::name_of(given).is_empty();
    let mut taken = String::new();
    for _ in 0..if generated { NAMES } else { 1 } {
        let mut made = given.clone();
        strategy::create(r, ns, &mut made, view, context)?;
        let key = r.key(ns, strategy::name_of(&made));
        if view.get(&key).is_none() {
            own(given, &mut made);
            return Ok(Change::Put(key, made));
        }
        taken = strategy::name_of(&made).to_owned();
    }
    Err(ApiError::already_exists(r, &taken))
}

/// The change from an object to what became of it.
pub(crate) fn put(r: &Resource, key: String, old: Arc<Value>, new: Value) -> Change {
    if new == *old {
        Change::Nothing(old)
    } else if strategy::may_vanish(r, &new) {
        Change::Delete(key, new)
    } else {
        Change::Put(key, new)
    }
}
