//! All objects, and every rule about them: the one door to the store.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use ipnet::IpNet;
use serde_json::{Value, json};

use crate::auth::Guard;
use crate::changes::{create_in, put};
use crate::error::ApiError;
use crate::events;
use crate::kinds;
pub(crate) use crate::options::{DeleteOptions, Part, WriteOptions};
use crate::ownership;
use crate::patch::{self, Patch};
use crate::resource::Resource;
use crate::served::Kinds;
use crate::storage::{Backup, Change, EtcdConfig, Keyed, Object, Slice, StorageError, Store, View, Watch};
use crate::strategy::{self, Context};

/// What a registry is told once.
#[derive(Debug, Clone)]
pub struct RegistryConfig {
    /// Where Services get their cluster addresses from; the first is the default family.
    pub service_cidrs: Vec<IpNet>,
}

impl Default for RegistryConfig {
    /// 10.96.0.0/16.
    fn default() -> Self {
        let cidr = ipnet::Ipv4Net::new_assert([10, 96, 0, 0].into(), 16);
        Self { service_cidrs: vec![IpNet::V4(cidr)] }
    }
}

/// The objects; cheap to clone.
///
/// A write returns when it is on the disk. Writes happen one after the other, so that a check and
/// the change it allows are one step.
#[derive(Clone)]
pub struct Registry {
    pub(crate) store: Store,
    /// The served kinds, and the change of a definition up to which they are.
    kinds: Arc<RwLock<(Kinds, Option<u64>)>>,
    pub(crate) context: Arc<Context>,
    /// The rules for the user on whose behalf it writes; None for the server itself.
    guard: Option<Arc<Guard>>,
}

impl Registry {
    /// Opens the data directory, which must be there, and makes the namespaces that every cluster has.
    pub async fn open(dir: &Path, config: RegistryConfig) -> Result<Self, StorageError> {
        Self::over(Store::open(dir)?, config, &dir.display().to_string()).await
    }

    /// Joins the servers that share an etcd.
    pub async fn open_etcd(etcd: &EtcdConfig, config: RegistryConfig) -> Result<Self, StorageError> {
        Self::over(Store::open_etcd(etcd).await?, config, &etcd.servers.join(",")).await
    }

    async fn over(store: Store, config: RegistryConfig, place: &str) -> Result<Self, StorageError> {
        let context = Arc::new(Context { service_cidrs: config.service_cidrs });
        let registry = Self { store, kinds: Arc::default(), context, guard: None };
        for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
            let namespace = json!({"metadata": {"name": name}});
            match registry.create(&kinds::NAMESPACES, None, namespace).await {
                Err(e) if e.reason != "AlreadyExists" => {
                    let path = place.to_owned();
                    return Err(StorageError::Store { path, op: "be prepared", cause: e.message });
                }
                _ => {}
            }
        }
        Ok(registry)
    }

    /// Waits until reads see every write that was acknowledged before the call, by any server of the same
    /// store; returns the resourceVersion of the newest.
    pub(crate) async fn current(&self) -> Result<u64, ApiError> {
        self.store.current().await
    }

    /// The resourceVersion up to which this server has seen everything.
    pub(crate) fn seen(&self) -> u64 {
        self.store.shared.read().rv
    }

    /// All objects at one resourceVersion.
    pub(crate) async fn backup(&self) -> Result<Backup, ApiError> {
        self.current().await?;
        let state = self.store.shared.read();
        Ok(Backup::new(state.rv, state.objects().clone()))
    }

    /// The same objects, written within a user's rights.
    pub(crate) fn guarded(&self, guard: Guard) -> Self {
        Self { guard: Some(Arc::new(guard)), ..self.clone() }
    }

    /// One object.
    pub async fn get(&self, r: &Resource, ns: Option<&str>, name: &str) -> Result<Arc<Value>, ApiError> {
        Ok(self.get_stored(r, ns, name).await?.parse())
    }

    /// One object as this server has it, which on a shared store may be a little behind.
    pub(crate) fn peek(&self, r: &Resource, ns: Option<&str>, name: &str) -> Option<Arc<Value>> {
        let found = self.store.shared.read().get(&r.key(ns, name)).cloned();
        found.map(|object| object.parse())
    }

    /// As [`Registry::get`], as it is stored.
    pub(crate) async fn get_stored(
        &self,
        r: &Resource,
        ns: Option<&str>,
        name: &str,
    ) -> Result<Arc<Object>, ApiError> {
        self.current().await?;
        let found = self.store.shared.read().get(&r.key(ns, name)).cloned();
        found.ok_or_else(|| ApiError::not_found(r, name))
    }

    /// All objects of a kind that this server knows, of one namespace or of all, ordered by namespace and
    /// name; and the resourceVersion to watch from.
    pub fn list(&self, r: &Resource, ns: Option<&str>) -> (Vec<Arc<Value>>, u64) {
        let (objects, rv) = self.list_stored(r, ns);
        (objects.iter().map(|(_, object)| object.parse()).collect(), rv)
    }

    /// As [`Registry::list`], as they are stored, with their keys.
    pub(crate) fn list_stored(&self, r: &Resource, ns: Option<&str>) -> (Keyed, u64) {
        let scope = r.scope(ns);
        let state = self.store.shared.read();
        (state.range(&scope).map(|(key, object)| (key.clone(), object.clone())).collect(), state.rv)
    }

    /// The pods on a node in a namespace that this server knows, as they are stored.
    pub(crate) fn pods_on(&self, node: &str, namespace: &str) -> Vec<Arc<Object>> {
        let scope = kinds::PODS.scope(Some(namespace));
        let slice = Slice { scope: &scope, node: Some(node), ..Slice::default() };
        // Only a slice of the past can be out of reach.
        let found = self.store.shared.read().slice(&slice).unwrap_or_default();
        found.into_iter().map(|(_, pod)| pod).collect()
    }

    /// What changes from a resourceVersion on; `Expired` when the history does not reach back so far.
    pub fn watch(&self, r: &Resource, ns: Option<&str>, from_rv: u64) -> Result<Watch, ApiError> {
        Watch::new(self.store.shared.clone(), r.prefix(), r.scope(ns), from_rv)
    }

    /// Adds an object; the answer is the object with its defaults.
    pub async fn create(&self, r: &Resource, ns: Option<&str>, obj: Value) -> Result<Arc<Value>, ApiError> {
        self.create_with(r, ns, obj, false).await
    }

    /// As [`Registry::create`], with options or whether it is a dry run.
    pub async fn create_with(
        &self,
        r: &Resource,
        ns: Option<&str>,
        mut obj: Value,
        options: impl Into<WriteOptions>,
    ) -> Result<Arc<Value>, ApiError> {
        strategy::identify(r, ns, &mut obj)?;
        if events::is_newer(r) {
            events::to_core(&mut obj);
        }
        let r = events::kept_as(r);
        let (r, ns, context, options) =
            (r.clone(), ns.map(str::to_owned), self.context.clone(), options.into());
        self.write(r.clone(), options.dry_run, move |view| {
            create_in(view, &r, ns.as_deref(), &obj, &context, |given, made| {
                ownership::of_new(&r, given, made, &options)
            })
        })
        .await
    }

    /// Replaces an object. If it carries a resourceVersion that is not the newest: 409 `Conflict`.
    pub async fn update(&self, r: &Resource, ns: Option<&str>, obj: Value) -> Result<Arc<Value>, ApiError> {
        let name = strategy::name_of(&obj).to_owned();
        self.replace(r, ns, &name, Part::Whole, obj, false).await
    }

    /// Replaces the status of an object; the rest of what is given does not count.
    pub async fn update_status(
        &self,
        r: &Resource,
        ns: Option<&str>,
        obj: Value,
    ) -> Result<Arc<Value>, ApiError> {
        let name = strategy::name_of(&obj).to_owned();
        self.replace(r, ns, &name, Part::Status, obj, false).await
    }

    /// Replaces a part of the named object.
    pub async fn replace(
        &self,
        r: &Resource,
        ns: Option<&str>,
        name: &str,
        part: Part,
        mut obj: Value,
        options: impl Into<WriteOptions>,
    ) -> Result<Arc<Value>, ApiError> {
        strategy::identify(r, ns, &mut obj)?;
        if strategy::name_of(&obj) != name {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({}) does not match the name on the URL ({name})",
                strategy::name_of(&obj)
            )));
        }
        let kind = r.clone();
        let whole = move |old: &mut Value| {
            strategy::same_uid(&kind, old, &obj)?;
            *old = obj.clone();
            Ok(())
        };
        self.modify_with(r, ns, name, part, options, whole).await
    }

    /// Changes an object by a patch.
    pub async fn patch(
        &self,
        r: &Resource,
        ns: Option<&str>,
        name: &str,
        part: Part,
        patch: Patch,
    ) -> Result<Arc<Value>, ApiError> {
        self.patch_with(r, ns, name, part, patch, false).await
    }

    /// As [`Registry::patch`], with options or whether it is a dry run.
    pub async fn patch_with(
        &self,
        r: &Resource,
        ns: Option<&str>,
        name: &str,
        part: Part,
        patch: Patch,
        options: impl Into<WriteOptions>,
    ) -> Result<Arc<Value>, ApiError> {
        let change = move |object: &mut Value| {
            let before = ["/metadata/name", "/kind"].map(|at| object.pointer(at).cloned());
            patch.apply(object)?;
            patch::stays_itself(&before, object)
        };
        self.modify_with(r, ns, name, part, options, change).await
    }

    /// Reads, changes and writes an object in one step: nobody writes it in between, so it never conflicts
    /// unless `change` sets another resourceVersion. An object left as it was is not written. `change` may
    /// run more than once, each time on the object as it is then.
    pub async fn modify(
        &self,
        r: &Resource,
        ns: Option<&str>,
        name: &str,
        part: Part,
        change: impl FnMut(&mut Value) -> Result<(), ApiError> + Send + 'static,
    ) -> Result<Arc<Value>, ApiError> {
        self.modify_with(r, ns, name, part, false, change).await
    }

    pub(crate) async fn modify_with(
        &self,
        r: &Resource,
        ns: Option<&str>,
        name: &str,
        part: Part,
        options: impl Into<WriteOptions>,
        mut change: impl FnMut(&mut Value) -> Result<(), ApiError> + Send + 'static,
    ) -> Result<Arc<Value>, ApiError> {
        let (newer, r) = (events::is_newer(r), events::kept_as(r));
        let (r, name, context, options) = (r.clone(), name.to_owned(), self.context.clone(), options.into());
        let key = r.key(ns, &name);
        self.write(r.clone(), options.dry_run, move |view| {
            let old = view.get(&key).ok_or_else(|| ApiError::not_found(&r, &name))?;
            let mut new = (*old).clone();
            if newer {
                events::changed_as_newer(&mut new, &mut change)?;
            } else {
                new["apiVersion"] = json!(r.api_version());
                change(&mut new)?;
            }
            let given = new["metadata"]["managedFields"].take();
            strategy::update(&r, &old, &mut new, part, view, &context)?;
            ownership::of_changed(&r, &old, &mut new, &given, &options);
            Ok(put(&r, key.clone(), old, new))
        })
        .await
    }

    /// Gives a pod to a node; 409 when it has one already.
    pub async fn bind(
        &self,
        r: &Resource,
        ns: Option<&str>,
        pod: &str,
        node: &str,
    ) -> Result<Arc<Value>, ApiError> {
        let (kind, node) = (r.clone(), node.to_owned());
        self.modify(r, ns, pod, Part::Both, move |pod| strategy::bind(&kind, pod, &node)).await
    }

    /// Deletes an object, or marks it as being deleted where finalizers, a pod's grace or a
    /// namespace's contents hold it. The answer is the object as it is then; it is gone when
    /// `metadata.deletionTimestamp` is not set in it, or is and nothing holds it.
    pub async fn delete(
        &self,
        r: &Resource,
        ns: Option<&str>,
        name: &str,
        options: DeleteOptions,
    ) -> Result<Arc<Value>, ApiError> {
        if r.kind == "CustomResourceDefinition" && !options.dry_run {
            self.delete_instances(name).await?;
        }
        self.delete_one(r, ns, name, options).await
    }

    async fn delete_one(
        &self,
        r: &Resource,
        ns: Option<&str>,
        name: &str,
        options: DeleteOptions,
    ) -> Result<Arc<Value>, ApiError> {
        strategy::may_delete(r, name)?;
        let (r, name) = (r.clone(), name.to_owned());
        let key = r.key(ns, &name);
        self.write(r.clone(), options.dry_run, move |view| {
            let old = view.get(&key).ok_or_else(|| ApiError::not_found(&r, &name))?;
            strategy::check_preconditions(&r, &old, &options)?;
            match strategy::mark_deleted(&r, &old, &options) {
                None => Ok(Change::Delete(key.clone(), (*old).clone())),
                Some(marked) if marked == *old => Ok(Change::Nothing(old)),
                Some(marked) if strategy::may_vanish(&r, &marked) => Ok(Change::Delete(key.clone(), marked)),
                Some(marked) => Ok(Change::Put(key.clone(), marked)),
            }
        })
        .await
    }

    /// Deletes all objects of the kinds that a CustomResourceDefinition defines.
    async fn delete_instances(&self, definition: &str) -> Result<(), ApiError> {
        let Some(r) = self.kinds().into_iter().find(|k| k.qualified() == definition && k.schema.is_some())
        else {
            return Ok(());
        };
        for object in self.list(&r, None).0 {
            let (ns, name) = (strategy::namespace_of(&object), strategy::name_of(&object));
            match self.delete_one(&r, ns, name, DeleteOptions::default()).await {
                Err(e) if e.reason != "NotFound" => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }

    pub(crate) async fn write(
        &self,
        r: Resource,
        dry_run: bool,
        mut decide: impl FnMut(&View<'_>) -> Result<Change, ApiError> + Send + 'static,
    ) -> Result<Arc<Value>, ApiError> {
        let (guard, kind) = (self.guard.clone(), r.clone());
        let result = self.store.write(move |view| {
            let change = decide(view)?;
            if let Some(guard) = &guard {
                guard.check(&kind, &change, view)?;
            }
            match change {
                Change::Put(_, value) | Change::Delete(_, value) if dry_run => {
                    Ok(Change::Nothing(Arc::new(value)))
                }
                change => Ok(change),
            }
        });
        result.await
    }

    /// All kinds that are served, built in and custom.
    pub fn kinds(&self) -> Vec<Arc<Resource>> {
        self.served(Kinds::all)
    }

    /// The kind at a place in the API.
    pub fn kind(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        self.served(|kinds| kinds.get(group, version, plural))
    }

    /// Asks the kinds as the newest definitions have them, whichever server wrote those.
    fn served<T>(&self, ask: impl Fn(&Kinds) -> T) -> T {
        let newest = Some(self.store.shared.read().last_change(&kinds::CUSTOM_RESOURCE_DEFINITIONS.prefix()));
        let kinds = {
            let known = self.kinds.read().unwrap_or_else(PoisonError::into_inner);
            if known.1 == newest {
                return ask(&known.0);
            }
            Kinds::new(&self.list(&kinds::CUSTOM_RESOURCE_DEFINITIONS, None).0, &known.0)
        };
        let answer = ask(&kinds);
        *self.kinds.write().unwrap_or_else(PoisonError::into_inner) = (kinds, newest);
        answer
    }
}
