//! Which kinds the server serves, and where.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weft_store::Api;

/// The collection of definitions.
pub(super) const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
/// How long a new definition may take to be served.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where a kind is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Served {
    root: String,
    plural: String,
    pub(super) namespaced: bool,
}

impl Served {
    /// The path of the kind's collection.
    pub(super) fn collection(&self, namespace: Option<&str>) -> String {
        match namespace {
            Some(namespace) => format!("{}/namespaces/{namespace}/{}", self.root, self.plural),
            None => format!("{}/{}", self.root, self.plural),
        }
    }
}

/// Discovery by group and version, asked for once each.
pub(super) struct Discovery<'a> {
    api: &'a Api,
    known: HashMap<String, HashMap<String, Served>>,
}

impl<'a> Discovery<'a> {
    pub(super) fn new(api: &'a Api) -> Self {
        Discovery { api, known: HashMap::new() }
    }

    /// Where this kind is served, or why it is not.
    pub(super) async fn find(&mut self, api_version: &str, kind: &str) -> Result<Served, String> {
        if !self.known.contains_key(api_version) {
            let root = root(api_version);
            match self.api.get(&root).await {
                Ok(list) => drop(self.known.insert(api_version.to_owned(), kinds(&root, &list))),
                Err(error) if error.not_found() => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        let found = self.known.get(api_version).and_then(|kinds| kinds.get(kind));
        found.cloned().ok_or_else(|| {
            format!("this server has no kind {kind} in {api_version}: is the apiVersion current?")
        })
    }

    /// Waits until a kind that was just defined is served.
    pub(super) async fn await_kind(&mut self, api_version: &str, kind: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.known.remove(api_version);
            if self.find(api_version, kind).await.is_ok() || Instant::now() > deadline {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn root(api_version: &str) -> String {
    if api_version.contains('/') { format!("/apis/{api_version}") } else { format!("/api/{api_version}") }
}

fn kinds(root: &str, list: &Value) -> HashMap<String, Served> {
    let resources = list.get("resources").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let served = |resource: &Value| {
        let plural = resource.get("name")?.as_str()?.to_owned();
        let kind = resource.get("kind")?.as_str()?.to_owned();
        let namespaced = resource.get("namespaced")?.as_bool()?;
        // `pods/status` and its like are parts, not kinds.
        (!plural.contains('/')).then(|| (kind, Served { root: root.to_owned(), plural, namespaced }))
    };
    resources.iter().filter_map(served).collect()
}

/// A definition for a kind nobody has defined, or None where there cannot be one: the core
/// group and Kubernetes' own groups (`apps`, `batch`) are fixed.
pub(super) fn definition(api_version: &str, kind: &str, namespaced: bool) -> Option<Value> {
    let (group, version) = api_version.split_once('/')?;
    if !group.contains('.') || BUILT_IN.contains(&group) {
        return None;
    }
    let singular = kind.to_lowercase();
    let plural = plural(&singular);
    Some(json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{plural}.{group}"),
            "annotations": {
                "api-approved.kubernetes.io": "unapproved, stored for a lab",
                "weft.dev/made-for": "manifests that came without a definition",
            },
        },
        "spec": {
            "group": group,
            "names": {"kind": kind, "listKind": format!("{kind}List"), "plural": plural, "singular": singular},
            "scope": if namespaced { "Namespaced" } else { "Cluster" },
            "versions": [{
                "name": version, "served": true, "storage": true,
                "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {
                    "type": "object", "x-kubernetes-preserve-unknown-fields": true,
                }},
            }],
        },
    }))
}

/// Groups with a dot that are Kubernetes' own: an unknown kind there is an old apiVersion.
const BUILT_IN: &[&str] = &[
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "certificates.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "events.k8s.io",
    "networking.k8s.io",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
];

/// The plural as the API conventions form it.
fn plural(singular: &str) -> String {
    let vowel_before_y = ["ay", "ey", "iy", "oy", "uy"].iter().any(|end| singular.ends_with(end));
    match singular.strip_suffix('y') {
        Some(stem) if !vowel_before_y => format!("{stem}ies"),
        _ if ["s", "x", "z", "ch", "sh"].iter().any(|end| singular.ends_with(end)) => format!("{singular}es"),
        _ => format!("{singular}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_kind_gets_a_definition_and_a_builtin_group_does_not() {
        let made = definition("cilium.io/v2", "CiliumNetworkPolicy", true).unwrap();
        assert_eq!(made["metadata"]["name"], "ciliumnetworkpolicies.cilium.io");
        assert_eq!(made["spec"]["scope"], "Namespaced");
        for fixed in ["v1", "apps/v1beta1", "networking.k8s.io/v1beta1"] {
            assert_eq!(definition(fixed, "Thing", true), None, "{fixed}");
        }
        let words = ["gateway", "ingressclass", "mesh", "index"].map(plural);
        assert_eq!(words, ["gateways", "ingressclasses", "meshes", "indexes"]);
    }

    #[test]
    fn discovery_leaves_out_subresources() {
        let list = json!({"resources": [
            {"name": "pods", "kind": "Pod", "namespaced": true},
            {"name": "pods/status", "kind": "Pod", "namespaced": true},
            {"name": "nodes", "kind": "Node", "namespaced": false},
            {"kind": "Broken"},
        ]});
        let known = kinds("/api/v1", &list);
        assert_eq!(known.len(), 2);
        assert_eq!(known["Pod"].collection(Some("shop")), "/api/v1/namespaces/shop/pods");
        assert_eq!(known["Node"].collection(None), "/api/v1/nodes");
    }
}
