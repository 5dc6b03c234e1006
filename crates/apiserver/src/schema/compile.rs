//! From JSON schemas to nodes.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::node::{Bound, Checks, Id, ListType, Node, Pattern, Span, Type};
use super::rules::Rule;

/// Levels of a schema that are looked at; below, anything goes. The JSON parser takes 128.
const MAX_DEPTH: usize = 100;

/// Where `$ref`s of built-in kinds point.
pub(super) const DEFINITIONS: &str = "#/components/schemas/";

/// Compiles definitions that refer to one another by name.
pub(super) struct Compiler<'a> {
    definitions: &'a Map<String, Value>,
    named: HashMap<String, Id>,
    nodes: Vec<Node>,
}

/// Compiles one structural schema, which has no references.
pub(super) fn structural(source: &Value) -> (Vec<Node>, Id) {
    let none = Map::new();
    let mut compiler = Compiler::new(&none);
    let root = compiler.add(source, 0);
    (compiler.nodes, root)
}

impl<'a> Compiler<'a> {
    pub(super) fn new(definitions: &'a Map<String, Value>) -> Self {
        Self { definitions, named: HashMap::new(), nodes: Vec::new() }
    }

    pub(super) fn finish(self) -> Vec<Node> {
        self.nodes
    }

    /// The node of a definition.
    pub(super) fn named(&mut self, name: &str) -> Id {
        if let Some(id) = self.named.get(name) {
            return *id;
        }
        let id = self.reserve();
        // Before its fields, so that a type may hold itself.
        self.named.insert(name.to_owned(), id);
        if let Some(schema) = self.definitions.get(name) {
            let mut node = self.node(schema, 0);
            self.name(name, &mut node);
            self.nodes[id] = node;
        }
        id
    }

    /// What the schema of a named type does not say.
    fn name(&mut self, name: &str, node: &mut Node) {
        let parts: Vec<&str> = name.rsplit('.').take(2).collect();
        let short = parts.first().copied().unwrap_or_default();
        match short {
            "Quantity" => node.kind = Type::Quantity,
            "IntOrString" => node.kind = Type::IntOrString,
            "JSON" => node.kind = Type::Any,
            "JSONSchemaPropsOrArray" | "JSONSchemaPropsOrBool" | "JSONSchemaPropsOrStringArray" => {
                let props = name.replace(short, "JSONSchemaProps");
                node.if_object = Some(self.named(&props));
            }
            _ => {}
        }
        // RawExtension, FieldsV1: objects of which nothing is known.
        node.preserve |= node.kind == Type::Object && node.properties.is_empty() && node.values.is_none();
        node.go = Some(format!("{}.{short}", parts.get(1).unwrap_or(&"")).into());
    }

    fn reserve(&mut self) -> Id {
        self.nodes.push(Node::default());
        self.nodes.len() - 1
    }

    /// Adds the node of a schema, or finds the one that it refers to.
    fn add(&mut self, schema: &Value, depth: usize) -> Id {
        if let Some(name) = reference(schema) {
            return self.named(name);
        }
        let id = self.reserve();
        if depth < MAX_DEPTH {
            let node = self.node(schema, depth);
            self.nodes[id] = node;
        } else {
            self.nodes[id].preserve = true;
        }
        id
    }

    fn node(&mut self, schema: &Value, depth: usize) -> Node {
        let yes = |name: &str| schema[name] == Value::Bool(true);
        let fields = schema["properties"].as_object().into_iter().flatten();
        let properties = fields.map(|(name, s)| (name.clone(), self.add(s, depth + 1))).collect();
        let values = schema.get("additionalProperties").filter(|v| !v.is_null() && **v != Value::Bool(false));
        let kind = if yes("x-kubernetes-int-or-string") { Type::IntOrString } else { type_of(schema) };
        Node {
            kind,
            properties,
            values: values.map(|s| self.add(s, depth + 1)),
            items: schema.get("items").filter(|s| s.is_object()).map(|s| self.add(s, depth + 1)),
            preserve: yes("x-kubernetes-preserve-unknown-fields"),
            embedded: yes("x-kubernetes-embedded-resource"),
            nullable: yes("nullable"),
            default: schema.get("default").filter(|d| !d.is_null()).cloned(),
            list: list_type(schema),
            format: schema["format"].as_str().map(Into::into),
            go: None,
            if_object: None,
            checks: self.checks(schema, depth),
            rules: Rule::all(schema),
        }
    }

    fn checks(&mut self, schema: &Value, depth: usize) -> Option<Box<Checks>> {
        const KEYS: [&str; 18] = [
            "required",
            "enum",
            "pattern",
            "minLength",
            "maxLength",
            "minItems",
            "maxItems",
            "minProperties",
            "maxProperties",
            "minimum",
            "maximum",
            "multipleOf",
            "allOf",
            "anyOf",
            "oneOf",
            "not",
            "additionalProperties",
            "x-kubernetes-embedded-resource",
        ];
        let map = schema.as_object()?;
        if !KEYS.iter().any(|k| map.contains_key(*k)) {
            return None;
        }
        let span =
            |least: &str, most: &str| Span { least: schema[least].as_u64(), most: schema[most].as_u64() };
        let bound = |limit: &str, exclusive: &str| {
            let limit = schema[limit].as_number()?.clone();
            Some(Bound { limit, exclusive: schema[exclusive] == Value::Bool(true) })
        };
        let mut all = |name: &str| -> Vec<Id> {
            let each = schema[name].as_array().into_iter().flatten();
            each.map(|s| self.add(s, depth + 1)).collect()
        };
        let (all_of, any_of, one_of) = (all("allOf"), all("anyOf"), all("oneOf"));
        Some(Box::new(Checks {
            required: required(schema),
            one_of_values: schema["enum"].as_array().cloned().unwrap_or_default(),
            pattern: schema["pattern"].as_str().filter(|p| !p.is_empty()).map(Pattern::new),
            length: span("minLength", "maxLength"),
            items: span("minItems", "maxItems"),
            properties: span("minProperties", "maxProperties"),
            minimum: bound("minimum", "exclusiveMinimum"),
            maximum: bound("maximum", "exclusiveMaximum"),
            multiple_of: schema["multipleOf"].as_number().cloned(),
            all_of,
            any_of,
            one_of,
            not: schema.get("not").filter(|s| s.is_object()).map(|s| self.add(s, depth + 1)),
            closed: schema["additionalProperties"] == Value::Bool(false),
        }))
    }
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The fields that must be there; an object in an object must say what it is.
fn required(schema: &Value) -> Vec<String> {
    let mut all = texts(&schema["required"]);
    if schema["x-kubernetes-embedded-resource"] == true {
        all.extend(["apiVersion", "kind"].map(str::to_owned));
        all.sort();
        all.dedup();
    }
    all
}

/// The name of the definition that a schema refers to.
fn reference(schema: &Value) -> Option<&str> {
    let direct = schema["$ref"].as_str();
    let only = schema["allOf"].as_array().filter(|all| all.len() == 1);
    direct.or_else(|| only?[0]["$ref"].as_str())?.strip_prefix(DEFINITIONS)
}

fn type_of(schema: &Value) -> Type {
    match schema["type"].as_str() {
        Some("object") => Type::Object,
        Some("array") => Type::Array,
        Some("string") => Type::String,
        Some("integer") => Type::Integer,
        Some("number") => Type::Number,
        Some("boolean") => Type::Boolean,
        _ => Type::Any,
    }
}

fn list_type(schema: &Value) -> ListType {
    match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => ListType::Set,
        Some("map") => ListType::Map(texts(&schema["x-kubernetes-list-map-keys"])),
        _ => ListType::Atomic,
    }
}
