//! One place of a schema.

use std::collections::BTreeMap;

use serde_json::Value;

/// Index of a node in its schema.
pub(super) type Id = usize;

/// What a value may be.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    /// Anything.
    #[default]
    Any,
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
    IntOrString,
    /// Kubernetes' amount, a text or a number.
    Quantity,
}

/// How the items of a list are told apart: `x-kubernetes-list-type`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum ListType {
    #[default]
    Atomic,
    Set,
    /// By these fields.
    Map(Vec<String>),
}

/// One place of a schema.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) kind: Type,
    pub(super) properties: BTreeMap<String, Id>,
    /// What the values of a map are.
    pub(super) values: Option<Id>,
    pub(super) items: Option<Id>,
    /// Fields that are not in `properties` stay.
    pub(super) preserve: bool,
    /// A whole object with `apiVersion`, `kind` and `metadata`.
    pub(super) embedded: bool,
    pub(super) nullable: bool,
    pub(super) default: Option<Value>,
    pub(super) list: ListType,
    pub(super) format: Option<Box<str>>,
    /// The Go type of a built-in struct, such as `v1.Container`.
    pub(super) go: Option<Box<str>>,
    /// What an object here is read as where a plain value may stand too.
    pub(super) if_object: Option<Id>,
}
