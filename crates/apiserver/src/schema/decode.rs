//! Reading an object as its built-in kind: unknown fields and nulls go, and a value of another type is an error.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::node::{Id, Type};
use super::path::{Path, Unknown};
use super::{Schema, builtin};
use crate::kinds;

/// Reads an object of a built-in kind; see [`Schema::read`].
pub(super) fn read(schema: &Schema, object: &mut Value) -> Result<Vec<String>, String> {
    let mut reader =
        Reader { schema, path: Path::default(), holder: String::new(), unknown: Unknown::default() };
    reader.value(object, schema.root)?;
    Ok(reader.unknown.0)
}

/// Reads the `metadata` of any object, here at a path: all kinds have the same.
pub(super) fn metadata(meta: &mut Value, path: &Path, unknown: &mut Unknown) -> Result<(), String> {
    let any = builtin::schema(&kinds::CONFIG_MAPS);
    let Some((schema, id)) = any.and_then(|s| Some((s, *s.node(s.root).properties.get("metadata")?))) else {
        return Ok(());
    };
    let mut path = path.clone();
    path.enter_field("metadata");
    let mut reader = Reader { schema, path, holder: "ObjectMeta".into(), unknown: std::mem::take(unknown) };
    let outcome = reader.value(meta, id);
    *unknown = reader.unknown;
    outcome
}

struct Reader<'a> {
    schema: &'a Schema,
    path: Path,
    /// Go's name of the struct that holds the value.
    holder: String,
    unknown: Unknown,
}

impl Reader<'_> {
    /// A value of a built-in type.
    fn value(&mut self, value: &mut Value, id: Id) -> Result<(), String> {
        let schema = self.schema;
        let node = schema.node(id);
        match (node.kind, &mut *value) {
            (Type::Object, Value::Object(map)) if node.go.is_some() => self.fields(map, id),
            (Type::Object, Value::Object(map)) => match node.values {
                Some(values) => self.map(map, values),
                None => Ok(()),
            },
            (Type::Array, Value::Array(list)) => self.list(list, id),
            (Type::String, Value::String(text)) => check_text(node.format.as_deref(), text),
            (Type::Integer, Value::Number(n)) if fits(n.as_i64(), node.format.as_deref()) => Ok(()),
            (Type::Number, Value::Number(_)) | (Type::Boolean, Value::Bool(_)) => Ok(()),
            (Type::IntOrString, Value::String(_)) => Ok(()),
            (Type::IntOrString, Value::Number(n)) if fits(n.as_i64(), Some("int32")) => Ok(()),
            (Type::Quantity, value) => quantity(value),
            (Type::Any, Value::Object(_)) if node.if_object.is_some() => {
                self.value(value, node.if_object.unwrap_or(id))
            }
            (Type::Any, _) => Ok(()),
            (_, value) => Err(self.mismatch(value, id)),
        }
    }

    fn fields(&mut self, map: &mut Map<String, Value>, id: Id) -> Result<(), String> {
        let schema = self.schema;
        let node = schema.node(id);
        if node.preserve {
            return Ok(());
        }
        let unknown: Vec<String> =
            map.keys().filter(|k| !node.properties.contains_key(*k)).cloned().collect();
        for name in unknown {
            self.unknown.note(&self.path, &name);
            map.remove(&name);
        }
        map.retain(|_, value| !value.is_null());
        let own = node.go.as_deref().and_then(|go| go.rsplit('.').next()).unwrap_or_default();
        let holder = std::mem::replace(&mut self.holder, own.to_owned());
        for (name, value) in map.iter_mut() {
            if let Some(id) = node.properties.get(name) {
                let back = self.path.enter_field(name);
                self.value(value, *id)?;
                self.path.leave(back);
            }
        }
        self.holder = holder;
        Ok(())
    }

    fn map(&mut self, map: &mut Map<String, Value>, values: Id) -> Result<(), String> {
        for (name, value) in map.iter_mut() {
            if value.is_null() {
                *value = self.zero(values);
            }
            let back = self.path.enter_field(name);
            self.value(value, values)?;
            self.path.leave(back);
        }
        Ok(())
    }

    fn list(&mut self, list: &mut [Value], id: Id) -> Result<(), String> {
        let Some(items) = self.schema.node(id).items else { return Ok(()) };
        for (index, value) in list.iter_mut().enumerate() {
            if value.is_null() {
                *value = self.zero(items);
            }
            let back = self.path.enter_item(index);
            self.value(value, items)?;
            self.path.leave(back);
        }
        Ok(())
    }

    /// What Go reads for a null in a list or map.
    fn zero(&self, id: Id) -> Value {
        match self.schema.node(id).kind {
            Type::Object => json!({}),
            Type::Array => json!([]),
            Type::String => json!(""),
            Type::Integer | Type::Number | Type::IntOrString => json!(0),
            Type::Boolean => json!(false),
            Type::Quantity => json!("0"),
            Type::Any => Value::Null,
        }
    }

    fn mismatch(&self, value: &Value, id: Id) -> String {
        let given = match value {
            Value::Number(n) if n.is_f64() || self.schema.node(id).kind == Type::Integer => {
                format!("number {n}")
            }
            other => type_name(other).to_owned(),
        };
        let place = without_indexes(self.path.text());
        let wanted = self.go_type(id);
        if place.is_empty() {
            return format!("json: cannot unmarshal {given} into Go value of type {wanted}");
        }
        format!(
            "json: cannot unmarshal {given} into Go struct field {}.{place} of type {wanted}",
            self.holder
        )
    }

    /// Go's name of a type.
    fn go_type(&self, id: Id) -> String {
        let node = self.schema.node(id);
        let of = |id: Option<Id>| id.map_or_else(|| "interface {}".to_owned(), |id| self.go_type(id));
        match (node.kind, &node.go) {
            (Type::Object, Some(go)) => go.to_string(),
            (Type::Object, None) => format!("map[string]{}", of(node.values)),
            (Type::Array, _) if node.format.is_none() => format!("[]{}", of(node.items)),
            (Type::String, _) => "string".into(),
            (Type::Integer, _) => node.format.as_deref().unwrap_or("int64").to_owned(),
            (Type::Number, _) => "float64".into(),
            (Type::Boolean, _) => "bool".into(),
            (Type::IntOrString, _) => "int32".into(),
            _ => "interface {}".into(),
        }
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Go's decoder names fields only.
fn without_indexes(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut inside = false;
    for c in path.chars() {
        match c {
            '[' => inside = true,
            ']' => inside = false,
            c if !inside => out.push(c),
            _ => {}
        }
    }
    out
}

fn fits(number: Option<i64>, format: Option<&str>) -> bool {
    number.is_some_and(|n| format != Some("int32") || i32::try_from(n).is_ok())
}

fn check_text(format: Option<&str>, text: &str) -> Result<(), String> {
    match format {
        Some("date-time") if text.parse::<jiff::Timestamp>().is_err() => Err(format!(
            "parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?} as \"2006\""
        )),
        Some("byte") => match STANDARD.decode(text.replace(['\r', '\n'], "")) {
            Err(base64::DecodeError::InvalidByte(at, _)) => {
                Err(format!("illegal base64 data at input byte {at}"))
            }
            Err(_) => Err(format!("illegal base64 data at input byte {}", text.len())),
            Ok(_) => Ok(()),
        },
        _ => Ok(()),
    }
}

/// An amount; a number becomes the text that Kubernetes stores.
fn quantity(value: &mut Value) -> Result<(), String> {
    const RULE: &str =
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
    if let Value::Number(n) = value {
        *value = json!(n.to_string());
    }
    let Some(text) = value.as_str() else { return Err(RULE.into()) };
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let digits = unsigned.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number = &unsigned[..unsigned.len() - digits.len()];
    let suffix = digits.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-' || c == '+');
    let known = matches!(
        suffix,
        "" | "n"
            | "u"
            | "m"
            | "k"
            | "M"
            | "G"
            | "T"
            | "P"
            | "E"
            | "e"
            | "Ki"
            | "Mi"
            | "Gi"
            | "Ti"
            | "Pi"
            | "Ei"
    );
    let plain = suffix == digits || matches!(suffix, "e" | "E");
    let one_dot = number.matches('.').count() < 2 && number.bytes().any(|b| b.is_ascii_digit());
    if known && plain && one_dot { Ok(()) } else { Err(RULE.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(object: Value) -> (Value, Result<Vec<String>, String>) {
        let mut object = object;
        let outcome = builtin::schema(&kinds::PODS).unwrap().read(&mut object);
        (object, outcome)
    }

    #[test]
    fn unknown_fields_go_and_are_named() {
        let (object, unknown) = pod(json!({"metadata": {"name": "a", "creationTimestamp": null}, "foo": 1,
            "spec": {"containers": [{"name": "a", "imagee": "b", "resources": {"limits": {"cpu": 1}}}]}}));
        assert_eq!(unknown.unwrap(), ["foo", "spec.containers[0].imagee"]);
        assert_eq!(
            object,
            json!({"metadata": {"name": "a"},
            "spec": {"containers": [{"name": "a", "resources": {"limits": {"cpu": "1"}}}]}})
        );
    }

    #[test]
    fn types_are_judged_as_go_does() {
        let cases = [
            (
                json!({"spec": {"containers": {}}}),
                "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container",
            ),
            (
                json!({"spec": {"containers": [{"image": 1}]}}),
                "json: cannot unmarshal number into Go struct field Container.spec.containers.image of type string",
            ),
            (
                json!({"spec": {"containers": [{"ports": [{"containerPort": "a"}]}]}}),
                "json: cannot unmarshal string into Go struct field ContainerPort.spec.containers.ports.containerPort of type int32",
            ),
            (
                json!({"metadata": {"labels": {"a": 1}}}),
                "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels.a of type string",
            ),
            (
                json!({"metadata": {"labels": []}}),
                "json: cannot unmarshal array into Go struct field ObjectMeta.metadata.labels of type map[string]string",
            ),
        ];
        for (object, error) in cases {
            assert_eq!(pod(object).1.unwrap_err(), error);
        }
    }

    #[test]
    fn amounts() {
        for good in ["1", "0.5", "100m", "1Gi", "1e3", "12E-3", "+1k"] {
            assert!(quantity(&mut json!(good)).is_ok(), "{good}");
        }
        for bad in [json!(""), json!("x"), json!("1.2.3"), json!("1GiB"), json!("1m3"), json!(true)] {
            assert!(quantity(&mut bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_definition_holds_schemas_in_schemas() {
        let mut crd = json!({"spec": {"versions": [{"schema": {"openAPIV3Schema": {"type": "object",
            "properties": {"spec": {"default": ["x"], "enum": ["a", 1], "additionalProperties": {"typ": "string"}, "items": {"type": "string"}}}}}}]}});
        let unknown = builtin::schema(&kinds::CUSTOM_RESOURCE_DEFINITIONS).unwrap().read(&mut crd).unwrap();
        assert_eq!(
            unknown,
            ["spec.versions[0].schema.openAPIV3Schema.properties.spec.additionalProperties.typ"]
        );
    }
}
