//! Where a bad field lies, and the errors about an object as they gather.

use std::fmt;

use serde_json::{Value, json};

use crate::error::FieldError;

/// The path of a field as Kubernetes writes it: `spec.ports[0].name`, `data[key]`.
#[derive(Debug, Clone)]
pub(super) struct Path(String);

impl Path {
    /// A path from the object's root.
    pub(super) fn new(field: &str) -> Self {
        Self(field.to_owned())
    }

    /// A field of the object at this path.
    pub(super) fn field(&self, name: &str) -> Self {
        if self.0.is_empty() { Self::new(name) } else { Self(format!("{}.{name}", self.0)) }
    }

    /// An item of the list at this path.
    pub(super) fn at(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// A key of the map at this path.
    pub(super) fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is wrong with an object, in the order found.
#[derive(Debug, Default)]
pub(super) struct Errors(pub(super) Vec<FieldError>);

impl Errors {
    fn push(&mut self, at: &Path, reason: &'static str, message: String) {
        self.0.push(FieldError { field: at.0.clone(), reason, message });
    }

    /// A value that breaks a rule.
    pub(super) fn invalid(&mut self, at: &Path, value: &Value, rule: &str) {
        self.0.push(FieldError::invalid(&at.0, value, rule));
    }

    /// A value that breaks each of these rules.
    pub(super) fn all(&mut self, at: &Path, value: &Value, rules: Vec<String>) {
        rules.iter().for_each(|rule| self.invalid(at, value, rule));
    }

    /// A value that must be there and is not.
    pub(super) fn required(&mut self, at: &Path, rule: &str) {
        self.0.push(FieldError::required(&at.0, rule));
    }

    /// A field that must not be set or changed.
    pub(super) fn forbidden(&mut self, at: &Path, rule: &str) {
        self.0.push(FieldError::forbidden(&at.0, rule));
    }

    /// A value that is there already and must be unique.
    pub(super) fn duplicate(&mut self, at: &Path, value: &Value) {
        self.push(at, "FieldValueDuplicate", format!("Duplicate value: {value}"));
    }

    /// As [`Errors::duplicate`], with the value as it is to be shown.
    pub(super) fn duplicate_text(&mut self, at: &Path, value: &str) {
        self.push(at, "FieldValueDuplicate", format!("Duplicate value: {value}"));
    }

    /// A value that names nothing.
    pub(super) fn not_found(&mut self, at: &Path, value: &Value) {
        self.push(at, "FieldValueNotFound", format!("Not found: {value}"));
    }

    /// A text longer than may be; the text is not repeated.
    pub(super) fn too_long(&mut self, at: &Path, bytes: usize) {
        self.push(at, "FieldValueTooLong", format!("Too long: may not be more than {bytes} bytes"));
    }

    /// A list longer than may be.
    pub(super) fn too_many(&mut self, at: &Path, count: usize, most: usize) {
        let message = format!("Too many: {count}: must have at most {most} items");
        self.push(at, "FieldValueTooMany", message);
    }

    /// A value that is none of those that may be.
    pub(super) fn not_supported(&mut self, at: &Path, value: &Value, allowed: &[&str]) {
        let all = allowed.iter().map(|a| format!("{a:?}")).collect::<Vec<_>>().join(", ");
        let message = format!("Unsupported value: {value}: supported values: {all}");
        self.push(at, "FieldValueNotSupported", message);
    }

    /// Checks a text that must be there and one of those that may be.
    pub(super) fn one_of(&mut self, at: &Path, value: &Value, allowed: &[&str]) {
        match value.as_str() {
            None | Some("") => self.required(at, ""),
            Some(text) if allowed.contains(&text) => {}
            Some(_) => self.not_supported(at, value, allowed),
        }
    }

    /// Checks a text that may be left out, and else must be one of those that may be.
    pub(super) fn maybe_one_of(&mut self, at: &Path, value: &Value, allowed: &[&str]) {
        if !super::value::unset(value) {
            self.one_of(at, value, allowed);
        }
    }

    /// Checks that a number, zero when it is not there, is not below zero.
    pub(super) fn not_negative(&mut self, at: &Path, value: &Value) {
        let number = super::value::int(value);
        if number < 0 {
            self.invalid(at, &json!(number), "must be greater than or equal to 0");
        }
    }

    /// Checks that a number, zero when it is not there, lies in a range.
    pub(super) fn in_range(&mut self, at: &Path, value: &Value, least: i64, most: i64) {
        let number = super::value::int(value);
        if !(least..=most).contains(&number) {
            let rule = format!("must be between {least} and {most}, inclusive");
            self.invalid(at, &json!(number), &rule);
        }
    }

    /// Checks a port's number.
    pub(super) fn port(&mut self, at: &Path, value: &Value) {
        self.in_range(at, value, 1, 65_535);
    }

    /// Checks that a field is what it was.
    pub(super) fn immutable(&mut self, at: &Path, old: &Value, new: &Value) {
        if !super::value::same(old, new) {
            self.invalid(at, new, "field is immutable");
        }
    }
}
