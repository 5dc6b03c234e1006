//! Version 2 as protobuf: `openapi.v2.Document` of gnostic's OpenAPIv2.proto, whose field numbers these are.

use serde_json::{Map, Value};

/// Levels of a schema that are written.
const MAX_DEPTH: usize = 100;

/// The whole document, without operations.
pub(super) fn document(title: &str, version: &str, definitions: &Map<String, Value>) -> Vec<u8> {
    let info = [bytes(1, title.as_bytes()), bytes(2, version.as_bytes())].concat();
    let mut out = [bytes(1, b"2.0"), bytes(2, &info), bytes(8, b"")].concat();
    out.extend(bytes(9, &named(definitions, 0)));
    out
}

/// `Definitions` and `Properties`: a list of named schemas.
fn named(schemas: &Map<String, Value>, depth: usize) -> Vec<u8> {
    let one = |(name, value): (&String, &Value)| {
        bytes(1, &[bytes(1, name.as_bytes()), bytes(2, &schema(value, depth + 1))].concat())
    };
    schemas.iter().flat_map(one).collect()
}

fn schema(value: &Value, depth: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let Some(map) = value.as_object().filter(|_| depth < MAX_DEPTH) else { return out };
    for (name, value) in map {
        match (name.as_str(), value) {
            ("$ref", Value::String(text)) => out.extend(bytes(1, text.as_bytes())),
            ("format", Value::String(text)) => out.extend(bytes(2, text.as_bytes())),
            ("title", Value::String(text)) => out.extend(bytes(3, text.as_bytes())),
            ("description", Value::String(text)) => out.extend(bytes(4, text.as_bytes())),
            ("multipleOf", Value::Number(n)) => out.extend(double(6, n.as_f64().unwrap_or(0.0))),
            ("maximum", Value::Number(n)) => out.extend(double(7, n.as_f64().unwrap_or(0.0))),
            ("exclusiveMaximum", Value::Bool(true)) => out.extend(number(8, 1)),
            ("minimum", Value::Number(n)) => out.extend(double(9, n.as_f64().unwrap_or(0.0))),
            ("exclusiveMinimum", Value::Bool(true)) => out.extend(number(10, 1)),
            ("maxLength", Value::Number(n)) => out.extend(number(11, n.as_u64().unwrap_or(0))),
            ("minLength", Value::Number(n)) => out.extend(number(12, n.as_u64().unwrap_or(0))),
            ("pattern", Value::String(text)) => out.extend(bytes(13, text.as_bytes())),
            ("maxItems", Value::Number(n)) => out.extend(number(14, n.as_u64().unwrap_or(0))),
            ("minItems", Value::Number(n)) => out.extend(number(15, n.as_u64().unwrap_or(0))),
            ("maxProperties", Value::Number(n)) => out.extend(number(17, n.as_u64().unwrap_or(0))),
            ("minProperties", Value::Number(n)) => out.extend(number(18, n.as_u64().unwrap_or(0))),
            ("required", Value::Array(names)) => {
                let names = names.iter().filter_map(Value::as_str);
                out.extend(names.flat_map(|n| bytes(19, n.as_bytes())));
            }
            ("enum", Value::Array(values)) => out.extend(values.iter().flat_map(|v| bytes(20, &any(v)))),
            ("additionalProperties", Value::Bool(yes)) => {
                out.extend(bytes(21, &number(2, u64::from(*yes))));
            }
            ("additionalProperties", values) => {
                out.extend(bytes(21, &bytes(1, &schema(values, depth + 1))));
            }
            ("type", Value::String(text)) => out.extend(bytes(22, &bytes(1, text.as_bytes()))),
            ("items", items) => out.extend(bytes(23, &bytes(1, &schema(items, depth + 1)))),
            ("allOf", Value::Array(all)) => {
                out.extend(all.iter().flat_map(|s| bytes(24, &schema(s, depth + 1))));
            }
            ("properties", Value::Object(fields)) => out.extend(bytes(25, &named(fields, depth))),
            (name, value) if name.starts_with("x-") => {
                out.extend(bytes(31, &[bytes(1, name.as_bytes()), bytes(2, &any(value))].concat()));
            }
            _ => {}
        }
    }
    out
}

/// `Any`: the value as YAML, of which JSON is a part.
fn any(value: &Value) -> Vec<u8> {
    bytes(2, value.to_string().as_bytes())
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(2);
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

fn bytes(field: u64, content: &[u8]) -> Vec<u8> {
    [&varint(field << 3 | 2), &varint(content.len() as u64), content].concat()
}

fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

fn double(field: u64, value: f64) -> Vec<u8> {
    [&varint(field << 3 | 1)[..], &value.to_le_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_schema_in_bytes() {
        let value = json!({"type": "string", "maxLength": 300});
        assert_eq!(schema(&value, 0), b"\x58\xac\x02\xb2\x01\x08\x0a\x06string");
        let empty = document("K", "v1", &Map::new());
        assert_eq!(empty, b"\x0a\x032.0\x12\x07\x0a\x01K\x12\x02v1\x42\x00\x4a\x00");
    }
}
