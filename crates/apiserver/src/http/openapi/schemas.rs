//! The schemas of kinds and of all that they are made of.

use serde_json::{Map, Value, json};

use crate::resource::Resource;
use crate::schema::builtin::Definitions;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const REFERENCE: &str = "#/components/schemas/";

/// The schemas of kinds, with those that they refer to.
pub(super) fn of(kinds: &[&Resource], definitions: &Definitions) -> Map<String, Value> {
    let mut out = Map::new();
    for r in kinds {
        let name = name(r, definitions);
        let mut schema = match &r.schema {
            Some(own) => custom(own.source()),
            None => definitions.schemas.get(&name).cloned().unwrap_or_else(|| json!({"type": "object"})),
        };
        schema["x-kubernetes-group-version-kind"] = json!([super::gvk(r)]);
        collect(&schema, definitions, &mut out);
        out.insert(name, schema);
    }
    out
}

/// The name of a kind's schema: Kubernetes' own, or the group backwards with version and kind.
pub(super) fn name(r: &Resource, definitions: &Definitions) -> String {
    let place = (&*r.group, &*r.version, &*r.kind);
    let known = definitions.kinds.iter().find(|(known, _)| **known == place).map(|(_, name)| name);
    known.filter(|_| r.schema.is_none()).cloned().unwrap_or_else(|| {
        let mut parts: Vec<&str> = r.group.rsplit('.').collect();
        parts.extend([&*r.version, &*r.kind]);
        parts.join(".")
    })
}

/// A custom kind's own schema, with what every object has.
fn custom(source: &Value) -> Value {
    let mut schema = if source.is_object() { source.clone() } else { json!({}) };
    if !schema["properties"].is_object() {
        schema["properties"] = json!({});
    }
    schema["type"] = json!("object");
    for name in ["apiVersion", "kind"] {
        let own = schema["properties"][name].clone();
        schema["properties"][name] = if own.is_object() { own } else { json!({"type": "string"}) };
    }
    schema["properties"]["metadata"] = json!({"description": "Standard object's metadata.",
        "allOf": [{"$ref": format!("{REFERENCE}{META}")}]});
    schema
}

/// Adds what a schema refers to, and what that refers to.
fn collect(schema: &Value, definitions: &Definitions, out: &mut Map<String, Value>) {
    match schema {
        Value::Object(map) => {
            let name = map.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix(REFERENCE));
            if let Some((name, found)) = name.and_then(|name| Some((name, definitions.schemas.get(name)?)))
                && !out.contains_key(name)
            {
                out.insert(name.to_owned(), found.clone());
                collect(found, definitions, out);
            }
            map.values().for_each(|value| collect(value, definitions, out));
        }
        Value::Array(list) => list.iter().for_each(|value| collect(value, definitions, out)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds;
    use crate::schema::builtin;

    #[test]
    fn all_references_are_there() {
        let definitions = builtin::definitions();
        let all: Vec<&Resource> = kinds::BUILT_IN.to_vec();
        let schemas = of(&all, &definitions);
        let text = json!(schemas).to_string();
        for (at, _) in text.match_indices(REFERENCE) {
            let name = text[at + REFERENCE.len()..].split('"').next().unwrap();
            assert!(schemas.contains_key(name), "{name}");
        }
        let pod = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
        assert!(pod["description"].as_str().is_some_and(|d| d.contains("containers")));
        assert_eq!(schemas["io.k8s.api.core.v1.Pod"]["x-kubernetes-group-version-kind"][0]["kind"], "Pod");
    }
}
