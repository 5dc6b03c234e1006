//! Errors as the Kubernetes API tells them: a `Status` object with code, reason, message and details.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use crate::resource::Resource;

/// A refused request, in the words that kubectl and client libraries understand.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// HTTP status code.
    pub code: u16,
    /// Machine-readable reason, such as `NotFound`; clients branch on it.
    pub reason: Cow<'static, str>,
    /// What failed, on which object, and what to do.
    pub message: String,
    /// The Status `details` object, or `Value::Null`.
    pub details: Box<Value>,
    /// For an expired list: the `continue` with which it may go on, though from another state.
    pub remainder: Option<String>,
    /// Whether the message alone is the answer.
    pub page: bool,
}

/// One bad field of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// Path of the field, such as `metadata.name`.
    pub field: String,
    /// Kubernetes' cause, such as `FieldValueInvalid`.
    pub reason: &'static str,
    /// Text with the bad value and the rule.
    pub message: String,
}

impl FieldError {
    /// A value that breaks a rule.
    pub fn invalid(field: &str, value: &Value, rule: &str) -> Self {
        let message = format!("Invalid value: {}: {rule}", short(value));
        Self { field: field.to_owned(), reason: "FieldValueInvalid", message }
    }

    /// A field that must be there and is not.
    pub fn required(field: &str, rule: &str) -> Self {
        let rule = if rule.is_empty() { String::new() } else { format!(": {rule}") };
        Self {
            field: field.to_owned(),
            reason: "FieldValueRequired",
            message: format!("Required value{rule}"),
        }
    }

    /// A value that is there already and must be alone.
    pub fn duplicate(field: &str, value: &Value) -> Self {
        let message = format!("Duplicate value: {}", short(value));
        Self { field: field.to_owned(), reason: "FieldValueDuplicate", message }
    }

    /// A value that is none of the known ones.
    pub fn not_supported(field: &str, value: &Value, known: &[String]) -> Self {
        let known: Vec<String> = known.iter().map(|k| format!("{k:?}")).collect();
        let message = format!("Unsupported value: {}: supported values: {}", short(value), known.join(", "));
        Self { field: field.to_owned(), reason: "FieldValueNotSupported", message }
    }

    /// A value of another type than its field.
    pub fn type_invalid(field: &str, value: &Value, rule: &str) -> Self {
        Self { reason: "FieldValueTypeInvalid", ..Self::invalid(field, value, rule) }
    }

    /// A text that is too long.
    pub fn too_long(field: &str, most: u64) -> Self {
        let bytes = if most == 1 { "byte" } else { "bytes" };
        let message = format!("Too long: may not be more than {most} {bytes}");
        Self { field: field.to_owned(), reason: "FieldValueTooLong", message }
    }

    /// A list or map with too much in it.
    pub fn too_many(field: &str, count: usize, most: u64) -> Self {
        let items = if most == 1 { "item" } else { "items" };
        let message = format!("Too many: {count}: must have at most {most} {items}");
        Self { field: field.to_owned(), reason: "FieldValueTooMany", message }
    }

    /// A field that must not be changed or set.
    pub fn forbidden(field: &str, rule: &str) -> Self {
        Self { field: field.to_owned(), reason: "FieldValueForbidden", message: format!("Forbidden: {rule}") }
    }
}

/// A value as text, cut so that a huge object does not fill the message.
fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

impl ApiError {
    /// Any error with a code, a reason and a message.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        let details = Box::new(Value::Null);
        Self {
            code,
            reason: Cow::Borrowed(reason),
            message: message.into(),
            details,
            remainder: None,
            page: false,
        }
    }

    fn on(mut self, r: &Resource, name: &str) -> Self {
        let mut details = Map::new();
        if !name.is_empty() {
            details.insert("name".into(), json!(name));
        }
        if !r.group.is_empty() {
            details.insert("group".into(), json!(r.group));
        }
        details.insert("kind".into(), json!(r.plural));
        self.details = Box::new(Value::Object(details));
        self
    }

    /// 404: no such object.
    pub fn not_found(r: &Resource, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{} \"{name}\" not found", r.qualified())).on(r, name)
    }

    /// 404: no such path or kind.
    pub fn no_such_path() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource")
    }

    /// 409: the name is taken.
    pub fn already_exists(r: &Resource, name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("{} \"{name}\" already exists", r.qualified())).on(r, name)
    }

    /// 409: somebody else wrote the object meanwhile, or a precondition failed.
    pub fn conflict(r: &Resource, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", r.qualified());
        Self::new(409, "Conflict", message).on(r, name)
    }

    /// 409: a deletion's precondition, `UID` or `ResourceVersion`, is not met.
    pub fn precondition(r: &Resource, name: &str, what: &str, wanted: &str, found: &str) -> Self {
        let end = if what == "UID" { "deleted and then recreated" } else { "modified" };
        let message = format!(
            "Operation cannot be fulfilled on {} \"{name}\": the {what} in the precondition ({wanted}) does \
             not match the {what} in record ({found}). The object might have been {end}",
            r.qualified_kind()
        );
        let mut error = Self::new(409, "Conflict", message).on(r, name);
        error.details["kind"] = json!(r.kind);
        error
    }

    /// 409: the resourceVersion is not the newest.
    pub fn stale(r: &Resource, name: &str) -> Self {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(r, name, why)
    }

    /// 403: understood and refused.
    pub fn forbidden(r: &Resource, name: &str, why: &str) -> Self {
        let message = format!("{} \"{name}\" is forbidden: {why}", r.qualified());
        Self::new(403, "Forbidden", message).on(r, name)
    }

    /// 422: the object has bad fields.
    pub fn invalid(r: &Resource, name: &str, errors: &[FieldError]) -> Self {
        let one = |e: &FieldError| format!("{}: {}", e.field, e.message);
        let list = match errors {
            [only] => one(only),
            many => format!("[{}]", many.iter().map(one).collect::<Vec<_>>().join(", ")),
        };
        let mut error =
            Self::new(422, "Invalid", format!("{} \"{name}\" is invalid: {list}", r.qualified_kind()))
                .on(r, name);
        error.details["kind"] = json!(r.kind);
        let cause = |e: &FieldError| json!({"reason": e.reason, "message": e.message, "field": e.field});
        error.details["causes"] = errors.iter().map(cause).collect();
        error
    }

    /// 422: parameters of the request that do not fit, of a kind such as `ListOptions`.
    pub fn invalid_options(kind: &str, errors: &[FieldError]) -> Self {
        let one = |e: &FieldError| format!("{}: {}", e.field, e.message);
        let list = match errors {
            [only] => one(only),
            many => format!("[{}]", many.iter().map(one).collect::<Vec<_>>().join(", ")),
        };
        let mut error = Self::new(422, "Invalid", format!("{kind}.meta.k8s.io \"\" is invalid: {list}"));
        let cause = |e: &FieldError| json!({"reason": e.reason, "message": e.message, "field": e.field});
        let causes: Vec<Value> = errors.iter().map(cause).collect();
        *error.details = json!({"group": "meta.k8s.io", "kind": kind, "causes": causes});
        error
    }

    /// 404: a path outside of all that is served; told as plain text.
    pub fn no_such_page() -> Self {
        Self { page: true, ..Self::new(404, "NotFound", "404 page not found\n") }
    }

    /// 500 without a reason, as kube-apiserver tells what its parts did not foresee.
    pub fn unforeseen(message: impl Into<String>) -> Self {
        Self::new(500, "", message)
    }

    /// 504: a resourceVersion that this store has not reached.
    pub fn too_large_version(asked: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
        let mut error = Self::new(504, "Timeout", message);
        let cause = json!({"reason": "ResourceVersionTooLarge", "message": "Too large resource version"});
        *error.details = json!({"causes": [cause], "retryAfterSeconds": 1});
        error
    }

    /// 400: the request cannot be understood.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 410: the asked resourceVersion is outside the history that the server holds: list again.
    pub fn expired(asked: u64, oldest: u64) -> Self {
        Self::new(410, "Expired", format!("too old resource version: {asked} ({oldest})"))
    }

    /// 500: the server failed.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(500, "InternalError", message)
    }

    /// The Kubernetes `Status` object.
    pub fn to_status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "code": self.code,
        });
        if !self.reason.is_empty() {
            status["reason"] = json!(self.reason);
        }
        if let Some(remainder) = &self.remainder {
            status["metadata"]["continue"] = json!(remainder);
        }
        if !self.details.is_null() {
            status["details"] = (*self.details).clone();
        }
        status
    }
}
