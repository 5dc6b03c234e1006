//! A set of field paths, and its wire form `fieldsV1`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// Field paths as a tree. A step is kept as `fieldsV1` writes it: `f:name`, `k:{"name":"a"}`, `v:"x"`, `i:0`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FieldSet {
    /// Whether the path that ends here is in the set.
    pub(super) member: bool,
    pub(super) below: BTreeMap<String, FieldSet>,
}

impl FieldSet {
    /// The set of the empty path.
    pub(super) fn leaf() -> Self {
        Self { member: true, below: BTreeMap::new() }
    }

    /// Whether no path is in it.
    pub(crate) fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }

    pub(super) fn get(&self, step: &str) -> Option<&FieldSet> {
        self.below.get(step)
    }

    /// Puts a set below a step; an empty one leaves no trace.
    pub(super) fn insert(&mut self, step: String, set: FieldSet) {
        if !set.is_empty() {
            self.below.insert(step, set);
        }
    }

    /// Adds all paths of another set.
    pub(crate) fn add(&mut self, other: &FieldSet) {
        self.member |= other.member;
        for (step, set) in &other.below {
            self.below.entry(step.clone()).or_default().add(set);
        }
    }

    /// Takes away all paths of another set.
    pub(crate) fn subtract(&mut self, other: &FieldSet) {
        self.member &= !other.member;
        for (step, set) in &other.below {
            if let Some(own) = self.below.get_mut(step) {
                own.subtract(set);
                if own.is_empty() {
                    self.below.remove(step);
                }
            }
        }
    }

    /// The paths that are in both.
    pub(crate) fn common(&self, other: &FieldSet) -> FieldSet {
        let mut both = FieldSet { member: self.member && other.member, below: BTreeMap::new() };
        for (step, set) in &self.below {
            if let Some(other) = other.below.get(step) {
                both.insert(step.clone(), set.common(other));
            }
        }
        both
    }

    /// All paths as error messages show them: `.spec.containers[name="a"].image`.
    pub(crate) fn paths(&self) -> Vec<String> {
        let mut all = Vec::new();
        self.collect(&mut String::new(), &mut all);
        all
    }

    fn collect(&self, path: &mut String, all: &mut Vec<String>) {
        if self.member {
            all.push(path.clone());
        }
        for (step, set) in &self.below {
            let length = path.len();
            path.push_str(&shown(step));
            set.collect(path, all);
            path.truncate(length);
        }
    }

    /// As `fieldsV1`.
    pub(crate) fn to_json(&self) -> Value {
        let mut map = Map::new();
        if self.member && !self.below.is_empty() {
            map.insert(".".into(), json!({}));
        }
        map.extend(self.below.iter().map(|(step, set)| (step.clone(), set.to_json())));
        Value::Object(map)
    }

    /// Reads `fieldsV1`; None when a step of it is malformed.
    pub(crate) fn from_json(value: &Value) -> Option<Self> {
        Self::read(value.as_object()?)
    }

    fn read(map: &Map<String, Value>) -> Option<Self> {
        let mut set = FieldSet::default();
        for (step, value) in map {
            let inner = value.as_object()?;
            if step == "." {
                set.member = true;
                continue;
            }
            let below = if inner.is_empty() { FieldSet::leaf() } else { Self::read(inner)? };
            set.insert(canonical(step)?, below);
        }
        Some(set)
    }
}

/// A step for a field of an object.
pub(super) fn field_step(name: &str) -> String {
    format!("f:{name}")
}

/// A step for a plain value in a list.
pub(super) fn value_step(value: &Value) -> String {
    format!("v:{value}")
}

/// A step for an object in a list, by its keys in the order of their names.
pub(super) fn key_step(keys: &BTreeMap<&str, Value>) -> String {
    let pairs: Vec<String> = keys.iter().map(|(k, v)| format!("{}:{v}", json!(k))).collect();
    format!("k:{{{}}}", pairs.join(","))
}

/// A step as this server writes it, so that steps compare as text.
fn canonical(step: &str) -> Option<String> {
    let (kind, rest) = step.split_at_checked(2)?;
    match kind {
        "f:" => Some(step.to_owned()),
        "v:" => Some(value_step(&serde_json::from_str(rest).ok()?)),
        "i:" => Some(format!("i:{}", rest.parse::<u32>().ok()?)),
        "k:" => {
            let keys: BTreeMap<String, Value> = serde_json::from_str(rest).ok()?;
            Some(key_step(&keys.iter().map(|(k, v)| (k.as_str(), v.clone())).collect()))
        }
        _ => None,
    }
}

pub(super) fn shown(step: &str) -> String {
    match step.split_at_checked(2) {
        Some(("f:", name)) => format!(".{name}"),
        Some(("v:", value)) => format!("[={value}]"),
        Some(("k:", keys)) => {
            let keys: BTreeMap<String, Value> = serde_json::from_str(keys).unwrap_or_default();
            let pairs: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={v}")).collect();
            format!("[{}]", pairs.join(","))
        }
        Some((_, index)) => format!("[{index}]"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_form_is_kubernetes() {
        let wire = json!({"f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}},
                "f:finalizers": {"v:\"a\"": {}}, "f:x": {"i:0": {}}}});
        let set = FieldSet::from_json(&wire).unwrap();
        assert_eq!(set.to_json(), wire);
        let port = r#".spec.ports[port=80,protocol="TCP"]"#;
        let paths = [".metadata.labels", ".metadata.labels.app", r#".spec.finalizers[="a"]"#, port];
        assert_eq!(set.paths()[..4], paths);
        assert_eq!(set.paths()[5], ".spec.x[0]");
    }

    #[test]
    fn steps_are_made_canonical() {
        let set = FieldSet::from_json(&json!({"k:{ \"b\" : 1, \"a\": \"x\"}": {}})).unwrap();
        assert_eq!(set.to_json(), json!({"k:{\"a\":\"x\",\"b\":1}": {}}));
        for bad in [json!({"x:a": {}}), json!({"k:[]": {}}), json!({"v:": {}}), json!({"f:a": 1}), json!([])]
        {
            assert_eq!(FieldSet::from_json(&bad), None, "{bad}");
        }
        assert!(FieldSet::from_json(&json!({})).unwrap().is_empty());
    }

    #[test]
    fn sets_add_subtract_and_meet() {
        let read = |v| FieldSet::from_json(&v).unwrap();
        let mut set = read(json!({"f:a": {"f:b": {}, "f:c": {}}}));
        let other = read(json!({"f:a": {".": {}, "f:b": {}}, "f:d": {}}));
        assert_eq!(set.common(&other), read(json!({"f:a": {"f:b": {}}})));
        set.subtract(&other);
        assert_eq!(set, read(json!({"f:a": {"f:c": {}}})));
        set.add(&other);
        assert_eq!(set.paths().len(), 4);
    }
}
