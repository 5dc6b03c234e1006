//! The kinds of patch.

pub(crate) mod apply;
mod lists;
mod strategic;

use json_patch::PatchOperation;
use serde_json::Value;

use crate::error::ApiError;

/// Operations in one JSON patch.
const MAX_OPERATIONS: usize = 10_000;
/// Bytes that the `copy` operations of one patch may add.
const MAX_COPIED: usize = 3 * 1024 * 1024;
/// Levels of nesting that an operation may leave; less than the JSON parser takes.
const MAX_DEPTH: usize = 120;

/// A change to an object, as a client sends it.
#[derive(Debug, Clone)]
pub enum Patch {
    /// RFC 7396: objects merge, null removes, lists are replaced.
    Merge(Value),
    /// RFC 6902: a list of operations.
    Json(json_patch::Patch),
    /// Kubernetes' own: as merge, but lists of named things merge by their key.
    Strategic(Value),
}

impl Patch {
    /// A merge patch, plain or strategic: an object.
    pub(crate) fn merge(value: Value, strategic: bool) -> Result<Self, ApiError> {
        if !value.is_object() {
            return Err(ApiError::bad_request("error decoding patch: a merge patch must be a JSON object"));
        }
        Ok(if strategic { Self::Strategic(value) } else { Self::Merge(value) })
    }

    /// A JSON patch: a list of operations.
    pub(crate) fn operations(value: Value) -> Result<Self, ApiError> {
        let Value::Array(list) = value else {
            return Err(ApiError::bad_request(
                "error decoding patch: a JSON patch must be a list of operations",
            ));
        };
        let operations = list.into_iter().map(serde_json::from_value).collect::<Result<Vec<_>, _>>();
        let operations = operations.map_err(|e| {
            ApiError::new(422, "Invalid", format!("the patch has an operation that is none: {e}"))
        })?;
        Ok(Self::Json(json_patch::Patch(operations)))
    }

    /// Changes the object, which may be left half changed where the patch is refused.
    pub fn apply(&self, object: &mut Value) -> Result<(), ApiError> {
        match self {
            Self::Merge(patch) => json_patch::merge(object, patch),
            Self::Json(patch) => apply_operations(object, patch)?,
            Self::Strategic(patch) => {
                let kind = object["kind"].as_str().unwrap_or_default().to_owned();
                strategic::merge(&kind, object, patch)?;
            }
        }
        Ok(())
    }
}

/// Whether a patched object is still the one that the path names: its name and kind before, and the object.
pub(crate) fn stays_itself(before: &[Option<Value>; 2], object: &Value) -> Result<(), ApiError> {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let [name, kind] = before.each_ref().map(|value| text(value.as_ref()));
    let now = text(object.pointer("/metadata/name"));
    if now != name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({now}) does not match the name on the URL ({name})"
        )));
    }
    match object.get("kind") {
        Some(now) if *now != kind.as_str() => {
            let message = format!("\"\" is invalid: patch: Invalid value: {now}: the kind cannot be changed");
            Err(ApiError::new(422, "Invalid", message))
        }
        _ => Ok(()),
    }
}

/// One by one, so that no patch can build an object that is deeper or larger than a request may be.
fn apply_operations(object: &mut Value, patch: &json_patch::Patch) -> Result<(), ApiError> {
    let refuse = |why: String| ApiError::new(422, "Invalid", why);
    if patch.0.len() > MAX_OPERATIONS {
        let count = patch.0.len();
        return Err(ApiError::new(
            413,
            "RequestEntityTooLarge",
            format!("The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {count}"),
        ));
    }
    let mut copied = 0;
    for (index, operation) in patch.0.iter().enumerate() {
        let none = Value::Null;
        let source = match operation {
            PatchOperation::Add(op) => &op.value,
            PatchOperation::Replace(op) => &op.value,
            PatchOperation::Move(op) => object.pointer(op.from.as_str()).unwrap_or(&none),
            PatchOperation::Copy(op) => {
                let source = object.pointer(op.from.as_str()).unwrap_or(&none);
                copied += source.to_string().len();
                source
            }
            PatchOperation::Remove(_) | PatchOperation::Test(_) => &none,
        };
        let target = operation.path().as_str().matches('/').count();
        if target + depth(source) > MAX_DEPTH || copied > MAX_COPIED {
            return Err(refuse(format!(
                "the patch makes the object too deep or too large (operation {index})"
            )));
        }
        // As kube-apiserver has it, what is not there is null.
        if matches!(operation, PatchOperation::Test(test) if test.value.is_null() && object.pointer(test.path.as_str()).is_none())
        {
            continue;
        }
        let operation = &as_addition(object, operation);
        json_patch::patch(object, std::slice::from_ref(operation))
            .map_err(|e| refuse(format!("the patch does not apply (operation {index}): {e}")))?;
    }
    Ok(())
}

/// A replacement of a field that is not there adds it, as kube-apiserver has it.
fn as_addition(object: &Value, operation: &PatchOperation) -> PatchOperation {
    if let PatchOperation::Replace(replace) = operation
        && object.pointer(replace.path.as_str()).is_none()
        && let Some((parent, _)) = replace.path.as_str().rsplit_once('/')
        && object.pointer(parent).is_some_and(Value::is_object)
    {
        let (path, value) = (replace.path.clone(), replace.value.clone());
        return PatchOperation::Add(json_patch::AddOperation { path, value });
    }
    operation.clone()
}

/// Levels of nesting; 0 for a plain value.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn json_patch_of(value: Value) -> Patch {
        Patch::Json(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn copies_cannot_build_a_bomb() {
        let mut object = json!({"a": {"b": {}}});
        let ops: Vec<_> = (0..9000).map(|_| json!({"op": "copy", "from": "/a", "path": "/a/b"})).collect();
        assert_eq!(json_patch_of(json!(ops)).apply(&mut object).unwrap_err().code, 422);
        let mut object = json!({"l": ["0123456789".repeat(100)]});
        let ops: Vec<_> = (0..9000).map(|_| json!({"op": "copy", "from": "/l", "path": "/l/-"})).collect();
        assert_eq!(json_patch_of(json!(ops)).apply(&mut object).unwrap_err().code, 422);
    }

    #[test]
    fn operations_fail_as_kubernetes_has_it() {
        let apply = |operation: Value| {
            let mut object = json!({"data": {"a": "b"}});
            Patch::operations(json!([operation])).and_then(|p| p.apply(&mut object)).map(|()| object)
        };
        for bad in [
            json!({"op": "test", "path": "/data/a", "value": "x"}),
            json!({"op": "remove", "path": "/data/z"}),
            json!({"op": "add", "path": "/z/y", "value": 1}),
            json!({"op": "replace", "path": "/z/y", "value": 1}),
            json!({"op": "foo", "path": "/data/a"}),
        ] {
            assert_eq!(apply(bad.clone()).unwrap_err().code, 422, "{bad}");
        }
        let added = apply(json!({"op": "replace", "path": "/data/z", "value": "1"})).unwrap();
        assert_eq!(added, json!({"data": {"a": "b", "z": "1"}}));
        assert_eq!(Patch::operations(json!({})).unwrap_err().code, 400);
        assert_eq!(Patch::merge(json!([]), false).unwrap_err().code, 400);
    }

    #[test]
    fn too_many_operations_are_refused() {
        let ops: Vec<_> =
            (0..=MAX_OPERATIONS).map(|_| json!({"op": "test", "path": "/a", "value": 1})).collect();
        assert_eq!(json_patch_of(json!(ops)).apply(&mut json!({"a": 1})).unwrap_err().code, 413);
    }
}
