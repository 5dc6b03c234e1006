//! What a planner wants written, and the writing.

use std::sync::Arc;

use serde_json::{Value, json};

use super::object;
use super::world::Key;
use crate::error::ApiError;
use crate::patch::Patch;
use crate::registry::{DeleteOptions, Part, Registry};
use crate::resource::Resource;

/// One write.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Action {
    /// A new object of the kind.
    Create { kind: &'static str, namespace: String, object: Value },
    /// A merge patch on the object with this uid.
    Patch { key: Key, part: Part, patch: Value },
    /// Deletes the object with this uid.
    Delete { key: Key, uid: String, grace: Option<i64> },
    /// Deletes the object if none of its owners is there.
    Collect { key: Key, uid: String, owners: Vec<(Key, String)> },
    /// Deletes all that is in a namespace that is being deleted, and then lets the namespace go.
    Empty { namespace: String, uid: String },
}

/// What a write did to the object.
pub(super) enum Outcome {
    /// It is so now.
    Put(Arc<Value>),
    /// It is gone.
    Gone(Arc<Value>),
    /// The watches will tell.
    Unknown,
}

/// Finds a kind by its qualified plural.
pub(super) type Lookup<'a> = &'a (dyn Fn(&str) -> Option<Arc<Resource>> + Sync);

impl Action {
    /// The kind of the object that is written.
    pub(super) fn kind(&self) -> &str {
        match self {
            Action::Create { kind, .. } => kind,
            Action::Patch { key, .. } | Action::Delete { key, .. } | Action::Collect { key, .. } => &key.kind,
            Action::Empty { .. } => "namespaces",
        }
    }

    /// Does it.
    pub(super) async fn perform(self, registry: &Registry, kinds: Lookup<'_>) -> Result<Outcome, ApiError> {
        let resource = kinds(self.kind()).ok_or_else(ApiError::no_such_path)?;
        match self {
            Action::Create { namespace, object, .. } => {
                Ok(Outcome::Put(registry.create(&resource, Some(&namespace), object).await?))
            }
            Action::Patch { key, part, patch } => {
                let patch = Patch::Merge(patch);
                Ok(Outcome::Put(registry.patch(&resource, key.scope(), &key.name, part, patch).await?))
            }
            Action::Delete { key, uid, grace } => delete(registry, &resource, &key, uid, grace).await,
            Action::Collect { key, uid, owners } => {
                for (owner, owner_uid) in &owners {
                    let Some(kind) = kinds(&owner.kind) else { return Ok(Outcome::Unknown) };
                    let found = registry.get(&kind, owner.scope(), &owner.name).await;
                    if found.is_ok_and(|found| object::uid(&found) == owner_uid) {
                        return Ok(Outcome::Unknown);
                    }
                }
                delete(registry, &resource, &key, uid, None).await
            }
            Action::Empty { namespace, uid } => empty(registry, &resource, &namespace, &uid).await,
        }
    }
}

async fn delete(
    registry: &Registry,
    resource: &Resource,
    key: &Key,
    uid: String,
    grace_seconds: Option<i64>,
) -> Result<Outcome, ApiError> {
    let options = DeleteOptions { uid: Some(uid), grace_seconds, ..DeleteOptions::default() };
    match registry.delete(resource, key.scope(), &key.name, options).await {
        Ok(left) if object::terminating(&left) => Ok(Outcome::Put(left)),
        Ok(last) => Ok(Outcome::Gone(last)),
        Err(e) if e.reason == "NotFound" => Ok(Outcome::Unknown),
        Err(e) => Err(e),
    }
}

async fn empty(
    registry: &Registry,
    namespaces: &Resource,
    name: &str,
    uid: &str,
) -> Result<Outcome, ApiError> {
    let mut left = false;
    for kind in registry.kinds().into_iter().filter(|kind| kind.namespaced) {
        for object in registry.list(&kind, Some(name)).0 {
            let key = Key::of(&kind, &object);
            let gone = delete(registry, &kind, &key, object::uid(&object).to_owned(), None).await?;
            left |= matches!(gone, Outcome::Put(_));
        }
    }
    // What is left tells of its end by a watch, and that brings us here again.
    if !left {
        let patch = Patch::Merge(json!({"metadata": {"uid": uid}, "spec": {"finalizers": []}}));
        registry.patch(namespaces, None, name, Part::Finalize, patch).await?;
    }
    Ok(Outcome::Unknown)
}
