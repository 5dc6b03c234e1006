use std::collections::BTreeMap;
use std::path::Path;

use futures_util::StreamExt as _;
use futures_util::stream;
use serde_json::Value;
use weft_store::{Api, Error};

use super::{NodeStatus, NotReady, PodStatus, ServiceStatus, Status};
use crate::check::{items, not_ready};
use crate::config::LabConfig;

/// Lists asked for at the same time.
const PARALLEL: usize = 16;
/// Kinds that act: the lab does what they say.
const ACTING: &[&str] = &[
    "Node",
    "Pod",
    "Namespace",
    "Service",
    "EndpointSlice",
    "Endpoints",
    "Deployment",
    "ReplicaSet",
    "StatefulSet",
    "DaemonSet",
    "Job",
    "CustomResourceDefinition",
    "Network",
    "IPPool",
    "IPBlock",
    "LoadBalancerPool",
];
/// Kinds that are data: to be stored is all they ask for.
const DATA: &[&str] = &[
    "ConfigMap",
    "Secret",
    "ServiceAccount",
    "Role",
    "RoleBinding",
    "ClusterRole",
    "ClusterRoleBinding",
    "PriorityClass",
    "RuntimeClass",
    "StorageClass",
];
/// Kinds that the cluster itself writes, of no interest here.
const OWN: &[&str] = &["Event", "Lease", "ControllerRevision", "APIService", "ComponentStatus"];
/// Workloads whose status says how far they are, with their path.
const WORKLOADS: &[(&str, &str)] = &[
    ("deployment", "/apis/apps/v1/deployments"),
    ("replicaset", "/apis/apps/v1/replicasets"),
    ("statefulset", "/apis/apps/v1/statefulsets"),
    ("daemonset", "/apis/apps/v1/daemonsets"),
    ("job", "/apis/batch/v1/jobs"),
];

/// Reads the lab's state from its API and from its agents' status files. With `all` it counts
/// every kind the server has; without, only what readiness hangs on, which is quicker.
pub async fn collect(api: &Api, config: &LabConfig, state: &Path, all: bool) -> Result<Status, Error> {
    let (nodes, pods) = tokio::try_join!(api.list("/api/v1/nodes"), api.list("/api/v1/pods"))?;
    let mut status = Status { lab: config.name.clone(), ..Status::default() };
    add_nodes(&mut status, config, &nodes, state);
    add_pods(&mut status, &pods);
    for (kind, path) in WORKLOADS {
        match api.list(path).await {
            Ok(list) => items(&list).iter().for_each(|object| add_workload(&mut status, kind, object)),
            Err(error) if error.not_found() => {}
            Err(error) => return Err(error),
        }
    }
    if all {
        add_services(&mut status, &api.list("/api/v1/services").await?);
        add_counts(&mut status, api).await?;
    }
    status.ready = status.not_ready.is_empty();
    Ok(status)
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn texts(object: &Value, pointer: &str) -> Vec<String> {
    let list = object.pointer(pointer).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn array<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

pub(super) fn add_nodes(status: &mut Status, config: &LabConfig, nodes: &Value, state: &Path) {
    for spec in config.node_specs() {
        let found = items(nodes).iter().find(|object| text(object, "/metadata/name") == spec.name);
        let mut node = NodeStatus {
            name: spec.name.clone(),
            rack: spec.rack,
            addresses: spec.ips().iter().map(ToString::to_string).collect(),
            pod_cidrs: found.map(|object| texts(object, "/spec/podCIDRs")).unwrap_or_default(),
            ..NodeStatus::default()
        };
        let file = state.join("node").join(&spec.name).join("agent/status.json");
        let agent = std::fs::read(file).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok());
        add_agent(&mut node, agent.as_ref());
        let why = found.map_or_else(|| Some("it has no Node object yet".to_owned()), node_condition);
        let why = why.or_else(|| (node.agent != "ready").then(|| format!("its agent: {}", node.agent)));
        node.ready = why.is_none();
        let object = format!("node/{}", spec.name);
        let entry = |why, settled| NotReady { object: object.clone(), why, settled };
        let refused = node.refused.iter().map(|(peer, reason)| format!("refused peer {peer}: {reason}"));
        let refused: Vec<String> = refused.collect();
        status.not_ready.extend(why.map(|why| entry(why, false)));
        status.not_ready.extend(refused.into_iter().map(|why| entry(why, true)));
        status.nodes.push(node);
    }
}

fn node_condition(object: &Value) -> Option<String> {
    let ready = array(object, "/status/conditions").iter().find(|c| text(c, "/type") == "Ready");
    match ready {
        Some(ready) if text(ready, "/status") == "True" => None,
        Some(ready) => Some(text(ready, "/message").to_owned()),
        None => Some("nobody has reported on it yet".into()),
    }
}

fn add_agent(node: &mut NodeStatus, agent: Option<&Value>) {
    let Some(agent) = agent else {
        node.agent = "no status".into();
        return;
    };
    let stale = text(agent, "/staleSince");
    node.agent = match agent.get("ready").and_then(Value::as_bool) {
        Some(true) if stale.is_empty() => "ready".into(),
        Some(true) => format!("stale since {stale}"),
        _ => "not ready".into(),
    };
    for peer in array(agent, "/peers") {
        if peer.get("programmed").and_then(Value::as_bool) == Some(true) {
            node.peers += 1;
        } else {
            node.refused.insert(text(peer, "/node").to_owned(), text(peer, "/reason").to_owned());
        }
    }
    node.repairs = agent.pointer("/repairs/count").and_then(Value::as_u64).unwrap_or(0);
    node.errors = texts(agent, "/errors");
}

pub(super) fn add_pods(status: &mut Status, pods: &Value) {
    for object in items(pods) {
        let pod = pod(object);
        if let Some(why) = &pod.why {
            let object = format!("{}/{}", pod.namespace, pod.name);
            status.not_ready.push(NotReady { object, why: why.clone(), settled: false });
        }
        status.pods.push(pod);
    }
    status.pods.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
}

fn pod(object: &Value) -> PodStatus {
    let terminating = object.pointer("/metadata/deletionTimestamp").is_some_and(|t| !t.is_null());
    let phase = match text(object, "/status/phase") {
        _ if terminating => "Terminating",
        "" => "Pending",
        phase => phase,
    };
    let why = match phase {
        "Succeeded" => None,
        "Terminating" => Some("it is being deleted".into()),
        "Failed" => Some(not_ready(object).unwrap_or_else(|| "it failed".into())),
        _ => not_ready(object),
    };
    let mut ips: Vec<String> =
        array(object, "/status/podIPs").iter().map(|ip| text(ip, "/ip").to_owned()).collect();
    if ips.is_empty() && !text(object, "/status/podIP").is_empty() {
        ips.push(text(object, "/status/podIP").to_owned());
    }
    let ports = array(object, "/spec/containers").iter().flat_map(|c| array(c, "/ports"));
    PodStatus {
        namespace: text(object, "/metadata/namespace").to_owned(),
        name: text(object, "/metadata/name").to_owned(),
        node: text(object, "/spec/nodeName").to_owned(),
        ips,
        phase: phase.to_owned(),
        ready: why.is_none(),
        host_network: object.pointer("/spec/hostNetwork").and_then(Value::as_bool).unwrap_or(false),
        ports: ports.map(|port| port_text(port, "containerPort")).collect(),
        why,
    }
}

fn port_text(port: &Value, key: &str) -> String {
    let number = port.get(key).and_then(Value::as_u64).unwrap_or(0);
    format!("{number}/{}", port.get("protocol").and_then(Value::as_str).unwrap_or("TCP"))
}

/// A workload whose pods are not all there would otherwise look ready before they are made.
pub(super) fn add_workload(status: &mut Status, kind: &str, object: &Value) {
    let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_u64);
    // Kubernetes notes no generation in a Job, but when it was first looked at.
    let job_seen = kind == "job" && !text(object, "/status/startTime").is_empty();
    if !job_seen && number("/status/observedGeneration") < number("/metadata/generation") {
        return push(status, kind, object, "its controller has not looked at it yet".into());
    }
    let (wanted, ready) = match kind {
        "daemonset" => (number("/status/desiredNumberScheduled"), number("/status/numberReady")),
        "job" => return,
        _ => (number("/spec/replicas").or(Some(1)), number("/status/readyReplicas")),
    };
    let (wanted, ready) = (wanted.unwrap_or(0), ready.unwrap_or(0));
    // A ReplicaSet of a Deployment is told by the Deployment.
    let owned = !array(object, "/metadata/ownerReferences").is_empty();
    if ready < wanted && !owned {
        push(status, kind, object, format!("{ready} of {wanted} pods are ready"));
    }
}

fn push(status: &mut Status, kind: &str, object: &Value, why: String) {
    let (namespace, name) = (text(object, "/metadata/namespace"), text(object, "/metadata/name"));
    status.not_ready.push(NotReady { object: format!("{kind} {namespace}/{name}"), why, settled: false });
}

pub(super) fn add_services(status: &mut Status, services: &Value) {
    let service = |object: &Value| ServiceStatus {
        namespace: text(object, "/metadata/namespace").to_owned(),
        name: text(object, "/metadata/name").to_owned(),
        kind: Some(text(object, "/spec/type")).filter(|t| !t.is_empty()).unwrap_or("ClusterIP").to_owned(),
        cluster_ip: text(object, "/spec/clusterIP").to_owned(),
        ports: array(object, "/spec/ports").iter().map(|port| port_text(port, "port")).collect(),
    };
    status.services =
        items(services).iter().filter(|o| !made_by_cluster("Service", o)).map(service).collect();
    status.services.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
}

/// What every cluster has from the start.
fn made_by_cluster(kind: &str, object: &Value) -> bool {
    let name = text(object, "/metadata/name");
    let namespace = text(object, "/metadata/namespace");
    match kind {
        "Service" => namespace == "default" && name == "kubernetes",
        // Those that follow from Services are the controllers'.
        "Endpoints" | "EndpointSlice" => {
            let labels = object.pointer("/metadata/labels");
            let managed = |key: &str| labels.is_some_and(|labels| labels.get(key).is_some());
            (namespace == "default" && name == "kubernetes")
                || managed("endpointslice.kubernetes.io/managed-by")
                || managed("endpoints.kubernetes.io/managed-by")
        }
        "Lease" => namespace == "kube-node-lease" || namespace == "kube-system",
        "ConfigMap" => name == "kube-root-ca.crt",
        "ServiceAccount" => name == "default",
        "PriorityClass" => name.starts_with("system-"),
        "ClusterRole" | "ClusterRoleBinding" | "Role" | "RoleBinding" => name.starts_with("system:"),
        _ => false,
    }
}

async fn add_counts(status: &mut Status, api: &Api) -> Result<(), Error> {
    let kinds = kinds(api).await?;
    let counts = stream::iter(kinds)
        .map(|(kind, path)| async move {
            let count = match api.list(&path).await {
                Ok(list) => items(&list).iter().filter(|object| !made_by_cluster(&kind, object)).count(),
                // A definition that was removed a moment ago.
                Err(_) => 0,
            };
            (kind, count)
        })
        .buffer_unordered(PARALLEL)
        .collect::<BTreeMap<String, usize>>()
        .await;
    for (kind, count) in counts {
        let data = DATA.contains(&kind.as_str());
        let place = if data { &mut status.stored } else { &mut status.not_acting_yet };
        if count > 0 {
            place.insert(kind, count);
        }
    }
    Ok(())
}

/// Every kind that can be listed and that may hold something to tell, with its path: each group
/// in its preferred version.
async fn kinds(api: &Api) -> Result<BTreeMap<String, String>, Error> {
    let mut roots = vec!["/api/v1".to_owned()];
    let groups = api.get("/apis").await?;
    for group in array(&groups, "/groups") {
        roots.push(format!("/apis/{}", text(group, "/preferredVersion/groupVersion")));
    }
    let mut found = BTreeMap::new();
    let lists = stream::iter(roots).map(|root| async move { (api.get(&root).await, root) });
    let lists: Vec<_> = lists.buffered(PARALLEL).collect().await;
    for (list, root) in lists {
        let list = list?;
        for resource in array(&list, "/resources") {
            let (name, kind) = (text(resource, "/name"), text(resource, "/kind"));
            let listable = texts(resource, "/verbs").iter().any(|verb| verb == "list");
            let known = ACTING.contains(&kind) || OWN.contains(&kind);
            if listable && !known && !name.contains('/') {
                found.entry(kind.to_owned()).or_insert_with(|| format!("{root}/{name}"));
            }
        }
    }
    Ok(found)
}
