//! Whether a pod may run on a node: node selector, required node affinity, taints, pods allowed.

use serde_json::Value;

use super::object::list;

/// Why a pod may not run on a node, in kube-scheduler's words; `None` when it may. `extra` are
/// tolerations beside the pod's own.
pub(super) fn obstacle(pod: &Value, node: &Value, extra: &[&str]) -> Option<String> {
    let spec = &pod["spec"];
    let tolerated = |taint: &Value| {
        extra.iter().any(|key| taint["key"] == *key)
            || list(&spec["tolerations"]).any(|toleration| tolerates(toleration, taint))
    };
    let unschedulable =
        serde_json::json!({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"});
    if node["spec"]["unschedulable"] == true && !tolerated(&unschedulable) {
        return Some("node(s) were unschedulable".to_owned());
    }
    let hard = |taint: &&Value| taint["effect"] == "NoSchedule" || taint["effect"] == "NoExecute";
    if let Some(taint) = list(&node["spec"]["taints"]).filter(hard).find(|taint| !tolerated(taint)) {
        let text = |field: &str| taint[field].as_str().unwrap_or_default();
        return Some(format!("node(s) had untolerated taint {{{}: {}}}", text("key"), text("value")));
    }
    (!selected(pod, node)).then(|| "node(s) didn't match Pod's node affinity/selector".to_owned())
}

/// Whether the node is one that the pod's node selector and its required node affinity name.
pub(super) fn selected(pod: &Value, node: &Value) -> bool {
    let spec = &pod["spec"];
    let selected = spec["nodeSelector"]
        .as_object()
        .is_none_or(|wanted| wanted.iter().all(|(key, value)| node["metadata"]["labels"][key] == *value));
    let required = &spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    selected && (required.is_null() || list(&required["nodeSelectorTerms"]).any(|term| fits(term, node)))
}

/// Whether the pod tolerates all of the node's taints that keep pods away.
pub(super) fn tolerated(pod: &Value, node: &Value) -> bool {
    let hard = |taint: &&Value| taint["effect"] == "NoSchedule" || taint["effect"] == "NoExecute";
    let tolerates_it =
        |taint| list(&pod["spec"]["tolerations"]).any(|toleration| tolerates(toleration, taint));
    list(&node["spec"]["taints"]).filter(hard).all(tolerates_it)
}

/// Whether a toleration is for this taint.
pub(super) fn tolerates(toleration: &Value, taint: &Value) -> bool {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let effect = text(&toleration["effect"]);
    if !effect.is_empty() && taint["effect"] != effect.as_str() {
        return false;
    }
    let key = text(&toleration["key"]);
    match toleration["operator"].as_str() {
        Some("Exists") => key.is_empty() || taint["key"] == key.as_str(),
        _ => taint["key"] == key.as_str() && text(&taint["value"]) == text(&toleration["value"]),
    }
}

/// One term: all of its expressions on labels and all on fields. An empty term fits nothing.
fn fits(term: &Value, node: &Value) -> bool {
    let empty = list(&term["matchExpressions"]).chain(list(&term["matchFields"])).next().is_none();
    let label = |key: &str| node["metadata"]["labels"][key].as_str();
    let field = |key: &str| (key == "metadata.name").then(|| node["metadata"]["name"].as_str()).flatten();
    !empty
        && list(&term["matchExpressions"]).all(|e| holds(e, label))
        && list(&term["matchFields"]).all(|e| holds(e, field))
}

fn holds<'a>(expression: &Value, value_of: impl Fn(&str) -> Option<&'a str>) -> bool {
    let found = value_of(expression["key"].as_str().unwrap_or_default());
    let named = || list(&expression["values"]).any(|value| found.is_some() && value.as_str() == found);
    let number = || found.and_then(|v| v.parse::<i64>().ok());
    let bound = || list(&expression["values"]).next()?.as_str()?.parse::<i64>().ok();
    match expression["operator"].as_str().unwrap_or_default() {
        "In" => named(),
        "NotIn" => !named(),
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        "Gt" => number().zip(bound()).is_some_and(|(number, bound)| number > bound),
        "Lt" => number().zip(bound()).is_some_and(|(number, bound)| number < bound),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn may(spec: Value, node: &Value) -> bool {
        obstacle(&json!({"spec": spec}), node, &[]).is_none()
    }

    #[test]
    fn taints_need_a_toleration_of_key_value_and_effect() {
        let node = json!({"metadata": {"name": "n"}, "spec": {"taints": [
            {"key": "gpu", "value": "yes", "effect": "NoSchedule"}, {"key": "soft", "effect": "PreferNoSchedule"}]}});
        assert!(!may(json!({}), &node));
        for (toleration, enough) in [
            (json!({"key": "gpu", "value": "yes"}), true),
            (json!({"key": "gpu", "operator": "Equal", "value": "no"}), false),
            (json!({"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}), true),
            (json!({"key": "gpu", "operator": "Exists", "effect": "NoExecute"}), false),
            (json!({"operator": "Exists"}), true),
            (json!({"key": "other", "operator": "Exists"}), false),
        ] {
            assert_eq!(may(json!({"tolerations": [toleration]}), &node), enough, "{toleration}");
        }
        let cordoned = json!({"spec": {"unschedulable": true}});
        assert!(!may(json!({}), &cordoned));
        let cause = obstacle(&json!({}), &node, &[]).unwrap();
        assert_eq!(cause, "node(s) had untolerated taint {gpu: yes}");
    }

    #[test]
    fn selectors_and_affinity_read_labels_and_the_name() {
        let node = json!({"metadata": {"name": "n1", "labels": {"disk": "ssd", "cores": "8"}}});
        assert!(may(json!({"nodeSelector": {"disk": "ssd"}}), &node));
        assert!(!may(json!({"nodeSelector": {"disk": "ssd", "zone": "a"}}), &node));
        let affinity = |terms: Value| json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}});
        let expression = |operator: &str, key: &str, values: Value| {
            affinity(json!([{"matchExpressions": [{"key": key, "operator": operator, "values": values}]}]))
        };
        assert!(may(expression("In", "disk", json!(["hdd", "ssd"])), &node));
        assert!(!may(expression("NotIn", "disk", json!(["ssd"])), &node));
        assert!(may(expression("NotIn", "zone", json!(["a"])), &node));
        assert!(may(expression("DoesNotExist", "zone", json!([])), &node));
        assert!(may(expression("Gt", "cores", json!(["4"])), &node));
        assert!(!may(expression("Lt", "cores", json!(["4"])), &node));
        let named = json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]);
        assert!(may(affinity(named), &node));
        assert!(!may(affinity(json!([{}])), &node), "an empty term fits nothing");
    }
}
