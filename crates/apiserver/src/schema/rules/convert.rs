//! From JSON to the language's values, as a schema types them.

use std::collections::HashMap;

use cel::Value as Cel;
use cel::objects::Key;
use serde_json::Value;

use crate::schema::Schema;
use crate::schema::node::{Id, Type};

/// Names that are words of the language; a field of that name is written between underscores.
const WORDS: [&str; 22] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
    "__namespace__",
];

/// A value, where a schema is known as the schema types it.
pub(super) fn value(schema: &Schema, value: &Value, id: Option<Id>) -> Cel {
    let node = id.map(|id| schema.node(id));
    match value {
        Value::Null => Cel::Null,
        Value::Bool(b) => Cel::Bool(*b),
        Value::Number(n) => {
            match (node.is_some_and(|node| node.kind == Type::Number), n.as_i64(), n.as_u64()) {
                (false, Some(n), _) => Cel::Int(n),
                (false, None, Some(n)) => Cel::UInt(n),
                _ => Cel::Float(n.as_f64().unwrap_or(0.0)),
            }
        }
        Value::String(text) => Cel::from(text.as_str()),
        Value::Array(list) => {
            let items = node.and_then(|n| n.items);
            Cel::from(list.iter().map(|v| self::value(schema, v, items)).collect::<Vec<_>>())
        }
        Value::Object(map) => {
            let fields: HashMap<Key, Cel> = map
                .iter()
                .map(|(name, v)| match node.and_then(|n| n.properties.get(name)) {
                    Some(id) => (Key::from(escaped(name)), self::value(schema, v, Some(*id))),
                    None => (Key::from(name.clone()), self::value(schema, v, node.and_then(|n| n.values))),
                })
                .collect();
            Cel::from(fields)
        }
    }
}

/// A field's name as rules write it.
fn escaped(name: &str) -> String {
    if WORDS.contains(&name) {
        return format!("__{name}__");
    }
    let name = name.replace("__", "__underscores__").replace('.', "__dot__");
    name.replace('-', "__dash__").replace('/', "__slash__")
}

/// A value for a message.
pub(super) fn shown(value: &Cel) -> String {
    match value {
        Cel::Int(n) => n.to_string(),
        Cel::UInt(n) => n.to_string(),
        Cel::String(text) => text.to_string(),
        other => format!("{other:?}").chars().take(100).collect(),
    }
}
