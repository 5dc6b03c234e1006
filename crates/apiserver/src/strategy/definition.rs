//! CustomResourceDefinitions: completed, checked, and at once established.

mod check;

use serde_json::{Value, json};

use super::field::{Errors, Path};
use super::now;
use crate::resource::Resource;
use crate::schema::Schema;

/// Completes a definition and its status, and checks both.
pub(super) fn settle(old: Option<&Value>, object: &mut Value, errors: &mut Errors) {
    complete_spec(object);
    store_version(object);
    check::check(object, old, errors);
    check::stored(object, errors);
    if errors.0.is_empty() {
        tell(object);
    }
}

/// Checks the replicas of a custom object that can be scaled.
pub(super) fn check_scale(r: &Resource, object: &Value, errors: &mut Errors) {
    let Some(scale) = &r.scale else { return };
    for path in [&scale.spec_path, &scale.status_path] {
        let replicas = object.pointer(&path.replace('.', "/")).and_then(Value::as_i64).unwrap_or(0);
        if replicas < 0 {
            errors.invalid(&Path::new(path), &json!(replicas), "should be a non-negative integer");
        }
    }
}

/// Checks the versions in a status that was written alone.
pub(super) fn check_status(object: &Value, errors: &mut Errors) {
    check::stored(object, errors);
}

fn complete_spec(object: &mut Value) {
    let Some(spec) = object["spec"].as_object_mut() else { return };
    spec.entry("conversion").or_insert_with(|| json!({"strategy": "None"}));
    let Some(names) = spec.get_mut("names").and_then(Value::as_object_mut) else { return };
    let kind = names.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
    if kind.is_empty() {
        return;
    }
    names.entry("singular").or_insert_with(|| json!(kind.to_lowercase()));
    names.entry("listKind").or_insert_with(|| json!(format!("{kind}List")));
}

/// The version that objects are stored in now belongs to those that they have been stored in.
fn store_version(object: &mut Value) {
    let versions = object["spec"]["versions"].as_array().into_iter().flatten();
    let Some(stored) = versions.into_iter().find(|v| v["storage"] == true).map(|v| v["name"].clone()) else {
        return;
    };
    let mut known = object["status"]["storedVersions"].as_array().cloned().unwrap_or_default();
    if !known.contains(&stored) {
        known.push(stored);
    }
    if !object["status"].is_object() {
        object["status"] = json!({});
    }
    object["status"]["storedVersions"] = json!(known);
}

/// The status: established at once.
fn tell(object: &mut Value) {
    let names = object["spec"]["names"].clone();
    let versions = object["status"]["storedVersions"].clone();
    let skipped = skipped_rules(object);
    let known = object["status"]["conditions"].clone();
    let at = known[0]["lastTransitionTime"].as_str().map_or_else(now, str::to_owned);
    let condition = |kind: &str, reason: &str, message: &str| json!({"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": at});
    object["status"] = json!({
        "acceptedNames": names, "storedVersions": versions,
        "conditions": [
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        ],
    });
    if !skipped.is_empty() {
        let rules = condition("ValidationRulesSkipped", "Unsupported", &skipped);
        object["status"]["conditions"].as_array_mut().into_iter().for_each(|list| list.push(rules.clone()));
    }
}

/// The rules in the definition that this server cannot evaluate, as a condition names them.
fn skipped_rules(definition: &Value) -> String {
    /// Characters of the condition's message.
    const MOST: usize = 2_000;
    let versions = definition["spec"]["versions"].as_array().into_iter().flatten();
    let schemas = versions.map(|v| Schema::custom(&v["schema"]["openAPIV3Schema"]));
    let rules: Vec<String> = schemas.flat_map(|schema| schema.skipped_rules()).collect();
    rules.join("; ").chars().take(MOST).collect()
}
