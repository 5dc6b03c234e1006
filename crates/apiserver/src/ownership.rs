//! Server-side apply on the registry, and the owners of fields after other writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::changes::{create_in, put};
use crate::error::ApiError;
use crate::events;
use crate::patch::apply::{self, Applied, Configuration, Manager, Operation};
use crate::registry::{Part, Registry, WriteOptions};
use crate::resource::Resource;
use crate::strategy;

/// Kinds that are written often and by one party each; their fields have no owners until somebody applies.
const UNTRACKED: &[&str] = &["Event", "Lease"];

impl Registry {
    /// Applies a configuration in the name of `options.manager`: creates the object, or changes what that
    /// manager owns of it. A field of another manager is a `Conflict`, unless `force`. The flag of the
    /// answer says whether the object is new.
    #[expect(clippy::too_many_arguments, reason = "those of every other write, and force")]
    pub async fn apply(
        &self,
        r: &Resource,
        ns: Option<&str>,
        name: &str,
        part: Part,
        mut object: Value,
        force: bool,
        options: WriteOptions,
    ) -> Result<(Arc<Value>, bool), ApiError> {
        typed(r, &object)?;
        apply::check(r, &object)?;
        strategy::identify(r, ns, &mut object)?;
        if events::is_newer(r) {
            events::to_core(&mut object);
        }
        let r = events::kept_as(r);
        check(&mut object, name)?;
        trim(r, part, &mut object);
        let config = Configuration { object, manager: manager(r, &options, Operation::Apply), force };
        let created = Arc::new(AtomicBool::new(false));
        let tell = created.clone();
        let (r, ns, name, context) =
            (r.clone(), ns.map(str::to_owned), name.to_owned(), self.context.clone());
        let key = r.key(ns.as_deref(), &name);
        let write = self.write(r.clone(), options.dry_run, move |view| {
            let Some(old) = view.get(&key) else {
                may_create(&r, &config.object, part)?;
                tell.store(true, Ordering::Relaxed);
                let own = |given: &Value, made: &mut Value| own_all(&r, given, made, &config);
                return create_in(view, &r, ns.as_deref(), &config.object, &context, own);
            };
            tell.store(false, Ordering::Relaxed);
            let mut live = (*old).clone();
            live["apiVersion"] = json!(r.api_version());
            let Applied { object: mut new, managed } = apply::apply(&r, &live, &config, &strategy::now())?;
            strategy::update(&r, &old, &mut new, part, view, &context)?;
            apply::retain(&mut new, managed.to_json());
            Ok(put(&r, key.clone(), old, new))
        });
        Ok((write.await?, created.load(Ordering::Relaxed)))
    }
}

/// A configuration says itself what it is.
fn typed(r: &Resource, object: &Value) -> Result<(), ApiError> {
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    if text("apiVersion") == r.api_version() && text("kind") == r.kind {
        return Ok(());
    }
    let (group, version) = text("apiVersion").split_once('/').unwrap_or(("", text("apiVersion")));
    Err(ApiError::bad_request(format!("invalid object type: {group}/{version}, Kind={}", text("kind"))))
}

/// Whether a configuration may make the object that is not there.
fn may_create(r: &Resource, config: &Value, part: Part) -> Result<(), ApiError> {
    let (name, meta) = (strategy::name_of(config), &config["metadata"]);
    let given = |field: &str| meta[field].as_str().filter(|text| !text.is_empty());
    if part != Part::Whole {
        return Err(ApiError::not_found(r, name));
    }
    if let Some(uid) = given("uid") {
        let why = format!(
            "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
        );
        return Err(ApiError::conflict(r, name, &why));
    }
    if given("resourceVersion").is_some() { Err(ApiError::stale(r, name)) } else { Ok(()) }
}

/// Checks what a configuration says of its own place.
fn check(object: &mut Value, name: &str) -> Result<(), ApiError> {
    let meta = &mut object["metadata"];
    if !meta["managedFields"].is_null() {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    match meta["name"].as_str() {
        None | Some("") => meta["name"] = json!(name),
        Some(given) if given == name => {}
        Some(given) => {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({given}) does not match the name on the URL ({name})"
            )));
        }
    }
    if let Some(meta) = meta.as_object_mut() {
        meta.retain(|_, value| !value.is_null());
    }
    Ok(())
}

/// Takes out of a configuration what a write to this part does not change.
fn trim(r: &Resource, part: Part, object: &mut Value) {
    let Some(map) = object.as_object_mut() else { return };
    match part {
        Part::Status => {
            map.retain(|field, _| matches!(field.as_str(), "apiVersion" | "kind" | "metadata" | "status"));
            if let Some(meta) = map.get_mut("metadata").and_then(Value::as_object_mut) {
                meta.retain(|f, _| matches!(f.as_str(), "name" | "namespace" | "uid" | "resourceVersion"));
            }
        }
        _ if r.status => drop(map.remove("status")),
        _ => {}
    }
}

fn manager(r: &Resource, options: &WriteOptions, operation: Operation) -> Manager {
    Manager {
        name: options.manager.clone().unwrap_or_default(),
        operation,
        subresource: options.subresource.to_owned(),
        api_version: r.api_version(),
    }
}

/// The owner of what an applied new object says.
fn own_all(r: &Resource, given: &Value, made: &mut Value, config: &Configuration) {
    apply::retain(made, apply::first(r, given, config, &strategy::now()));
}

/// Sets the owners of a new object: its author, of what it wrote and of the defaults beside that.
pub(crate) fn of_new(r: &Resource, given: &Value, made: &mut Value, options: &WriteOptions) {
    let owned = match &options.manager {
        Some(_) if !UNTRACKED.contains(&&*r.kind) => {
            let authored = strategy::as_authored(r, given, made);
            let author = manager(r, options, Operation::Update);
            let given = &given["metadata"]["managedFields"];
            apply::track(r, &Value::Null, &authored, given, &author, &strategy::now())
        }
        _ => Value::Null,
    };
    apply::retain(made, owned);
}

/// Sets the owners of a changed object; `given` is what the client sent as `metadata.managedFields`.
pub(crate) fn of_changed(r: &Resource, old: &Value, new: &mut Value, given: &Value, options: &WriteOptions) {
    let owned = match &options.manager {
        Some(_) => {
            let author = manager(r, options, Operation::Update);
            apply::track(r, old, new, given, &author, &strategy::now())
        }
        None => old["metadata"]["managedFields"].clone(),
    };
    apply::retain(new, owned);
}
