//! The end of a namespace: everything in it is deleted, and what remains is told in its status.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use serde_json::Value;

use super::action::{Outcome, delete, only};
use super::object;
use super::runner::WRITES;
use super::world::Key;
use crate::error::ApiError;
use crate::kinds;
use crate::registry::{Part, Registry};
use crate::resource::Resource;

/// The finalizer that holds a namespace until it is empty.
const OWN: &str = "kubernetes";

/// Deletes all that is in a namespace that is being deleted, tells what is left, and lets the namespace go
/// when nothing is.
pub(super) async fn empty(registry: &Registry, name: &str, uid: &str) -> Result<Outcome, ApiError> {
    let mut all: Vec<(Arc<Resource>, Arc<Value>)> = Vec::new();
    let mut seen = BTreeSet::new();
    for kind in registry.kinds().into_iter().filter(|kind| kind.namespaced) {
        // Versions of a kind share their objects.
        if seen.insert(kind.qualified()) {
            all.extend(registry.list(&kind, Some(name)).0.into_iter().map(|object| (kind.clone(), object)));
        }
    }
    let deletions = all.into_iter().map(|(kind, object)| async move {
        let key = Key::of(&kind, &object);
        (delete(registry, &kind, &key, only(object::uid(&object).to_owned())).await, kind)
    });
    let deleted: Vec<_> = stream::iter(deletions).buffer_unordered(WRITES).collect().await;
    let mut left = Left::default();
    for (outcome, kind) in deleted {
        match outcome {
            Ok(Outcome::Put(object)) => left.add(&kind, &object),
            Ok(Outcome::Gone(_) | Outcome::Unknown) => {}
            Err(error) => left.failed.push(error),
        }
    }
    let empty = left.kinds.is_empty() && left.failed.is_empty();
    left.tell(registry, name, uid).await?;
    if let Some(error) = left.failed.into_iter().next() {
        return Err(error);
    }
    // What is left tells of its end by a watch, and that brings us here again.
    if empty {
        let own = uid.to_owned();
        let finish = move |namespace: &mut Value| {
            if object::uid(namespace) == own
                && let Some(finalizers) = namespace["spec"]["finalizers"].as_array_mut()
            {
                finalizers.retain(|finalizer| finalizer != OWN);
            }
            Ok(())
        };
        gone_is_fine(registry.modify(&kinds::NAMESPACES, None, name, Part::Finalize, finish).await)?;
    }
    Ok(Outcome::Unknown)
}

fn gone_is_fine(done: Result<Arc<Value>, ApiError>) -> Result<(), ApiError> {
    match done {
        Err(error) if error.code != 404 => Err(error),
        _ => Ok(()),
    }
}

/// What could not go yet.
#[derive(Default)]
struct Left {
    kinds: BTreeMap<String, usize>,
    finalizers: BTreeMap<String, usize>,
    failed: Vec<ApiError>,
}

impl Left {
    fn add(&mut self, kind: &Resource, object: &Value) {
        *self.kinds.entry(format!("{}.{}", kind.plural, kind.group)).or_default() += 1;
        for finalizer in object::list(&object["metadata"]["finalizers"]).filter_map(Value::as_str) {
            *self.finalizers.entry(finalizer.to_owned()).or_default() += 1;
        }
    }

    /// Writes the conditions as Kubernetes words them.
    async fn tell(&self, registry: &Registry, name: &str, uid: &str) -> Result<(), ApiError> {
        let (conditions, uid) = (self.conditions(), uid.to_owned());
        let change = move |namespace: &mut Value| {
            if object::uid(namespace) != uid {
                return Ok(());
            }
            let now = crate::strategy::now();
            let mut told = namespace["status"]["conditions"].take();
            for (kind, status, reason, message) in &conditions {
                told = object::with_condition(&told, kind, *status, reason, message, &now);
            }
            namespace["status"]["conditions"] = told;
            Ok(())
        };
        gone_is_fine(registry.modify(&kinds::NAMESPACES, None, name, Part::Status, change).await)
    }

    fn conditions(&self) -> [(&'static str, bool, &'static str, String); 5] {
        let all = |of: &BTreeMap<String, usize>, verb: &str| {
            let each: Vec<_> =
                of.iter().map(|(name, count)| format!("{name} {verb} {count} resource instances")).collect();
            each.join(", ")
        };
        let (remain, hold) = (all(&self.kinds, "has"), all(&self.finalizers, "in"));
        let failure = match self.failed.first() {
            Some(error) => {
                let count = self.failed.len();
                (
                    true,
                    "ContentDeletionFailed",
                    format!("Failed to delete all resource types, {count} remaining: {error}"),
                )
            }
            None => (
                false,
                "ContentDeleted",
                "All content successfully deleted, may be waiting on finalization".into(),
            ),
        };
        let remaining = if remain.is_empty() {
            (false, "ContentRemoved", "All content successfully removed".to_owned())
        } else {
            (true, "SomeResourcesRemain", format!("Some resources are remaining: {remain}"))
        };
        let held = if hold.is_empty() {
            (false, "ContentHasNoFinalizers", "All content-preserving finalizers finished".to_owned())
        } else {
            let text = format!("Some content in the namespace has finalizers remaining: {hold}");
            (true, "SomeFinalizersRemain", text)
        };
        let fine = |kind, reason, message: &str| (kind, false, reason, message.to_owned());
        let named = |kind, (status, reason, message)| (kind, status, reason, message);
        [
            fine(
                "NamespaceDeletionDiscoveryFailure",
                "ResourcesDiscovered",
                "All resources successfully discovered",
            ),
            fine(
                "NamespaceDeletionGroupVersionParsingFailure",
                "ParsedGroupVersions",
                "All legacy kube types successfully parsed",
            ),
            named("NamespaceDeletionContentFailure", failure),
            named("NamespaceContentRemaining", remaining),
            named("NamespaceFinalizersRemaining", held),
        ]
    }
}
