//! `fieldValidation`: what becomes of fields that a kind does not have and of fields that are repeated.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::header::{HeaderValue, WARNING};
use serde_json::{Value, json};

use super::{Call, Reply};
use crate::error::{ApiError, FieldError};
use crate::resource::Resource;
use crate::schema::{self, Schema};

/// Characters of one warning, and of all of an answer; as kube-apiserver has them.
const MAX_WARNING: usize = 256;
const MAX_WARNINGS: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Directive {
    Ignore,
    Warn,
    Strict,
}

/// The field validation of one request.
#[derive(Debug, Clone)]
pub(super) struct Fields {
    directive: Directive,
    kind: Resource,
    /// What was found, in Kubernetes' words.
    found: Arc<Mutex<Vec<String>>>,
}

impl Fields {
    /// What the request asks for; without a word, warnings.
    pub(super) fn of(call: &Call, r: &Resource) -> Result<Self, ApiError> {
        let directive = match call.query.get("fieldValidation") {
            None | Some("Warn") => Directive::Warn,
            Some("Ignore") => Directive::Ignore,
            Some("Strict") => Directive::Strict,
            Some(other) => {
                let known = ["", "Ignore", "Strict", "Warn"].map(str::to_owned);
                let error = FieldError::not_supported("fieldValidation", &json!(other), &known);
                return Err(call.bad_option(error));
            }
        };
        Ok(Self { directive, kind: r.clone(), found: Arc::default() })
    }

    /// Reads an object that was sent whole; `repeated` are the paths of its repeated fields.
    pub(super) fn read(&self, object: &mut Value, repeated: &[String]) -> Result<(), ApiError> {
        let r = &self.kind;
        let fail = |why: &str| {
            let message =
                format!("{} in version {:?} cannot be handled as a {}: {why}", r.kind, r.version, r.kind);
            ApiError::bad_request(message)
        };
        // Of another kind: that is the error, told later.
        let other = |name: &str, own: &str| object.get(name).is_some_and(|v| v != own);
        if other("kind", &r.kind) || other("apiVersion", &r.api_version()) {
            return Ok(());
        }
        let strict = self.look(object, repeated).map_err(|e| fail(&e))?;
        strict.map_or(Ok(()), |e| Err(fail(&e)))
    }

    /// Reads what a server-side apply wants, which may name no unknown field whatever the directive says.
    pub(super) fn read_applied(&self, config: &mut Value) -> Result<(), ApiError> {
        let (r, Some(schema)) = (&self.kind, self.schema()) else { return Ok(()) };
        let meta = &config["metadata"];
        let text = |field: &str| meta[field].as_str().unwrap_or_default().to_owned();
        let place = format!("{}/{}; {}, Kind={}", text("namespace"), text("name"), group_version(r), r.kind);
        let refuse = |why: String| {
            ApiError::new(500, "", format!("failed to create typed patch object ({place}): {why}"))
        };
        let unknown = schema.read(config).map_err(&refuse)?;
        let told: Vec<String> =
            unknown.iter().map(|path| format!(".{path}: field not declared in schema")).collect();
        match told.as_slice() {
            [] => Ok(()),
            [one] => Err(refuse(one.clone())),
            many => Err(refuse(format!("errors:\n  {}", many.join("\n  ")))),
        }
    }

    /// Reads an object that a patch made.
    pub(super) fn read_patched(&self, object: &mut Value, repeated: &[String]) -> Result<(), ApiError> {
        let before = object.clone();
        let fail = |why: &str| {
            let error = FieldError::invalid("patch", &json!(before.to_string()), why);
            let mut refused = ApiError::new(
                422,
                "Invalid",
                format!(" \"\" is invalid: {}: {}", error.field, error.message),
            );
            *refused.details =
                json!({"causes": [{"reason": error.reason, "message": error.message, "field": error.field}]});
            refused
        };
        let text = |field: &str| before[field].as_str().unwrap_or_default();
        if text("kind") != self.kind.kind || text("apiVersion") != self.kind.api_version() {
            let (given, version) = (text("kind"), text("apiVersion"));
            if self.kind.schema.is_some() {
                return Err(self.not_itself(&before));
            }
            return Err(fail(&format!(
                "{given} in version {version:?} cannot be handled as a {}",
                self.kind.kind
            )));
        }
        let strict = self.look(object, repeated).map_err(|e| fail(&e))?;
        strict.map_or(Ok(()), |e| Err(fail(&e)))
    }

    /// The error for a custom object that says that it is something else.
    fn not_itself(&self, object: &Value) -> ApiError {
        let r = &self.kind;
        let differs = |field: &str, own: &str| {
            let rule = format!("must be {own}");
            (object[field] != own).then(|| FieldError::invalid(field, &object[field], &rule))
        };
        let version = r.api_version();
        let errors: Vec<FieldError> =
            [differs("kind", &r.kind), differs("apiVersion", &version)].into_iter().flatten().collect();
        let kind = object["kind"].as_str().unwrap_or_default().to_owned();
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        ApiError::invalid(&Resource { kind: kind.into(), ..r.clone() }, name, &errors)
    }

    /// The outer error is a value of a wrong type; the inner one what strictness refuses.
    fn look(&self, object: &mut Value, repeated: &[String]) -> Result<Option<String>, String> {
        let schema: Option<&Schema> =
            self.kind.schema.as_deref().or_else(|| schema::builtin::schema(&self.kind));
        let Some(schema) = schema else { return Ok(None) };
        let unknown = schema.read(object)?;
        let unknown = unknown.iter().map(|path| format!("unknown field {path:?}"));
        let repeated = repeated.iter().map(|path| format!("duplicate field {path:?}"));
        let found: Vec<String> = unknown.chain(repeated).collect();
        if self.directive == Directive::Strict && !found.is_empty() {
            return Ok(Some(format!("strict decoding error: {}", found.join(", "))));
        }
        // A write may be decided twice: the last time counts.
        *self.lock() = found;
        Ok(None)
    }

    fn schema(&self) -> Option<&Schema> {
        self.kind.schema.as_deref().or_else(|| schema::builtin::schema(&self.kind))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what was found to the answer, as warnings that kubectl prints.
    pub(super) fn warn(&self, mut reply: Reply) -> Reply {
        if self.directive != Directive::Warn {
            return reply;
        }
        let mut total = 0;
        for text in self.lock().iter() {
            let text: String = text.chars().filter(|c| !c.is_control()).take(MAX_WARNING).collect();
            total += text.len();
            let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
            match HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
                Ok(value) if total <= MAX_WARNINGS => drop(reply.headers_mut().append(WARNING, value)),
                _ => {}
            }
        }
        reply
    }
}

/// As Go prints a group and version; the core group's is empty.
fn group_version(r: &Resource) -> String {
    format!("{}/{}", r.group, r.version)
}
