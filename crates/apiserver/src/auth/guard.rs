//! What a user may not write although it may write the kind: seen with the object, as part of the write.

use std::sync::Arc;

use serde_json::Value;

use super::{Attributes, Auth, Place, User, node, restriction};
use crate::error::ApiError;
use crate::resource::Resource;
use crate::storage::{Change, View};
use crate::strategy::{name_of, namespace_of};

/// A write of one object: one of `old` and `new` is there, or both.
pub(super) struct Write<'a> {
    pub(super) r: &'a Resource,
    /// The object before it; None for a new one.
    pub(super) old: Option<&'a Value>,
    /// The object after it; None for a deletion.
    pub(super) new: Option<&'a Value>,
}

impl<'a> Write<'a> {
    /// The object, as it is or as it was.
    pub(super) fn object(&self) -> &'a Value {
        self.new.or(self.old).unwrap_or(&Value::Null)
    }
}

/// The rules for one user's writes.
pub(crate) struct Guard {
    auth: Arc<Auth>,
    user: User,
}

impl Guard {
    pub(crate) fn new(auth: Arc<Auth>, user: User) -> Self {
        Self { auth, user }
    }

    /// Refuses a change that the user may not do.
    pub(crate) fn check(&self, r: &Resource, change: &Change, view: &View<'_>) -> Result<(), ApiError> {
        match change {
            Change::Nothing(_) => Ok(()),
            Change::Put(key, new) => {
                self.check_write(&Write { r, old: view.get(key).as_deref(), new: Some(new) }, view)
            }
            Change::Delete(key, _) => {
                self.check_write(&Write { r, old: view.get(key).as_deref(), new: None }, view)
            }
        }
    }

    fn check_write(&self, write: &Write<'_>, view: &View<'_>) -> Result<(), ApiError> {
        if let Some(node) = node::node_of(&self.user) {
            restriction::check(node, write)?;
        }
        let Some(new) = write.new else { return Ok(()) };
        if write.old.is_none() {
            self.check_creation(write.r, new)?;
        }
        let may = |asked: &_| self.auth.may(&self.user, asked).is_ok();
        self.auth.rbac.check_escalation(&self.user, write.r, write.old, new, may, |key| view.get(key))
    }

    /// A patch that makes a new object needs the right to create it too.
    fn check_creation(&self, r: &Resource, new: &Value) -> Result<(), ApiError> {
        let place = Place {
            group: r.group.to_string(),
            resource: r.plural.to_string(),
            namespace: namespace_of(new).unwrap_or_default().to_owned(),
            name: name_of(new).to_owned(),
            ..Place::default()
        };
        self.auth.require(&self.user, &Attributes::object("create", place))
    }
}
