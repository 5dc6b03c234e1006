//! One stored object: its JSON text, and the few fields that lists choose by.

use std::fmt;
use std::sync::Arc;

use serde_json::{Value, json};

use super::claim::{self, Claim};
use crate::error::ApiError;

/// Bytes of one object; patches could make it grow without end.
const LARGEST: usize = 3 * 1024 * 1024;
/// Objects and arrays in one another: what a JSON reader with the usual limit of 128 still reads in a list.
const DEEPEST: usize = 120;
/// Start of the keys of pods.
const PODS: &str = "core/pods/";

/// An object as it was written once: text, since a tree of small maps takes ten times the memory and
/// most objects are only ever sent to somebody.
#[derive(PartialEq, Eq)]
pub struct Object {
    rv: u64,
    text: Box<str>,
    /// `key=value` and a line's end for each label: neither may have such a character.
    labels: Box<str>,
    node: Option<Box<str>>,
    claims: Box<[Claim]>,
}

impl Object {
    /// Takes an object at a resourceVersion, which it writes into it.
    pub(crate) fn new(key: &str, value: &mut Value, rv: u64) -> Result<Self, ApiError> {
        value["metadata"]["resourceVersion"] = json!(rv.to_string());
        let text = text(key, value)?;
        Ok(Self::over(key, rv, &text, value))
    }

    /// Reads an object from text that has its resourceVersion in it.
    pub(crate) fn from_text(key: &str, text: &str) -> Result<Self, String> {
        let value: Value =
            serde_json::from_str(text).map_err(|e| format!("the object {key} is no JSON: {e}"))?;
        let rv = value["metadata"]["resourceVersion"].as_str().and_then(|rv| rv.parse().ok());
        let rv = rv.ok_or_else(|| format!("the object {key} has no resourceVersion"))?;
        Ok(Self::over(key, rv, text, &value))
    }

    fn over(key: &str, rv: u64, text: &str, value: &Value) -> Self {
        let (labels, node) = (labels_of(value), node_of(key, value));
        // A copy, since an allocator may leave text that grew as much room as it has bytes.
        Self { rv, text: text.into(), labels, node, claims: claim::of(key, value) }
    }

    /// The same object at another resourceVersion.
    pub(crate) fn at(&self, key: &str, rv: u64) -> Result<Self, ApiError> {
        Self::new(key, &mut self.to_value(), rv)
    }

    /// `metadata.resourceVersion`.
    pub fn rv(&self) -> u64 {
        self.rv
    }

    /// The JSON text.
    pub fn json(&self) -> &str {
        &self.text
    }

    /// The object as a tree.
    pub fn parse(&self) -> Arc<Value> {
        Arc::new(self.to_value())
    }

    pub(crate) fn to_value(&self) -> Value {
        // Only text that was read, or written from a tree of this depth, becomes an object.
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    /// The value of a label.
    pub(crate) fn label(&self, key: &str) -> Option<&str> {
        let pairs = self.labels.lines().filter_map(|line| line.split_once('='));
        pairs.into_iter().find(|(k, _)| *k == key).map(|(_, value)| value)
    }

    /// A pod's `spec.nodeName`.
    pub(crate) fn node(&self) -> Option<&str> {
        self.node.as_deref()
    }

    /// What nobody else may have.
    pub(super) fn claims(&self) -> &[Claim] {
        &self.claims
    }

    /// Whether the object says that it is of this apiVersion. May say no where it should say yes.
    pub(crate) fn is_version(&self, api_version: &str) -> bool {
        let rest = self.text.strip_prefix("{\"apiVersion\":\"");
        rest.and_then(|rest| rest.strip_prefix(api_version)).is_some_and(|rest| rest.starts_with('"'))
    }
}

/// An object's text, if it is not too large or too deep.
pub(super) fn text(key: &str, value: &Value) -> Result<String, ApiError> {
    if is_deep(value, DEEPEST) {
        return Err(ApiError::bad_request(format!("{key} is nested more than {DEEPEST} levels deep")));
    }
    let text = value.to_string();
    if text.len() <= LARGEST {
        return Ok(text);
    }
    let message =
        format!("Request entity too large: {key} would have {} bytes, the limit is {LARGEST}", text.len());
    Err(ApiError::new(413, "RequestEntityTooLarge", message))
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn labels_of(value: &Value) -> Box<str> {
    let labels = value["metadata"]["labels"].as_object().into_iter().flatten();
    let pairs = labels.filter_map(|(key, value)| Some(format!("{key}={}\n", value.as_str()?)));
    pairs.collect::<String>().into()
}

fn node_of(key: &str, value: &Value) -> Option<Box<str>> {
    let node = value["spec"]["nodeName"].as_str().filter(|node| !node.is_empty())?;
    key.starts_with(PODS).then(|| node.into())
}

fn is_deep(value: &Value, left: usize) -> bool {
    let inside = |value: &Value| left == 0 || is_deep(value, left - 1);
    match value {
        Value::Array(items) => items.iter().any(inside),
        Value::Object(fields) => fields.values().any(inside),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lists_choose_by_is_at_hand() {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "spec": {"nodeName": "n1"},
            "metadata": {"name": "a", "labels": {"app": "web", "empty": ""}}});
        let object = Object::new("core/pods/default/a", &mut pod, 7).unwrap();
        assert_eq!((object.rv(), object.node()), (7, Some("n1")));
        assert_eq!((object.label("app"), object.label("empty")), (Some("web"), Some("")));
        assert_eq!(object.label("ap"), None);
        assert!(object.is_version("v1") && !object.is_version("v"));
        assert_eq!(*object.parse(), pod);
        let again = Object::from_text("core/pods/default/a", object.json()).unwrap();
        assert_eq!(again, object);
        assert_eq!(
            again.at("core/pods/default/a", 9).unwrap().to_value()["metadata"]["resourceVersion"],
            "9"
        );
        assert_eq!(Object::new("core/nodes/a", &mut pod, 7).unwrap().node(), None);
        assert!(Object::from_text("k", "{}").is_err() && Object::from_text("k", "").is_err());
    }

    #[test]
    fn what_cannot_be_read_again_is_not_taken() {
        let mut deep = json!(1);
        for _ in 0..119 {
            deep = json!([deep]);
        }
        let mut fits = json!({"metadata": {}, "data": deep});
        let object = Object::new("k", &mut fits, 1).unwrap();
        assert_eq!(object.to_value(), fits);
        let mut too_deep = json!({"metadata": {}, "data": [fits["data"]]});
        assert_eq!(Object::new("k", &mut too_deep, 1).unwrap_err().code, 400);
        let mut large = json!({"metadata": {}, "data": "x".repeat(LARGEST)});
        assert_eq!(Object::new("k", &mut large, 1).unwrap_err().code, 413);
    }
}
