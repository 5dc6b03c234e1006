//! A world where what is planned is written at once; for the planners' tests.

use std::sync::Arc;

use serde_json::{Value, json};

use super::action::Action;
use super::object;
use super::world::{Key, World};
use crate::kinds;
use crate::patch::Patch;
use crate::resource::Resource;

#[derive(Default)]
pub(super) struct Sim {
    pub(super) world: World,
    version: u64,
}

fn resource(kind: &str) -> &'static Resource {
    kinds::BUILT_IN.iter().copied().find(|r| r.qualified() == kind).unwrap()
}

impl Sim {
    /// Takes an object; what is namespaced is in `shop` if it does not say where.
    pub(super) fn put(&mut self, kind: &str, mut object: Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = json!(format!("uid-{}", object::name(&object)));
        }
        if object["metadata"]["namespace"].is_null() && resource(kind).namespaced {
            object["metadata"]["namespace"] = json!("shop");
        }
        self.world.learn(resource(kind), Arc::new(object));
    }

    pub(super) fn remove(&mut self, kind: &str, name: &str) {
        if let Some(object) = self.world.get(&Key::new(kind, "shop", name)).cloned() {
            self.world.end(&Key::of(resource(kind), &object), &object);
        }
    }

    pub(super) fn get(&self, kind: &str, name: &str) -> Value {
        let namespace = if resource(kind).namespaced { "shop" } else { "" };
        self.world.get(&Key::new(kind, namespace, name)).map_or(Value::Null, |object| (**object).clone())
    }

    /// Plans and writes until nothing is left to write; what was written.
    pub(super) fn settle(&mut self, mut plan: impl FnMut(&World, &[Key]) -> Vec<Action>) -> Vec<Action> {
        let mut written = Vec::new();
        while !self.world.dirty.is_empty() {
            assert!(written.len() < 100_000, "it never settles");
            let dirty = self.world.take_dirty();
            for action in plan(&self.world, &dirty) {
                self.perform(action.clone());
                written.push(action);
            }
        }
        written
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Create { kind: "events", .. } => {}
            Action::Create { kind, namespace, mut object } => {
                let name =
                    object["metadata"]["generateName"].as_str().map(|g| format!("{g}{}", self.version));
                let name = name.unwrap_or_else(|| object::name(&object).to_owned());
                object["metadata"]["uid"] = json!(format!("uid-{name}"));
                object["metadata"]["name"] = json!(name);
                object["metadata"]["namespace"] = json!(namespace);
                self.put(kind, object);
            }
            Action::Patch { key, patch, .. } => {
                // Of two writes planned together for one object the second conflicts, and is planned again.
                let Some(object) = self.world.get(&key) else { return };
                let version = &patch["metadata"]["resourceVersion"];
                if !version.is_null() && *version != object["metadata"]["resourceVersion"] {
                    self.world.dirty.insert(key);
                    return;
                }
                let mut object = (**object).clone();
                Patch::Merge(patch).apply(&mut object).unwrap();
                self.put(&key.kind, object);
            }
            Action::Delete { key, .. } => {
                if let Some(object) = self.world.get(&key).cloned() {
                    self.world.end(&key, &object);
                }
            }
            other => panic!("{other:?}"),
        }
    }
}
