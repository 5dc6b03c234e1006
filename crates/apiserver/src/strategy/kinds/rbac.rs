//! Roles and their bindings.

use serde_json::{Value, json};

use crate::strategy::field::{Errors, Path};
use crate::strategy::value::{
    default, default_filled, drop_unset, inner, items, numbered, same, text, unset,
};
use crate::strategy::{format, meta};

const GROUP: &str = "rbac.authorization.k8s.io";

/// Completes a role.
pub(super) fn role_defaults(role: &mut Value) {
    if unset(&role["rules"]) {
        role["rules"] = Value::Null;
    }
}

/// Completes a binding.
pub(super) fn binding_defaults(binding: &mut Value) {
    default(binding, "roleRef", json!({}));
    if let Some(role) = inner(binding, "roleRef") {
        default_filled(role, "apiGroup", GROUP);
    }
    for subject in items(binding, "subjects") {
        if matches!(text(&subject["kind"]), "User" | "Group") {
            default_filled(subject, "apiGroup", GROUP);
        }
        drop_unset(subject, &["apiGroup", "namespace"]);
    }
    drop_unset(binding, &["subjects"]);
}

/// Checks a Role, or a ClusterRole when it is not `namespaced`.
pub(super) fn check_role(role: &Value, namespaced: bool, errors: &mut Errors) {
    for (index, rule) in numbered(&role["rules"]) {
        check_rule(rule, namespaced, &Path::new("rules").at(index), errors);
    }
    let (aggregation, at) = (&role["aggregationRule"], Path::new("aggregationRule.clusterRoleSelectors"));
    if aggregation.is_null() {
        return;
    }
    if unset(&aggregation["clusterRoleSelectors"]) {
        let rule = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        errors.required(&at, rule);
    }
    for (index, selector) in numbered(&aggregation["clusterRoleSelectors"]) {
        let found = errors.0.len();
        meta::selector(selector, &at.at(index), errors);
        if errors.0.len() > found {
            errors.invalid(&at.at(index), selector, "invalid label selector.");
        }
    }
}

fn check_rule(rule: &Value, namespaced: bool, at: &Path, errors: &mut Errors) {
    if unset(&rule["verbs"]) {
        errors.required(&at.field("verbs"), "verbs must contain at least one value");
    }
    let (urls, at_urls) = (&rule["nonResourceURLs"], at.field("nonResourceURLs"));
    if !unset(urls) {
        if namespaced {
            errors.invalid(&at_urls, urls, "namespaced rules cannot apply to non-resource URLs");
        }
        if !["apiGroups", "resources", "resourceNames"].iter().all(|f| unset(&rule[*f])) {
            let rule = "rules cannot apply to both regular resources and non-resource URLs";
            errors.invalid(&at_urls, urls, rule);
        }
        return;
    }
    for (field, what) in [("apiGroups", "api group"), ("resources", "resource")] {
        if unset(&rule[field]) {
            let rule = format!("resource rules must supply at least one {what}");
            errors.required(&at.field(field), &rule);
        }
    }
}

/// Checks a RoleBinding, or a ClusterRoleBinding when it is not `namespaced`.
pub(super) fn check_binding(binding: &Value, old: Option<&Value>, namespaced: bool, errors: &mut Errors) {
    let (role, at) = (&binding["roleRef"], Path::new("roleRef"));
    let shown = |field: &str| json!(text(&role[field]));
    if role["apiGroup"] != GROUP {
        errors.not_supported(&at.field("apiGroup"), &shown("apiGroup"), &[GROUP]);
    }
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    if !kinds.contains(&text(&role["kind"])) {
        errors.not_supported(&at.field("kind"), &shown("kind"), kinds);
    }
    match text(&role["name"]) {
        "" => errors.required(&at.field("name"), ""),
        name => errors.all(&at.field("name"), &json!(name), format::path_segment(name)),
    }
    for (index, subject) in numbered(&binding["subjects"]) {
        check_subject(subject, namespaced, &Path::new("subjects").at(index), errors);
    }
    if old.is_some_and(|old| !same(&old["roleRef"], role)) {
        let value = json!({"APIGroup": role["apiGroup"], "Kind": role["kind"], "Name": role["name"]});
        errors.invalid(&at, &value, "field is immutable");
    }
}

fn check_subject(subject: &Value, namespaced: bool, at: &Path, errors: &mut Errors) {
    let name = text(&subject["name"]);
    if name.is_empty() {
        errors.required(&at.field("name"), "");
    }
    let group = json!(text(&subject["apiGroup"]));
    match text(&subject["kind"]) {
        "ServiceAccount" => {
            if !name.is_empty() {
                errors.all(&at.field("name"), &json!(name), format::dns_subdomain(name));
            }
            if group != "" {
                errors.not_supported(&at.field("apiGroup"), &group, &[""]);
            }
            if !namespaced && text(&subject["namespace"]).is_empty() {
                errors.required(&at.field("namespace"), "");
            }
        }
        "User" | "Group" if group != GROUP => {
            errors.not_supported(&at.field("apiGroup"), &group, &[GROUP]);
        }
        "User" | "Group" => {}
        kind => {
            let kinds = ["ServiceAccount", "User", "Group"];
            errors.not_supported(&at.field("kind"), &json!(kind), &kinds);
        }
    }
}
