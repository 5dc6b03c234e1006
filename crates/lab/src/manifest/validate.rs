use serde_json::Value;

use super::{Manifest, ManifestError};

/// Checks what every object needs, so that nothing is written when one of them is wrong.
pub(super) fn check(manifest: &Manifest) -> Result<(), ManifestError> {
    let fail = |field: &str, reason: String| {
        Err(ManifestError::Invalid {
            file: manifest.file.clone(),
            document: manifest.document,
            field: field.to_owned(),
            reason,
        })
    };
    if !manifest.value.is_object() {
        return fail("(whole document)", "an object was expected, with apiVersion, kind and metadata".into());
    }
    for field in ["apiVersion", "kind"] {
        if manifest.value.get(field).and_then(Value::as_str).is_none_or(str::is_empty) {
            return fail(field, "is missing, or is not text".into());
        }
    }
    if let Some(reason) = bad_api_version(manifest.api_version()).or_else(|| bad_kind(manifest.kind())) {
        return fail("apiVersion, kind", reason);
    }
    match manifest.value.pointer("/metadata/name") {
        Some(Value::String(name)) if !name.is_empty() => {}
        Some(Value::String(_)) | None => return fail("metadata.name", missing_name(manifest)),
        Some(other) => return fail("metadata.name", format!("{other} is not text: put it in quotes")),
    }
    if let Some(reason) = bad_name(manifest) {
        return fail("metadata.name", format!("{:?} {reason}", shown(manifest.name())));
    }
    match manifest.value.pointer("/metadata/namespace") {
        None | Some(Value::Null) => Ok(()),
        Some(Value::String(name)) if name.is_empty() || is_label(name) => Ok(()),
        Some(Value::String(name)) => fail("metadata.namespace", format!("{:?} {LABEL}", shown(name))),
        Some(other) => fail("metadata.namespace", format!("{other} is not text: put it in quotes")),
    }
}

const LABEL: &str =
    "is no DNS label: use at most 63 of a-z, 0-9 and '-', starting and ending with a letter or digit";
const SUBDOMAIN: &str = "is no DNS name: use at most 253 of a-z, 0-9, '-' and '.', each part starting and ending with a letter or digit";

fn missing_name(manifest: &Manifest) -> String {
    if manifest.value.pointer("/metadata/generateName").is_some() {
        "is missing: apply needs a name, generateName is for create only".into()
    } else {
        format!("is missing: give this {} a name", manifest.kind())
    }
}

fn bad_api_version(version: &str) -> Option<String> {
    let (group, version_only) = version.split_once('/').unwrap_or(("v", version));
    let fine = is_subdomain(group) && is_label(version_only);
    (!fine).then(|| format!("{:?} is no apiVersion: write it as v1 or apps/v1", shown(version)))
}

fn bad_kind(kind: &str) -> Option<String> {
    let fine = kind.len() <= 63 && kind.bytes().all(|b| b.is_ascii_alphanumeric());
    (!fine).then(|| format!("{:?} is no kind: letters and digits only, as NetworkPolicy", shown(kind)))
}

/// RBAC names are path segments (`system:node`), namespaces and Services labels, the rest DNS names.
fn bad_name(manifest: &Manifest) -> Option<&'static str> {
    let name = manifest.name();
    match (manifest.group(), manifest.kind()) {
        ("rbac.authorization.k8s.io", _) => {
            let fine = name != "." && name != ".." && !name.contains(['/', '%']);
            (!fine).then_some("cannot be part of a path: leave out '/' and '%'")
        }
        ("", "Namespace" | "Service") => (!is_label(name)).then_some(LABEL),
        _ => (!is_subdomain(name)).then_some(SUBDOMAIN),
    }
}

/// At most 80 characters of a text, for a message of one line.
fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

/// Whether `text` is a DNS label (RFC 1123).
fn is_label(text: &str) -> bool {
    text.len() <= 63 && is_part(text)
}

/// Whether `text` is a DNS subdomain as Kubernetes reads it: its parts have no limit of their own.
fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_part)
}

fn is_part(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !text.is_empty() && text.bytes().all(allowed) && !text.starts_with('-') && !text.ends_with('-')
}
