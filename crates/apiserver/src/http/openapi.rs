//! The OpenAPI documents, as far as clients need them: from version 3 `kubectl` learns that the
//! server validates fields itself (`fieldValidation`); version 2 is there for clients that read it first.

use std::sync::Arc;

use http::header;
use serde_json::{Map, Value, json};

use super::{Call, Reply, reply};
use crate::error::ApiError;
use crate::resource::Resource;

const TITLE: &str = "Kubernetes";
const VERSION: &str = "v1.36.0";
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// `/openapi/v2`, as JSON or as the protobuf that kubectl asks for.
pub(super) fn v2(call: &Call) -> Reply {
    let accept = call.headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if accept.contains("proto-openapi.spec.v2") {
        return reply::bytes(200, PROTOBUF, document());
    }
    let info = json!({"title": TITLE, "version": VERSION});
    reply::json(200, &json!({"swagger": "2.0", "info": info, "paths": {}, "definitions": {}}))
}

/// The same as an `openapi.v2.Document`: swagger = 1, info = 2 {title = 1, version = 2}, paths = 8,
/// definitions = 9.
fn document() -> Vec<u8> {
    let info = [field(1, TITLE.as_bytes()), field(2, VERSION.as_bytes())].concat();
    [field(1, b"2.0"), field(2, &info), field(8, b""), field(9, b"")].concat()
}

/// A length-delimited protobuf field; all of ours are shorter than 128 bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap_or(0) & 0x7f];
    out.extend_from_slice(bytes);
    out
}

/// `/openapi/v3`: the list of documents, or the one of a group and version.
pub(super) fn v3(kinds: &[Arc<Resource>], which: Option<&(String, String)>) -> Result<Value, ApiError> {
    let Some((group, version)) = which else { return Ok(index(kinds)) };
    let of: Vec<_> = kinds.iter().filter(|r| r.group == *group && r.version == *version).collect();
    if of.is_empty() {
        return Err(ApiError::no_such_path());
    }
    let mut paths = Map::new();
    let mut schemas = Map::new();
    for r in of {
        let (path, item) = operations(r);
        paths.insert(path, item);
        schemas.insert(schema_name(r), schema(r));
    }
    Ok(json!({"openapi": "3.0.0", "info": {"title": TITLE, "version": VERSION},
        "paths": paths, "components": {"schemas": schemas}}))
}

fn base(r: &Resource) -> String {
    if r.group.is_empty() { format!("api/{}", r.version) } else { format!("apis/{}/{}", r.group, r.version) }
}

fn index(kinds: &[Arc<Resource>]) -> Value {
    let mut paths = Map::new();
    for r in kinds {
        let base = base(r);
        // The number of kinds changes with the custom ones; it keeps clients' caches right.
        let hash = kinds.len();
        paths.insert(base.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{base}?hash={hash}")}));
    }
    json!({"paths": paths})
}

fn gvk(r: &Resource) -> Value {
    json!({"group": r.group, "version": r.version, "kind": r.kind})
}

fn operations(r: &Resource) -> (String, Value) {
    let scope = if r.namespaced { "namespaces/{namespace}/" } else { "" };
    let path = format!("/{}/{scope}{}/{{name}}", base(r), r.plural);
    let parameter =
        |name: &str| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}});
    let parameters: Vec<Value> = ["dryRun", "fieldManager", "fieldValidation"].map(parameter).into();
    let reference = json!({"$ref": format!("#/components/schemas/{}", schema_name(r))});
    let responses =
        json!({"200": {"description": "OK", "content": {"application/json": {"schema": reference}}}});
    let operation = |action: &str| {
        json!({"parameters": parameters, "responses": responses,
            "x-kubernetes-action": action, "x-kubernetes-group-version-kind": gvk(r)})
    };
    (path, json!({"get": operation("get"), "put": operation("put"), "patch": operation("patch")}))
}

fn schema_name(r: &Resource) -> String {
    let group = if r.group.is_empty() { "core" } else { &r.group };
    format!("{group}.{}.{}", r.version, r.kind)
}

/// A custom kind's own schema; built-in kinds take any field.
fn schema(r: &Resource) -> Value {
    let mut schema = r.schema.as_ref().map_or_else(|| json!({}), |s| s.source().clone());
    if !schema.is_object() {
        schema = json!({});
    }
    if !schema["properties"].is_object() {
        schema["properties"] = json!({});
    }
    schema["type"] = json!("object");
    schema["x-kubernetes-group-version-kind"] = json!([gvk(r)]);
    for name in ["apiVersion", "kind"] {
        schema["properties"][name] = json!({"type": "string"});
    }
    schema["properties"]["metadata"] =
        json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    if r.schema.is_none() {
        schema["x-kubernetes-preserve-unknown-fields"] = json!(true);
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_protobuf() {
        let bytes = document();
        assert_eq!(&bytes[..5], b"\x0a\x032.0");
        assert_eq!(&bytes[5..7], &[0x12, 2 + 10 + 2 + 7]);
        assert_eq!(&bytes[bytes.len() - 4..], &[0x42, 0, 0x4a, 0]);
    }
}
