//! Asking the rules of every place in an object.

use cel::Value as Cel;
use serde_json::Value;

use super::cost::BUDGET;
use super::{Outcome, Rule, convert, evaluate};
use crate::error::FieldError;
use crate::schema::Schema;
use crate::schema::node::{Id, ListType, Node};
use crate::schema::path::Path;

/// The rules that an object breaks; `old` is what it was.
pub(in crate::schema) fn check(schema: &Schema, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut run = Run { schema, path: Path::default(), errors: Vec::new(), budget: BUDGET };
    run.walk(object, old, schema.root);
    run.errors
}

/// The rules that are never asked, with the reason.
pub(in crate::schema) fn skipped(schema: &Schema) -> Vec<String> {
    schema.nodes.iter().flat_map(|node| &node.rules).filter_map(Rule::unsupported).collect()
}

struct Run<'a> {
    schema: &'a Schema,
    path: Path,
    errors: Vec<FieldError>,
    /// Steps that are left; at 0 no more rules are asked.
    budget: u64,
}

impl Run<'_> {
    fn walk(&mut self, value: &Value, old: Option<&Value>, id: Id) {
        let node = self.schema.node(id);
        if value.is_null() || self.budget == 0 {
            return;
        }
        self.rules(value, old, id, node);
        match value {
            Value::Object(map) => {
                for (name, value) in map {
                    let (back, id) = match (node.properties.get(name), node.values) {
                        (Some(id), _) => (self.path.enter_field(name), *id),
                        (None, Some(id)) => (self.path.enter_key(name), id),
                        (None, None) => continue,
                    };
                    self.walk(value, old.and_then(|o| o.get(name)), id);
                    self.path.leave(back);
                }
            }
            Value::Array(list) => {
                let Some(items) = node.items else { return };
                for (index, value) in list.iter().enumerate() {
                    let back = self.path.enter_item(index);
                    self.walk(value, old.and_then(|o| same_item(node, o, value)), items);
                    self.path.leave(back);
                }
            }
            _ => {}
        }
    }

    fn rules(&mut self, value: &Value, old: Option<&Value>, id: Id, node: &Node) {
        if node.rules.is_empty() {
            return;
        }
        let this = convert::value(self.schema, value, Some(id));
        let before = old.map(|old| convert::value(self.schema, old, Some(id)));
        for rule in node.rules.iter().filter(|r| !r.optional_old) {
            let Ok(compiled) = rule.rule.get() else { continue };
            if compiled.uses_old && before.is_none() {
                continue;
            }
            let cost = compiled.cost.on(value) + old.map_or(0, |old| compiled.cost.on(old));
            self.budget = self.budget.saturating_sub(cost);
            if self.budget == 0 {
                let rule = "validation failed due to running out of cost budget, no further validation rules will be run";
                return self.errors.push(FieldError::invalid(self.place(), &kind(value), rule));
            }
            match evaluate(compiled, &this, before.as_ref()) {
                Outcome::Value(Cel::Bool(true)) | Outcome::Skipped => {}
                Outcome::Value(Cel::Bool(false)) => self.broken(rule, value, &this, before.as_ref()),
                Outcome::Value(_) => {}
                Outcome::Failed(why) => {
                    let about = rule.message.as_ref().unwrap_or(&rule.text);
                    let told = format!("{why} evaluating rule: {about}");
                    self.errors.push(FieldError::invalid(self.place(), &kind(value), &told));
                }
            }
        }
    }

    /// The path of the value; Kubernetes has none for the object itself.
    fn place(&self) -> &str {
        let path = self.path.text();
        if path.is_empty() { "<nil>" } else { path }
    }

    fn broken(&mut self, rule: &Rule, value: &Value, this: &Cel, old: Option<&Cel>) {
        let own = rule.message_expression.as_ref().and_then(|e| e.get().ok());
        let own = own.filter(|e| e.cost.on(value) < self.budget).map(|e| evaluate(e, this, old));
        let told = match own {
            Some(Outcome::Value(Cel::String(text))) => text.to_string(),
            _ => rule.told(),
        };
        let path = self.path.text();
        let path = if path.is_empty() && rule.field_path.is_empty() {
            self.place().to_owned()
        } else if path.is_empty() {
            rule.field_path.trim_start_matches('.').to_owned()
        } else {
            path.to_owned() + &rule.field_path
        };
        let whole = value.is_object() || value.is_array();
        self.errors.push(match rule.reason.as_deref() {
            Some("FieldValueRequired") => FieldError::required(&path, &told),
            Some("FieldValueForbidden") => FieldError::forbidden(&path, &told),
            Some("FieldValueDuplicate") => FieldError::duplicate(&path, value),
            _ if whole => FieldError {
                field: path,
                reason: "FieldValueInvalid",
                message: format!("Invalid value: {told}"),
            },
            _ => FieldError::invalid(&path, value, &told),
        });
    }
}

/// Kubernetes names the type where there is no good value.
fn kind(value: &Value) -> Value {
    Value::from(match value {
        Value::Object(_) => "object",
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        _ => "integer",
    })
}

/// The item of the old list that is the same one; only lists that are maps can tell.
fn same_item<'a>(node: &Node, old: &'a Value, item: &Value) -> Option<&'a Value> {
    let ListType::Map(keys) = &node.list else { return None };
    let same = |other: &&Value| keys.iter().all(|key| other.get(key) == item.get(key));
    old.as_array()?.iter().find(same)
}
