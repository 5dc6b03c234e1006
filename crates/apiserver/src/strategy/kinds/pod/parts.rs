//! The parts of a pod that have a path of their own: its ephemeral containers, and its containers' resources.

use serde_json::{Value, json};

use super::super::resources;
use super::defaults::quality;
use crate::registry::Part;
use crate::strategy::field::{Errors, Path};
use crate::strategy::value::{drop_fields, inner, list, put, same, text};

const CONTAINERS: [&str; 2] = ["containers", "initContainers"];

/// The pod as it was, with what a write to the part changes.
pub(in crate::strategy) fn take(old: &Value, given: &Value, part: Part) -> Value {
    let mut pod = old.clone();
    if part == Part::Ephemeral {
        put(&mut pod["spec"], "ephemeralContainers", &given["spec"]["ephemeralContainers"]);
        return pod;
    }
    for field in CONTAINERS {
        let wanted = list(&given["spec"][field]);
        if wanted.len() != list(&old["spec"][field]).len() {
            put(&mut pod["spec"], field, &given["spec"][field]);
            continue;
        }
        let containers = pod["spec"][field].as_array_mut();
        for (container, wanted) in containers.into_iter().flatten().zip(wanted) {
            for field in ["name", "resources", "resizePolicy"] {
                put(container, field, &wanted[field]);
            }
        }
    }
    pod
}

/// Checks what changed of the part.
pub(in super::super) fn check(old: &Value, pod: &Value, part: Part, errors: &mut Errors) {
    let (before, spec, at) = (&old["spec"], &pod["spec"], Path::new("spec"));
    match part {
        Part::Ephemeral => ephemeral(before, spec, &at.field("ephemeralContainers"), errors),
        _ => resized(old, pod, &at, errors),
    }
}

fn ephemeral(before: &Value, spec: &Value, at: &Path, errors: &mut Errors) {
    for old in list(&before["ephemeralContainers"]) {
        let name = text(&old["name"]);
        match list(&spec["ephemeralContainers"]).iter().rev().find(|c| c["name"] == old["name"]) {
            None => {
                errors.forbidden(at, &format!("existing ephemeral containers {name:?} may not be removed\n"));
            }
            Some(new) if !same(old, new) => {
                errors.forbidden(at, &format!("existing ephemeral containers {name:?} may not be changed\n"));
            }
            Some(_) => {}
        }
    }
}

fn resized(old: &Value, pod: &Value, at: &Path, errors: &mut Errors) {
    let (before, spec) = (&old["spec"], &pod["spec"]);
    if quality(before) != quality(spec) {
        let rule = "Pod QOS Class may not change as a result of resizing";
        errors.invalid(at, &old["status"]["qosClass"], rule);
    }
    let running = list(&old["status"]["containerStatuses"]).iter().find(|c| !c["state"]["running"].is_null());
    if running.is_some_and(|c| c["resources"].is_null()) {
        errors.forbidden(at, "Pod running on node without support for resize");
    }
    let found = errors.0.len();
    for field in CONTAINERS {
        names(&before[field], &spec[field], field, &at.field(field), errors);
    }
    if errors.0.len() > found {
        return;
    }
    for field in CONTAINERS {
        for (index, (old, new)) in list(&before[field]).iter().zip(list(&spec[field])).enumerate() {
            let here = at.field(field).at(index);
            for what in ["requests", "limits"] {
                let removed = |(name, _): (&String, &Value)| new["resources"][what][name].is_null();
                if old["resources"][what].as_object().is_some_and(|all| all.iter().any(removed)) {
                    let at = here.field("resources").field(what);
                    errors.forbidden(&at, &format!("resource {what} cannot be removed"));
                }
            }
            if !same(&fixed(old), &fixed(new)) {
                match field {
                    "containers" => errors.forbidden(at, "only cpu and memory resources are mutable"),
                    _ => errors.forbidden(
                        &here,
                        "only cpu and memory resources for init or sidecar containers are mutable",
                    ),
                }
            }
        }
    }
}

fn names(before: &Value, after: &Value, field: &str, at: &Path, errors: &mut Errors) {
    if list(before).len() != list(after).len() {
        return errors.forbidden(at, &format!("{field} may not be added or removed on resize"));
    }
    for (index, (old, new)) in list(before).iter().zip(list(after)).enumerate() {
        if old["name"] != new["name"] {
            let rule = format!("{field} may not be renamed or reordered on resize");
            errors.forbidden(&at.at(index).field("name"), &rule);
        }
    }
}

/// A container without what a resize may change.
fn fixed(container: &Value) -> Value {
    let mut fixed = container.clone();
    drop_fields(&mut fixed, &["resizePolicy"]);
    for field in ["requests", "limits"] {
        let amounts = inner(&mut fixed, "resources").and_then(|r| inner(r, field));
        amounts.into_iter().for_each(|all| drop_fields(all, &["cpu", "memory"]));
    }
    resources::defaults(&mut fixed, false);
    if fixed["resources"] == json!({}) {
        drop_fields(&mut fixed, &["resources"]);
    }
    fixed
}
