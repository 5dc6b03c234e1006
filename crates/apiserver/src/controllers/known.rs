//! What the controllers keep of every object: the text that the store has anyway, and a tree for as long
//! as planners read it. A tree takes several times the memory of its text.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Deserializer;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::key::Key;
use crate::storage::Object;

/// Trees that are kept from one plan to the next; beyond that all are dropped.
const TREES: usize = 4096;
/// Every placement of a pod reads all nodes: their trees stay.
const NODES: &str = "nodes";
/// Fields that are not read into trees: none of the controllers may look at them.
const UNREAD: [(&str, &str); 2] = [("metadata", "managedFields"), ("status", "images")];

/// The objects by their keys.
#[derive(Default)]
pub(super) struct Objects {
    known: BTreeMap<Key, Known>,
    /// Those that are trees now, nodes not counted.
    trees: RefCell<Vec<Key>>,
}

/// One object.
pub(super) struct Known {
    pub(super) stored: Arc<Object>,
    pub(super) uid: Arc<str>,
    tree: OnceCell<Arc<Value>>,
}

impl Objects {
    /// What is known without a look into the object.
    pub(super) fn known(&self, key: &Key) -> Option<&Known> {
        self.known.get(key)
    }

    /// The object as a tree.
    pub(super) fn get(&self, key: &Key) -> Option<&Arc<Value>> {
        let (key, known) = self.known.get_key_value(key)?;
        Some(self.tree(key, known))
    }

    fn tree<'a>(&self, key: &Key, known: &'a Known) -> &'a Arc<Value> {
        known.tree.get_or_init(|| {
            if &*key.kind != NODES {
                self.trees.borrow_mut().push(key.clone());
            }
            Arc::new(tree(known.stored.json()))
        })
    }

    /// The keys of a kind, or of one namespace of it.
    pub(super) fn keys<'a>(&'a self, kind: &str, namespace: Option<&str>) -> impl Iterator<Item = &'a Key> {
        let within = move |key: &&Key| &*key.kind == kind && namespace.is_none_or(|ns| &*key.namespace == ns);
        let all = self.known.range(Key::new(kind, namespace.unwrap_or_default(), "")..);
        all.map(|(key, _)| key).take_while(within)
    }

    /// Keeps an object, and its tree for whoever plans next.
    pub(super) fn put(&mut self, key: Key, stored: Arc<Object>, uid: Arc<str>, tree: Arc<Value>) {
        if &*key.kind != NODES {
            self.trees.get_mut().push(key.clone());
        }
        self.known.insert(key, Known { stored, uid, tree: OnceCell::from(tree) });
        self.rest();
    }

    /// Keeps this text instead of another of the same version.
    pub(super) fn share(&mut self, key: &Key, stored: Arc<Object>) {
        if let Some(known) = self.known.get_mut(key) {
            known.stored = stored;
        }
    }

    pub(super) fn remove(&mut self, key: &Key) {
        self.known.remove(key);
    }

    /// Drops the trees if there are many.
    pub(super) fn rest(&mut self) {
        if self.trees.get_mut().len() > TREES {
            for key in std::mem::take(self.trees.get_mut()) {
                if let Some(known) = self.known.get_mut(&key) {
                    known.tree.take();
                }
            }
        }
    }
}

/// An object as planners read it: whole but for [`UNREAD`].
pub(super) fn tree(text: &str) -> Value {
    let mut reader = serde_json::Deserializer::from_str(text);
    let read = Fields("").deserialize(&mut reader);
    // What is stored is JSON; one that has no fields where these are looked for is read as it is.
    read.or_else(|_| serde_json::from_str(text)).unwrap_or_default()
}

/// Reads the fields of the object, or of the named field of it.
struct Fields(&'static str);

impl<'de> DeserializeSeed<'de> for Fields {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Fields {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            let inner = UNREAD.iter().find(|(outer, _)| self.0.is_empty() && *outer == key);
            if UNREAD.contains(&(self.0, &key)) {
                access.next_value::<IgnoredAny>()?;
            } else if let Some((outer, _)) = inner {
                let value = access.next_value_seed(Fields(outer))?;
                map.insert(key, value);
            } else {
                map.insert(key, access.next_value()?);
            }
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(name: &str, value: &Value) -> (Key, Arc<Object>) {
        let mut value = value.clone();
        (Key::new("pods", "shop", name), Arc::new(Object::new("core/pods/shop/a", &mut value, 7).unwrap()))
    }

    #[test]
    fn a_tree_is_the_whole_object_but_for_what_is_named() {
        let whole = json!({"apiVersion": "v1", "metadata": {"name": "a", "managedFields": [{"manager": "m"}],
                "annotations": {"managedFields": "1"}, "resourceVersion": "7"},
            "spec": {"managedFields": 1, "containers": [{"image": "a", "env": []}], "images": []},
            "status": {"phase": "Running", "images": [{"names": ["a"]}], "conditions": [{"images": null}]},
            "managedFields": {"a": 1.5}});
        let mut expected = whole.clone();
        for (outer, field) in UNREAD {
            expected[outer].as_object_mut().unwrap().remove(field);
        }
        assert_eq!(tree(&whole.to_string()), expected);
        for odd in [json!({"metadata": null, "status": "x", "a": [1]}), json!([1]), json!("x")] {
            assert_eq!(tree(&odd.to_string()), odd, "what has another form is read as it is");
        }
    }

    #[test]
    fn no_controller_reads_a_field_that_is_not_in_trees() {
        let mut folders =
            vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src/controllers"))];
        let mut read = 0;
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                if entry.is_dir() {
                    folders.push(entry);
                } else if !entry.ends_with("known.rs") {
                    let text = std::fs::read_to_string(&entry).unwrap();
                    read += 1;
                    for (_, field) in UNREAD {
                        assert!(!text.contains(&format!("\"{field}\"")), "{} reads {field}", entry.display());
                    }
                }
            }
        }
        assert!(read > 20, "{read} files");
    }

    #[test]
    fn trees_come_and_go_and_the_objects_stay() {
        let mut objects = Objects::default();
        let value = json!({"metadata": {"name": "a", "uid": "u"}, "spec": {"nodeName": "n"}});
        for i in 0..TREES + 10 {
            let (key, stored) = object(&format!("p{i:05}"), &value);
            let read = Arc::new(tree(stored.json()));
            objects.put(key, stored, "u".into(), read);
        }
        let (key, stored) = object("p00000", &value);
        let held = |objects: &Objects| objects.known(&key).unwrap().tree.get().is_some();
        assert!(!held(&objects), "too many trees");
        assert_eq!(objects.get(&key).unwrap()["spec"]["nodeName"], "n");
        assert!(held(&objects));
        objects.rest();
        assert!(held(&objects), "few trees are kept");
        objects.share(&key, stored.clone());
        assert!(Arc::ptr_eq(&objects.known(&key).unwrap().stored, &stored));
        assert_eq!(objects.keys("pods", None).count(), TREES + 10);
        assert_eq!(objects.keys("pods", Some("sho")).count(), 0);
        objects.remove(&key);
        assert!(objects.get(&key).is_none());
    }
}
