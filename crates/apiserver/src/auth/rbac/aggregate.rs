//! ClusterRoles that gather the rules of others by their labels.

use serde_json::{Map, Value, json};

use crate::kinds;
use crate::registry::{Part, Registry};
use crate::strategy::name_of;

/// Writes the gathered rules of every ClusterRole that has an aggregationRule, where they differ.
pub(super) async fn settle(registry: &Registry) {
    // A role may gather from one that gathers: as often as they can be nested in a line.
    for _ in 0..4 {
        let (roles, _) = registry.list(&kinds::CLUSTER_ROLES, None);
        let mut changed = false;
        for role in roles.iter().filter(|role| role["aggregationRule"].is_object()) {
            let rules = gathered(role, roles.iter().map(|r| &**r));
            if role["rules"].as_array().map_or(&[][..], Vec::as_slice) == rules.as_slice() {
                continue;
            }
            let put = move |role: &mut Value| {
                role["rules"] = json!(rules);
                Ok(())
            };
            match registry.modify(&kinds::CLUSTER_ROLES, None, name_of(role), Part::Whole, put).await {
                Ok(_) => changed = true,
                // The next change of a role tries it again.
                Err(error) => tracing::warn!(role = name_of(role), %error, "rules could not be gathered"),
            }
        }
        if !changed {
            return;
        }
    }
}

/// The rules of all roles that a role selects, each once, in the roles' order.
fn gathered<'a>(role: &Value, all: impl Iterator<Item = &'a Value>) -> Vec<Value> {
    let selectors = role["aggregationRule"]["clusterRoleSelectors"].as_array();
    let selectors: Vec<&Value> = selectors.into_iter().flatten().collect();
    let mut rules: Vec<Value> = Vec::new();
    for other in all.filter(|other| name_of(other) != name_of(role)) {
        let labels = other["metadata"]["labels"].as_object();
        if !selectors.iter().any(|s| selects(s, labels)) {
            continue;
        }
        for rule in other["rules"].as_array().into_iter().flatten() {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
    }
    rules
}

/// Whether a label selector selects; one that says nothing selects all.
fn selects(selector: &Value, labels: Option<&Map<String, Value>>) -> bool {
    let label = |key: &str| labels.and_then(|l| l.get(key));
    let exact = selector["matchLabels"].as_object().into_iter().flatten();
    let mut expressions = selector["matchExpressions"].as_array().into_iter().flatten();
    exact.into_iter().all(|(key, value)| label(key) == Some(value))
        && expressions.all(|e| {
            let found = label(e["key"].as_str().unwrap_or_default());
            let listed = found.is_some_and(|v| e["values"].as_array().is_some_and(|all| all.contains(v)));
            match e["operator"].as_str() {
                Some("In") => listed,
                Some("NotIn") => !listed,
                Some("Exists") => found.is_some(),
                Some("DoesNotExist") => found.is_none(),
                _ => false,
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_gathered_by_label_each_once() {
        let role = |name: &str, label: &str, rules: Value| json!({"metadata": {"name": name, "labels": {"to": label}}, "rules": rules});
        let all = [
            role("a", "x", json!([1, 2])),
            role("b", "y", json!([3])),
            role("c", "x", json!([2, 4])),
            role("self", "x", json!([9])),
        ];
        let mut own = all[3].clone();
        own["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {"to": "x"}}]});
        assert_eq!(gathered(&own, all.iter()), [1, 2, 4].map(|n| json!(n)));
        own["aggregationRule"] = json!({"clusterRoleSelectors": [
            {"matchExpressions": [{"key": "to", "operator": "NotIn", "values": ["x"]}]}]});
        assert_eq!(gathered(&own, all.iter()), [json!(3)]);
    }
}
