//! What an object's fields are to server-side apply: where values end and who tells list items apart.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::lists::{self, Ownership, Place};
use super::set::{key_step, shown, value_step};
use crate::resource::Resource;

/// Levels down to which fields have owners of their own; what is deeper is one value.
/// `fieldsV1` lies a few levels deep itself, and must stay within what a JSON parser takes.
pub(super) const MAX_DEPTH: usize = 64;

/// The type of a value, from the built-in tables or from a custom kind's schema.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shape<'a> {
    /// A place in a built-in kind, or in the metadata of any.
    Built(Place<'a>),
    /// The schema of a custom kind's value.
    Schema(&'a Value),
}

/// How a value is taken apart.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Form<'a> {
    /// Not at all.
    Leaf,
    /// By its fields.
    Map,
    /// A list by its plain values.
    Set,
    /// A list of objects by these fields, each with what it is where an item does not say.
    Keyed(Vec<(&'a str, Option<Value>)>),
}

impl<'a> Shape<'a> {
    /// The shape of a kind's objects.
    pub(crate) fn of(r: &'a Resource) -> Self {
        match &r.schema {
            Some(schema) => Self::Schema(schema.source()),
            None => Self::Built(Place::root(&r.kind)),
        }
    }

    /// The shape of a field, given the depth of what it is in.
    pub(super) fn field(self, name: &'a str, depth: usize) -> Self {
        match self {
            Self::Built(place) => Self::Built(place.field(name)),
            Self::Schema(_) if depth == 0 && name == "metadata" => {
                Self::Built(Place::root("").field("metadata"))
            }
            Self::Schema(schema) => {
                let named = schema["properties"].get(name);
                Self::Schema(named.unwrap_or(&schema["additionalProperties"]))
            }
        }
    }

    /// The shape of a list's items.
    pub(super) fn item(self) -> Self {
        match self {
            Self::Built(_) => self,
            Self::Schema(schema) => Self::Schema(&schema["items"]),
        }
    }

    /// Whether the field is a part of what is here that is always there, if only empty.
    pub(super) fn is_part(self, name: &str) -> bool {
        matches!(self, Self::Built(place) if place.is_part(name))
    }

    /// Whether the field is a key of a map, which may come and go as a whole.
    pub(super) fn is_map_key(self, name: &str) -> bool {
        match self {
            Self::Built(_) => false,
            Self::Schema(schema) => {
                // What no schema tells of is taken for the keys of maps.
                let open = schema["additionalProperties"].is_object()
                    || schema["x-kubernetes-preserve-unknown-fields"] == true
                    || schema.is_null();
                open && schema["properties"].get(name).is_none()
            }
        }
    }

    /// How this value is taken apart at this depth.
    pub(super) fn form(self, value: &Value, depth: usize) -> Form<'a> {
        if depth >= MAX_DEPTH {
            return Form::Leaf;
        }
        match (value, self) {
            (Value::Object(_), Self::Built(place)) if !place.is_atomic() => Form::Map,
            (Value::Object(_), Self::Schema(schema)) if schema["x-kubernetes-map-type"] != "atomic" => {
                Form::Map
            }
            (Value::Array(_), Self::Built(place)) => match place.list().ownership {
                Ownership::Atomic => Form::Leaf,
                Ownership::Set => Form::Set,
                Ownership::Keys(keys) => {
                    Form::Keyed(keys.iter().map(|k| (*k, lists::default_of(k))).collect())
                }
            },
            (Value::Array(_), Self::Schema(schema)) => match schema["x-kubernetes-list-type"].as_str() {
                Some("set") => Form::Set,
                Some("map") => Form::Keyed(schema_keys(schema)),
                _ => Form::Leaf,
            },
            _ => Form::Leaf,
        }
    }
}

fn schema_keys(schema: &Value) -> Vec<(&str, Option<Value>)> {
    let keys = schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten();
    let default = |key: &str| schema["items"]["properties"][key].get("default").cloned();
    keys.filter_map(Value::as_str).map(|key| (key, default(key))).collect()
}

impl Form<'_> {
    /// The step of each item of a list. The error says which item cannot be told apart, and why.
    pub(super) fn steps(&self, list: &[Value]) -> Result<Vec<String>, String> {
        let mut seen = std::collections::HashSet::new();
        let mut steps = Vec::with_capacity(list.len());
        for (index, item) in list.iter().enumerate() {
            let step = self.step(item).map_err(|why| format!("element {index}: {why}"))?;
            if !seen.insert(step.clone()) {
                return Err(format!("duplicate entries for key {}", shown(&step)));
            }
            steps.push(step);
        }
        Ok(steps)
    }

    fn step(&self, item: &Value) -> Result<String, String> {
        let Self::Keyed(keys) = self else {
            return match item {
                Value::Object(_) | Value::Array(_) => Err("items of a set must be plain values".to_owned()),
                plain => Ok(value_step(plain)),
            };
        };
        if !item.is_object() {
            return Err("associative list has an element that is no object".to_owned());
        }
        let mut found = BTreeMap::new();
        for (key, default) in keys {
            let value = item.get(key).filter(|v| !v.is_null()).or(default.as_ref());
            match value {
                Some(Value::Object(_) | Value::Array(_)) => {
                    return Err(format!("key field {key:?} is no plain value"));
                }
                Some(value) => drop(found.insert(*key, value.clone())),
                None => {
                    return Err(format!(
                        "associative list with keys has an element that omits key field {key:?} (and doesn't have default value)"
                    ));
                }
            }
        }
        Ok(key_step(&found))
    }
}
