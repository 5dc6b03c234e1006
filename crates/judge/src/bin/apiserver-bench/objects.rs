//! What the servers are filled with.

use serde_json::{Value, json};
use weft_judge::{Client, Request};

use crate::server::Server;

/// Connections that write at the same time.
pub(crate) const CLIENTS: usize = 32;

/// A ConfigMap.
pub(crate) fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"},
        "data": {"colour": "green"}})
}

/// A pod as a Deployment's, bound to a node.
pub(crate) fn pod(number: usize, nodes: usize) -> Value {
    let app = format!("app-{}", number % 1000);
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("{app}-5d8f7c9b6-{number:06}"), "namespace": "default",
            "labels": {"app": app, "pod-template-hash": "5d8f7c9b6"}},
        "spec": {"nodeName": node_name(number % nodes), "containers": [{"name": "web", "image": "registry.example/web:1.27",
            "ports": [{"name": "http", "containerPort": 8080}],
            "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
            "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}}}]}})
}

/// The status that a node reports of it.
pub(crate) fn pod_status(number: usize) -> Value {
    let ip = format!("10.{}.{}.{}", number >> 16 & 255, number >> 8 & 255, number & 255);
    let now = "2026-01-01T00:00:00Z";
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": now});
    let conditions: Vec<Value> =
        ["PodScheduled", "Initialized", "ContainersReady", "Ready"].into_iter().map(condition).collect();
    json!({"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "hostIP": "10.168.1.1", "startTime": now,
        "conditions": conditions, "containerStatuses": [{"name": "web", "ready": true, "started": true, "restartCount": 0,
            "image": "registry.example/web:1.27", "imageID": "", "state": {"running": {"startedAt": now}}}]}})
}

pub(crate) fn node_name(number: usize) -> String {
    format!("node-{number:05}")
}

/// A node.
pub(crate) fn node(number: usize) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node_name(number),
            "labels": {"kubernetes.io/hostname": node_name(number), "kubernetes.io/os": "linux"}},
        "status": {"capacity": {"cpu": "64", "memory": "256Gi", "pods": "110"},
            "addresses": [{"type": "InternalIP", "address": format!("10.168.{}.{}", number >> 8, number & 255)}],
            "conditions": [{"type": "Ready", "status": "True"}]}})
}

/// A Service.
pub(crate) fn service(number: usize) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("s-{number}"), "namespace": "default"},
        "spec": {"selector": {"app": format!("app-{}", number % 1000)}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}})
}

/// Sends the requests of every number below `count`, from [`CLIENTS`] connections.
pub(crate) async fn fill(
    server: &Server,
    count: usize,
    requests: fn(usize) -> Vec<Request>,
) -> anyhow::Result<()> {
    let mut tasks = tokio::task::JoinSet::new();
    for first in 0..CLIENTS {
        let client = server.connect().await?;
        tasks.spawn(write(client, (first..count).step_by(CLIENTS).collect(), requests));
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

async fn write(
    mut client: Client,
    numbers: Vec<usize>,
    requests: fn(usize) -> Vec<Request>,
) -> anyhow::Result<()> {
    for request in numbers.into_iter().flat_map(requests) {
        let answer = client.send(&request).await?;
        anyhow::ensure!(answer.code < 300, "{} {}: {}", request.method, request.path, answer.value());
    }
    Ok(())
}

/// A pod and its status.
pub(crate) fn running_pod(number: usize, nodes: usize) -> Vec<Request> {
    let pod = pod(number, nodes);
    let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let mut status =
        Request::json("PATCH", format!("/api/v1/namespaces/default/pods/{name}/status"), &pod_status(number));
    status.headers = vec![("content-type".into(), "application/merge-patch+json".into())];
    vec![Request::json("POST", "/api/v1/namespaces/default/pods", &pod), status]
}
