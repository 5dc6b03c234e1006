//! Reading one object and lists of them.

use serde_json::{Value, json};
use std::borrow::Cow;

use super::continuation::Continue;
use super::options::{At, ListOptions};
use super::path::Target;
use super::selector::Selector;
use super::{Call, Reply, accept, options, reply, table};
use crate::error::ApiError;
use crate::events;
use crate::pages::Page;
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
    if events::is_newer(r) {
        events::to_newer(&mut other);
    } else {
        other["apiVersion"] = json!(version);
    }
    Cow::Owned(other)
}

/// GET of one object.
pub(super) async fn one(call: &Call, r: &Resource, target: &Target, name: &str) -> Result<Reply, ApiError> {
    if target.part.is_some() && !r.status {
        return Err(ApiError::no_such_path());
    }
    accept::check_number(&call.headers, true, &r.kind)?;
    options::not_older(call).await?;
    let object = call.registry.get_stored(r, target.ns(), name).await?;
    if accept::transform(&call.headers).is_none() && object.is_version(&r.api_version()) {
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

/// One object, as JSON, as the table that kubectl prints, or its metadata alone.
pub(super) fn object_reply(call: &Call, r: &Resource, code: u16, object: &Value) -> Reply {
    if let Some(version) = accept::metadata(&call.headers) {
        return reply::json(code, &accept::partial(object, &version));
    }
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
    let asked = ListOptions::parse(&call.query)?;
    accept::check_number(&call.headers, false, &r.kind)?;
    let page = page(call, r, target, &selector, &asked).await?;
    // All pages carry the first one's version: who watches from there sees what changed between them.
    let rv = asked.from.as_ref().and_then(|from| from.rv).unwrap_or(page.rv);
    let mut metadata = json!({"resourceVersion": rv.to_string()});
    if let Some(after) = page.next {
        metadata["continue"] = json!(Continue { rv: Some(rv), after }.to_text());
    }
    let unfiltered = selector.filter().is_none() && selector.node().is_none();
    if let Some(remaining) = page.remaining.filter(|_| unfiltered) {
        metadata["remainingItemCount"] = json!(remaining);
    }
    if let Some(wish) = table::wanted(call) {
        let objects: Vec<_> = page.objects.iter().map(|o| o.parse()).collect();
        let objects: Vec<&Value> = objects.iter().map(|o| &**o).collect();
        return Ok(reply::json(200, &table::render(r, &objects, &wish, &metadata, true)));
    }
    let partial = accept::metadata(&call.headers);
    let (kind, version) = match &partial {
        Some(version) => ("PartialObjectMetadata".to_owned(), format!("meta.k8s.io/{version}")),
        None => (r.kind.to_string(), r.api_version()),
    };
    let mut out = format!(
        "{{\"kind\":{},\"apiVersion\":{},\"metadata\":{metadata},\"items\":[",
        json!(format!("{kind}List")),
        json!(version)
    )
    .into_bytes();
    for (index, object) in page.objects.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        match &partial {
            Some(version) => accept::write_partial(object, version, &mut out),
            None => write_object(r, &version, object, &mut out),
        }
    }
    out.extend_from_slice(b"]}");
    Ok(reply::bytes(200, "application/json", out))
}

/// The part of the list that is asked for, as of when it is asked for.
async fn page(
    call: &Call,
    r: &Resource,
    target: &Target,
    selector: &Selector,
    asked: &ListOptions,
) -> Result<Page, ApiError> {
    let at = match (&asked.from, &asked.at) {
        (Some(from), _) => from.rv,
        (None, At::Exact(at)) => Some(*at),
        (None, At::Newest | At::NotOlder(_)) => None,
    };
    match asked.at {
        At::Newest => drop(call.registry.current().await?),
        At::NotOlder(least) => call.registry.reach(least).await?,
        At::Exact(at) => {
            let current = call.registry.current().await?;
            if at > current {
                return Err(ApiError::too_large_version(at, current));
            }
        }
    }
    let after = asked.from.as_ref().map_or("", |from| from.after.as_str());
    let slice = Slice { after, limit: asked.limit, node: selector.node(), at, ..Slice::default() };
    let page = call.registry.page(r, target.ns(), slice, selector.filter().as_ref().map(|f| f as _));
    page.map_err(|error| match &asked.from {
        Some(from) if error.reason == "Expired" => from.expired(),
        None if error.reason == "Expired" => {
            ApiError::new(410, "Expired", "The resourceVersion for the provided list is too old.")
        }
        _ => error,
    })
}
