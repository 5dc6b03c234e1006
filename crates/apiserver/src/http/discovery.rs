//! What the server serves: groups, versions, kinds.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::path::Path;
use super::{Call, Reply, openapi, reply};
use crate::error::ApiError;
use crate::resource::Resource;

/// The Kubernetes version whose API this server follows.
const MINOR: &str = "36";

/// `/version`.
fn version() -> Value {
    json!({
        "major": "1", "minor": MINOR, "gitVersion": format!("v1.{MINOR}.0+weft-{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "", "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    })
}

/// Answers the paths that tell about the API itself.
pub(super) fn answer(call: &Call, path: &Path) -> Result<Reply, ApiError> {
    let kinds = call.registry.kinds();
    let value = match path {
        Path::Root => root(&kinds),
        Path::CoreVersions => json!({"kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": []}),
        Path::Groups => {
            let groups: Vec<Value> = groups(&kinds).into_iter().map(|(g, v)| group(&g, &v, false)).collect();
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        }
        Path::Group(name) => {
            let all = groups(&kinds);
            let found = all.iter().find(|(g, _)| g == name).ok_or_else(ApiError::no_such_path)?;
            group(&found.0, &found.1, true)
        }
        Path::Kinds(group, version) => {
            let of: Vec<_> = kinds.iter().filter(|r| r.group == *group && r.version == *version).collect();
            if of.is_empty() {
                return Err(ApiError::no_such_path());
            }
            json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": of[0].api_version(),
                "resources": of.iter().flat_map(|r| resource(r)).collect::<Vec<_>>()})
        }
        Path::OpenApiV2 => return Ok(openapi::v2(call)),
        Path::OpenApiV3(which) => openapi::v3(&kinds, which.as_ref())?,
        Path::Health => return Ok(reply::text("ok")),
        Path::Version => version(),
        Path::Object(_) => return Err(ApiError::no_such_path()),
    };
    Ok(reply::json(200, &value))
}

fn root(kinds: &[Arc<Resource>]) -> Value {
    let mut paths = vec!["/api".to_owned(), "/api/v1".to_owned(), "/apis".to_owned()];
    for (group, versions) in groups(kinds) {
        paths.push(format!("/apis/{group}"));
        paths.extend(versions.iter().map(|v| format!("/apis/{group}/{v}")));
    }
    paths.extend(
        ["/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"].map(str::to_owned),
    );
    json!({"paths": paths})
}

/// Named groups in the order of their first kind, with their versions, preferred first.
fn groups(kinds: &[Arc<Resource>]) -> Vec<(String, Vec<String>)> {
    let mut order: Vec<String> = Vec::new();
    let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for r in kinds.iter().filter(|r| !r.group.is_empty()) {
        let of = versions.entry(r.group.to_string()).or_insert_with(|| {
            order.push(r.group.to_string());
            Vec::new()
        });
        if !of.iter().any(|v| *v == r.version) {
            of.push(r.version.to_string());
        }
    }
    let mut take = |g: String| {
        let of = versions.remove(&g).unwrap_or_default();
        (g, of)
    };
    order.into_iter().map(&mut take).collect()
}

fn group(name: &str, versions: &[String], alone: bool) -> Value {
    let version = |v: &String| json!({"groupVersion": format!("{name}/{v}"), "version": v});
    let all: Vec<Value> = versions.iter().map(version).collect();
    let mut group = json!({"name": name, "versions": all, "preferredVersion": all.first()});
    if alone {
        group["kind"] = json!("APIGroup");
        group["apiVersion"] = json!("v1");
    }
    group
}

/// A kind and its subresources.
fn resource(r: &Resource) -> Vec<Value> {
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let verbs: &[&str] = if r.review {
        &["create"]
    } else {
        &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
    };
    let mut main = json!({"name": r.plural, "singularName": r.singular(), "namespaced": r.namespaced,
        "kind": r.kind, "verbs": verbs});
    if !r.short_names.is_empty() {
        main["shortNames"] = json!(words(&r.short_names));
    }
    if !r.categories.is_empty() {
        main["categories"] = json!(words(&r.categories));
    }
    let sub = |name: &str, kind: &str, verbs: &[&str]| {
        json!({"name": format!("{}/{name}", r.plural), "singularName": "",
            "namespaced": r.namespaced, "kind": kind, "verbs": verbs})
    };
    let mut all = vec![main];
    if r.status {
        all.push(sub("status", &r.kind, &["get", "patch", "update"]));
    }
    if r.scale.is_some() {
        let mut scale = sub("scale", "Scale", &["get", "patch", "update"]);
        scale["group"] = json!("autoscaling");
        scale["version"] = json!("v1");
        all.push(scale);
    }
    if r.group.is_empty() && r.plural == "pods" {
        all.push(sub("binding", "Binding", &["create"]));
        let mut eviction = sub("eviction", "Eviction", &["create"]);
        eviction["group"] = json!("policy");
        eviction["version"] = json!("v1");
        all.push(eviction);
    }
    if r.group.is_empty() && r.plural == "namespaces" {
        all.push(sub("finalize", "Namespace", &["update"]));
    }
    all
}
