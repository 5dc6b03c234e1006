//! The nodes as Kubernetes objects: registered as a kubelet does.

use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};
use weft_store::Api;

use crate::config::{LabConfig, Topology};
use crate::state::LabState;
use crate::underlay::Node;

/// How often a change is tried when others change the node at the same time.
const ATTEMPTS: u32 = 10;
/// Time to take the nodes out of an API server, less than `weft lab down` waits for.
const FAREWELL: Duration = Duration::from_secs(3);

/// Makes a Node object for every node, in order, so that their pod CIDRs are in order too.
pub(crate) async fn register(api: &Api, config: &LabConfig, nodes: &[Node]) -> anyhow::Result<()> {
    for node in nodes {
        let object = object(config, node);
        let made = api.create("/api/v1/nodes", &object).await;
        let made = made.with_context(|| format!("cannot register {}", node.spec.name))?;
        if made.pointer("/status/addresses").is_none() {
            let path = format!("/api/v1/nodes/{}", node.spec.name);
            api.patch_status(&path, &json!({"status": object["status"]})).await?;
        }
    }
    Ok(())
}

/// Takes the nodes out of an API server that stays when the lab goes.
pub(crate) async fn unregister(state: &LabState) -> anyhow::Result<()> {
    let config = state.info()?.context("the lab was removed")?.config;
    if config.kubeconfig.is_none() {
        return Ok(());
    }
    let all = async {
        let api = Api::from_kubeconfig(&state.kubeconfig_inside()).await?;
        for spec in config.node_specs() {
            // What was never registered is not missed.
            let _ = api.delete(&format!("/api/v1/nodes/{}", spec.name)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(FAREWELL, all).await.context("the API server does not answer: its nodes stay")?
}

fn object(config: &LabConfig, node: &Node) -> Value {
    let name = &node.spec.name;
    let mut labels = json!({"kubernetes.io/hostname": name, "kubernetes.io/os": "linux",
        "kubernetes.io/arch": architecture()});
    if config.topology != Topology::Flat {
        labels["topology.kubernetes.io/zone"] = format!("rack{}", node.spec.rack).into();
    }
    let addresses = node.spec.ips().into_iter().map(|ip| json!({"type": "InternalIP", "address": ip}));
    let hostname = json!({"type": "Hostname", "address": name});
    let addresses: Vec<Value> = addresses.chain([hostname]).collect();
    let room = json!({"pods": "110", "cpu": "64", "memory": "256Gi", "ephemeral-storage": "1Ti"});
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "status": {
            "addresses": addresses, "capacity": room, "allocatable": room,
            "conditions": [ready("False", "KubeletNotReady", "the node has no CNI configuration yet")],
            "nodeInfo": {"kubeletVersion": concat!("weft-lab-", env!("CARGO_PKG_VERSION")),
                "operatingSystem": "linux", "architecture": architecture()},
        },
    })
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn ready(status: &str, reason: &str, message: &str) -> Value {
    let now = now();
    json!({"type": "Ready", "status": status, "reason": reason, "message": message,
        "lastHeartbeatTime": now, "lastTransitionTime": now})
}

/// The time as Kubernetes writes it: UTC, whole seconds.
pub(crate) fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Sets the node's Ready condition; others write theirs into the same list.
pub(crate) async fn set_ready(api: &Api, node: &str) {
    for _ in 0..ATTEMPTS {
        match try_set_ready(api, node).await {
            Ok(()) => return,
            // The list changed between reading and writing.
            Err(error) => tracing::debug!("{node} cannot be set ready yet: {error}"),
        }
    }
    tracing::warn!("{node} cannot be set ready: others keep changing it");
}

async fn try_set_ready(api: &Api, node: &str) -> anyhow::Result<()> {
    let path = format!("/api/v1/nodes/{node}");
    let object = api.get(&path).await?;
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    let place = conditions.and_then(|all| all.iter().position(|one| one["type"] == "Ready"));
    let place = format!("/status/conditions/{}", place.context("it has no Ready condition")?);
    let condition = ready("True", "KubeletReady", "the node's CNI configuration is there");
    let patch = json!([
        {"op": "test", "path": format!("{place}/type"), "value": "Ready"},
        {"op": "replace", "path": place, "value": condition},
    ]);
    api.json_patch(&format!("{path}/status"), &patch).await?;
    Ok(())
}
