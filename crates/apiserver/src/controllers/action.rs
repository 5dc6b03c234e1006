//! What a planner wants written, and the writing.

use std::sync::Arc;

use serde_json::Value;

use super::namespace;
use super::object;
use super::world::Key;
use crate::error::ApiError;
use crate::options::Propagation;
use crate::patch::Patch;
use crate::registry::{DeleteOptions, Part, Registry};
use crate::resource::Resource;
use crate::strategy;

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
    /// Deletes the object because its owner waits for that.
    Cascade { key: Key, uid: String, foreground: bool },
    /// Takes these owners from the object, except those that are there and not being deleted.
    Disown { key: Key, uid: String, owners: Vec<(Key, String)> },
    /// Takes a finalizer from the object.
    Release { key: Key, uid: String, finalizer: &'static str },
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
            Action::Patch { key, .. }
            | Action::Delete { key, .. }
            | Action::Collect { key, .. }
            | Action::Cascade { key, .. }
            | Action::Disown { key, .. }
            | Action::Release { key, .. } => &key.kind,
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
            Action::Delete { key, uid, grace } => {
                let options = DeleteOptions { grace_seconds: grace, ..only(uid) };
                delete(registry, &resource, &key, options).await
            }
            Action::Collect { key, uid, owners } => {
                if gone(registry, kinds, owners.clone()).await.len() < owners.len() {
                    return Ok(Outcome::Unknown);
                }
                delete(registry, &resource, &key, only(uid)).await
            }
            Action::Cascade { key, uid, foreground } => {
                let propagation = foreground.then_some(Propagation::Foreground);
                delete(registry, &resource, &key, DeleteOptions { propagation, ..only(uid) }).await
            }
            Action::Disown { key, uid, owners } => {
                let owners = gone(registry, kinds, owners).await;
                change(registry, &resource, &key, uid, move |meta| disown(meta, &owners)).await
            }
            Action::Release { key, uid, finalizer } => {
                change(registry, &resource, &key, uid, move |meta| {
                    remove(meta, "finalizers", |f| f == finalizer)
                })
                .await
            }
            Action::Empty { namespace: name, uid } => namespace::empty(registry, &name, &uid).await,
        }
    }
}

/// Of these owners, those that are not there, or are being deleted.
async fn gone(registry: &Registry, kinds: Lookup<'_>, owners: Vec<(Key, String)>) -> Vec<(Key, String)> {
    let mut out = Vec::new();
    for (owner, uid) in owners {
        let Some(kind) = kinds(&owner.kind) else { continue };
        let there = match registry.get(&kind, owner.scope(), &owner.name).await {
            Ok(found) => object::uid(&found) == uid && !object::terminating(&found),
            Err(error) => error.reason != "NotFound",
        };
        if !there {
            out.push((owner, uid));
        }
    }
    out
}

/// A deletion of the object with this uid and of no other.
pub(super) fn only(uid: String) -> DeleteOptions {
    DeleteOptions { uid: Some(uid), ..DeleteOptions::default() }
}

/// Deletes an object; one that is gone already is fine.
pub(super) async fn delete(
    registry: &Registry,
    resource: &Resource,
    key: &Key,
    options: DeleteOptions,
) -> Result<Outcome, ApiError> {
    match registry.delete(resource, key.scope(), &key.name, options).await {
        Ok(left) if object::terminating(&left) && !strategy::may_vanish(resource, &left) => {
            Ok(Outcome::Put(left))
        }
        Ok(last) => Ok(Outcome::Gone(last)),
        Err(e) if e.reason == "NotFound" => Ok(Outcome::Unknown),
        Err(e) => Err(e),
    }
}

/// Changes the metadata of the object with this uid.
async fn change(
    registry: &Registry,
    resource: &Resource,
    key: &Key,
    uid: String,
    mut edit: impl FnMut(&mut Value) + Send + 'static,
) -> Result<Outcome, ApiError> {
    let (kind, name) = (resource.clone(), key.name.clone());
    let change = move |object: &mut Value| {
        if object::uid(object) != uid {
            return Err(ApiError::not_found(&kind, &name));
        }
        edit(&mut object["metadata"]);
        Ok(())
    };
    match registry.modify(resource, key.scope(), &key.name, Part::Both, change).await {
        Err(e) if e.reason != "NotFound" => Err(e),
        // The watches tell whether it is gone with that.
        _ => Ok(Outcome::Unknown),
    }
}

fn disown(meta: &mut Value, owners: &[(Key, String)]) {
    remove(meta, "ownerReferences", |reference| {
        owners.iter().any(|(_, uid)| reference["uid"] == uid.as_str())
    });
}

/// Removes items of a list in the metadata, and the list when nothing is left of it.
fn remove(meta: &mut Value, field: &str, which: impl Fn(&Value) -> bool) {
    let Some(meta) = meta.as_object_mut() else { return };
    let Some(Value::Array(list)) = meta.get_mut(field) else { return };
    list.retain(|item| !which(item));
    if list.is_empty() {
        meta.remove(field);
    }
}
