//! What a node may do: read what its agent needs, and write what is its own.

use serde_json::Value;

use super::attributes::{Attributes, Place, Wanted};
use super::user::User;
use crate::registry::Registry;

/// The group of all nodes.
pub(crate) const NODES: &str = "system:nodes";
/// What a node's user name starts with.
pub(crate) const PREFIX: &str = "system:node:";
/// Where nodes have their leases.
pub(super) const LEASES: &str = "kube-node-lease";

/// Where Secrets of sessions of BGP are, where nothing is said.
const SESSIONS: &str = "weft-system";

const READ: &[&str] = &["get", "list", "watch"];

/// What every node may do, by group, resource and verbs. On which of the objects, [`super::restriction`]
/// says, which sees them; only names that decide alone are looked at here.
const RULES: &[(&str, &str, &[&str])] = &[
    ("", "nodes", READ),
    ("", "nodes", &["create", "update", "patch"]),
    ("", "nodes/status", &["get", "update", "patch"]),
    ("", "pods", READ),
    ("", "pods", &["create", "delete"]),
    ("", "pods/status", &["get", "update", "patch"]),
    ("", "pods/eviction", &["create"]),
    ("", "services", READ),
    ("", "namespaces", READ),
    ("", "events", &["create", "update", "patch"]),
    ("events.k8s.io", "events", &["create", "update", "patch"]),
    ("discovery.k8s.io", "endpointslices", READ),
    ("networking.k8s.io", "networkpolicies", READ),
    ("weft.dev", "networks", READ),
    ("weft.dev", "ippools", READ),
    ("weft.dev", "ipblocks", READ),
    ("weft.dev", "bgpconfigurations", READ),
    ("weft.dev", "bgppeers", READ),
    ("weft.dev", "bgpfilters", READ),
    // Nodes write one another's blocks: who borrows asks the owner there.
    ("weft.dev", "ipblocks", &["create", "update", "patch", "delete"]),
    ("authentication.k8s.io", "tokenreviews", &["create"]),
    ("authorization.k8s.io", "subjectaccessreviews", &["create"]),
    ("authorization.k8s.io", "localsubjectaccessreviews", &["create"]),
];

/// The node that a user is.
pub(crate) fn node_of(user: &User) -> Option<&str> {
    let name = user.name.strip_prefix(PREFIX).filter(|name| !name.is_empty())?;
    user.is_in(NODES).then_some(name)
}

/// Whether a user may as a node; the error is the reason, empty for who is none.
pub(super) fn allows(registry: &Registry, user: &User, asked: &Attributes) -> Result<(), String> {
    let Some(node) = node_of(user) else { return Err(String::new()) };
    let Wanted::Object(place) = &asked.wanted else { return Err(String::new()) };
    let (full, verb) = (place.full(), asked.verb.as_str());
    match (place.group.as_str(), full.as_str()) {
        ("", "secrets") if verb == "get" && signs_sessions(registry, place) => Ok(()),
        ("", "secrets" | "configmaps") => of_own_pod(registry, node, verb, place),
        ("", "serviceaccounts/token") => token_of_own_pod(registry, node, verb, place),
        ("coordination.k8s.io", "leases") => own_lease(node, verb, place),
        (group, full) => {
            let rule =
                |(g, r, verbs): &(&str, &str, &[&str])| *g == group && *r == full && verbs.contains(&verb);
            if RULES.iter().any(rule) { Ok(()) } else { Err(String::new()) }
        }
    }
}

fn own_lease(node: &str, verb: &str, place: &Place) -> Result<(), String> {
    if !["get", "create", "update", "patch", "delete"].contains(&verb) {
        return Err(format!("can only get, create, update, patch, or delete a node lease: verb {verb:?}"));
    }
    if place.namespace != LEASES {
        return Err(format!("can only access leases in the {LEASES:?} system namespace"));
    }
    // The name of a new lease is seen when it is written.
    if place.name != node && !(verb == "create" && place.name.is_empty()) {
        return Err("can only access node lease with the same name as the requesting node".to_owned());
    }
    Ok(())
}

fn of_own_pod(registry: &Registry, node: &str, verb: &str, place: &Place) -> Result<(), String> {
    if !READ.contains(&verb) || place.name.is_empty() {
        return Err("can only read resources of this type by name".to_owned());
    }
    let wanted = if place.resource == "secrets" { uses_secret } else { uses_config_map };
    related(registry, node, place, wanted)
}

fn token_of_own_pod(registry: &Registry, node: &str, verb: &str, place: &Place) -> Result<(), String> {
    if verb != "create" || place.name.is_empty() {
        return Err("can only create tokens for individual service accounts".to_owned());
    }
    related(registry, node, place, |pod, name| service_account(pod) == name)
}

/// Whether a pod of the node, in the object's namespace, uses the object.
fn related(
    registry: &Registry,
    node: &str,
    place: &Place,
    uses: impl Fn(&Value, &str) -> bool,
) -> Result<(), String> {
    let own = registry.pods_on(node, &place.namespace);
    if !place.namespace.is_empty() && own.iter().any(|pod| uses(&pod.parse(), &place.name)) {
        return Ok(());
    }
    Err(format!("no relationship found between node {node:?} and this object"))
}

/// Whether the Secret is one with which sessions of BGP are signed.
fn signs_sessions(registry: &Registry, place: &Place) -> bool {
    [("bgppeers", "password"), ("bgpconfigurations", "nodeMeshPassword")].into_iter().any(
        |(plural, field)| {
            let Some(kind) = registry.kind("weft.dev", "v1", plural) else { return false };
            let (objects, _) = registry.list(&kind, None);
            objects.iter().map(|object| &object["spec"][field]["secretKeyRef"]).any(|key| {
                let namespace = key["namespace"].as_str().unwrap_or(SESSIONS);
                key["name"] == *place.name && namespace == place.namespace
            })
        },
    )
}

/// The ServiceAccount that a pod runs as.
pub(super) fn service_account(pod: &Value) -> &str {
    pod["spec"]["serviceAccountName"].as_str().unwrap_or("default")
}

fn uses_secret(pod: &Value, name: &str) -> bool {
    let spec = &pod["spec"];
    each(&spec["imagePullSecrets"]).any(|s| s["name"] == name)
        || each(&spec["volumes"]).any(|v| {
            v["secret"]["secretName"] == name
                || each(&v["projected"]["sources"]).any(|s| s["secret"]["name"] == name)
        })
        || in_environment(spec, "secretRef", "secretKeyRef", name)
}

fn uses_config_map(pod: &Value, name: &str) -> bool {
    let spec = &pod["spec"];
    each(&spec["volumes"]).any(|v| {
        v["configMap"]["name"] == name
            || each(&v["projected"]["sources"]).any(|s| s["configMap"]["name"] == name)
    }) || in_environment(spec, "configMapRef", "configMapKeyRef", name)
}

fn in_environment(spec: &Value, whole: &str, key: &str, name: &str) -> bool {
    let lists = ["containers", "initContainers", "ephemeralContainers"];
    lists.iter().flat_map(|list| each(&spec[*list])).any(|container| {
        each(&container["envFrom"]).any(|from| from[whole]["name"] == name)
            || each(&container["env"]).any(|env| env["valueFrom"][key]["name"] == name)
    })
}

fn each(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_pod_uses_is_found_wherever_it_is_named() {
        let pod = json!({"spec": {
            "imagePullSecrets": [{"name": "pull"}],
            "volumes": [
                {"secret": {"secretName": "vol"}}, {"configMap": {"name": "cvol"}},
                {"projected": {"sources": [{"secret": {"name": "proj"}}, {"configMap": {"name": "cproj"}}]}},
            ],
            "initContainers": [{"envFrom": [{"secretRef": {"name": "from"}}, {"configMapRef": {"name": "cfrom"}}]}],
            "containers": [{"env": [
                {"valueFrom": {"secretKeyRef": {"name": "key"}}}, {"valueFrom": {"configMapKeyRef": {"name": "ckey"}}},
            ]}],
        }});
        for name in ["pull", "vol", "proj", "from", "key"] {
            assert!(uses_secret(&pod, name) && !uses_config_map(&pod, name), "{name}");
        }
        for name in ["cvol", "cproj", "cfrom", "ckey"] {
            assert!(uses_config_map(&pod, name) && !uses_secret(&pod, name), "{name}");
        }
        assert!(!uses_secret(&pod, "other") && !uses_secret(&json!({"spec": 1}), "x"));
        assert_eq!(service_account(&pod), "default");
    }

    #[test]
    fn a_node_is_one_by_name_and_group() {
        let nodes = || vec![NODES.to_owned()];
        assert_eq!(node_of(&User::known("system:node:a", nodes())), Some("a"));
        assert_eq!(node_of(&User::known("system:node:a", vec![])), None);
        assert_eq!(node_of(&User::known("system:node:", nodes())), None);
        assert_eq!(node_of(&User::known("a", nodes())), None);
    }

    #[tokio::test]
    async fn a_secret_is_read_that_signs_sessions_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::open(dir.path(), Default::default()).await.unwrap();
        crate::own::ensure(&registry).await.unwrap();
        let kind = registry.kind("weft.dev", "v1", "bgppeers").unwrap();
        let peer = |name: &str, key: Value| {
            json!({"apiVersion": "weft.dev/v1", "kind": "BGPPeer", "metadata": {"name": name},
                "spec": {"peerIP": "192.0.2.1", "password": {"secretKeyRef": key}}})
        };
        for (name, key) in [
            ("a", json!({"name": "here", "key": "k"})),
            ("b", json!({"name": "there", "namespace": "net", "key": "k"})),
        ] {
            registry.create(&kind, None, peer(name, key)).await.unwrap();
        }
        let signs = |namespace: &str, name: &str| {
            let place = Place { namespace: namespace.into(), name: name.into(), ..Place::default() };
            signs_sessions(&registry, &place)
        };
        assert!(signs("weft-system", "here") && signs("net", "there"));
        assert!(
            !signs("default", "here") && !signs("weft-system", "there") && !signs("weft-system", "other")
        );
    }

    #[test]
    fn leases_are_one_s_own() {
        let place = |namespace: &str, name: &str| Place {
            namespace: namespace.into(),
            name: name.into(),
            ..Place::default()
        };
        assert!(own_lease("a", "update", &place(LEASES, "a")).is_ok());
        assert!(own_lease("a", "create", &place(LEASES, "")).is_ok());
        for (verb, namespace, name) in
            [("update", LEASES, "b"), ("list", LEASES, ""), ("update", "default", "a"), ("get", LEASES, "")]
        {
            assert!(own_lease("a", verb, &place(namespace, name)).is_err(), "{verb} {namespace} {name}");
        }
    }
}
