//! The operations of a kind, in the form of version 3.

use serde_json::{Map, Value, json};

use super::schemas;
use crate::resource::Resource;
use crate::schema::builtin::Definitions;

/// Query parameters of reads and of writes.
const READ: [&str; 8] = [
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "timeoutSeconds",
    "watch",
];
const WRITE: [&str; 3] = ["dryRun", "fieldManager", "fieldValidation"];

/// Adds the paths of a kind: of all its objects, and of one.
pub(super) fn add(r: &Resource, definitions: &Definitions, paths: &mut Map<String, Value>) {
    let scope = if r.namespaced { "namespaces/{namespace}/" } else { "" };
    let all = format!("/{}/{scope}{}", super::base(r), r.plural);
    let one = format!("{all}/{{name}}");
    let operation =
        |action: &str, queries: &[&str], body: bool| operation(r, definitions, action, queries, body);
    if r.review {
        paths.insert(all, json!({"post": operation("post", &WRITE, true)}));
        return;
    }
    let list = json!({"get": operation("list", &READ, false), "post": operation("post", &WRITE, true),
        "delete": operation("deletecollection", &READ, false), "parameters": place(r, false)});
    let single = json!({"get": operation("get", &[], false), "put": operation("put", &WRITE, true),
        "patch": operation("patch", &WRITE, false), "delete": operation("delete", &["dryRun"], false),
        "parameters": place(r, true)});
    for (sub, there) in [("status", r.status), ("scale", r.scale.is_some())] {
        if there && r.schema.is_none() {
            let path = json!({"get": operation("get", &[], false), "put": operation("put", &WRITE, true),
                "patch": operation("patch", &WRITE, false), "parameters": place(r, true)});
            paths.insert(format!("{one}/{sub}"), path);
        }
    }
    paths.insert(all, list);
    paths.insert(one, single);
}

fn place(r: &Resource, named: bool) -> Value {
    let parameter = |name: &str| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "uniqueItems": true}});
    let names = [("name", named), ("namespace", r.namespaced)];
    names.into_iter().filter(|(_, there)| *there).map(|(name, _)| parameter(name)).collect()
}

fn operation(r: &Resource, definitions: &Definitions, action: &str, queries: &[&str], body: bool) -> Value {
    let parameter =
        |name: &&str| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}});
    let reference = json!({"$ref": format!("#/components/schemas/{}", schemas::name(r, definitions))});
    let content = json!({"application/json": {"schema": reference}});
    let mut operation = json!({
        "parameters": queries.iter().map(parameter).collect::<Vec<_>>(),
        "responses": {"200": {"description": "OK", "content": content}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": super::gvk(r),
    });
    if body {
        operation["requestBody"] = json!({"required": true, "content": content});
    }
    operation
}
