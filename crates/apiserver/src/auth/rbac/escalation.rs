//! Nobody gives more than it has: what a write of a role or a binding must not do.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Rbac;
use super::rule::{ALL, Rule, beyond};
use crate::auth::User;
use crate::auth::attributes::{Attributes, Place};
use crate::error::ApiError;
use crate::kinds;
use crate::resource::Resource;
use crate::strategy::{name_of, namespace_of};

/// The group of the kinds that this is about.
pub(super) const GROUP: &str = "rbac.authorization.k8s.io";

impl Rbac {
    /// Refuses a write of a role or a binding by which `user` would give what it does not have.
    /// `may` answers whether the user may do something, `find` gives a role as it is now.
    pub(in crate::auth) fn check_escalation(
        &self,
        user: &User,
        r: &Resource,
        old: Option<&Value>,
        new: &Value,
        may: impl Fn(&Attributes) -> bool,
        find: impl Fn(&str) -> Option<Arc<Value>>,
    ) -> Result<(), ApiError> {
        if r.group != GROUP || old.is_some_and(|old| same_grant(old, new)) {
            return Ok(());
        }
        let namespace = namespace_of(new).unwrap_or_default();
        let place = |resource: &str, name: &str| Place {
            group: GROUP.to_owned(),
            resource: resource.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            ..Place::default()
        };
        let given = if r.kind.ends_with("Binding") {
            let (kind, name) = bound(new);
            if may(&Attributes::object("bind", place(&kind.plural, name))) {
                return Ok(());
            }
            let role = find(&kind.key(Some(namespace), name));
            Rule::all_of(&*role.ok_or_else(|| ApiError::not_found(kind, name))?)
        } else {
            if may(&Attributes::object("escalate", place(&r.plural, name_of(new)))) {
                return Ok(());
            }
            let mut rules = Rule::all_of(new);
            if new["aggregationRule"].is_object() {
                rules.extend(everything());
            }
            rules
        };
        let missing = beyond(&self.rules_of(user, namespace), &given);
        if missing.is_empty() {
            return Ok(());
        }
        let groups: Vec<String> = user.groups.iter().map(|g| format!("{g:?}")).collect();
        let why = format!(
            "user {:?} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{missing}",
            user.name,
            groups.join(" ")
        );
        Err(ApiError::forbidden(r, name_of(new), &why))
    }
}

/// The kind and the name of the role that a binding names.
fn bound(binding: &Value) -> (&'static Resource, &str) {
    let role = &binding["roleRef"];
    let kind = if role["kind"] == "Role" { &kinds::ROLES } else { &kinds::CLUSTER_ROLES };
    (kind, role["name"].as_str().unwrap_or_default())
}

/// Whether a change leaves what is given, and to whom, as it was.
fn same_grant(old: &Value, new: &Value) -> bool {
    ["rules", "aggregationRule", "subjects", "roleRef"].iter().all(|field| old[*field] == new[*field])
}

/// A role that gathers may come to hold anything.
fn everything() -> Vec<Rule> {
    Rule::all_of(&json!({"rules": [
        {"apiGroups": [ALL], "resources": [ALL], "verbs": [ALL]},
        {"nonResourceURLs": [ALL], "verbs": [ALL]},
    ]}))
}
