//! CustomResourceDefinitions: completed, checked, and at once established.

use serde_json::{Value, json};

use super::now;
use crate::error::FieldError;
use crate::schema::{self, Schema};

/// Completes a definition and its status.
pub(super) fn settle(object: &mut Value, errors: &mut Vec<FieldError>) {
    let name = super::name_of(object).to_owned();
    let spec = &object["spec"];
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let (group, plural, kind) =
        (text(&spec["group"]), text(&spec["names"]["plural"]), text(&spec["names"]["kind"]));
    for (field, value) in [("spec.group", &group), ("spec.names.plural", &plural), ("spec.names.kind", &kind)]
    {
        if value.is_empty() {
            errors.push(FieldError::required(field, ""));
        }
    }
    if !group.contains('.') {
        errors.push(FieldError::invalid(
            "spec.group",
            &json!(group),
            "should be a domain with at least one dot",
        ));
    }
    if name != format!("{plural}.{group}") {
        let rule = "must be spec.names.plural+\".\"+spec.group";
        errors.push(FieldError::invalid("metadata.name", &json!(name), rule));
    }
    if !matches!(spec["scope"].as_str(), Some("Namespaced" | "Cluster")) {
        errors.push(FieldError::invalid(
            "spec.scope",
            &spec["scope"],
            "supported values: \"Cluster\", \"Namespaced\"",
        ));
    }
    let versions = spec["versions"].as_array().cloned().unwrap_or_default();
    let stored: Vec<&Value> = versions.iter().filter(|v| v["storage"] == true).collect();
    let [stored] = stored.as_slice() else {
        let rule = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid("spec.versions", &json!(versions.len()), rule));
        return;
    };
    if versions.iter().any(|v| !super::format::is_label(v["name"].as_str().unwrap_or_default())) {
        errors.push(FieldError::invalid(
            "spec.versions",
            &Value::Null,
            "each needs a name that is a DNS label",
        ));
    }
    schemas(&versions, errors);
    if !errors.is_empty() {
        return;
    }
    let (stored, known) = (stored["name"].clone(), object["status"]["storedVersions"].clone());
    complete(object, &kind, stored, known);
}

/// The schemas of all versions; a schema that they share is told once, where Kubernetes tells it.
fn schemas(versions: &[Value], errors: &mut Vec<FieldError>) {
    let of = |v: &Value| v["schema"]["openAPIV3Schema"].clone();
    let first = versions.first().map(of).unwrap_or_default();
    if first.is_object() && versions.iter().all(|v| of(v) == first) {
        return errors.extend(schema::check_structural(&first, "spec.validation.openAPIV3Schema"));
    }
    for (index, version) in versions.iter().enumerate() {
        let path = format!("spec.versions[{index}].schema.openAPIV3Schema");
        errors.extend(schema::check_structural(&of(version), &path));
    }
}

fn complete(object: &mut Value, kind: &str, stored: Value, known: Value) {
    let names = &mut object["spec"]["names"];
    for (field, value) in [("singular", kind.to_lowercase()), ("listKind", format!("{kind}List"))] {
        if names[field].is_null() {
            names[field] = json!(value);
        }
    }
    let names = names.clone();
    if object["spec"]["conversion"].is_null() {
        object["spec"]["conversion"] = json!({"strategy": "None"});
    }
    let mut versions = known.as_array().cloned().unwrap_or_default();
    if !versions.contains(&stored) {
        versions.push(stored);
    }
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
