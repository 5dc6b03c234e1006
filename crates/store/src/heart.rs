//! A node's Lease: whoever renews it says that the node lives.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{Api, Error};

/// How often a node's Lease is renewed, as a kubelet does. After 40 seconds without renewal others
/// take the node for dead.
pub const HEARTBEAT: Duration = Duration::from_secs(10);
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";

/// Renews the Lease of a node, or makes it. Fails where there is no such node.
pub async fn renew_node_lease(api: &Api, node: &str) -> Result<(), Error> {
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
    let spec = json!({"holderIdentity": node, "leaseDurationSeconds": 40, "renewTime": now});
    match api.merge_patch(&format!("{LEASES}/{node}"), &json!({"spec": spec})).await {
        Err(error) if error.not_found() => {}
        renewed => return renewed.map(drop),
    }
    let object = api.get(&format!("/api/v1/nodes/{node}")).await?;
    let uid = object.pointer("/metadata/uid").cloned().unwrap_or(Value::Null);
    let owner = json!([{"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid}]);
    let metadata = json!({"name": node, "namespace": "kube-node-lease", "ownerReferences": owner});
    let lease =
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec});
    api.create(LEASES, &lease).await.map(drop)
}
