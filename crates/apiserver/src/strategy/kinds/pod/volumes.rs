//! Volumes and where containers mount them.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::super::resources;
use crate::strategy::field::{Errors, Path};
use crate::strategy::format;
use crate::strategy::value::{entries, int, numbered, text, unset};

const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const HOST_TYPES: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

/// Checks volumes; gives the names of the good ones.
pub(super) fn check(volumes: &Value, at: &Path, errors: &mut Errors) -> HashSet<String> {
    let mut names = HashSet::new();
    for (index, volume) in numbered(volumes) {
        let (at, before) = (at.at(index), errors.0.len());
        source(volume, &at, errors);
        let name = text(&volume["name"]);
        match name {
            "" => errors.required(&at.field("name"), ""),
            name => errors.all(&at.field("name"), &json!(name), format::dns_label(name)),
        }
        if names.contains(name) {
            errors.duplicate(&at.field("name"), &json!(name));
        }
        if errors.0.len() == before {
            names.insert(name.to_owned());
        }
    }
    names
}

fn source(volume: &Value, at: &Path, errors: &mut Errors) {
    let sources = entries(volume).filter(|(key, value)| *key != "name" && !value.is_null());
    // The order of the fields in the type, as far as it matters: the first is meant, the others too many.
    let order = |key: &str| {
        let first = [
            "emptyDir",
            "hostPath",
            "secret",
            "nfs",
            "persistentVolumeClaim",
            "downwardAPI",
            "configMap",
            "projected",
            "csi",
        ];
        first.iter().position(|f| *f == key).unwrap_or(first.len())
    };
    let mut sources: Vec<_> = sources.collect();
    sources.sort_by_key(|(key, _)| order(key));
    if sources.is_empty() {
        errors.required(at, "must specify a volume type");
    }
    for (index, (key, value)) in sources.into_iter().enumerate() {
        let at = at.field(key);
        if index > 0 {
            errors.forbidden(&at, "may not specify more than 1 volume type");
            continue;
        }
        one_source(key, value, &at, errors);
    }
}

fn one_source(kind: &str, value: &Value, at: &Path, errors: &mut Errors) {
    let mut required = |field: &str| {
        if unset(&value[field]) {
            errors.required(&at.field(field), "");
        }
    };
    match kind {
        "emptyDir" if resources::read(&value["sizeLimit"]).is_some_and(|q| q.nanos() < 0) => {
            let rule = "SizeLimit field must be a valid resource quantity";
            errors.forbidden(&at.field("sizeLimit"), rule);
        }
        "hostPath" => host_path(value, at, errors),
        "secret" => {
            required("secretName");
            files(value, at, errors);
        }
        "configMap" => {
            required("name");
            files(value, at, errors);
        }
        "nfs" => ["server", "path"].into_iter().for_each(required),
        "persistentVolumeClaim" => required("claimName"),
        "csi" => required("driver"),
        "projected" | "downwardAPI" => mode(&value["defaultMode"], &at.field("defaultMode"), errors),
        _ => {}
    }
}

fn host_path(source: &Value, at: &Path, errors: &mut Errors) {
    let path = text(&source["path"]);
    if path.is_empty() {
        return errors.required(&at.field("path"), "");
    }
    no_steps_back(path, &at.field("path"), errors);
    let kind = &source["type"];
    if !kind.is_null() && !HOST_TYPES.contains(&text(kind)) {
        errors.not_supported(&at.field("type"), kind, HOST_TYPES);
    }
}

fn mode(mode: &Value, at: &Path, errors: &mut Errors) {
    if !(0..=0o777).contains(&int(mode)) {
        errors.invalid(at, mode, MODE);
    }
}

/// Files from a Secret's or ConfigMap's keys.
fn files(source: &Value, at: &Path, errors: &mut Errors) {
    mode(&source["defaultMode"], &at.field("defaultMode"), errors);
    for (index, item) in numbered(&source["items"]) {
        let at = at.field("items").at(index);
        for field in ["key", "path"].iter().filter(|f| unset(&item[**f])) {
            errors.required(&at.field(field), "");
        }
        let path = text(&item["path"]);
        descending(path, &at.field("path"), errors);
        if path.starts_with("..") && !path.starts_with("../") {
            errors.invalid(&at.field("path"), &json!(path), "must not start with '..'");
        }
        mode(&item["mode"], &at.field("mode"), errors);
    }
}

fn descending(path: &str, at: &Path, errors: &mut Errors) {
    if path.starts_with('/') {
        errors.invalid(at, &json!(path), "must be a relative path");
    }
    no_steps_back(path, at, errors);
}

fn no_steps_back(path: &str, at: &Path, errors: &mut Errors) {
    if path.split('/').any(|part| part == "..") {
        errors.invalid(at, &json!(path), "must not contain '..'");
    }
}

/// Checks a container's mounts.
pub(super) fn mounts(container: &Value, volumes: &HashSet<String>, at: &Path, errors: &mut Errors) {
    let at_all = at.field("volumeMounts");
    let mut places = HashSet::new();
    for (index, mount) in numbered(&container["volumeMounts"]) {
        let at = at_all.at(index);
        let (name, place) = (text(&mount["name"]), text(&mount["mountPath"]));
        if name.is_empty() {
            errors.required(&at.field("name"), "");
        }
        if !volumes.contains(name) {
            errors.not_found(&at.field("name"), &json!(name));
        }
        if place.is_empty() {
            errors.required(&at.field("mountPath"), "");
        }
        if !places.insert(place) {
            errors.invalid(&at.field("mountPath"), &json!(place), "must be unique");
        }
        let (sub, expression) = (text(&mount["subPath"]), text(&mount["subPathExpr"]));
        descending(sub, &at_all.field("subPath"), errors);
        if !expression.is_empty() {
            if !sub.is_empty() {
                let rule = "subPathExpr and subPath are mutually exclusive";
                errors.invalid(&at.field("subPathExpr"), &json!(expression), rule);
            }
            descending(expression, &at_all.field("subPathExpr"), errors);
        }
        let spread = &mount["mountPropagation"];
        let kinds = ["Bidirectional", "HostToContainer", "None"];
        errors.maybe_one_of(&at_all.field("mountPropagation"), spread, &kinds);
        if spread == "Bidirectional" && container["securityContext"]["privileged"] != true {
            let rule = "Bidirectional mount propagation is available only to privileged containers";
            errors.forbidden(&at_all.field("mountPropagation"), rule);
        }
    }
}
