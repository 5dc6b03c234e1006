//! The roles and bindings that every cluster has from its start.

use serde_json::{Value, json};

use super::rule::{Rule, beyond};
use crate::error::ApiError;
use crate::kinds;
use crate::registry::{Part, Registry};
use crate::resource::Resource;

const READ: &str = "get list watch";
const WRITE: &str = "create delete deletecollection patch update";
const FULL: &str = "create delete deletecollection get list patch update watch";
const AGGREGATE: &str = "rbac.authorization.k8s.io/aggregate-to-";

/// Groups (`core` for the empty one), resources and verbs, each as words; or `paths`, paths and verbs.
type Words = (&'static str, &'static str, &'static str);

struct Role {
    name: &'static str,
    /// The role that gathers its rules.
    into: &'static str,
    rules: &'static [Words],
}

const fn role(name: &'static str, into: &'static str, rules: &'static [Words]) -> Role {
    Role { name, into, rules }
}

const ROLES: &[Role] = &[
    role("cluster-admin", "", &[("*", "*", "*"), ("paths", "*", "*")]),
    role(
        "system:aggregate-to-admin",
        "admin",
        &[
            ("authorization.k8s.io", "localsubjectaccessreviews", "create"),
            ("rbac.authorization.k8s.io", "rolebindings roles", FULL),
        ],
    ),
    role(
        "system:aggregate-to-edit",
        "edit",
        &[
            ("core", "secrets", READ),
            ("core", "serviceaccounts", "impersonate"),
            ("core", "pods", WRITE),
            ("core", "pods/eviction", "create"),
            (
                "core",
                "configmaps events persistentvolumeclaims replicationcontrollers replicationcontrollers/scale secrets serviceaccounts services",
                WRITE,
            ),
            ("core", "serviceaccounts/token", "create"),
            (
                "apps",
                "daemonsets deployments deployments/scale replicasets replicasets/scale statefulsets statefulsets/scale",
                WRITE,
            ),
            ("autoscaling", "horizontalpodautoscalers", WRITE),
            ("batch", "cronjobs jobs", WRITE),
            ("policy", "poddisruptionbudgets", WRITE),
            ("networking.k8s.io", "ingresses networkpolicies", WRITE),
            ("coordination.k8s.io", "leases", FULL),
        ],
    ),
    role(
        "system:aggregate-to-view",
        "view",
        &[
            (
                "core",
                "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods replicationcontrollers replicationcontrollers/scale serviceaccounts services services/status",
                READ,
            ),
            (
                "core",
                "bindings events limitranges namespaces/status pods/log pods/status replicationcontrollers/status resourcequotas resourcequotas/status",
                READ,
            ),
            ("core", "namespaces", READ),
            ("discovery.k8s.io", "endpointslices", READ),
            (
                "apps",
                "controllerrevisions daemonsets daemonsets/status deployments deployments/scale deployments/status replicasets replicasets/scale replicasets/status statefulsets statefulsets/scale statefulsets/status",
                READ,
            ),
            ("autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status", READ),
            ("batch", "cronjobs cronjobs/status jobs jobs/status", READ),
            ("policy", "poddisruptionbudgets poddisruptionbudgets/status", READ),
            ("networking.k8s.io", "ingresses ingresses/status networkpolicies", READ),
        ],
    ),
    role(
        "system:auth-delegator",
        "",
        &[
            ("authentication.k8s.io", "tokenreviews", "create"),
            ("authorization.k8s.io", "subjectaccessreviews", "create"),
        ],
    ),
    role(
        "system:basic-user",
        "",
        &[
            ("authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews", "create"),
            ("authentication.k8s.io", "selfsubjectreviews", "create"),
        ],
    ),
    role(
        "system:discovery",
        "",
        &[(
            "paths",
            "/api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version /version/",
            "get",
        )],
    ),
    role(
        "system:kube-dns",
        "",
        &[("core", "endpoints services", "list watch"), ("discovery.k8s.io", "endpointslices", "list watch")],
    ),
    role(
        "system:kube-scheduler",
        "",
        &[
            ("core events.k8s.io", "events", "create patch update"),
            ("coordination.k8s.io", "leases", "create get list update watch"),
            (
                "core",
                "nodes namespaces replicationcontrollers services persistentvolumeclaims persistentvolumes",
                READ,
            ),
            ("core", "pods", "delete get list watch"),
            ("core", "bindings pods/binding", "create"),
            ("core", "pods/status", "patch update"),
            ("apps", "replicasets statefulsets", READ),
            ("policy", "poddisruptionbudgets", READ),
        ],
    ),
    role(
        "system:monitoring",
        "",
        &[("paths", "/healthz /healthz/* /livez /livez/* /metrics /metrics/slis /readyz /readyz/*", "get")],
    ),
    role(
        "system:node",
        "",
        &[
            ("authentication.k8s.io", "tokenreviews", "create"),
            ("authorization.k8s.io", "localsubjectaccessreviews subjectaccessreviews", "create"),
            ("core", "services namespaces", READ),
            ("discovery.k8s.io", "endpointslices", READ),
            ("networking.k8s.io", "networkpolicies", READ),
            ("core", "nodes", "create get list patch update watch"),
            ("core", "nodes/status", "patch update"),
            ("core events.k8s.io", "events", "create patch update"),
            ("core", "pods", "delete get list watch"),
            ("core", "pods/status", "patch update"),
            ("core", "pods/eviction serviceaccounts/token", "create"),
            ("core", "configmaps secrets", READ),
            ("coordination.k8s.io", "leases", "create delete get patch update"),
        ],
    ),
    role(
        "system:node-proxier",
        "",
        &[
            ("core", "services", "list watch"),
            ("core", "nodes", "get list watch"),
            ("core events.k8s.io", "events", "create patch update"),
            ("discovery.k8s.io", "endpointslices", "list watch"),
        ],
    ),
    role("system:public-info-viewer", "", &[("paths", "/healthz /livez /readyz /version /version/", "get")]),
    role(
        "system:service-account-issuer-discovery",
        "",
        &[("paths", "/.well-known/openid-configuration /openid/v1/jwks", "get")],
    ),
];

/// Roles that only gather, and into which they go themselves.
const GATHERING: &[(&str, &str)] = &[("admin", ""), ("edit", "admin"), ("view", "edit")];

/// Cluster-wide bindings: the role, and the group or user that has it.
const BINDINGS: &[(&str, &[(&str, &str)])] = &[
    ("cluster-admin", &[("Group", "system:masters")]),
    ("system:basic-user", &[("Group", "system:authenticated")]),
    ("system:discovery", &[("Group", "system:authenticated")]),
    ("system:kube-dns", &[("ServiceAccount", "kube-dns")]),
    ("system:kube-scheduler", &[("User", "system:kube-scheduler")]),
    ("system:monitoring", &[("Group", "system:monitoring")]),
    // The node authorizer decides on nodes; the role is there to be read, and to be bound to others.
    ("system:node", &[]),
    ("system:node-proxier", &[("User", "system:kube-proxy")]),
    ("system:public-info-viewer", &[("Group", "system:authenticated"), ("Group", "system:unauthenticated")]),
    ("system:service-account-issuer-discovery", &[("Group", "system:serviceaccounts")]),
];

/// Makes what is missing, and adds the rules that a role of an older version lacks.
pub(super) async fn ensure(registry: &Registry) -> Result<(), ApiError> {
    let roles = ROLES.iter().map(of_rules).chain(GATHERING.iter().map(|(name, into)| of_others(name, into)));
    let roles = roles.map(|role| one(registry, &kinds::CLUSTER_ROLES, role));
    let bindings = BINDINGS.iter().map(|b| one(registry, &kinds::CLUSTER_ROLE_BINDINGS, binding(b)));
    // All at once, so that they share the store's commits.
    let all: Vec<_> = futures_util::future::join_all(roles).await;
    let more: Vec<_> = futures_util::future::join_all(bindings).await;
    all.into_iter().chain(more).collect()
}

async fn one(registry: &Registry, kind: &'static Resource, object: Value) -> Result<(), ApiError> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    match registry.get(kind, None, &name).await {
        Ok(found) if beyond(&Rule::all_of(&found), &Rule::all_of(&object)).is_empty() => return Ok(()),
        Ok(found) if found["metadata"]["annotations"][AUTO] != "true" => return Ok(()),
        Ok(_) => {
            let add = move |role: &mut Value| {
                add_rules(role, &object);
                Ok(())
            };
            registry.modify(kind, None, &name, Part::Whole, add).await?;
            return Ok(());
        }
        Err(_) => {}
    }
    match registry.create(kind, None, object).await {
        // Another server on the same store was first.
        Err(e) if e.reason != "AlreadyExists" => Err(e),
        _ => Ok(()),
    }
}

const AUTO: &str = "rbac.authorization.kubernetes.io/autoupdate";

fn add_rules(role: &mut Value, wanted: &Value) {
    let held = Rule::all_of(role);
    let lacks = |rule: &&Value| {
        let alone = json!({"rules": [rule]});
        !beyond(&held, &Rule::all_of(&alone)).is_empty()
    };
    let lacking: Vec<Value> =
        wanted["rules"].as_array().into_iter().flatten().filter(lacks).cloned().collect();
    match role["rules"].as_array_mut() {
        Some(rules) => rules.extend(lacking),
        None => role["rules"] = json!(lacking),
    }
}

fn metadata(name: &str, into: &str) -> Value {
    let mut labels = json!({"kubernetes.io/bootstrapping": "rbac-defaults"});
    if !into.is_empty() {
        labels[format!("{AGGREGATE}{into}")] = json!("true");
    }
    json!({"name": name, "labels": labels, "annotations": {AUTO: "true"}})
}

fn of_rules(role: &Role) -> Value {
    fn words(text: &str) -> Vec<&str> {
        text.split(' ').map(|w| if w == "core" { "" } else { w }).collect()
    }
    let rule = |(groups, resources, verbs): &Words| match *groups {
        "paths" => json!({"nonResourceURLs": words(resources), "verbs": words(verbs)}),
        _ => json!({"apiGroups": words(groups), "resources": words(resources), "verbs": words(verbs)}),
    };
    json!({"metadata": metadata(role.name, role.into), "rules": role.rules.iter().map(rule).collect::<Vec<_>>()})
}

fn of_others(name: &str, into: &str) -> Value {
    let selector = json!({"matchLabels": {format!("{AGGREGATE}{name}"): "true"}});
    json!({"metadata": metadata(name, into), "rules": [],
        "aggregationRule": {"clusterRoleSelectors": [selector]}})
}

fn binding((name, subjects): &(&str, &[(&str, &str)])) -> Value {
    let subject = |(kind, name): &(&str, &str)| match *kind {
        "ServiceAccount" => json!({"kind": kind, "name": name, "namespace": "kube-system"}),
        _ => json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}),
    };
    json!({"metadata": metadata(name, ""), "subjects": subjects.iter().map(subject).collect::<Vec<_>>(),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}})
}
