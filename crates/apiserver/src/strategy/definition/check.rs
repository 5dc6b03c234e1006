//! What is wrong with a CustomResourceDefinition, in the words of apiextensions-apiserver.

use serde_json::{Value, json};

use crate::schema::{self, Schema};
use crate::strategy::field::{Errors, Path};
use crate::strategy::format;
use crate::strategy::value::{list, numbered, text, unset};

/// The types of printed columns, and their formats.
const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 8] =
    ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];

/// Checks a definition that is complete but for its status; `old` is the one before.
pub(super) fn check(definition: &Value, old: Option<&Value>, errors: &mut Errors) {
    let (spec, at) = (&definition["spec"], Path::new("spec"));
    let wanted = format!("{}.{}", text(&spec["names"]["plural"]), text(&spec["group"]));
    let name = &definition["metadata"]["name"];
    if old.is_none() && text(name) != wanted {
        let rule = "must be spec.names.plural+\".\"+spec.group";
        errors.invalid(&Path::new("metadata.name"), name, rule);
    }
    group(&spec["group"], &at.field("group"), errors);
    errors.one_of(&at.field("scope"), &spec["scope"], &["Cluster", "Namespaced"]);
    if spec["preserveUnknownFields"] == true {
        let rule = "must be false or omitted, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.invalid(&at.field("preserveUnknownFields"), &json!(true), rule);
    }
    versions(spec, &at, errors);
    names(&spec["names"], &at.field("names"), errors);
    for (index, version) in numbered(&spec["versions"]) {
        columns(spec, index, version, errors);
        scale(spec, index, version, errors);
        if let Some(at) = place(spec, index, "selectableFields", "selectableFields") {
            selectable(version, &at, errors);
        }
    }
    schemas(list(&spec["versions"]), errors);
    if let Some(old) = old {
        unchanged(&old["spec"], spec, errors);
    }
}

fn group(group: &Value, at: &Path, errors: &mut Errors) {
    match text(group) {
        "" => errors.required(at, ""),
        name if !format::dns_subdomain(name).is_empty() => {
            errors.invalid(at, group, &format::dns_subdomain(name).join(","));
        }
        name if !name.contains('.') => errors.invalid(at, group, "should be a domain with at least one dot"),
        _ => {}
    }
}

fn versions(spec: &Value, at: &Path, errors: &mut Errors) {
    let all = list(&spec["versions"]);
    let at_all = at.field("versions");
    let broken = |v: &Value| format::dns_1035_label(text(&v["name"])).join(",");
    for (index, version) in all.iter().enumerate().filter(|(_, v)| !broken(v).is_empty()) {
        errors.invalid(&at_all.at(index).field("name"), &version["name"], &broken(version));
    }
    let names: std::collections::BTreeSet<&str> = all.iter().map(|v| text(&v["name"])).collect();
    if names.len() < all.len() {
        errors.invalid(&at_all, &spec["versions"], "must contain unique version names");
    }
    if all.iter().filter(|v| v["storage"] == true).count() != 1 {
        let rule = "must have exactly one version marked as storage version";
        errors.invalid(&at_all, &spec["versions"], rule);
    }
    // Inside Kubernetes the first version's name stands here too.
    if let Some(first) = all.first().filter(|v| !broken(v).is_empty()) {
        errors.invalid(&at.field("version"), &first["name"], &broken(first));
    }
}

/// Checks the versions that objects are stored in against those that there are.
pub(super) fn stored(definition: &Value, errors: &mut Errors) {
    let at = Path::new("status").field("storedVersions");
    let stored = list(&definition["status"]["storedVersions"]);
    if stored.is_empty() {
        return errors.invalid(&at, &json!([]), "must have at least one stored version");
    }
    let versions = list(&definition["spec"]["versions"]);
    for version in versions.iter().filter(|v| v["storage"] == true && !stored.contains(&v["name"])) {
        let rule = format!("must have the storage version {}", text(&version["name"]));
        errors.invalid(&at, version, &rule);
    }
    for (index, name) in stored.iter().enumerate() {
        if versions.iter().all(|v| v["name"] != *name) {
            errors.invalid(&at.at(index), name, "must appear in spec.versions");
        }
    }
}

fn names(names: &Value, at: &Path, errors: &mut Errors) {
    for field in ["plural", "singular", "kind", "listKind"].into_iter().filter(|f| unset(&names[*f])) {
        errors.required(&at.field(field), "");
    }
    let mut label = |at: &Path, value: &Value, lower: bool| {
        let name = if lower { text(value).to_lowercase() } else { text(value).to_owned() };
        let broken = format::dns_1035_label(&name);
        if !name.is_empty() && !broken.is_empty() {
            let start = if lower { "may have mixed case, but should otherwise match: " } else { "" };
            errors.invalid(at, value, &format!("{start}{}", broken.join(",")));
        }
    };
    for (field, lower) in [("plural", false), ("singular", false), ("kind", true), ("listKind", true)] {
        label(&at.field(field), &names[field], lower);
    }
    for field in ["shortNames", "categories"] {
        for (index, name) in numbered(&names[field]) {
            label(&at.field(field).at(index), name, false);
        }
    }
    if !unset(&names["kind"]) && names["kind"] == names["listKind"] {
        let rule = "kind and listKind may not be the same";
        errors.invalid(&at.field("listKind"), &names["listKind"], rule);
    }
}

/// The place of a field of a version: where all versions have the same, Kubernetes moves it to the top.
fn place(spec: &Value, index: usize, field: &str, top: &str) -> Option<Path> {
    let all = list(&spec["versions"]);
    let first = all.first().map_or(&Value::Null, |v| &v[field]);
    if all.iter().all(|v| v[field] == *first) {
        return (index == 0).then(|| Path::new("spec").field(top));
    }
    Some(Path::new("spec").field("versions").at(index).field(field))
}

fn columns(spec: &Value, index: usize, version: &Value, errors: &mut Errors) {
    const FIELD: &str = "additionalPrinterColumns";
    let Some(at) = place(spec, index, FIELD, FIELD) else { return };
    for (index, column) in numbered(&version[FIELD]) {
        let at = at.at(index);
        let types = COLUMN_TYPES.join(",");
        if unset(&column["name"]) {
            errors.required(&at.field("name"), "");
        }
        match text(&column["type"]) {
            "" => errors.required(&at.field("type"), &format!("must be one of {types}")),
            given if COLUMN_TYPES.contains(&given) => {}
            _ => errors.invalid(&at.field("type"), &column["type"], &format!("must be one of {types}")),
        }
        let format = &column["format"];
        if !unset(format) && !COLUMN_FORMATS.contains(&text(format)) {
            let rule = format!("must be one of {}", COLUMN_FORMATS.join(","));
            errors.invalid(&at.field("format"), format, &rule);
        }
        path(&column["jsonPath"], &at.field("JSONPath"), &[], errors);
    }
}

fn scale(spec: &Value, index: usize, version: &Value, errors: &mut Errors) {
    let scale = &version["subresources"]["scale"];
    let Some(at) = place(spec, index, "subresources", "subresources").filter(|_| scale.is_object()) else {
        return;
    };
    let at = at.field("scale");
    path(&scale["specReplicasPath"], &at.field("specReplicasPath"), &["spec"], errors);
    path(&scale["statusReplicasPath"], &at.field("statusReplicasPath"), &["status"], errors);
    if !unset(&scale["labelSelectorPath"]) {
        let at = at.field("labelSelectorPath");
        path(&scale["labelSelectorPath"], &at, &["spec", "status"], errors);
    }
}

fn path(value: &Value, at: &Path, under: &[&str], errors: &mut Errors) {
    match text(value) {
        "" => errors.required(at, ""),
        path if !path.starts_with('.') => {
            errors.invalid(at, value, "must be a simple json path starting with .");
        }
        path if !under.is_empty() && !under.iter().any(|u| path[1..].starts_with(&format!("{u}."))) => {
            let under = under.iter().map(|u| format!(".{u}")).collect::<Vec<_>>().join(" or ");
            errors.invalid(at, value, &format!("should be a json path under {under}"));
        }
        _ => {}
    }
}

/// Fields to select by are plain values of the schema.
fn selectable(version: &Value, at: &Path, errors: &mut Errors) {
    let mut seen = Vec::new();
    for (index, field) in numbered(&version["selectableFields"]) {
        let (at, path) = (at.at(index).field("jsonPath"), text(&field["jsonPath"]));
        if path.is_empty() {
            errors.required(&at, "");
            continue;
        }
        if path.starts_with(".metadata.") {
            errors.invalid(&at, &json!(path), "must not point to fields in metadata");
        } else if !path.starts_with('.') || path.contains('[') {
            errors.invalid(&at, &json!(path), "is an invalid path: only simple paths of fields may be used");
        } else {
            let schema = &version["schema"]["openAPIV3Schema"];
            let found = path[1..].split('.').fold(schema, |schema, name| &schema["properties"][name]);
            match text(&found["type"]) {
                "" => {
                    errors.invalid(&at, &json!(path), "is an invalid path: does not refer to a valid field")
                }
                "string" | "integer" | "boolean" => {}
                _ => {
                    let rule = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
                    errors.invalid(&at, &json!(path), rule);
                }
            }
        }
        if seen.contains(&path) {
            errors.duplicate(&at, &json!(path));
        }
        seen.push(path);
    }
}

/// The schemas of all versions; a schema that they share is told once, where Kubernetes tells it.
fn schemas(versions: &[Value], errors: &mut Errors) {
    let of = |v: &Value| v["schema"]["openAPIV3Schema"].clone();
    let first = versions.first().map(of).unwrap_or_default();
    let shared = first.is_object() && versions.iter().all(|v| of(v) == first);
    for (index, version) in versions.iter().enumerate().take(if shared { 1 } else { versions.len() }) {
        let path = match shared {
            true => "spec.validation.openAPIV3Schema".to_owned(),
            false => format!("spec.versions[{index}].schema.openAPIV3Schema"),
        };
        let schema = of(version);
        let broken = schema::check_structural(&schema, &path);
        let structural = broken.is_empty();
        errors.0.extend(broken);
        if structural {
            defaults(&schema, &path, 0, errors);
        }
    }
}

/// Levels of a schema whose defaults are looked at.
const DEEPEST: usize = 100;

/// Checks every default by the schema that it is in.
fn defaults(schema: &Value, path: &str, depth: usize, errors: &mut Errors) {
    if depth > DEEPEST {
        return;
    }
    if let Some(default) = schema.get("default").filter(|d| !d.is_null()) {
        let at = format!("{path}.default");
        for mut error in Schema::custom(schema).check(default, None) {
            // Inside the default, the error's own path goes on from where the default is.
            error.field = match error.field.as_str() {
                "" | "<nil>" => at.clone(),
                inner => format!("{at}.{inner}"),
            };
            errors.0.push(error);
        }
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        defaults(field, &format!("{path}.properties[{name}]"), depth + 1, errors);
    }
    defaults_in(&schema["items"], &format!("{path}.items"), depth, errors);
    defaults_in(&schema["additionalProperties"], &format!("{path}.additionalProperties"), depth, errors);
}

fn defaults_in(schema: &Value, path: &str, depth: usize, errors: &mut Errors) {
    if schema.is_object() {
        defaults(schema, path, depth + 1, errors);
    }
}

/// What a definition, which is established at once, keeps for ever.
fn unchanged(old: &Value, spec: &Value, errors: &mut Errors) {
    let at = Path::new("spec");
    for field in ["scope", "group"] {
        errors.immutable(&at.field(field), &old[field], &spec[field]);
    }
    let at = at.field("names");
    for field in ["kind", "plural"] {
        errors.immutable(&at.field(field), &old["names"][field], &spec["names"][field]);
    }
}
