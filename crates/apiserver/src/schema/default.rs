//! The defaults of custom objects.

use serde_json::Value;

use super::Schema;
use super::node::{Id, Node};

/// See [`Schema::fill`].
pub(super) fn fill(schema: &Schema, object: &mut Value) {
    drop_nulls(schema, object, Some(schema.root));
    defaults(schema, object, schema.root);
}

/// The schema of a field, named or of a map.
fn field(node: &Node, name: &str) -> Option<Id> {
    node.properties.get(name).copied().or(node.values)
}

/// Drops nulls of fields that may not be null and have no default; those that have one get it.
fn drop_nulls(schema: &Schema, value: &mut Value, id: Option<Id>) {
    let node = id.map(|id| schema.node(id));
    let of = |name: &str| node.and_then(|n| field(n, name));
    match value {
        Value::Object(map) => {
            map.retain(|name, value| {
                let stays = |n: &Node| n.nullable || n.default.is_some();
                !value.is_null() || of(name).is_none_or(|id| stays(schema.node(id)))
            });
            map.iter_mut().for_each(|(name, value)| drop_nulls(schema, value, of(name)));
        }
        Value::Array(list) => {
            let items = node.and_then(|n| n.items);
            list.iter_mut().for_each(|value| drop_nulls(schema, value, items));
        }
        _ => {}
    }
}

fn defaults(schema: &Schema, value: &mut Value, id: Id) {
    let node = schema.node(id);
    match value {
        Value::Object(map) => {
            for (name, id) in &node.properties {
                let field = schema.node(*id);
                if let Some(default) = &field.default
                    && map.get(name).is_none_or(|v| v.is_null() && !field.nullable)
                {
                    map.insert(name.clone(), default.clone());
                }
            }
            for (name, value) in map.iter_mut() {
                if let Some(id) = field(node, name) {
                    or_default(schema, value, id);
                    defaults(schema, value, id);
                }
            }
        }
        Value::Array(list) => {
            let Some(items) = node.items else { return };
            for value in list {
                or_default(schema, value, items);
                defaults(schema, value, items);
            }
        }
        _ => {}
    }
}

/// Replaces a null by the default of its place, if null is not allowed there.
fn or_default(schema: &Schema, value: &mut Value, id: Id) {
    let node = schema.node(id);
    if let (Value::Null, false, Some(default)) = (&*value, node.nullable, &node.default) {
        *value = default.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn defaults_are_nested_and_nulls_go() {
        let schema = Schema::custom(&json!({"type": "object", "properties": {"spec": {"type": "object",
            "default": {}, "properties": {
                "a": {"type": "string", "default": "x"},
                "b": {"type": "string"},
                "c": {"type": "string", "nullable": true},
                "l": {"type": "array", "items": {"type": "object", "properties": {"p": {"type": "integer", "default": 80}}}}}}}}));
        let mut object = json!({"kind": "A"});
        schema.fill(&mut object);
        assert_eq!(object, json!({"kind": "A", "spec": {"a": "x"}}));
        let mut object = json!({"spec": {"a": null, "b": null, "c": null, "l": [{}, {"p": 1}]}});
        schema.fill(&mut object);
        assert_eq!(object, json!({"spec": {"a": "x", "c": null, "l": [{"p": 80}, {"p": 1}]}}));
    }
}
