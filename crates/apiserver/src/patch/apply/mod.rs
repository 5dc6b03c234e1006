//! Server-side apply: who owns which fields, and what an applied configuration changes.
//!
//! All of it is a function of the object, its managers and the configuration. The rules are those of
//! "Server-Side Apply" in Kubernetes' documentation: the configuration is merged into the object;
//! what its manager applied before and does not now goes, unless another owns it; a value that
//! differs from another manager's is a conflict, unless it is forced, and then the owner changes.

mod conflict;
mod extract;
mod managers;
mod merge;
mod migrate;
mod set;
mod shape;
#[cfg(test)]
mod tests;
mod track;

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::{Value, json};

pub(crate) use managers::{Managed, Manager, Operation};
use set::FieldSet;
use shape::Shape;
pub(crate) use track::{retain, track};

use crate::error::ApiError;
use crate::kinds;
use crate::resource::Resource;
use crate::schema::Schema;

/// Fields that nobody owns, since the server fills them in.
const UNOWNED: &[&str] = &["apiVersion", "kind"];
const UNOWNED_META: &[&str] = &[
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "selfLink",
    "managedFields",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
];

/// A configuration, as one manager applies it.
#[derive(Debug, Clone)]
pub(crate) struct Configuration {
    pub(crate) object: Value,
    pub(crate) manager: Manager,
    /// Take fields from other managers.
    pub(crate) force: bool,
}

/// The object and its managers after an apply.
#[derive(Debug, PartialEq)]
pub(crate) struct Applied {
    pub(crate) object: Value,
    pub(crate) managed: Managed,
}

/// Applies a configuration to an object; null is an object that is not there yet.
pub(crate) fn apply(
    r: &Resource,
    live: &Value,
    config: &Configuration,
    now: &str,
) -> Result<Applied, ApiError> {
    let mut managed = Managed::read(&live["metadata"]["managedFields"]).unwrap_or_default();
    let live = without_managers(live);
    let shape = Shape::of(r);
    if managed.0.is_empty() && !live.is_null() {
        let mut all = extract::compare(&json!({}), &live, shape, 0).changed;
        disown(r, &mut all, "");
        managed.set(&before_first_apply(r), all, now);
    }
    let part = &config.manager.subresource;
    let mut object = live.clone().into_owned();
    merge::merge(&mut object, &config.object, shape, 0).map_err(|why| malformed(r, &config.object, &why))?;
    let last = managed.fields(&config.manager).cloned();
    managed.set(&config.manager, owned_part(r, &config.object, part), now);
    if let Some(last) = last {
        merge::prune(&mut object, shape, &last, &managed.union(), 0);
    }
    settle(r, &live, &object, config, &mut managed)?;
    migrate::refresh(&live, config, &mut object);
    managed.cap();
    Ok(Applied { object, managed })
}

/// Refuses a configuration with a list whose items cannot be told apart.
pub(crate) fn check(r: &Resource, config: &Value) -> Result<(), ApiError> {
    let mut merged = Value::Null;
    merge::merge(&mut merged, config, Shape::of(r), 0).map_err(|why| malformed(r, config, &why))
}

/// The error about a configuration that has no meaning to server-side apply.
pub(crate) fn malformed(r: &Resource, config: &Value, why: &str) -> ApiError {
    let text = |field: &str| config["metadata"][field].as_str().unwrap_or_default();
    ApiError::unforeseen(format!(
        "failed to create typed patch object ({}/{}; {}/{}, Kind={}): {why}",
        text("namespace"),
        text("name"),
        r.group,
        r.version,
        r.kind
    ))
}

/// Applies a configuration by force and returns the object with its managers: what the server does with it
/// before defaults and checks. For a Deployment, or with a schema for a custom kind.
pub fn apply_by_force(schema: Option<&Value>, live: &Value, config: &Value) -> Result<Value, ApiError> {
    let schema = schema.map(|schema| Arc::new(Schema::custom(schema)));
    let r = Resource { schema, ..kinds::DEPLOYMENTS.clone() };
    let manager = Manager {
        name: "manager".to_owned(),
        operation: Operation::Apply,
        subresource: String::new(),
        api_version: r.api_version(),
    };
    let config = Configuration { object: config.clone(), manager, force: true };
    let Applied { mut object, managed } = apply(&r, live, &config, "2026-01-01T00:00:00Z")?;
    retain(&mut object, managed.to_json());
    Ok(object)
}

/// The managers of an object that an apply makes, as `metadata.managedFields`.
pub(crate) fn first(r: &Resource, given: &Value, config: &Configuration, now: &str) -> Value {
    let mut managed = Managed::default();
    managed.set(&config.manager, owned_part(r, given, &config.manager.subresource), now);
    managed.to_json()
}

/// Finds what the apply takes from other managers.
fn settle(
    r: &Resource,
    live: &Value,
    object: &Value,
    config: &Configuration,
    managed: &mut Managed,
) -> Result<(), ApiError> {
    let difference = extract::compare(live, object, Shape::of(r), 0);
    let mine = |m: &Manager| m.is(&config.manager);
    let mut conflicts = Vec::new();
    for entry in managed.0.iter_mut().filter(|e| !mine(&e.manager)) {
        let taken = entry.fields.common(&difference.changed);
        if !taken.is_empty() {
            conflicts.push((entry.manager.clone(), taken.clone()));
        }
        entry.fields.subtract(&taken);
        entry.fields.subtract(&difference.removed);
    }
    if !config.force && !migrate::allows(r, live, config, &conflicts) {
        conflict::check(&conflicts)?;
    }
    Ok(())
}

/// The fields of an object that a write to a part of it can own.
pub(super) fn owned_part(r: &Resource, object: &Value, subresource: &str) -> FieldSet {
    let mut set = extract::fields(object, Shape::of(r), 0);
    disown(r, &mut set, subresource);
    set
}

/// Takes away what nobody owns, and what a write to this part cannot change.
pub(super) fn disown(r: &Resource, set: &mut FieldSet, subresource: &str) {
    set.member = false;
    let field = |name: &&str| set::field_step(name);
    UNOWNED.iter().for_each(|name| drop(set.below.remove(&field(name))));
    if let Some(meta) = set.below.get_mut("f:metadata") {
        UNOWNED_META.iter().for_each(|name| drop(meta.below.remove(&field(name))));
        meta.member = false;
    }
    if set.below.get("f:metadata").is_some_and(FieldSet::is_empty) {
        set.below.remove("f:metadata");
    }
    match subresource {
        "status" => set.below.retain(|step, _| step == "f:status"),
        "" if r.status => drop(set.below.remove("f:status")),
        _ => {}
    }
}

/// The owner of all fields of an object that has been written without tracking.
fn before_first_apply(r: &Resource) -> Manager {
    Manager {
        name: "before-first-apply".to_owned(),
        operation: Operation::Update,
        subresource: String::new(),
        api_version: r.api_version(),
    }
}

/// The object without its `managedFields`.
fn without_managers(object: &Value) -> Cow<'_, Value> {
    if object["metadata"]["managedFields"].is_null() {
        return Cow::Borrowed(object);
    }
    let mut bare = object.clone();
    if let Some(meta) = bare["metadata"].as_object_mut() {
        meta.remove("managedFields");
    }
    Cow::Owned(bare)
}
