//! ConfigMaps and Secrets.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::strategy::field::{Errors, Path};
use crate::strategy::format;
use crate::strategy::value::{default_filled, drop_unset, entries, same, text};

/// Bytes of all values together.
const LARGEST: usize = 1024 * 1024;
const HELD: &str = "field is immutable when `immutable` is set";
const REDACTED: &str = "<secret contents redacted>";

/// Completes a ConfigMap.
pub(super) fn map_defaults(map: &mut Value) {
    drop_unset(map, &["data", "binaryData"]);
}

/// Completes a Secret; `stringData` is for writing only: it goes into `data`.
pub(super) fn secret_defaults(secret: &mut Value) {
    default_filled(secret, "type", "Opaque");
    let Some(map) = secret.as_object_mut() else { return };
    if let Some(Value::Object(plain)) = map.remove("stringData") {
        let data = map.entry("data").or_insert_with(|| json!({}));
        for (key, text) in plain {
            if let (Some(data), Some(text)) = (data.as_object_mut(), text.as_str()) {
                data.insert(key, json!(STANDARD.encode(text)));
            }
        }
    }
    drop_unset(secret, &["data"]);
}

/// Bytes that a value in base64 stands for.
fn decoded(value: &Value) -> usize {
    let text = text(value).trim_end_matches('=');
    text.len() * 3 / 4
}

fn held(old: Option<&Value>, object: &Value, fields: &[&str], errors: &mut Errors) {
    let Some(old) = old.filter(|o| o["immutable"] == true) else { return };
    if object["immutable"] != true {
        errors.forbidden(&Path::new("immutable"), HELD);
    }
    for field in fields.iter().filter(|f| !same(&old[**f], &object[**f])) {
        errors.forbidden(&Path::new(field), HELD);
    }
}

/// Checks a ConfigMap.
pub(super) fn check_map(map: &Value, old: Option<&Value>, errors: &mut Errors) {
    held(old, map, &["data", "binaryData"], errors);
    let mut size = 0;
    for (key, value) in entries(&map["data"]) {
        let at = Path::new("data").key(key);
        errors.all(&at, &json!(key), format::config_key(key));
        if !map["binaryData"][key].is_null() {
            errors.invalid(&at, &json!(key), "duplicate of key present in binaryData");
        }
        size += text(value).len();
    }
    for (key, value) in entries(&map["binaryData"]) {
        errors.all(&Path::new("binaryData").key(key), &json!(key), format::config_key(key));
        size += decoded(value);
    }
    if size > LARGEST {
        errors.too_long(&Path::new("[]"), LARGEST);
    }
}

/// Checks a Secret.
pub(super) fn check_secret(secret: &Value, old: Option<&Value>, errors: &mut Errors) {
    if let Some(old) = old {
        errors.immutable(&Path::new("type"), &old["type"], &secret["type"]);
    }
    held(old, secret, &["data"], errors);
    let (data, at) = (&secret["data"], Path::new("data"));
    let mut size = 0;
    for (key, value) in entries(data) {
        errors.all(&at.key(key), &json!(key), format::config_key(key));
        size += decoded(value);
    }
    if size > LARGEST {
        errors.too_long(&at, LARGEST);
    }
    by_type(secret, &at, errors);
}

/// What Secrets of a type must have.
fn by_type(secret: &Value, at: &Path, errors: &mut Errors) {
    let data = &secret["data"];
    let mut required = |key: &str| errors.required(&at.key(key), "");
    match text(&secret["type"]) {
        "kubernetes.io/service-account-token" => {
            let name = "kubernetes.io/service-account.name";
            if text(&secret["metadata"]["annotations"][name]).is_empty() {
                errors.required(&Path::new("metadata.annotations").key(name), "");
            }
        }
        "kubernetes.io/dockercfg" => json_in(data, ".dockercfg", at, errors),
        "kubernetes.io/dockerconfigjson" => json_in(data, ".dockerconfigjson", at, errors),
        "kubernetes.io/basic-auth" if data["username"].is_null() && data["password"].is_null() => {
            ["username", "password"].into_iter().for_each(required);
        }
        "kubernetes.io/ssh-auth" if text(&data["ssh-privatekey"]).is_empty() => required("ssh-privatekey"),
        "kubernetes.io/tls" => {
            ["tls.crt", "tls.key"].into_iter().filter(|k| data[*k].is_null()).for_each(required);
        }
        _ => {}
    }
}

fn json_in(data: &Value, key: &str, at: &Path, errors: &mut Errors) {
    let Some(text) = data[key].as_str() else { return errors.required(&at.key(key), "") };
    let bytes = STANDARD.decode(text).unwrap_or_default();
    let parsed: Result<serde_json::Map<String, Value>, _> = serde_json::from_slice(&bytes);
    if let Err(error) = parsed {
        errors.invalid(&at.key(key), &json!(REDACTED), &error.to_string());
    }
}
