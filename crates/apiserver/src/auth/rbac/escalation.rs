//! Nobody gives more than it has: what a write of a role or a binding must not do.

use serde_json::{Value, json};

use super::Rbac;
use super::rule::{ALL, Rule, beyond};
use crate::auth::User;
use crate::auth::attributes::{Attributes, Place};
use crate::error::ApiError;
use crate::resource::Resource;
use crate::strategy::{name_of, namespace_of};

/// The group of the kinds that this is about.
pub(super) const GROUP: &str = "rbac.authorization.k8s.io";

impl Rbac {
    /// Refuses a write of a role or a binding by which `user` would give what it does not have.
    /// `may` answers whether the user may do something.
    pub(in crate::auth) fn check_escalation(
        &self,
        user: &User,
        r: &Resource,
        old: Option<&Value>,
        new: &Value,
        may: impl Fn(&Attributes) -> bool,
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
            let (plural, name, rules) = self.bound(new, namespace)?;
            if may(&Attributes::object("bind", place(plural, name))) {
                return Ok(());
            }
            rules
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

    /// The role that a binding names: its plural, its name, its rules.
    fn bound<'a>(
        &self,
        binding: &'a Value,
        namespace: &str,
    ) -> Result<(&'static str, &'a str, Vec<Rule>), ApiError> {
        let role = &binding["roleRef"];
        let name = role["name"].as_str().unwrap_or_default();
        let (kind, scope) = match role["kind"].as_str() {
            Some("Role") => (&crate::kinds::ROLES, namespace),
            _ => (&crate::kinds::CLUSTER_ROLES, ""),
        };
        let rules = self.read(|policy| policy.role(scope, name));
        let rules = rules.ok_or_else(|| ApiError::not_found(kind, name))?;
        Ok((if scope.is_empty() { "clusterroles" } else { "roles" }, name, rules.to_vec()))
    }
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
