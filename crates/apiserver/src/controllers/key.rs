//! What an object is called among the controllers.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use super::object;
use crate::resource::Resource;

/// One object: the kind as `deployments.apps`, namespace (or nothing) and name. Cheap to clone: every index
/// of the world holds it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub(super) kind: Arc<str>,
    pub(super) namespace: Arc<str>,
    pub(super) name: Arc<str>,
}

impl Key {
    pub(super) fn new(kind: impl Into<Arc<str>>, namespace: &str, name: &str) -> Self {
        Key { kind: kind.into(), namespace: namespace.into(), name: name.into() }
    }

    pub(super) fn of(resource: &Resource, object: &Value) -> Self {
        Key::new(resource.qualified(), object::namespace(object), object::name(object))
    }

    /// The object of a kind that the store keeps under `stored`.
    pub(super) fn stored(kind: impl Into<Arc<str>>, stored: &str) -> Self {
        let mut parts = stored.rsplit('/');
        let name = parts.next().unwrap_or_default();
        let namespace = parts.next().filter(|namespace| *namespace != "-").unwrap_or_default();
        Key::new(kind, namespace, name)
    }

    /// The namespace as the registry wants it.
    pub(super) fn scope(&self) -> Option<&str> {
        Some(&*self.namespace).filter(|namespace| !namespace.is_empty())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scope() {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}
