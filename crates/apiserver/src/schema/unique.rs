//! Lists that are sets or maps: no item twice.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::Schema;
use super::node::{Id, ListType};
use super::path::Path;
use crate::error::FieldError;

/// The items of sets and maps that are there twice.
pub(super) fn check(schema: &Schema, object: &Value) -> Vec<FieldError> {
    let mut run = Run { schema, path: Path::default(), errors: Vec::new() };
    run.walk(object, schema.root);
    run.errors
}

struct Run<'a> {
    schema: &'a Schema,
    path: Path,
    errors: Vec<FieldError>,
}

impl Run<'_> {
    fn walk(&mut self, value: &Value, id: Id) {
        let node = self.schema.node(id);
        match value {
            Value::Object(map) => {
                for (name, value) in map {
                    let (back, id) = match (node.properties.get(name), node.values) {
                        (Some(id), _) => (self.path.enter_field(name), *id),
                        (None, Some(id)) => (self.path.enter_key(name), id),
                        (None, None) => continue,
                    };
                    self.walk(value, id);
                    self.path.leave(back);
                }
            }
            Value::Array(list) => {
                match &node.list {
                    ListType::Atomic => {}
                    ListType::Set => self.unique(list.iter().map(Value::clone)),
                    ListType::Map(keys) => self.unique(list.iter().map(|item| key(item, keys))),
                }
                for (index, value) in list.iter().enumerate() {
                    if let Some(items) = node.items {
                        let back = self.path.enter_item(index);
                        self.walk(value, items);
                        self.path.leave(back);
                    }
                }
            }
            _ => {}
        }
    }

    fn unique(&mut self, keys: impl Iterator<Item = Value>) {
        let mut seen: HashMap<String, u32> = HashMap::new();
        for (index, key) in keys.enumerate() {
            let times = seen.entry(key.to_string()).or_default();
            *times += 1;
            if *times == 2 {
                let back = self.path.enter_item(index);
                self.errors.push(FieldError::duplicate(self.path.text(), &key));
                self.path.leave(back);
            }
        }
    }
}

/// The fields of an item by which it is told apart.
fn key(item: &Value, keys: &[String]) -> Value {
    let pair = |k: &String| Some((k.clone(), item.get(k)?.clone()));
    Value::Object(keys.iter().filter_map(pair).collect::<Map<_, _>>())
}
