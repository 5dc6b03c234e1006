//! What every object's metadata must keep to.

use serde_json::{Value, json};

use super::field::{Errors, Path};
use super::format::{self, Broken};
use super::value::{entries, list, text, unset};
use crate::resource::Resource;

/// Bytes of all annotations together.
const ANNOTATIONS: usize = 256 * 1024;

/// Takes out of metadata the lists and maps that are empty.
pub(super) fn tidy(meta: &mut Value) {
    if let Some(meta) = meta.as_object_mut() {
        let may_go = ["labels", "annotations", "finalizers", "ownerReferences"];
        meta.retain(|field, value| !(may_go.contains(&field.as_str()) && unset(value)));
    }
}

/// Checks the metadata of a new object, whose name is settled.
pub(super) fn check_new(r: &Resource, meta: &Value, errors: &mut Errors) {
    let at = Path::new("metadata");
    let base = text(&meta["generateName"]);
    if !base.is_empty() {
        // A name follows the dash.
        let whole = base.strip_suffix('-').filter(|b| !b.is_empty()).map(|b| format!("{b}a"));
        errors.all(&at.field("generateName"), &json!(base), name(r, whole.as_deref().unwrap_or(base)));
    }
    match text(&meta["name"]) {
        "" => errors.required(&at.field("name"), "name or generateName is required"),
        given => errors.all(&at.field("name"), &json!(given), name(r, given)),
    }
    check_common(r, meta, &at, errors);
    let at = at.field("finalizers");
    for finalizer in list(&meta["finalizers"]) {
        errors.all(&at, finalizer, format::label_key(text(finalizer)));
    }
    let has = |name: &str| list(&meta["finalizers"]).iter().any(|f| f == name);
    if has("orphan") && has("foregroundDeletion") {
        let rule = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.invalid(&at, &meta["finalizers"], rule);
    }
}

/// Checks changed metadata.
pub(super) fn check_changed(r: &Resource, old: &Value, meta: &Value, errors: &mut Errors) {
    let at = Path::new("metadata");
    let (before, after) = (list(&old["finalizers"]), list(&meta["finalizers"]));
    if !old["deletionTimestamp"].is_null() {
        let new: Vec<_> = after.iter().filter(|f| !before.contains(f)).map(|f| format!("{f}")).collect();
        if !new.is_empty() {
            let rule = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                new.join(", ")
            );
            errors.forbidden(&at.field("finalizers"), &rule);
        }
    }
    check_common(r, meta, &at, errors);
}

fn check_common(r: &Resource, meta: &Value, at: &Path, errors: &mut Errors) {
    labels(&meta["labels"], &at.field("labels"), errors);
    annotations(&meta["annotations"], &at.field("annotations"), errors);
    owners(&meta["ownerReferences"], &at.field("ownerReferences"), errors);
    if r.schema.is_none() {
        finalizers(&meta["finalizers"], &at.field("finalizers"), errors);
    }
}

/// What is wrong with the name of an object of this kind.
fn name(r: &Resource, name: &str) -> Broken {
    match (&*r.group, &*r.kind) {
        ("", "Namespace" | "Service") | ("apps", "StatefulSet") => format::dns_label(name),
        ("rbac.authorization.k8s.io", _) | ("policy", "PodDisruptionBudget") => format::path_segment(name),
        _ => format::dns_subdomain(name),
    }
}

/// Checks labels, or a selector of the form of labels.
pub(super) fn labels(labels: &Value, at: &Path, errors: &mut Errors) {
    for (key, value) in entries(labels) {
        errors.all(at, &json!(key), format::label_key(key));
        errors.all(at, value, format::label_value(text(value)));
    }
}

/// Checks annotations.
pub(super) fn annotations(annotations: &Value, at: &Path, errors: &mut Errors) {
    let mut size = 0;
    for (key, value) in entries(annotations) {
        errors.all(at, &json!(key), format::label_key(&key.to_lowercase()));
        size += key.len() + text(value).len();
    }
    if size > ANNOTATIONS {
        errors.too_long(at, ANNOTATIONS);
    }
}

fn owners(owners: &Value, whole: &Path, errors: &mut Errors) {
    let mut controller = String::new();
    for (index, owner) in list(owners).iter().enumerate() {
        let at = &whole.at(index);
        let rules = [
            ("apiVersion", "version must not be empty"),
            ("kind", "must not be empty"),
            ("name", "must not be empty"),
            ("uid", "must not be empty"),
        ];
        for (field, rule) in rules.into_iter().filter(|(field, _)| text(&owner[*field]).is_empty()) {
            errors.required(&at.field(field), rule);
        }
        if owner["kind"] == "Event" && owner["apiVersion"] == "v1" {
            errors.invalid(at, owner, "/v1, Kind=Event is disallowed from being an owner");
        }
        if owner["controller"] == true {
            let this = format!("{}/{}", text(&owner["kind"]), text(&owner["name"]));
            if controller.is_empty() {
                controller = this;
            } else {
                let rule = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {controller} and {this}"
                );
                errors.invalid(whole, owners, &rule);
            }
        }
    }
}

/// The built-in kinds know the names of the finalizers that have no domain.
fn finalizers(finalizers: &Value, at: &Path, errors: &mut Errors) {
    for (index, finalizer) in list(finalizers).iter().enumerate() {
        let name = text(finalizer);
        if !name.contains('/') && !["orphan", "foregroundDeletion", "kubernetes"].contains(&name) {
            let rule = "name is neither a standard finalizer name nor is it fully qualified";
            errors.invalid(&at.at(index), finalizer, rule);
        }
    }
}

/// Checks a label selector.
pub(super) fn selector(selector: &Value, at: &Path, errors: &mut Errors) {
    labels(&selector["matchLabels"], &at.field("matchLabels"), errors);
    for (index, wanted) in list(&selector["matchExpressions"]).iter().enumerate() {
        let at = at.field("matchExpressions").at(index);
        let (operator, values) = (&wanted["operator"], list(&wanted["values"]));
        match text(operator) {
            "In" | "NotIn" if values.is_empty() => {
                errors.required(&at.field("values"), "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let rule = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.forbidden(&at.field("values"), rule);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => {
                errors.invalid(&at.field("operator"), &json!(other), "not a valid selector operator");
            }
        }
        let key = text(&wanted["key"]);
        errors.all(&at.field("key"), &json!(key), format::label_key(key));
        for (index, value) in values.iter().enumerate() {
            errors.all(&at.field("values").at(index), value, format::label_value(text(value)));
        }
    }
}

/// Whether a good label selector selects these labels.
pub(super) fn selects(selector: &Value, labels: &Value) -> bool {
    let fits = |wanted: &Value| {
        let label = &labels[text(&wanted["key"])];
        let listed = list(&wanted["values"]).contains(label);
        match text(&wanted["operator"]) {
            "In" => listed,
            "NotIn" => !listed,
            "Exists" => !label.is_null(),
            "DoesNotExist" => label.is_null(),
            _ => false,
        }
    };
    entries(&selector["matchLabels"]).all(|(key, value)| labels[key] == *value)
        && list(&selector["matchExpressions"]).iter().all(fits)
}
