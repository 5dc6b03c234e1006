//! The roles and bindings of the cluster, laid out so that one user's are found at once.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::Value;

use super::rule::Rule;
use crate::auth::User;
use crate::auth::attributes::{Attributes, Wanted};
use crate::resource::Resource;
use crate::strategy::{name_of, namespace_of};

/// Where an object is: its namespace, empty for the cluster's, and its name.
type Key = (String, String);

/// Whom a binding names. A ServiceAccount is a user of its name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Subject {
    User(String),
    Group(String),
}

#[derive(Debug, PartialEq, Eq)]
struct Binding {
    subjects: Vec<Subject>,
    /// The role: of the binding's namespace, or of the cluster.
    role: Key,
}

/// All roles and bindings.
#[derive(Debug, Default)]
pub(crate) struct Policy {
    roles: HashMap<Key, Arc<[Rule]>>,
    bindings: HashMap<Key, Binding>,
    /// The bindings of a namespace that name a subject.
    named: HashMap<(Subject, String), BTreeSet<String>>,
}

impl Policy {
    /// Takes a role or a binding as it is now.
    pub(super) fn put(&mut self, r: &Resource, object: &Value) {
        let key = key_of(object);
        if r.kind.ends_with("Binding") {
            self.remove_binding(&key);
            let binding = Binding::of(object, &key.0);
            for subject in &binding.subjects {
                let of = self.named.entry((subject.clone(), key.0.clone())).or_default();
                of.insert(key.1.clone());
            }
            self.bindings.insert(key, binding);
        } else {
            self.roles.insert(key, Rule::all_of(object).into());
        }
    }

    /// Forgets a role or a binding that is gone.
    pub(super) fn remove(&mut self, r: &Resource, object: &Value) {
        let key = key_of(object);
        if r.kind.ends_with("Binding") {
            self.remove_binding(&key);
        } else {
            self.roles.remove(&key);
        }
    }

    /// Forgets all of a kind that `objects` does not have.
    pub(super) fn keep(&mut self, r: &Resource, objects: &[Arc<Value>]) {
        let there: BTreeSet<Key> = objects.iter().map(|o| key_of(o)).collect();
        let of_kind = |key: &Key| key.0.is_empty() != r.namespaced;
        if r.kind.ends_with("Binding") {
            let gone = |key: &&Key| of_kind(key) && !there.contains(*key);
            let gone: Vec<Key> = self.bindings.keys().filter(gone).cloned().collect();
            gone.iter().for_each(|key| self.remove_binding(key));
        } else {
            self.roles.retain(|key, _| !of_kind(key) || there.contains(key));
        }
    }

    fn remove_binding(&mut self, key: &Key) {
        let Some(old) = self.bindings.remove(key) else { return };
        for subject in old.subjects {
            let place = (subject, key.0.clone());
            if let Some(names) = self.named.get_mut(&place) {
                names.remove(&key.1);
                if names.is_empty() {
                    self.named.remove(&place);
                }
            }
        }
    }

    /// The rules that a user has in a namespace, and everywhere; and the roles that bindings name in vain.
    pub(super) fn rules_of(&self, user: &User, namespace: &str) -> (Vec<Arc<[Rule]>>, Vec<Key>) {
        let (mut found, mut absent) = (Vec::new(), Vec::new());
        let groups = user.groups.iter().map(|g| Subject::Group(g.clone()));
        let scopes: &[&str] = if namespace.is_empty() { &[""] } else { &["", namespace] };
        for subject in std::iter::once(Subject::User(user.name.clone())).chain(groups) {
            for scope in scopes {
                let names = self.named.get(&(subject.clone(), (*scope).to_owned())).into_iter().flatten();
                for binding in names.filter_map(|n| self.bindings.get(&((*scope).to_owned(), n.clone()))) {
                    match self.roles.get(&binding.role) {
                        Some(rules) => found.push(rules.clone()),
                        None => absent.push(binding.role.clone()),
                    }
                }
            }
        }
        (found, absent)
    }

    /// Whether a user may; the error is the reason, which may be empty.
    pub(crate) fn allows(&self, user: &User, asked: &Attributes) -> Result<(), String> {
        let namespace = match &asked.wanted {
            Wanted::Object(place) => place.namespace.as_str(),
            Wanted::Path(_) => "",
        };
        let (found, absent) = self.rules_of(user, namespace);
        if found.iter().flat_map(|rules| rules.iter()).any(|rule| rule.allows(asked)) {
            return Ok(());
        }
        let name = |(namespace, name): &Key| match namespace.as_str() {
            "" => format!("clusterrole.rbac.authorization.k8s.io {name:?} not found"),
            _ => format!("role.rbac.authorization.k8s.io {name:?} not found"),
        };
        match absent.as_slice() {
            [] => Err(String::new()),
            [one] => Err(format!("RBAC: {}", name(one))),
            many => Err(format!("RBAC: [{}]", many.iter().map(name).collect::<Vec<_>>().join(", "))),
        }
    }
}

impl Binding {
    fn of(object: &Value, namespace: &str) -> Self {
        let subjects = object["subjects"].as_array().into_iter().flatten();
        let role = &object["roleRef"];
        let place = match role["kind"].as_str() {
            // No namespace has this name: the cluster has no Roles.
            Some("Role") if namespace.is_empty() => "-",
            Some("Role") => namespace,
            _ => "",
        };
        let name = role["name"].as_str().unwrap_or_default();
        Self {
            subjects: subjects.filter_map(|s| Subject::of(s, namespace)).collect(),
            role: (place.to_owned(), name.to_owned()),
        }
    }
}

impl Subject {
    fn of(subject: &Value, namespace: &str) -> Option<Self> {
        let name = subject["name"].as_str()?.to_owned();
        match subject["kind"].as_str()? {
            "User" => Some(Self::User(name)),
            "Group" => Some(Self::Group(name)),
            "ServiceAccount" => {
                let own = subject["namespace"].as_str().unwrap_or(namespace);
                Some(Self::User(format!("system:serviceaccount:{own}:{name}")))
            }
            _ => None,
        }
    }
}

fn key_of(object: &Value) -> Key {
    (namespace_of(object).unwrap_or_default().to_owned(), name_of(object).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::attributes::Place;
    use crate::kinds;
    use serde_json::json;

    fn asks(namespace: &str) -> Attributes {
        let (resource, namespace) = ("pods".to_owned(), namespace.to_owned());
        Attributes::object("list", Place { resource, namespace, ..Place::default() })
    }

    fn reader(namespace: Option<&str>) -> Value {
        json!({"metadata": {"name": "reader", "namespace": namespace},
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]})
    }

    fn binding(namespace: Option<&str>, kind: &str, subjects: Value) -> Value {
        json!({"metadata": {"name": "b", "namespace": namespace}, "subjects": subjects,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": "reader"}})
    }

    #[test]
    fn bindings_reach_users_groups_and_service_accounts() {
        let mut policy = Policy::default();
        policy.put(&kinds::CLUSTER_ROLES, &reader(None));
        let subjects = json!([{"kind": "User", "name": "ann"}, {"kind": "Group", "name": "ops"},
            {"kind": "ServiceAccount", "name": "web"}]);
        policy.put(&kinds::ROLE_BINDINGS, &binding(Some("shop"), "ClusterRole", subjects));
        let ann = User::known("ann", vec![]);
        let bob = User::known("bob", vec!["ops".into()]);
        let web = User::known("system:serviceaccount:shop:web", vec![]);
        for user in [&ann, &bob, &web] {
            assert_eq!(policy.allows(user, &asks("shop")), Ok(()), "{}", user.name);
            assert!(policy.allows(user, &asks("other")).is_err() && policy.allows(user, &asks("")).is_err());
        }
        policy.put(
            &kinds::CLUSTER_ROLE_BINDINGS,
            &binding(None, "ClusterRole", json!([{"kind": "User", "name": "ann"}])),
        );
        assert!(policy.allows(&ann, &asks("other")).is_ok() && policy.allows(&ann, &asks("")).is_ok());
        policy.keep(&kinds::CLUSTER_ROLE_BINDINGS, &[]);
        assert!(policy.allows(&ann, &asks("other")).is_err() && policy.allows(&ann, &asks("shop")).is_ok());
        policy.remove(&kinds::ROLE_BINDINGS, &binding(Some("shop"), "ClusterRole", json!([])));
        assert!(policy.allows(&ann, &asks("shop")).is_err() && policy.named.is_empty());
    }

    #[test]
    fn a_cluster_wide_binding_reaches_no_role_of_a_namespace() {
        let mut policy = Policy::default();
        policy.put(&kinds::CLUSTER_ROLES, &reader(None));
        let subjects = json!([{"kind": "User", "name": "ann"}]);
        policy.put(&kinds::CLUSTER_ROLE_BINDINGS, &binding(None, "Role", subjects));
        assert!(policy.allows(&User::known("ann", vec![]), &asks("")).is_err());
    }

    #[test]
    fn a_binding_to_no_role_says_so() {
        let mut policy = Policy::default();
        let ann = User::known("ann", vec![]);
        policy.put(
            &kinds::ROLE_BINDINGS,
            &binding(Some("shop"), "Role", json!([{"kind": "User", "name": "ann"}])),
        );
        let reason = policy.allows(&ann, &asks("shop")).unwrap_err();
        assert_eq!(reason, r#"RBAC: role.rbac.authorization.k8s.io "reader" not found"#);
        policy.put(&kinds::ROLES, &reader(Some("shop")));
        assert!(policy.allows(&ann, &asks("shop")).is_ok());
        policy.keep(&kinds::CLUSTER_ROLES, &[]);
        assert!(policy.allows(&ann, &asks("shop")).is_ok(), "another kind's list takes nothing away");
    }
}
