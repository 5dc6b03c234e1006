//! Pods from templates, and templates' hashes.

use serde_json::{Map, Value, json};

use super::super::action::Action;
use super::object;

/// The letters of Kubernetes' safe encoding: no vowels, nothing that looks like something else.
const SAFE: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// A template's hash in Kubernetes' form: FNV-1a as a decimal number, each digit as a safe letter.
pub(super) fn hash(template: &Value) -> String {
    let fnv = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(16_777_619);
    let hash = template.to_string().bytes().fold(2_166_136_261, fnv);
    hash.to_string().bytes().map(|digit| char::from(SAFE[usize::from(digit) % SAFE.len()])).collect()
}

/// The reference that makes `owner` the controller of what it creates.
pub(super) fn owned_by(owner: &Value) -> Value {
    let meta = &owner["metadata"];
    json!([{"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": meta["name"], "uid": meta["uid"],
        "controller": true, "blockOwnerDeletion": true}])
}

/// A pod of the owner's template, with more labels. `name` is a whole name, or ends in `-`
/// for a name made up by the API.
pub(super) fn pod(owner: &Value, name: &str, labels: &[(&str, String)]) -> Value {
    let template = &owner["spec"]["template"];
    let mut meta = Map::new();
    for field in ["labels", "annotations", "finalizers"] {
        if !template["metadata"][field].is_null() {
            meta.insert(field.to_owned(), template["metadata"][field].clone());
        }
    }
    let named = if name.ends_with('-') { "generateName" } else { "name" };
    meta.insert(named.to_owned(), json!(name));
    meta.insert("ownerReferences".to_owned(), owned_by(owner));
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template["spec"]});
    for (key, value) in labels {
        pod["metadata"]["labels"][*key] = json!(value);
    }
    pod
}

/// The creation of a pod in its owner's namespace.
pub(super) fn create(owner: &Value, pod: Value) -> Action {
    Action::Create { kind: "pods", namespace: object::namespace(owner).to_owned(), object: pod }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_follows_the_template_and_is_safe_in_a_name() {
        let hash_of = |image: &str| hash(&json!({"spec": {"containers": [{"image": image}]}}));
        assert_eq!(hash_of("a"), hash_of("a"));
        assert_ne!(hash_of("a"), hash_of("b"));
        assert!(hash_of("a").bytes().all(|b| SAFE.contains(&b)) && hash_of("a").len() <= 10);
    }

    #[test]
    fn a_pod_has_its_templates_fields_and_its_owner() {
        let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "web-x", "namespace": "shop", "uid": "u"},
            "spec": {"template": {"metadata": {"labels": {"app": "web"}, "name": "ignored"}, "spec": {"containers": []}}}});
        let pod = pod(&owner, "web-x-", &[("hash", "x".to_owned())]);
        assert_eq!(pod["metadata"]["generateName"], "web-x-");
        assert_eq!(pod["metadata"]["labels"], json!({"app": "web", "hash": "x"}));
        assert_eq!(pod["metadata"]["ownerReferences"][0]["uid"], "u");
        assert_eq!(pod["spec"], json!({"containers": []}));
    }
}
