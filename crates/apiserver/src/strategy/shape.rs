//! The shapes of fields that the server itself takes for granted.

use serde_json::Value;

use crate::error::FieldError;
use crate::resource::Resource;

/// Checks them.
pub(super) fn check(r: &Resource, object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut expect = |path: &str, what: &str, right: fn(&Value) -> bool| {
        let value = path.split('.').fold(object, |v, part| &v[part]);
        if !value.is_null() && !right(value) {
            errors.push(FieldError::invalid(path, value, &format!("must be {what}")));
        }
    };
    for path in ["metadata.labels", "metadata.annotations", "status"] {
        expect(path, "an object", Value::is_object);
    }
    for path in ["metadata.finalizers", "metadata.ownerReferences"] {
        expect(path, "a list", Value::is_array);
    }
    if r.schema.is_some() {
        return errors;
    }
    let template = ["spec.template", "spec.template.metadata", "spec.template.metadata.labels"];
    for path in ["spec", "data"].into_iter().chain(template) {
        expect(path, "an object", Value::is_object);
    }
    expect("status.conditions", "a list", Value::is_array);
    errors
}
