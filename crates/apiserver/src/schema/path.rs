//! Where in an object a walk is.

use super::MAX_REPORTED;

/// The path of a value, such as `spec.ports[0]`; grows and shrinks with the walk.
#[derive(Debug, Default, Clone)]
pub(super) struct Path(String);

impl Path {
    pub(super) fn text(&self) -> &str {
        &self.0
    }

    /// Goes into a field; the answer leads back.
    pub(super) fn enter_field(&mut self, name: &str) -> usize {
        let back = self.0.len();
        if back > 0 {
            self.0.push('.');
        }
        self.0.push_str(name);
        back
    }

    /// Goes into a value of a map, whose keys are not fields.
    pub(super) fn enter_key(&mut self, key: &str) -> usize {
        let back = self.0.len();
        self.0.push('[');
        self.0.push_str(key);
        self.0.push(']');
        back
    }

    /// Goes into an item of a list.
    pub(super) fn enter_item(&mut self, index: usize) -> usize {
        self.enter_key(&index.to_string())
    }

    pub(super) fn leave(&mut self, back: usize) {
        self.0.truncate(back);
    }

    /// The path of a field here.
    pub(super) fn field(&self, name: &str) -> String {
        let mut path = self.clone();
        path.enter_field(name);
        path.0
    }
}

/// Paths of fields that a kind does not have.
#[derive(Debug, Default)]
pub(super) struct Unknown(pub(super) Vec<String>);

impl Unknown {
    pub(super) fn note(&mut self, place: &Path, field: &str) {
        if self.0.len() < MAX_REPORTED {
            self.0.push(place.field(field));
        }
    }
}
