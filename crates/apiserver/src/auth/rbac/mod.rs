//! Role-based access control: roles and bindings from the registry, kept up to date by its watches.

mod aggregate;
mod defaults;
mod escalation;
mod policy;
mod rule;

use std::sync::{Arc, PoisonError, RwLock};

use serde_json::Value;
use tokio::task::JoinSet;

use super::User;
use super::attributes::Attributes;
use crate::error::ApiError;
use crate::kinds;
use crate::registry::Registry;
use crate::resource::Resource;
use crate::storage::EventKind;
use policy::Policy;
pub(super) use rule::Rule;

/// The kinds that decide, roles first.
static KINDS: [&Resource; 4] =
    [&kinds::CLUSTER_ROLES, &kinds::ROLES, &kinds::CLUSTER_ROLE_BINDINGS, &kinds::ROLE_BINDINGS];

/// Who may do what, by the roles and bindings.
#[derive(Default)]
pub(super) struct Rbac {
    policy: Arc<RwLock<Policy>>,
}

impl Rbac {
    /// Makes the default roles where they are missing and reads all that there are.
    pub(super) async fn open(registry: &Registry) -> Result<Self, ApiError> {
        defaults::ensure(registry).await?;
        aggregate::settle(registry).await;
        let rbac = Self::default();
        for kind in KINDS {
            let (objects, _) = registry.list(kind, None);
            rbac.take_all(kind, &objects);
        }
        Ok(rbac)
    }

    /// Follows the kinds' watches until the set is dropped.
    pub(super) fn follow(&self, registry: &Registry, tasks: &mut JoinSet<()>) {
        for kind in KINDS {
            let own = Self { policy: self.policy.clone() };
            tasks.spawn(follow(own, registry.clone(), kind));
        }
    }

    /// Whether a user may; the error is the reason, which may be empty.
    pub(super) fn allows(&self, user: &User, asked: &Attributes) -> Result<(), String> {
        self.read(|policy| policy.allows(user, asked))
    }

    /// All rules that a user has in a namespace, or in the whole cluster if it is empty.
    pub(super) fn rules_of(&self, user: &User, namespace: &str) -> Vec<Rule> {
        let (found, _) = self.read(|policy| policy.rules_of(user, namespace));
        found.iter().flat_map(|rules| rules.iter().cloned()).collect()
    }

    fn read<T>(&self, look: impl FnOnce(&Policy) -> T) -> T {
        look(&self.policy.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self, change: impl FnOnce(&mut Policy)) {
        change(&mut self.policy.write().unwrap_or_else(PoisonError::into_inner));
    }

    fn take_all(&self, kind: &Resource, objects: &[Arc<Value>]) {
        self.write(|policy| {
            policy.keep(kind, objects);
            objects.iter().for_each(|object| policy.put(kind, object));
        });
    }
}

async fn follow(rbac: Rbac, registry: Registry, kind: &'static Resource) {
    loop {
        let (objects, version) = registry.list(kind, None);
        rbac.take_all(kind, &objects);
        if kind.kind == "ClusterRole" {
            aggregate::settle(&registry).await;
        }
        // A watch that fell behind the history ends; the next list brings what it missed.
        let Ok(mut watch) = registry.watch(kind, None, version) else {
            tokio::task::yield_now().await;
            continue;
        };
        while let Ok(event) = watch.next().await {
            let object = event.object.parse();
            rbac.write(|policy| match event.kind {
                EventKind::Deleted => policy.remove(kind, &object),
                EventKind::Added | EventKind::Modified => policy.put(kind, &object),
            });
            if kind.kind == "ClusterRole" {
                aggregate::settle(&registry).await;
            }
        }
    }
}
