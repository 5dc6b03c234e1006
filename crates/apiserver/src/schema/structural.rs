//! Whether a CustomResourceDefinition's schema is structural: every field has a type, and what only judges
//! values adds no fields. In the words of apiextensions-apiserver.

use serde_json::{Map, Value, json};

use super::node::Pattern;
use crate::error::FieldError;

/// Levels of a schema that are looked at.
const MAX_DEPTH: usize = 100;
const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
/// Words of JSON Schema that Kubernetes does not take.
const UNSUPPORTED: [&str; 6] =
    ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"];

/// Where a schema stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Field,
    Item,
}

/// What keeps a schema from being structural; `path` is its field in the definition.
pub(crate) fn check(schema: &Value, path: &str) -> Vec<FieldError> {
    let mut run = Run { errors: Vec::new() };
    match schema.as_object() {
        Some(map) => run.schema(map, path, Place::Root, 0),
        None => run.errors.push(FieldError::required(path, "schemas are required")),
    }
    run.errors.sort_by(|a, b| (&a.field, &a.message).cmp(&(&b.field, &b.message)));
    run.errors
}

struct Run {
    errors: Vec<FieldError>,
}

fn is(schema: &Map<String, Value>, name: &str) -> bool {
    schema.get(name) == Some(&Value::Bool(true))
}

fn kind(schema: &Map<String, Value>) -> &str {
    schema.get("type").and_then(Value::as_str).unwrap_or_default()
}

impl Run {
    fn required(&mut self, path: &str, field: &str, rule: &str) {
        self.errors.push(FieldError::required(&format!("{path}.{field}"), rule));
    }

    fn forbidden(&mut self, path: &str, field: &str, rule: &str) {
        self.errors.push(FieldError::forbidden(&format!("{path}.{field}"), rule));
    }

    fn schema(&mut self, schema: &Map<String, Value>, path: &str, place: Place, depth: usize) {
        if depth > MAX_DEPTH {
            return;
        }
        self.type_of(schema, path, place);
        self.words(schema, path);
        self.lists(schema, path);
        let fields = schema.get("properties").and_then(Value::as_object);
        if let Some(values) = schema.get("additionalProperties").filter(|v| !v.is_null()) {
            if place == Place::Root {
                self.forbidden(path, "additionalProperties", "must not be used at the root");
            }
            if fields.is_some_and(|f| !f.is_empty()) {
                let rule = "additionalProperties and properties are mutual exclusive";
                self.forbidden(path, "additionalProperties", rule);
            }
            if let Value::Object(values) = values {
                self.schema(values, &format!("{path}.additionalProperties"), Place::Field, depth + 1);
            }
        }
        for (name, field) in fields.into_iter().flatten() {
            // The server itself says what metadata is.
            if let Some(field) = field.as_object().filter(|_| !(place == Place::Root && name == "metadata")) {
                self.schema(field, &format!("{path}.properties[{name}]"), Place::Field, depth + 1);
            }
        }
        if let Some(Value::Object(items)) = schema.get("items") {
            self.schema(items, &format!("{path}.items"), Place::Item, depth + 1);
        }
        self.joined(schema, path, depth);
    }

    fn type_of(&mut self, schema: &Map<String, Value>, path: &str, place: Place) {
        let given = kind(schema);
        let open =
            is(schema, "x-kubernetes-int-or-string") || is(schema, "x-kubernetes-preserve-unknown-fields");
        let invalid = |rule: &str| FieldError::invalid(&format!("{path}.type"), &json!(given), rule);
        if given.is_empty() && is(schema, "x-kubernetes-embedded-resource") {
            self.required(path, "type", "must be object if x-kubernetes-embedded-resource is true");
        } else if given.is_empty() && !open {
            let rule = match place {
                Place::Root => "must not be empty at the root",
                Place::Item => "must not be empty for specified array items",
                Place::Field => "must not be empty for specified object fields",
            };
            self.required(path, "type", rule);
        } else if !given.is_empty() && !TYPES.contains(&given) {
            let known = TYPES.map(str::to_owned);
            self.errors.push(FieldError::not_supported(&format!("{path}.type"), &json!(given), &known));
        } else if place == Place::Root && given != "object" && !given.is_empty() {
            self.errors.push(invalid("must be object at the root"));
        }
        if given == "array" && schema.get("items").is_none_or(Value::is_null) {
            self.required(path, "items", "must be specified");
        }
        if place == Place::Root && is(schema, "nullable") {
            self.forbidden(path, "nullable", "nullable cannot be true at the root");
        }
    }

    fn words(&mut self, schema: &Map<String, Value>, path: &str) {
        if is(schema, "uniqueItems") {
            let rule = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
            self.forbidden(path, "uniqueItems", rule);
        }
        for name in UNSUPPORTED.iter().filter(|name| schema.contains_key(**name)) {
            self.forbidden(path, name, &format!("{name} is not supported"));
        }
        if schema.get("items").is_some_and(Value::is_array) {
            self.forbidden(path, "items", "items must be a schema object and not an array");
        }
        let preserve = "x-kubernetes-preserve-unknown-fields";
        if schema.get(preserve) == Some(&Value::Bool(false)) {
            let field = format!("{path}.{preserve}");
            self.errors.push(FieldError::invalid(&field, &json!(false), "must be true or undefined"));
        }
        if let Some(Value::String(text)) = schema.get("pattern")
            && let Err(why) = Pattern::new(text).get()
        {
            let why = why.split_whitespace().collect::<Vec<_>>().join(" ");
            let rule = format!("must be a valid regular expression, but isn't: {why}");
            self.errors.push(FieldError::invalid(&format!("{path}.pattern"), &json!(text), &rule));
        }
    }

    fn lists(&mut self, schema: &Map<String, Value>, path: &str) {
        const TYPE: &str = "x-kubernetes-list-type";
        const KEYS: &str = "x-kubernetes-list-map-keys";
        let keys = schema.get(KEYS).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        match schema.get(TYPE).and_then(Value::as_str) {
            Some("atomic" | "set") | None if !keys.is_empty() => {
                self.required(path, TYPE, "must be map if x-kubernetes-list-map-keys is non-empty");
            }
            None | Some("atomic" | "set") => {}
            Some("map") => {
                if keys.is_empty() {
                    self.required(path, KEYS, "must not be empty if x-kubernetes-list-type is map");
                }
                let fields = schema.get("items").map_or(&Value::Null, |items| &items["properties"]);
                if keys.iter().filter_map(Value::as_str).any(|key| fields.get(key).is_none()) {
                    let rule = "entries must all be names of item properties";
                    self.errors.push(FieldError::invalid(&format!("{path}.{KEYS}"), &json!(keys), rule));
                }
            }
            Some(other) => {
                let known = ["atomic", "set", "map"].map(str::to_owned);
                self.errors.push(FieldError::not_supported(&format!("{path}.{TYPE}"), &json!(other), &known));
            }
        }
        if schema.contains_key(TYPE) && kind(schema) != "array" {
            self.required(path, "type", "must be array if x-kubernetes-list-type is specified");
        }
    }

    /// `allOf`, `anyOf`, `oneOf`, `not`: they judge values and say nothing else.
    fn joined(&mut self, schema: &Map<String, Value>, path: &str, depth: usize) {
        let free = is(schema, "x-kubernetes-int-or-string");
        for name in ["allOf", "anyOf", "oneOf"] {
            let each = schema.get(name).and_then(Value::as_array).into_iter().flatten();
            for (index, one) in each.enumerate() {
                self.nested(one, &format!("{path}.{name}[{index}]"), free, depth + 1);
            }
        }
        self.nested(schema.get("not").unwrap_or(&Value::Null), &format!("{path}.not"), false, depth + 1);
    }

    /// `typed` where a type may be said: for what is a number or a text.
    fn nested(&mut self, schema: &Value, path: &str, typed: bool, depth: usize) {
        let Some(map) = schema.as_object().filter(|_| depth <= MAX_DEPTH) else { return };
        let empty = [
            ("type", "must be empty to be structural"),
            ("title", "must be empty to be structural"),
            ("description", "must be empty to be structural"),
            ("default", "must be undefined to be structural"),
            ("additionalProperties", "must be undefined to be structural"),
            ("nullable", "must be false to be structural"),
        ];
        for (name, rule) in empty.into_iter().filter(|(name, _)| !(typed && *name == "type")) {
            if map.get(name).is_some_and(|v| !v.is_null() && *v != json!("") && *v != json!(false)) {
                self.forbidden(path, name, rule);
            }
        }
        for name in
            map.keys().filter(|name| name.starts_with("x-kubernetes-") && *name != "x-kubernetes-validations")
        {
            self.forbidden(path, name, "must be undefined to be structural");
        }
        let fields = map.get("properties").and_then(Value::as_object).into_iter().flatten();
        for (name, field) in fields {
            self.nested(field, &format!("{path}.properties[{name}]"), false, depth + 1);
        }
        self.nested(map.get("items").unwrap_or(&Value::Null), &format!("{path}.items"), false, depth + 1);
        for name in ["allOf", "anyOf", "oneOf"] {
            let each = map.get(name).and_then(Value::as_array).into_iter().flatten();
            for (index, one) in each.enumerate() {
                self.nested(one, &format!("{path}.{name}[{index}]"), typed, depth + 1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(schema: Value) -> Vec<String> {
        check(&schema, "s").iter().map(|e| format!("{}: {}", e.field, e.message)).collect()
    }

    #[test]
    fn a_structural_schema_passes() {
        assert!(told(json!({"type": "object", "properties": {"metadata": {}, "spec": {"type": "object", "properties": {
            "any": {"x-kubernetes-preserve-unknown-fields": true},
            "port": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
            "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a"],
                "items": {"type": "object", "properties": {"a": {"type": "string", "pattern": "^a$"}}}}},
            "oneOf": [{"required": ["any"]}, {"properties": {"port": {"minimum": 1}}}]}}})).is_empty());
    }

    #[test]
    fn what_is_not_structural_is_told_with_its_path() {
        let cases = [
            (json!(null), "s: Required value: schemas are required"),
            (json!({}), "s.type: Required value: must not be empty at the root"),
            (
                json!({"type": "array", "items": {"type": "string"}}),
                "s.type: Invalid value: \"array\": must be object at the root",
            ),
            (
                json!({"type": "object", "properties": {"a": {}}}),
                "s.properties[a].type: Required value: must not be empty for specified object fields",
            ),
            (
                json!({"type": "object", "properties": {"a": {"type": "array"}}}),
                "s.properties[a].items: Required value: must be specified",
            ),
            (
                json!({"type": "object", "properties": {"a": {"type": "array", "items": {}}}}),
                "s.properties[a].items.type: Required value: must not be empty for specified array items",
            ),
            (
                json!({"type": "object", "properties": {"a": {"type": "text"}}}),
                "s.properties[a].type: Unsupported value: \"text\": supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\"",
            ),
            (
                json!({"type": "object", "properties": {"a": {"type": "string", "$ref": "#/x"}}}),
                "s.properties[a].$ref: Forbidden: $ref is not supported",
            ),
            (
                json!({"type": "object", "anyOf": [{"properties": {"a": {"type": "string"}}}]}),
                "s.anyOf[0].properties[a].type: Forbidden: must be empty to be structural",
            ),
        ];
        for (schema, error) in cases {
            assert_eq!(told(schema), [error]);
        }
        let pattern =
            told(json!({"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}}));
        assert!(pattern[0].contains("must be a valid regular expression, but isn't"), "{pattern:?}");
    }
}
