//! Which objects a node may write, and what in them: Kubernetes' NodeRestriction.

use std::collections::BTreeSet;

use serde_json::Value;

use super::guard::Write;
use super::node::LEASES;
use crate::error::ApiError;
use crate::resource::Resource;
use crate::strategy::{MIRROR, is_mirror, name_of, namespace_of};

/// Labels under the kubernetes.io and k8s.io domains that a kubelet sets of itself.
const LABELS: &[&str] = &[
    "kubernetes.io/hostname",
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];

/// Refuses a node's write of what is not its own.
pub(super) fn check(node: &str, write: &Write<'_>) -> Result<(), ApiError> {
    let (r, object) = (write.r, write.object());
    let refuse = |why: String| Err(ApiError::forbidden(r, name_of(object), &why));
    match (r.group.as_ref(), r.plural.as_ref()) {
        ("", "nodes") => own_node(node, write).or_else(refuse),
        ("", "pods") => own_pod(node, write).or_else(refuse),
        ("coordination.k8s.io", "leases") => own_lease(node, object).or_else(refuse),
        _ => Ok(()),
    }
}

fn own_lease(node: &str, lease: &Value) -> Result<(), String> {
    if namespace_of(lease) != Some(LEASES) {
        return Err(format!("can only access leases in the {LEASES:?} system namespace"));
    }
    if name_of(lease) != node {
        return Err("can only access node lease with the same name as the requesting node".to_owned());
    }
    Ok(())
}

fn own_pod(node: &str, write: &Write<'_>) -> Result<(), String> {
    let own = |pod: &Value| pod["spec"]["nodeName"] == node;
    match (write.old, write.new) {
        (Some(pod), None) if !own(pod) => {
            Err(format!("node {node:?} can only delete pods with spec.nodeName set to itself"))
        }
        (Some(pod), Some(_)) if !own(pod) => {
            Err(format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself"))
        }
        (Some(old), Some(new)) if old["metadata"]["labels"] != new["metadata"]["labels"] => {
            Err(format!("node {node:?} cannot update labels through pod status"))
        }
        (None, Some(pod)) => mirror_pod(node, pod),
        _ => Ok(()),
    }
}

/// A pod that the node runs whatever the API says, and tells the API of: it may use nothing of the API's.
fn mirror_pod(node: &str, pod: &Value) -> Result<(), String> {
    if !is_mirror(pod) {
        return Err(format!(
            "pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"
        ));
    }
    if pod["spec"]["nodeName"] != node {
        return Err(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
    }
    let owners = pod["metadata"]["ownerReferences"].as_array().map_or(&[][..], Vec::as_slice);
    if owners.len() > 1 || owners.iter().any(|owner| owner["kind"] != "Node" || owner["name"] != node) {
        return Err(format!(
            "node {node:?} can only create pods with a single owner reference set to itself"
        ));
    }
    let account = pod["spec"]["serviceAccountName"].as_str().unwrap_or_default();
    let used = if account.is_empty() { reference(&pod["spec"]) } else { Some("a service account") };
    used.map_or(Ok(()), |used| Err(format!("node {node:?} can not create pods that reference {used}")))
}

/// What of the API a pod's specification refers to, if it does.
fn reference(spec: &Value) -> Option<&'static str> {
    let named = |key: &str| match key {
        "imagePullSecrets" | "secret" | "secretRef" | "secretKeyRef" => Some("secrets"),
        "configMap" | "configMapRef" | "configMapKeyRef" => Some("configmaps"),
        "persistentVolumeClaim" => Some("persistentvolumeclaims"),
        "resourceClaims" => Some("resourceclaims"),
        _ => None,
    };
    match spec {
        Value::Object(map) => map.iter().find_map(|(key, value)| named(key).or_else(|| reference(value))),
        Value::Array(list) => list.iter().find_map(reference),
        _ => None,
    }
}

fn own_node(node: &str, write: &Write<'_>) -> Result<(), String> {
    let name = name_of(write.object());
    if name != node {
        return Err(format!("node {node:?} is not allowed to modify node {name:?}"));
    }
    let Some(new) = write.new else { return Ok(()) };
    if new["spec"]["configSource"].is_object() {
        return Err(format!("node {node:?} is not allowed to modify configSource"));
    }
    if let Some(old) = write.old {
        if old["spec"]["taints"] != new["spec"]["taints"] {
            return Err(format!("node {node:?} is not allowed to modify taints"));
        }
        if old["metadata"]["ownerReferences"] != new["metadata"]["ownerReferences"] {
            return Err(format!("node {node:?} is not allowed to modify ownerReferences"));
        }
    } else if new["metadata"]["ownerReferences"].as_array().is_some_and(|all| !all.is_empty()) {
        return Err(format!("node {node:?} is not allowed to create ownerReferences"));
    }
    let labels = forbidden_labels(write.old, new);
    if labels.is_empty() {
        return Ok(());
    }
    let list = labels.into_iter().collect::<Vec<_>>().join(", ");
    Err(format!("is not allowed to modify labels: {list}"))
}

/// The labels that differ and are not a node's to set.
fn forbidden_labels<'a>(old: Option<&'a Value>, new: &'a Value) -> BTreeSet<&'a str> {
    let none = serde_json::Map::new();
    let labels = |node: Option<&'a Value>| node.and_then(|n| n["metadata"]["labels"].as_object());
    let (before, after) = (labels(old).unwrap_or(&none), labels(Some(new)));
    let Some(after) = after else { return gone(labels(old)) };
    let changed = after.iter().filter(|(key, value)| before.get(*key) != Some(*value));
    let lost = labels(old).into_iter().flatten().filter(|(key, _)| !after.contains_key(*key));
    changed.chain(lost).map(|(key, _)| key.as_str()).filter(|key| !may_set(key)).collect()
}

fn gone(before: Option<&serde_json::Map<String, Value>>) -> BTreeSet<&str> {
    before.into_iter().flatten().map(|(key, _)| key.as_str()).filter(|key| !may_set(key)).collect()
}

/// Whether a label is a node's to set: any of its own, and those that a kubelet reports.
fn may_set(label: &str) -> bool {
    let domain = label.split_once('/').map_or("", |(domain, _)| domain);
    let under = |parent: &str| domain == parent || domain.ends_with(&format!(".{parent}"));
    if under("node-restriction.kubernetes.io") {
        return false;
    }
    if !under("kubernetes.io") && !under("k8s.io") {
        return true;
    }
    LABELS.contains(&label) || under("kubelet.kubernetes.io") || under("node.kubernetes.io")
}

/// Whether a node may have a token of a ServiceAccount: one bound to a pod of its own.
pub(super) fn check_token(
    node: &str,
    r: &Resource,
    name: &str,
    bound: &Value,
    pod: Option<&Value>,
) -> Result<(), ApiError> {
    let refuse = |why: &str| Err(ApiError::forbidden(r, name, why));
    if bound["kind"] != "Pod" {
        return refuse("node requested token not bound to a pod");
    }
    if bound["uid"].as_str().is_none_or(str::is_empty) {
        return refuse("node requested token with a pod binding without a uid");
    }
    match pod {
        Some(pod) if pod["spec"]["nodeName"] == node => Ok(()),
        _ => refuse("node requested token bound to a pod scheduled on a different node"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds;
    use serde_json::json;

    fn node(name: &str, labels: Value, taints: Value) -> Value {
        json!({"metadata": {"name": name, "labels": labels}, "spec": {"taints": taints}})
    }

    fn says(r: &Resource, old: Option<&Value>, new: Option<&Value>) -> Result<(), String> {
        check("a", &Write { r, old, new }).map_err(|e| e.message)
    }

    #[test]
    fn a_node_writes_itself_within_bounds() {
        let plain = node("a", json!({"kubernetes.io/hostname": "a", "mine": "1"}), json!([]));
        assert_eq!(says(&kinds::NODES, None, Some(&plain)), Ok(()));
        assert_eq!(says(&kinds::NODES, Some(&plain), Some(&plain)), Ok(()));
        let other = node("b", json!({}), json!([]));
        assert_eq!(
            says(&kinds::NODES, Some(&other), Some(&other)).unwrap_err(),
            r#"nodes "b" is forbidden: node "a" is not allowed to modify node "b""#
        );
        for label in [
            "x.node-restriction.kubernetes.io/y",
            "node-restriction.kubernetes.io/z",
            "kubernetes.io/role",
            "foo.k8s.io/a",
        ] {
            let marked =
                node("a", json!({"kubernetes.io/hostname": "a", "mine": "1", label: "1"}), json!([]));
            for (old, new) in [(Some(&plain), &marked), (Some(&marked), &plain), (None, &marked)] {
                let refused = says(&kinds::NODES, old, Some(new));
                assert_eq!(refused.is_err(), !(old == Some(&marked) && new == &marked), "{label}");
            }
            assert_eq!(says(&kinds::NODES, Some(&marked), Some(&marked)), Ok(()));
        }
        let tainted =
            node("a", json!({"kubernetes.io/hostname": "a"}), json!([{"key": "k", "effect": "NoSchedule"}]));
        assert!(says(&kinds::NODES, None, Some(&tainted)).is_ok(), "it may come with taints");
        assert!(says(&kinds::NODES, Some(&tainted), Some(&plain)).unwrap_err().contains("taints"));
    }

    #[test]
    fn pods_and_leases_are_its_own() {
        let pod = |node: &str| json!({"metadata": {"name": "p"}, "spec": {"nodeName": node}});
        let (own, other) = (pod("a"), pod("b"));
        assert!(
            says(&kinds::PODS, Some(&own), Some(&own)).is_ok()
                && says(&kinds::PODS, Some(&own), None).is_ok()
        );
        assert!(
            says(&kinds::PODS, Some(&other), Some(&other)).unwrap_err().contains("only update pod status")
        );
        assert!(says(&kinds::PODS, Some(&other), None).unwrap_err().contains("only delete pods"));
        assert!(says(&kinds::PODS, None, Some(&own)).is_err());
        let lease = |name: &str| json!({"metadata": {"name": name, "namespace": "kube-node-lease"}});
        assert!(says(&kinds::LEASES, None, Some(&lease("a"))).is_ok());
        assert!(says(&kinds::LEASES, None, Some(&lease("b"))).is_err());
    }

    #[test]
    fn tokens_are_bound_to_its_pods() {
        let bound = json!({"kind": "Pod", "name": "p", "uid": "1"});
        let pod = json!({"spec": {"nodeName": "a"}});
        let ask = |bound: &Value, pod: Option<&Value>| {
            check_token("a", &kinds::SERVICE_ACCOUNTS, "s", bound, pod).is_ok()
        };
        assert!(ask(&bound, Some(&pod)));
        assert!(!ask(&bound, None) && !ask(&json!({}), Some(&pod)));
        assert!(!ask(&bound, Some(&json!({"spec": {"nodeName": "b"}}))));
        assert!(!ask(&json!({"kind": "Pod", "name": "p"}), Some(&pod)));
    }
}
