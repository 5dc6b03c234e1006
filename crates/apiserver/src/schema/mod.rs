//! Schemas: which fields a kind has, what may stand in them, and what stands there when nothing was said.
//!
//! Pure: a schema and a value in; errors, dropped fields and defaults out. Built-in kinds have Kubernetes'
//! own types ([`builtin`]), custom kinds the structural schema of their CustomResourceDefinition
//! ([`Schema::custom`]). Both are compiled to nodes once, so that a write costs one walk.

pub(crate) mod builtin;
mod compile;
mod decode;
mod default;
mod formats;
mod node;
mod path;
mod prune;
mod rules;
mod strict;
mod structural;
mod unique;
mod validate;

use std::sync::Arc;

use serde_json::Value;

use crate::error::FieldError;
use node::{Id, Node};
pub(crate) use strict::parse as parse_strictly;
pub(crate) use structural::check as check_structural;

/// Fields in one list of unknown or duplicate ones; kube-apiserver stops there too.
const MAX_REPORTED: usize = 100;

/// Errors that leave an object in a shape that no rule is asked about.
const BLOCKING: [&str; 5] = [
    "FieldValueRequired",
    "FieldValueTooLong",
    "FieldValueTooMany",
    "FieldValueTypeInvalid",
    "FieldValueNotSupported",
];

/// A compiled schema.
#[derive(Debug)]
pub struct Schema {
    nodes: Arc<Vec<Node>>,
    root: Id,
    /// As the CustomResourceDefinition gives it; null for built-in kinds.
    source: Value,
}

impl Schema {
    /// Compiles the `openAPIV3Schema` of a CustomResourceDefinition.
    pub(crate) fn custom(source: &Value) -> Self {
        let (nodes, root) = compile::structural(source);
        Self { nodes: Arc::new(nodes), root, source: source.clone() }
    }

    /// The schema as its author wrote it; null for built-in kinds.
    pub(crate) fn source(&self) -> &Value {
        &self.source
    }

    fn node(&self, id: Id) -> &Node {
        &self.nodes[id]
    }

    /// Reads an object as its kind: drops unknown fields and nulls, and names the unknown ones by their path.
    ///
    /// # Errors
    /// The text of the first value that has another type than its field, in the words of Go's decoder.
    pub(crate) fn read(&self, object: &mut Value) -> Result<Vec<String>, String> {
        if self.source.is_null() { decode::read(self, object) } else { prune::read(self, object) }
    }

    /// Fills in the defaults of a custom object, and drops nulls where none may be.
    pub(crate) fn fill(&self, object: &mut Value) {
        default::fill(self, object);
    }

    /// What is wrong with a custom object that was not wrong with the old one: a schema may have become
    /// stricter, and what nobody touched shall not stop an update.
    pub(crate) fn check(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = self.check_whole(object, old);
        if let (false, Some(old)) = (errors.is_empty(), old) {
            let before = self.check_whole(old, None);
            errors.retain(|e| !before.contains(e));
        }
        errors
    }

    fn check_whole(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = validate::check(self, object);
        errors.extend(unique::check(self, object));
        if self.nodes.iter().all(|node| node.rules.is_empty()) {
            return errors;
        }
        if errors.iter().any(|e| BLOCKING.contains(&e.reason)) {
            let text = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
            errors.push(FieldError::invalid("<nil>", &Value::Null, text));
        } else {
            errors.extend(rules::check(self, object, old));
        }
        errors
    }

    /// The rules that this server cannot evaluate, with the reason.
    pub(crate) fn skipped_rules(&self) -> Vec<String> {
        rules::skipped(self)
    }
}
