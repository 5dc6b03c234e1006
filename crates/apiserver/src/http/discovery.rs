//! What the server serves: groups, versions, kinds.

mod aggregated;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::path::Path;
use super::{Call, Reply, openapi, reply, unknown};
use crate::error::ApiError;
use crate::resource::Resource;
use aggregated::{Form, Group};

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
    let form = Form::wanted(call);
    let value = match path {
        Path::CoreVersions | Path::Groups if form != Form::Plain => {
            let list = form.list(everything(&kinds, *path == Path::CoreVersions));
            return Ok(reply::cached(call, form.media(), list.to_string().into_bytes()));
        }
        Path::Root => root(&kinds),
        Path::CoreVersions => json!({"kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": []}),
        Path::Groups => {
            let groups: Vec<Value> = groups(&kinds).into_iter().map(|(g, v)| group(&g, &v, false)).collect();
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        }
        Path::Group(name) => {
            let all = groups(&kinds);
            let found = all.iter().find(|(g, _)| g == name).ok_or_else(ApiError::no_such_page)?;
            group(&found.0, &found.1, true)
        }
        Path::Kinds(group, version) => {
            let of: Vec<_> = kinds.iter().filter(|r| r.group == *group && r.version == *version).collect();
            if of.is_empty() {
                return Err(unknown(group));
            }
            let mut list = json!({"kind": "APIResourceList", "groupVersion": of[0].api_version(),
                "resources": of.iter().flat_map(|r| resource(r)).collect::<Vec<_>>()});
            // As Kubernetes has it, the core group's list is too old to say its version.
            if !group.is_empty() {
                list["apiVersion"] = json!("v1");
            }
            list
        }
        Path::OpenApiV2 => return Ok(openapi::v2(call, &kinds)),
        Path::OpenApiV3(which) => return openapi::v3(call, &kinds, which.as_ref()),
        Path::Health | Path::Ready => return Ok(reply::text("ok")),
        Path::Version => version(),
        Path::Object(_) | Path::Backup => return Err(ApiError::no_such_path()),
    };
    Ok(reply::json(200, &value))
}

/// The core group or all others, each version with its plain resources.
fn everything(kinds: &[Arc<Resource>], core: bool) -> Vec<Group> {
    let resources = |group: &str, version: &str| {
        let of = kinds.iter().filter(|r| r.group == group && r.version == version);
        of.flat_map(|r| resource(r)).collect::<Vec<_>>()
    };
    if core {
        return vec![(String::new(), vec![("v1".to_owned(), resources("", "v1"))])];
    }
    let versions = |(group, versions): (String, Vec<String>)| {
        let each = versions.into_iter().map(|v| (v.clone(), resources(&group, &v))).collect();
        (group, each)
    };
    groups(kinds).into_iter().map(versions).collect()
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
        let mut of = versions.remove(&g).unwrap_or_default();
        of.sort_by_cached_key(|v| Reverse(maturity(v)));
        (g, of)
    };
    order.into_iter().map(&mut take).collect()
}

/// What makes a version preferred: general availability, then beta, then alpha, then any other name; then
/// the number.
fn maturity(version: &str) -> (u8, u64, u64, Reverse<String>) {
    let read = || {
        let rest = version.strip_prefix('v')?;
        let (major, rest) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()));
        let major = major.parse().ok()?;
        match (rest, rest.strip_prefix("beta"), rest.strip_prefix("alpha")) {
            ("", _, _) => Some((3, major, 0)),
            (_, Some(minor), _) => Some((2, major, minor.parse().ok()?)),
            (_, _, Some(minor)) => Some((1, major, minor.parse().ok()?)),
            _ => None,
        }
    };
    let (stage, major, minor) = read().unwrap_or((0, 0, 0));
    (stage, major, minor, Reverse(version.to_owned()))
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
    } else if r.group.is_empty() && r.plural == "namespaces" {
        &["create", "delete", "get", "list", "patch", "update", "watch"]
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
        for part in ["ephemeralcontainers", "resize"] {
            all.push(sub(part, "Pod", &["get", "patch", "update"]));
        }
        let mut eviction = sub("eviction", "Eviction", &["create"]);
        eviction["group"] = json!("policy");
        eviction["version"] = json!("v1");
        all.push(eviction);
    }
    if r.group.is_empty() && r.plural == "serviceaccounts" {
        let mut token = sub("token", "TokenRequest", &["create"]);
        token["group"] = json!("authentication.k8s.io");
        token["version"] = json!("v1");
        all.push(token);
    }
    if r.group.is_empty() && r.plural == "namespaces" {
        all.push(sub("finalize", "Namespace", &["update"]));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_by_maturity() {
        let mut all = vec!["foo1", "v1alpha2", "v2beta1", "v10", "v1", "v1beta1", "foo10", "v2"];
        all.sort_by_cached_key(|v| Reverse(maturity(v)));
        assert_eq!(all, ["v10", "v2", "v1", "v2beta1", "v1beta1", "v1alpha2", "foo1", "foo10"]);
    }
}
