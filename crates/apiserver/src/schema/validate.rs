//! What is wrong with a custom object, in the words of apiextensions-apiserver.

mod number;
mod together;

use serde_json::{Map, Value, json};

use super::node::{Checks, Id, Node, Span, Type};
use super::path::Path;
use super::{Schema, formats};
use crate::error::FieldError;

/// Errors that one object may have; more help nobody.
const MAX_ERRORS: usize = 100;

/// What breaks the schema.
pub(super) fn check(schema: &Schema, object: &Value) -> Vec<FieldError> {
    let mut run = Run { schema, path: Path::default(), errors: Vec::new() };
    run.value(object, schema.root);
    run.errors.truncate(MAX_ERRORS);
    run.errors
}

struct Run<'a> {
    schema: &'a Schema,
    path: Path,
    errors: Vec<FieldError>,
}

impl<'a> Run<'a> {
    fn push(&mut self, error: FieldError) {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(error);
        }
    }

    /// A value that breaks a rule, which is told after the path.
    fn invalid(&mut self, value: &Value, rule: &str) {
        let text = format!("{} in body {rule}", self.path.text());
        self.push(FieldError::invalid(self.path.text(), value, &text));
    }

    /// An error that Kubernetes gives no path to.
    fn unplaced(&mut self, text: &str) {
        self.push(FieldError::invalid("<nil>", &json!(""), text));
    }

    fn value(&mut self, value: &Value, id: Id) {
        let node = self.schema.node(id);
        self.type_of(value, node);
        let Some(checks) = node.checks.as_deref() else { return self.inside(value, node) };
        if !value.is_null() {
            self.together(value, checks);
        }
        match value {
            Value::String(text) => self.text(text, checks),
            Value::Number(number) => self.number(number, node, checks),
            _ => {}
        }
        self.inside(value, node);
        self.sizes(value, checks);
        if !checks.one_of_values.is_empty() && !checks.one_of_values.iter().any(|v| same(v, value)) {
            let name = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
            let known: Vec<String> = checks.one_of_values.iter().map(name).collect();
            self.push(FieldError::not_supported(self.path.text(), value, &known));
        }
        if let Value::Object(map) = value {
            self.fields_there(map, node, checks);
        }
    }

    fn type_of(&mut self, value: &Value, node: &Node) {
        let wanted = match node.kind {
            Type::Any | Type::Quantity => "",
            Type::Object => "object",
            Type::Array => "array",
            Type::String => "string",
            Type::Integer => "integer",
            Type::Number => "number",
            Type::Boolean => "boolean",
            Type::IntOrString => "integer,string",
        };
        let given = type_name(value);
        let whole = given == "number" && value.as_f64().is_some_and(|f| f.fract() == 0.0);
        let fits = wanted.is_empty()
            || wanted.split(',').any(|w| w == given || (w == "integer" && whole))
            || (wanted == "number" && given == "integer")
            || (value.is_null() && node.nullable);
        if !fits {
            let rule = format!("{} in body must be of type {wanted}: {given:?}", self.path.text());
            self.push(FieldError::type_invalid(self.path.text(), &json!(given), &rule));
            if given == "number" && wanted == "integer" {
                let path = self.path.text().to_owned();
                self.unplaced(&format!("Checked value must be of type integer (default format) in {path}"));
            }
        } else if let (Value::String(text), Some(format)) = (value, node.format.as_deref())
            && !formats::is(format, text)
        {
            let rule = format!("{} in body must be of type {format}: {text:?}", self.path.text());
            self.push(FieldError::type_invalid(self.path.text(), value, &rule));
        }
    }

    fn text(&mut self, text: &str, checks: &Checks) {
        let Span { least, most } = checks.length;
        let length = text.chars().count() as u64;
        if let Some(most) = most.filter(|most| length > *most) {
            self.push(FieldError::too_long(self.path.text(), most));
        }
        if let Some(least) = least.filter(|least| length < *least) {
            self.invalid(&json!(text), &format!("should be at least {least} chars long"));
        }
        let Some(pattern) = &checks.pattern else { return };
        match pattern.get() {
            Ok(compiled) if compiled.is_match(text) => {}
            Ok(_) => self.invalid(&json!(text), &format!("should match '{}'", pattern.text)),
            Err(why) => {
                let rule = format!("should match '{}, but pattern is invalid: {why}'", pattern.text);
                self.invalid(&json!(text), &rule);
            }
        }
    }

    /// The items of a list and the values of an object.
    fn inside(&mut self, value: &Value, node: &Node) {
        match value {
            Value::Array(list) => {
                for (index, value) in list.iter().enumerate() {
                    let Some(items) = node.items else { return };
                    let back = self.path.enter_item(index);
                    self.value(value, items);
                    self.path.leave(back);
                }
            }
            Value::Object(map) => {
                for (name, value) in map {
                    if let Some(id) = node.properties.get(name).copied().or(node.values) {
                        let back = self.path.enter_field(name);
                        self.value(value, id);
                        self.path.leave(back);
                    }
                }
            }
            _ => {}
        }
    }

    fn sizes(&mut self, value: &Value, checks: &Checks) {
        let (count, Span { least, most }, what) = match value {
            Value::Array(list) => (list.len(), checks.items, "items"),
            Value::Object(map) => (map.len(), checks.properties, "properties"),
            _ => return,
        };
        if let Some(least) = least.filter(|least| (count as u64) < *least) {
            self.invalid(&json!(count), &format!("should have at least {least} {what}"));
        }
        if let Some(most) = most.filter(|most| count as u64 > *most) {
            self.push(FieldError::too_many(self.path.text(), count, most));
        }
    }

    fn fields_there(&mut self, map: &Map<String, Value>, node: &Node, checks: &Checks) {
        for name in checks.required.iter().filter(|name| !map.contains_key(*name)) {
            self.push(FieldError::required(&self.path.field(name), ""));
        }
        let unknown = |name: &&String| checks.closed && !node.properties.contains_key(*name);
        for name in map.keys().filter(unknown) {
            let rule = format!("{} in body is a forbidden property", self.path.field(name));
            self.push(FieldError::invalid(self.path.text(), &json!(name), &rule));
        }
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Whether two values are equal, 1 and 1.0 too.
fn same(a: &Value, b: &Value) -> bool {
    a == b || (a.is_number() && a.as_f64() == b.as_f64())
}

#[cfg(test)]
mod tests;
