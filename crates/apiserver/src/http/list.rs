//! Reading one object and lists of them.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::borrow::Cow;

use super::path::Target;
use super::selector::Selector;
use super::{Call, Reply, reply, table};
use crate::error::ApiError;
use crate::resource::Resource;
use crate::storage::{Object, Slice};

/// The selector of a request.
pub(super) fn selector(call: &Call, r: &Resource, target: &Target) -> Result<Selector, ApiError> {
    let text = |name| call.query.get(name).unwrap_or_default();
    let selector = Selector::parse(r, text("labelSelector"), text("fieldSelector"))?;
    Ok(match &target.name {
        Some(name) => selector.named(name),
        None => selector,
    })
}

/// An object as the asked version of its group shows it.
pub(super) fn as_version<'a>(r: &Resource, object: &'a Value) -> Cow<'a, Value> {
    let version = r.api_version();
    if object["apiVersion"] == version.as_str() {
        return Cow::Borrowed(object);
    }
    let mut other = object.clone();
    other["apiVersion"] = json!(version);
    Cow::Owned(other)
}

/// GET of one object.
pub(super) async fn one(call: &Call, r: &Resource, target: &Target, name: &str) -> Result<Reply, ApiError> {
    if target.part.is_some() && !r.status {
        return Err(ApiError::no_such_path());
    }
    let object = call.registry.get_stored(r, target.ns(), name).await?;
    if table::wanted(call).is_none() && object.is_version(&r.api_version()) {
        return Ok(reply::bytes(200, "application/json", object.json().to_owned()));
    }
    Ok(object_reply(call, r, 200, &object.parse()))
}

/// Writes an object as the asked version of its group shows it.
pub(super) fn write_object(r: &Resource, version: &str, object: &Object, out: &mut Vec<u8>) {
    if object.is_version(version) {
        out.extend_from_slice(object.json().as_bytes());
    } else {
        out.extend_from_slice(as_version(r, &object.parse()).to_string().as_bytes());
    }
}

/// One object, as JSON or as the table that kubectl prints.
pub(super) fn object_reply(call: &Call, r: &Resource, code: u16, object: &Value) -> Reply {
    match table::wanted(call) {
        Some(wish) => {
            let version = object["metadata"]["resourceVersion"].as_str().unwrap_or_default();
            reply::json(code, &table::render(r, &[object], &wish, &json!({"resourceVersion": version}), true))
        }
        None => reply::json(code, &as_version(r, object)),
    }
}

/// GET of many.
pub(super) async fn answer(call: &Call, r: &Resource, target: &Target) -> Result<Reply, ApiError> {
    let selector = selector(call, r, target)?;
    let limit = usize::try_from(call.query.number("limit")?.unwrap_or(0)).unwrap_or(0);
    let from = call.query.get("continue").map(Continue::parse).transpose()?;
    let after = from.as_ref().map_or("", |c| c.after.as_str());
    call.registry.current().await?;
    let slice = Slice { after, limit, node: selector.node(), ..Slice::default() };
    let page = call.registry.page(r, target.ns(), slice, selector.filter().as_ref().map(|f| f as _))?;
    // All pages carry the first one's version: who watches from there sees what changed between them.
    let rv = from.as_ref().map_or(page.rv, |c| c.rv);
    let mut metadata = json!({"resourceVersion": rv.to_string()});
    if let Some(after) = page.next {
        metadata["continue"] = json!(Continue { rv, after }.to_text());
    }
    if let Some(wish) = table::wanted(call) {
        let objects: Vec<_> = page.objects.iter().map(|o| o.parse()).collect();
        let objects: Vec<&Value> = objects.iter().map(|o| &**o).collect();
        return Ok(reply::json(200, &table::render(r, &objects, &wish, &metadata, true)));
    }
    let version = r.api_version();
    let mut out = format!(
        "{{\"kind\":{},\"apiVersion\":{},\"metadata\":{metadata},\"items\":[",
        json!(format!("{}List", r.kind)),
        json!(version)
    )
    .into_bytes();
    for (index, object) in page.objects.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_object(r, &version, object, &mut out);
    }
    out.extend_from_slice(b"]}");
    Ok(reply::bytes(200, "application/json", out))
}

/// Where the next page starts.
#[derive(Debug, PartialEq, Eq)]
struct Continue {
    rv: u64,
    after: String,
}

impl Continue {
    fn to_text(&self) -> String {
        URL_SAFE_NO_PAD.encode(format!("{} {}", self.rv, self.after))
    }

    fn parse(text: &str) -> Result<Self, ApiError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok();
        let text = bytes.and_then(|b| String::from_utf8(b).ok());
        let read = |t: &String| {
            let (rv, after) = t.split_once(' ')?;
            Some(Self { rv: rv.parse().ok()?, after: after.to_owned() })
        };
        text.as_ref().and_then(read).ok_or_else(|| ApiError::bad_request("continue key is not valid"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continue_tokens() {
        let token = Continue { rv: 7, after: "core/pods/default/a".into() };
        assert_eq!(Continue::parse(&token.to_text()).unwrap(), token);
        for bad in ["", "*", "AAAA", &URL_SAFE_NO_PAD.encode("x y")] {
            assert_eq!(Continue::parse(bad).unwrap_err().code, 400, "{bad}");
        }
    }
}
