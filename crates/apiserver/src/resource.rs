//! What the server knows of a kind: its names, its scope, its subresources.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value;

use crate::events;
use crate::schema::Schema;

/// A kind of object that is served, built in or from a CustomResourceDefinition.
#[derive(Debug, Clone)]
pub struct Resource {
    /// API group; empty for the core group.
    pub group: Cow<'static, str>,
    /// Version of the group, such as `v1`.
    pub version: Cow<'static, str>,
    /// Kind, such as `Pod`.
    pub kind: Cow<'static, str>,
    /// Plural in lower case, as in the path.
    pub plural: Cow<'static, str>,
    /// Kubectl's short names, separated by spaces.
    pub short_names: Cow<'static, str>,
    /// Categories such as `all`, separated by spaces.
    pub categories: Cow<'static, str>,
    /// Whether its objects live in a namespace.
    pub namespaced: bool,
    /// Whether `status` is a subresource, written apart from the rest.
    pub status: bool,
    /// Where a `scale` subresource keeps its numbers.
    pub scale: Option<Scale>,
    /// Whether it is answered on creation and never stored, such as SelfSubjectReview.
    pub review: bool,
    /// The structural schema (custom kinds).
    pub schema: Option<Arc<Schema>>,
    /// Extra printed columns (custom kinds): the CRD's `additionalPrinterColumns`.
    pub columns: Option<Arc<Value>>,
    /// Fields that select objects (custom kinds), as paths separated by spaces.
    pub selectable: Cow<'static, str>,
}

/// Paths of a `scale` subresource, in dots: `.spec.replicas`.
#[derive(Debug, Clone)]
pub struct Scale {
    /// Wanted replicas.
    pub spec_path: Cow<'static, str>,
    /// Present replicas.
    pub status_path: Cow<'static, str>,
    /// Label selector as text or as an object, if there is one.
    pub selector_path: Cow<'static, str>,
}

impl Resource {
    /// `apiVersion` of its objects.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_string()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// Plural with the group, as error messages name it: `deployments.apps`.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_string()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// Kind with the group: `Deployment.apps`.
    pub fn qualified_kind(&self) -> String {
        if self.group.is_empty() { self.kind.to_string() } else { format!("{}.{}", self.kind, self.group) }
    }

    /// Name of the kind in the singular and lower case.
    pub fn singular(&self) -> String {
        self.kind.to_lowercase()
    }

    /// Start of the storage keys of all its objects. Versions of a group share their objects.
    pub(crate) fn prefix(&self) -> String {
        let kept = events::kept_as(self);
        let group = if kept.group.is_empty() { "core" } else { &kept.group };
        format!("{group}/{}/", kept.plural)
    }

    /// Start of the storage keys of its objects in one namespace, or in all.
    pub(crate) fn scope(&self, ns: Option<&str>) -> String {
        match ns {
            Some(ns) if self.namespaced => format!("{}{ns}/", self.prefix()),
            _ => self.prefix(),
        }
    }

    /// Storage key of one object; `-` stands for no namespace, since it is no valid name of one.
    pub(crate) fn key(&self, ns: Option<&str>, name: &str) -> String {
        let ns = if self.namespaced { ns.unwrap_or("default") } else { "-" };
        format!("{}{ns}/{name}", self.prefix())
    }
}
