//! From `kubectl apply` on the client to server-side apply: what the annotation
//! `kubectl.kubernetes.io/last-applied-configuration` says was kubectl's before, kubectl may take without force.

use serde_json::Value;

use super::managers::Manager;
use super::set::FieldSet;
use super::{Configuration, Shape, extract, owned_part};
use crate::resource::Resource;

const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Whether all these conflicts are with what kubectl itself applied before.
pub(super) fn allows(
    r: &Resource,
    live: &Value,
    config: &Configuration,
    conflicts: &[(Manager, FieldSet)],
) -> bool {
    if conflicts.is_empty() || config.manager.name != "kubectl" {
        return false;
    }
    let Some(last) = annotation(live).and_then(|text| serde_json::from_str::<Value>(text).ok()) else {
        return false;
    };
    let mut own = owned_part(r, &last, "");
    let diverged = extract::compare(&last, live, Shape::of(r), 0);
    own.subtract(&diverged.changed);
    own.subtract(&diverged.removed);
    conflicts.iter().all(|(_, fields)| {
        let mut foreign = fields.clone();
        foreign.subtract(&own);
        foreign.is_empty()
    })
}

/// Keeps the annotation of an object that has one at what kubectl applied last, so that the way back is open.
pub(super) fn refresh(live: &Value, config: &Configuration, object: &mut Value) {
    if config.manager.name != "kubectl"
        || !config.manager.subresource.is_empty()
        || annotation(live).is_none()
    {
        return;
    }
    let mut own = config.object.clone();
    if let Some(annotations) = own["metadata"].get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove(ANNOTATION);
    }
    if let Some(annotations) = object["metadata"]["annotations"].as_object_mut() {
        annotations.insert(ANNOTATION.to_owned(), Value::String(format!("{own}\n")));
    }
}

fn annotation(object: &Value) -> Option<&str> {
    object["metadata"]["annotations"][ANNOTATION].as_str().filter(|text| !text.is_empty())
}
