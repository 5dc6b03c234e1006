//! A user as the API knows one.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// The group of all who are known.
pub(crate) const AUTHENTICATED: &str = "system:authenticated";
/// The group of who has shown nothing, and its only member.
pub(crate) const UNAUTHENTICATED: &str = "system:unauthenticated";
pub(crate) const ANONYMOUS: &str = "system:anonymous";
/// The group that may do everything.
pub(crate) const MASTERS: &str = "system:masters";

/// The namespace and the name of the ServiceAccount that a user name is of.
pub(crate) fn service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}

/// Who asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    /// Empty when the user has none.
    pub(crate) uid: String,
    pub(crate) groups: Vec<String>,
    pub(crate) extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// A user who has shown who it is.
    pub(crate) fn known(name: impl Into<String>, groups: Vec<String>) -> Self {
        let mut user = Self { name: name.into(), groups, ..Self::default() };
        if !user.is_in(AUTHENTICATED) {
            user.groups.push(AUTHENTICATED.to_owned());
        }
        user
    }

    /// The groups of the ServiceAccounts of a namespace.
    pub(crate) fn service_account_groups(namespace: &str) -> Vec<String> {
        vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")]
    }

    /// Whether it may do everything.
    pub(crate) fn is_master(&self) -> bool {
        self.is_in(MASTERS)
    }

    pub(crate) fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// Whether it is a node, whose rights do not come from roles alone.
    pub(crate) fn is_node(&self) -> bool {
        super::node::node_of(self).is_some()
    }

    /// The `UserInfo` of authentication.k8s.io.
    pub(crate) fn info(&self) -> Value {
        let mut info = json!({"username": self.name, "groups": self.groups});
        if !self.uid.is_empty() {
            info["uid"] = json!(self.uid);
        }
        if !self.extra.is_empty() {
            info["extra"] = json!(self.extra);
        }
        info
    }
}
