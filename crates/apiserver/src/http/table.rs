//! Tables: what `kubectl get` prints is made by the server.

mod cells;
mod cluster;
mod network;
mod path;
mod pod;
mod values;
mod workloads;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Call, accept};
use crate::resource::Resource;

/// How the client wants its table.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    version: String,
    include: String,
}

/// Whether the client prefers a table to the objects.
pub(super) fn wanted(call: &Call) -> Option<Wish> {
    let transform = accept::transform(&call.headers).filter(|t| t.kind == "Table")?;
    Some(Wish {
        version: transform.version,
        include: call.query.get("includeObject").unwrap_or("Metadata").to_owned(),
    })
}

/// One column: name, type, and whether only `-o wide` shows it.
pub(super) struct Column {
    name: String,
    kind: String,
    wide: bool,
    /// What it shows, in words.
    about: String,
}

/// The table of some objects.
pub(super) fn render(
    r: &Resource,
    objects: &[&Value],
    wish: &Wish,
    metadata: &Value,
    columns: bool,
) -> Value {
    let now = Timestamp::now();
    let mut table = json!({"kind": "Table", "apiVersion": format!("meta.k8s.io/{}", wish.version),
        "metadata": metadata, "columnDefinitions": []});
    if columns {
        let definition = |c: Column| {
            let format = if c.name == "Name" { "name" } else { "" };
            json!({"name": c.name, "type": c.kind, "format": format, "description": c.about,
                "priority": i32::from(c.wide)})
        };
        table["columnDefinitions"] = cells::columns(r).into_iter().map(definition).collect();
    }
    let row = |object: &&Value| {
        let mut row = json!({"cells": cells::row(r, object, now)});
        if r.kind == "Pod" && r.group.is_empty() {
            pod::conditions(object).into_iter().for_each(|all| row["conditions"] = all);
        }
        match wish.include.as_str() {
            "None" => row["object"] = Value::Null,
            "Object" => row["object"] = (*object).clone(),
            _ => {
                row["object"] = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
                    "metadata": object["metadata"]});
            }
        }
        row
    };
    table["rows"] = objects.iter().map(row).collect();
    table
}
