//! One place of a schema.

use std::collections::BTreeMap;

use std::sync::OnceLock;

use regex::{Regex, RegexBuilder};
use serde_json::{Number, Value};

use super::rules::Rule;

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
    /// What a value has to fulfil beside its type.
    pub(super) checks: Option<Box<Checks>>,
    /// Rules of the Common Expression Language.
    pub(super) rules: Vec<Rule>,
}

/// What a value has to fulfil.
#[derive(Debug, Default)]
pub(super) struct Checks {
    pub(super) required: Vec<String>,
    pub(super) one_of_values: Vec<Value>,
    pub(super) pattern: Option<Pattern>,
    /// Least and most characters, items, properties.
    pub(super) length: Span,
    pub(super) items: Span,
    pub(super) properties: Span,
    pub(super) minimum: Option<Bound>,
    pub(super) maximum: Option<Bound>,
    pub(super) multiple_of: Option<Number>,
    pub(super) all_of: Vec<Id>,
    pub(super) any_of: Vec<Id>,
    pub(super) one_of: Vec<Id>,
    pub(super) not: Option<Id>,
    /// Fields that are not in `properties` are refused.
    pub(super) closed: bool,
}

/// Least and most of something.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Span {
    pub(super) least: Option<u64>,
    pub(super) most: Option<u64>,
}

/// A limit of a number.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) limit: Number,
    /// Whether the limit itself is outside.
    pub(super) exclusive: bool,
}

/// A regular expression, compiled when it is first needed: a schema has hundreds and uses few.
#[derive(Debug)]
pub(super) struct Pattern {
    pub(super) text: String,
    compiled: OnceLock<Result<Regex, String>>,
}

impl Pattern {
    /// Bytes that one compiled pattern may take.
    const MAX_SIZE: usize = 1 << 20;
    const MAX_NESTING: u32 = 100;

    pub(super) fn new(text: &str) -> Self {
        Self { text: text.to_owned(), compiled: OnceLock::new() }
    }

    /// The compiled pattern, or why there is none.
    pub(super) fn get(&self) -> Result<&Regex, &str> {
        let compile = || {
            let mut builder = RegexBuilder::new(&self.text);
            let built = builder.size_limit(Self::MAX_SIZE).nest_limit(Self::MAX_NESTING).build();
            built.map_err(|e| e.to_string())
        };
        self.compiled.get_or_init(compile).as_ref().map_err(String::as_str)
    }
}
