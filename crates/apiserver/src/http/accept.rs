//! How a client wants objects shown: as they are, as a table, or their metadata alone.

use http::{HeaderMap, header};
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::storage::Object;

/// The transformation that a media type asks for: `as` and `v`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Transform {
    pub(super) kind: String,
    pub(super) version: String,
}

/// The transformation of the first media type that this server can write.
pub(super) fn transform(headers: &HeaderMap) -> Option<Transform> {
    let accept = headers.get(header::ACCEPT)?.to_str().ok()?;
    let json = |range: &&str| {
        matches!(
            range.split(';').next().unwrap_or_default().trim(),
            "application/json" | "*/*" | "application/*"
        )
    };
    let range = accept.split(',').find(json)?;
    let parameter = |name: &str| {
        range.split(';').find_map(|p| p.trim().strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
    };
    let version = parameter("v").unwrap_or_else(|| "v1".into());
    Some(Transform { kind: parameter("as")?, version })
}

/// Whether a client wants metadata alone, and in which version of meta.k8s.io.
pub(super) fn metadata(headers: &HeaderMap) -> Option<String> {
    transform(headers).filter(|t| t.kind.starts_with("PartialObjectMetadata")).map(|t| t.version)
}

/// The media types that this server writes. Any JSON is YAML too.
const WRITTEN: [&str; 4] = ["application/json", "application/yaml", "application/*", "*/*"];

/// The media types of a client's list, without their parameters; none where it takes anything.
fn ranges(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let each = accept.split(',').map(|range| range.split(';').next().unwrap_or_default().trim());
    each.filter(|range| !range.is_empty())
}

/// Whether a client wants YAML before JSON.
pub(super) fn wants_yaml(headers: &HeaderMap) -> bool {
    ranges(headers).find(|range| WRITTEN.contains(range)) == Some("application/yaml")
}

/// Refuses to show one object as a list, or a list as one object.
pub(super) fn check_number(headers: &HeaderMap, one: bool, kind: &str) -> Result<(), ApiError> {
    let (wrong, message) = if one {
        let why = format!("but the requested object is not a list (*core.{kind})");
        ("PartialObjectMetadataList", format!("you requested PartialObjectMetadataList, {why}"))
    } else {
        let why = format!("but the requested object is a list (*core.{kind}List)");
        ("PartialObjectMetadata", format!("you requested PartialObjectMetadata, {why}"))
    };
    match transform(headers) {
        Some(t) if t.kind == wrong => Err(ApiError::new(406, "NotAcceptable", message)),
        _ => Ok(()),
    }
}

/// Refuses what this server cannot write, and a transformation that is not known.
pub(super) fn check(headers: &HeaderMap) -> Result<(), ApiError> {
    if ranges(headers).next().is_some() && !ranges(headers).any(|range| WRITTEN.contains(&range)) {
        let message = "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml";
        return Err(ApiError::new(406, "NotAcceptable", message));
    }
    match transform(headers) {
        Some(t)
            if !matches!(&*t.kind, "Table" | "PartialObjectMetadata" | "PartialObjectMetadataList")
                || !matches!(&*t.version, "v1" | "v1beta1") =>
        {
            let message = "only the following media types are accepted: application/json, application/yaml";
            Err(ApiError::new(406, "NotAcceptable", message))
        }
        _ => Ok(()),
    }
}

/// An object's metadata alone.
pub(super) fn partial(object: &Value, version: &str) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": object["metadata"]})
}

/// Writes an object's metadata alone.
pub(super) fn write_partial(object: &Object, version: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(partial(&object.parse(), version).to_string().as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_json_type_counts() {
        let of = |accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, header::HeaderValue::from_static(accept));
            (metadata(&headers), check(&headers).is_ok())
        };
        let v1 = Some("v1".to_owned());
        assert_eq!(of("application/json"), (None, true));
        assert_eq!(of("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"), (v1.clone(), true));
        let protobuf = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1, application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
        assert_eq!(of(protobuf), (v1, true));
        assert_eq!(of("application/json, application/json;as=Table"), (None, true));
        assert_eq!(of("application/json;as=Foo"), (None, false));
        assert_eq!(of("text/html"), (None, false));
        assert_eq!(of("text/html, application/yaml;q=0.1"), (None, true));
        assert_eq!(of(""), (None, true));
    }
}
