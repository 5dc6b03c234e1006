//! What the servers are filled with.

use serde_json::{Value, json};
use weft_judge::{Answer, Client, Request};

use crate::server::Server;

/// Connections that write at the same time.
pub(crate) const CLIENTS: usize = 32;

/// A ConfigMap.
pub(crate) fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"},
        "data": {"colour": "green"}})
}

/// An app: a Service, a ReplicaSet and its pods.
pub(crate) fn app_name(app: usize) -> String {
    format!("app-{app:05}")
}

/// A pod as a ReplicaSet makes it and the admission completes it, bound to a node; 4 to 5 KB as it is stored.
pub(crate) fn pod(app: usize, number: usize, node: usize, owner: Option<&Value>) -> Value {
    let name = app_name(app);
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": pod_name(app, number), "generateName": format!("{name}-5d8f7c9b6-"),
            "labels": {"app": name, "pod-template-hash": "5d8f7c9b6"}},
        "spec": {"nodeName": node_name(node), "serviceAccountName": "default",
            "volumes": [{"name": "config", "configMap": {"name": "config"}}],
            "tolerations": [
                {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
                {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}],
            "containers": [{"name": "web", "image": "registry.example/web:1.27",
                "ports": [{"name": "http", "containerPort": 8080}],
                "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
                "volumeMounts": [{"name": "config", "mountPath": "/etc/web"}],
                "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}}}]}});
    if let Some(set) = owner {
        let meta = &set["metadata"];
        pod["metadata"]["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet",
            "name": meta["name"], "uid": meta["uid"], "controller": true, "blockOwnerDeletion": true}]);
    }
    pod
}

pub(crate) fn pod_name(app: usize, number: usize) -> String {
    format!("{}-5d8f7c9b6-{number:05}", app_name(app))
}

/// The status that a node reports of a pod.
pub(crate) fn pod_status(address: usize, ready: bool) -> Value {
    let ip = format!("10.{}.{}.{}", address >> 16 & 255, address >> 8 & 255, address & 255);
    let now = "2026-01-01T00:00:00Z";
    let condition = |kind: &str| {
        let fine = ready || !kind.ends_with("Ready");
        json!({"type": kind, "status": if fine { "True" } else { "False" }, "lastProbeTime": null, "lastTransitionTime": now})
    };
    let kinds = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];
    let conditions: Vec<Value> = kinds.into_iter().map(condition).collect();
    json!({"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "hostIP": "10.168.1.1",
        "hostIPs": [{"ip": "10.168.1.1"}], "startTime": now, "conditions": conditions,
        "containerStatuses": [{"name": "web", "ready": ready, "started": true, "restartCount": 0,
            "image": "registry.example/web:1.27", "containerID": format!("containerd://{address:064x}"),
            "imageID": format!("registry.example/web@sha256:{:064x}", 7), "lastState": {}, "state": {"running": {"startedAt": now}}}]}})
}

pub(crate) fn node_name(number: usize) -> String {
    format!("node-{number:05}")
}

/// A node as its kubelet reports it.
pub(crate) fn node(number: usize) -> Value {
    let now = "2026-01-01T00:00:00Z";
    let condition = |(kind, status, reason): (&str, &str, &str)| {
        json!({"type": kind, "status": status, "reason": reason, "message": format!("kubelet reports {reason}"),
            "lastHeartbeatTime": now, "lastTransitionTime": now})
    };
    let conditions = [
        ("MemoryPressure", "False", "KubeletHasSufficientMemory"),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID"),
        ("Ready", "True", "KubeletReady"),
    ];
    let room = json!({"cpu": "64", "memory": "256Gi", "pods": "110", "ephemeral-storage": "100Gi"});
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node_name(number),
            "labels": {"kubernetes.io/hostname": node_name(number), "kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64", "topology.kubernetes.io/zone": format!("zone-{}", number % 3)}},
        "status": {"capacity": room, "allocatable": room,
            "addresses": [{"type": "InternalIP", "address": format!("10.168.{}.{}", number >> 8, number & 255)},
                {"type": "Hostname", "address": node_name(number)}],
            "conditions": conditions.map(condition),
            "nodeInfo": {"architecture": "amd64", "operatingSystem": "linux", "kubeletVersion": "v1.37.1",
                "kernelVersion": "6.18.0", "osImage": "Debian GNU/Linux 13", "containerRuntimeVersion": "containerd://2.1.0",
                "machineID": format!("{number:032x}"), "systemUUID": format!("{number:032x}"), "bootID": format!("{number:032x}"),
                "kubeProxyVersion": ""}}})
}

/// An app's Service.
pub(crate) fn service(app: usize) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": app_name(app), "labels": {"app": app_name(app)}},
        "spec": {"selector": {"app": app_name(app)}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}})
}

/// The set that owns an app's pods.
pub(crate) fn replica_set(app: usize, replicas: usize) -> Value {
    let labels = json!({"app": app_name(app), "pod-template-hash": "5d8f7c9b6"});
    json!({"apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {"name": format!("{}-5d8f7c9b6", app_name(app)), "labels": labels},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
            "spec": {"containers": [{"name": "web", "image": "registry.example/web:1.27"}]}}}})
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
        done(&mut client, &request).await?;
    }
    Ok(())
}

/// Sends a request that must succeed.
pub(crate) async fn done(client: &mut Client, request: &Request) -> anyhow::Result<Answer> {
    let answer = client.send(request).await?;
    anyhow::ensure!(answer.code < 300, "{} {}: {}", request.method, request.path, answer.value());
    Ok(answer)
}

/// Writes the status of a pod, as its node does.
pub(crate) fn report_status(path: &str, status: &Value) -> Request {
    let mut status = Request::json("PATCH", format!("{path}/status?fieldManager=kubelet"), status);
    status.headers = vec![("content-type".into(), "application/merge-patch+json".into())];
    status
}

/// A pod without an owner and its status, in the namespace `default`.
pub(crate) fn running_pod(number: usize, nodes: usize) -> Vec<Request> {
    const PODS: &str = "/api/v1/namespaces/default/pods";
    let (app, number_in_app) = (number / 15, number % 15);
    let made = Request::json("POST", PODS, &pod(app, number_in_app, number % nodes, None));
    let path = format!("{PODS}/{}", pod_name(app, number_in_app));
    vec![made, report_status(&path, &pod_status(number, true))]
}
