//! Environment variables of containers.

use serde_json::{Value, json};

use crate::strategy::field::{Errors, Path};
use crate::strategy::format;
use crate::strategy::value::{numbered, text, unset};

const FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const AMOUNTS: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const SOURCES: &[&str] = &["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];

/// Checks a container's variables.
pub(super) fn check(container: &Value, at: &Path, errors: &mut Errors) {
    for (index, variable) in numbered(&container["env"]) {
        let at = at.field("env").at(index);
        match text(&variable["name"]) {
            "" => errors.required(&at.field("name"), ""),
            name => errors.all(&at.field("name"), &json!(name), format::env_name(name)),
        }
        if !variable["valueFrom"].is_null() {
            source(variable, &at.field("valueFrom"), errors);
        }
    }
    let at = at.field("envFrom");
    for (index, from) in numbered(&container["envFrom"]) {
        let here = at.at(index);
        let prefix = text(&from["prefix"]);
        if !prefix.is_empty() {
            errors.all(&here.field("prefix"), &from["prefix"], format::env_name(prefix));
        }
        let given: Vec<_> =
            ["configMapRef", "secretRef"].into_iter().filter(|f| !from[*f].is_null()).collect();
        for field in &given {
            match text(&from[*field]["name"]) {
                "" => errors.required(&here.field(field).field("name"), ""),
                name => {
                    let at = here.field(field).field("name");
                    errors.all(&at, &json!(name), format::dns_subdomain(name));
                }
            }
        }
        match given.len() {
            0 => errors.invalid(&at, &json!(""), "must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => {
                errors.invalid(&at, &json!(""), "may not have more than one field specified at a time");
            }
        }
    }
}

fn source(variable: &Value, at: &Path, errors: &mut Errors) {
    let from = &variable["valueFrom"];
    let given: Vec<_> = SOURCES.iter().copied().filter(|f| !from[*f].is_null()).collect();
    for field in &given {
        let (value, at) = (&from[*field], at.field(field));
        match *field {
            "fieldRef" => pod_field(value, &at, errors),
            "resourceFieldRef" => amount(value, &at, errors),
            "fileKeyRef" => {}
            _ => {
                let name = text(&value["name"]);
                errors.all(&at.field("name"), &json!(name), format::dns_subdomain(name));
                match text(&value["key"]) {
                    "" => errors.required(&at.field("key"), ""),
                    key => errors.all(&at.field("key"), &json!(key), format::config_key(key)),
                }
            }
        }
    }
    let rule = match given.len() {
        0 => {
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
        }
        _ if !unset(&variable["value"]) => "may not be specified when `value` is not empty",
        1 => return,
        _ => "may not have more than one field specified at a time",
    };
    errors.invalid(at, &json!(""), rule);
}

fn pod_field(reference: &Value, at: &Path, errors: &mut Errors) {
    let (path, at_path) = (text(&reference["fieldPath"]), at.field("fieldPath"));
    if path.is_empty() {
        return errors.required(&at_path, "");
    }
    let subscript = path.strip_suffix("']").and_then(|p| p.split_once("['"));
    match subscript {
        Some(("metadata.annotations", key)) => {
            errors.all(at, &json!(key.to_lowercase()), format::label_key(&key.to_lowercase()));
        }
        Some(("metadata.labels", key)) => errors.all(at, &json!(key), format::label_key(key)),
        _ if FIELDS.contains(&path) => {}
        _ if matches!(path, "metadata.annotations" | "metadata.labels" | "status.phase") => {
            errors.not_supported(&at_path, &json!(path), FIELDS);
        }
        _ => {
            let rule = format!("error converting fieldPath: field label not supported: {path}");
            errors.invalid(&at_path, &json!(path), &rule);
        }
    }
}

fn amount(reference: &Value, at: &Path, errors: &mut Errors) {
    let resource = text(&reference["resource"]);
    let pages = ["limits.hugepages-", "requests.hugepages-"];
    if resource.is_empty() {
        errors.required(&at.field("resource"), "");
    } else if !AMOUNTS.contains(&resource) && !pages.iter().any(|p| resource.starts_with(p)) {
        errors.not_supported(&at.field("resource"), &json!(resource), AMOUNTS);
    }
}
