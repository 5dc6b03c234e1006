//! The document of version 2: one for all kinds, as JSON or as the protobuf that kubectl asks for.

use std::sync::Arc;

use http::header;
use serde_json::{Map, Value, json};

use super::{TITLE, VERSION, proto, schemas};
use crate::http::{Call, Reply, reply};
use crate::resource::Resource;
use crate::schema::builtin;

/// Clients also ask for it with an @ before the version, which is no valid media type to answer with.
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// `/openapi/v2`.
pub(in crate::http) fn answer(call: &Call, kinds: &[Arc<Resource>]) -> Reply {
    let accept = call.headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let protobuf = accept.contains("proto-openapi.spec.v2");
    let of: Vec<&Resource> = kinds.iter().map(|r| &**r).collect();
    let hash = super::hash(&of) + if protobuf { "-p" } else { "" };
    let media = if protobuf { PROTOBUF } else { super::JSON };
    reply::with_etag(call, media, &hash, false, || {
        let definitions = definitions(&of);
        if protobuf {
            return proto::document(TITLE, VERSION, &definitions);
        }
        let info = json!({"title": TITLE, "version": VERSION});
        let document = json!({"swagger": "2.0", "info": info, "paths": {}, "definitions": definitions});
        document.to_string().into_bytes()
    })
}

fn definitions(of: &[&Resource]) -> Map<String, Value> {
    let mut all = schemas::of(of, &builtin::definitions());
    all.values_mut().for_each(older);
    all
}

/// Says it in the words of version 2, and leaves out what that cannot say.
fn older(schema: &mut Value) {
    let Value::Object(map) = schema else { return };
    // A reference stands alone there; what its place says of it comes along.
    if let Some(only) = map.get("allOf").and_then(Value::as_array).filter(|all| all.len() == 1)
        && let Some(reference) = only[0].get("$ref").cloned()
    {
        map.remove("allOf");
        map.insert("$ref".into(), reference);
    }
    if let Some(Value::String(to)) = map.get_mut("$ref") {
        *to = to.replace("#/components/schemas/", "#/definitions/");
    }
    for name in ["anyOf", "oneOf", "not", "nullable", "default", "x-kubernetes-validations"] {
        map.remove(name);
    }
    if map.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true)) {
        ["properties", "items", "type"].iter().for_each(|name| drop(map.remove(*name)));
    }
    if map.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
        map.insert("type".into(), json!("string"));
        map.insert("format".into(), json!("int-or-string"));
    }
    if let Some(Value::Object(fields)) = map.get_mut("properties") {
        fields.values_mut().for_each(older);
    }
    for name in ["items", "additionalProperties"] {
        map.get_mut(name).into_iter().for_each(older);
    }
    if let Some(Value::Array(all)) = map.get_mut("allOf") {
        all.iter_mut().for_each(older);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds;

    const SCHEMAS: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.";

    #[test]
    fn references_stand_alone() {
        let all: Vec<&Resource> = kinds::BUILT_IN.to_vec();
        let definitions = definitions(&all);
        let pod = &definitions["io.k8s.api.core.v1.Pod"]["properties"]["spec"];
        assert_eq!(pod["$ref"], "#/definitions/io.k8s.api.core.v1.PodSpec");
        let text = json!(definitions).to_string();
        assert!(!text.contains("#/components/"));
        let props = &definitions[&format!("{SCHEMAS}JSONSchemaProps")]["properties"];
        assert_eq!(props["not"]["$ref"], format!("#/definitions/{SCHEMAS}JSONSchemaProps"));
        assert!(proto::document(TITLE, VERSION, &definitions).len() > 300_000);
    }
}
