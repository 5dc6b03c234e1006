//! The OpenAPI documents: what `kubectl explain` explains from, and where clients learn that the server
//! validates fields (`fieldValidation`) and which patches it takes.
//!
//! They are made anew for each request, in some milliseconds: clients ask seldom and keep what they got, by
//! the hash in the address.

mod paths;
mod proto;
mod schemas;
mod v2;

use std::sync::Arc;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{Call, Reply, reply};
use crate::error::ApiError;
use crate::resource::Resource;
use crate::schema::builtin;
pub(super) use v2::answer as v2;

const TITLE: &str = "Kubernetes";
const VERSION: &str = "v1.36.0";
const JSON: &str = "application/json";

/// `/openapi/v3`: the list of documents, or the one of a group and version.
pub(super) fn v3(
    call: &Call,
    kinds: &[Arc<Resource>],
    which: Option<&(String, String)>,
) -> Result<Reply, ApiError> {
    let Some((group, version)) = which else {
        return Ok(reply::cached(call, JSON, index(kinds).to_string().into_bytes()));
    };
    let of: Vec<&Resource> =
        kinds.iter().map(|r| &**r).filter(|r| r.group == *group && r.version == *version).collect();
    let Some(first) = of.first() else { return Err(ApiError::no_such_path()) };
    let hash = hash(&of);
    match call.query.get("hash") {
        // The address of a document that is no more leads to the one that is.
        Some(asked) if asked != hash => Ok(reply::moved(&address(first, &hash))),
        asked => {
            let forever = asked.is_some();
            Ok(reply::with_etag(call, JSON, &hash, forever, || document(&of).to_string().into_bytes()))
        }
    }
}

fn document(of: &[&Resource]) -> Value {
    let definitions = builtin::definitions();
    let mut paths = Map::new();
    for r in of {
        paths::add(r, &definitions, &mut paths);
    }
    let schemas = schemas::of(of, &definitions);
    json!({"openapi": "3.0.0", "info": {"title": TITLE, "version": VERSION},
        "paths": paths, "components": {"schemas": schemas}})
}

/// Tells documents apart: by this program's version and the schemas of custom kinds.
fn hash(of: &[&Resource]) -> String {
    let mut digest = Sha256::new();
    digest.update(env!("CARGO_PKG_VERSION"));
    for r in of {
        digest.update(format!("{}/{}/{} {:?}", r.group, r.version, r.kind, r.scale.is_some()));
        if let Some(schema) = &r.schema {
            digest.update(schema.source().to_string());
        }
    }
    reply::hex(&digest.finalize())
}

fn base(r: &Resource) -> String {
    if r.group.is_empty() { format!("api/{}", r.version) } else { format!("apis/{}/{}", r.group, r.version) }
}

fn address(r: &Resource, hash: &str) -> String {
    format!("/openapi/v3/{}?hash={hash}", base(r))
}

fn index(kinds: &[Arc<Resource>]) -> Value {
    let mut paths = Map::new();
    for r in kinds {
        let base = base(r);
        if !paths.contains_key(&base) {
            let of: Vec<&Resource> =
                kinds.iter().map(|k| &**k).filter(|k| k.group == r.group && k.version == r.version).collect();
            paths.insert(base, json!({"serverRelativeURL": address(r, &hash(&of))}));
        }
    }
    json!({"paths": paths})
}

fn gvk(r: &Resource) -> Value {
    json!({"group": r.group, "version": r.version, "kind": r.kind})
}
