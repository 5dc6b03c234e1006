//! Reading a custom object: the fields that its schema does not name go.

use serde_json::{Map, Value};

use super::node::{Id, Node};
use super::path::{Path, Unknown};
use super::{Schema, decode};

const META: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Reads an object of a custom kind; see [`Schema::read`]. Only its metadata is judged here.
pub(super) fn read(schema: &Schema, object: &mut Value) -> Result<Vec<String>, String> {
    let mut pruner = Pruner { schema, path: Path::default(), unknown: Unknown::default() };
    if let Some(meta) = object.get_mut("metadata") {
        decode::metadata(meta, &pruner.path, &mut pruner.unknown)?;
    }
    pruner.prune(object, Some(schema.root), true);
    Ok(pruner.unknown.0)
}

struct Pruner<'a> {
    schema: &'a Schema,
    path: Path,
    unknown: Unknown,
}

impl Pruner<'_> {
    fn prune(&mut self, value: &mut Value, id: Option<Id>, root: bool) {
        let schema = self.schema;
        let node = id.map(|id| schema.node(id));
        match value {
            Value::Object(map) => self.fields(map, node, root),
            Value::Array(list) => {
                let items = node.and_then(|n| n.items);
                if items.is_none() && node.is_some_and(|n| n.preserve) {
                    return;
                }
                for (index, value) in list.iter_mut().enumerate() {
                    let back = self.path.enter_item(index);
                    self.prune(value, items, false);
                    self.path.leave(back);
                }
            }
            _ => {}
        }
    }

    fn fields(&mut self, map: &mut Map<String, Value>, node: Option<&Node>, root: bool) {
        let whole = root || node.is_some_and(|n| n.embedded);
        let known = |name: &String| {
            let open = |n: &Node| n.preserve || n.values.is_some() || n.properties.contains_key(name);
            whole && META.contains(&name.as_str()) || node.is_some_and(open)
        };
        let unknown: Vec<String> = map.keys().filter(|k| !known(k)).cloned().collect();
        for name in unknown {
            self.unknown.note(&self.path, &name);
            map.remove(&name);
        }
        let Some(node) = node else { return };
        for (name, value) in map.iter_mut().filter(|(name, _)| !(whole && META.contains(&name.as_str()))) {
            if let Some(id) = node.properties.get(name).copied().or(node.values) {
                let back = self.path.enter_field(name);
                self.prune(value, Some(id), false);
                self.path.leave(back);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn custom_objects_are_pruned() {
        let schema = Schema::custom(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {"a": {"type": "string"},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                    "properties": {"x": {"type": "object"}}},
                "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"y": {"type": "string"}}}},
                "l": {"type": "array", "items": {"type": "object", "properties": {"z": {"type": "integer"}}}}}}}}));
        let mut object = json!({"apiVersion": "a/v1", "kind": "A", "metadata": {"name": "a", "nam": 1}, "x": 1,
            "spec": {"a": "b", "b": 1, "free": {"k": 1, "x": {"gone": 1}}, "map": {"m": {"y": "", "n": 1}},
                "l": [{"z": 1, "w": 1}]}});
        let unknown = schema.read(&mut object).unwrap();
        assert_eq!(
            unknown,
            ["metadata.nam", "x", "spec.b", "spec.free.x.gone", "spec.l[0].w", "spec.map.m.n"]
        );
        assert_eq!(
            object["spec"],
            json!({"a": "b", "free": {"k": 1, "x": {}}, "map": {"m": {"y": ""}}, "l": [{"z": 1}]})
        );
    }
}
