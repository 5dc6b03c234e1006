//! Flannel next door: this node's annotations, which flannel on other nodes reads, and what
//! flannel left on this host.

mod adopt;
mod iptables;
mod leftovers;

use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::sync::watch;
use weft_model::{FlannelAnnotation, FlannelAnnotations};
use weft_store::Api;

use crate::conditions::jittered;

pub use adopt::{Adoption, adopt};
pub(crate) use leftovers::Leftovers;

const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The annotations that flannel writes and we too; the others are an operator's.
const MANAGED: [FlannelAnnotation; 6] = [
    FlannelAnnotation::KubeSubnetManager,
    FlannelAnnotation::BackendType,
    FlannelAnnotation::BackendData,
    FlannelAnnotation::BackendV6Data,
    FlannelAnnotation::PublicIp,
    FlannelAnnotation::PublicIpv6,
];

/// What has to be written into this node's annotations: none for what is to be removed. Empty
/// when they are as wanted.
pub(crate) fn changes(wanted: &FlannelAnnotations, found: &FlannelAnnotations) -> Map<String, Value> {
    let differs = |annotation: &&FlannelAnnotation| wanted.get(annotation) != found.get(annotation);
    let change = |annotation: &FlannelAnnotation| (annotation.to_string(), json!(wanted.get(annotation)));
    MANAGED.iter().filter(differs).map(change).collect()
}

/// Writes what `changes` holds, and again whenever it changes. Ends when its sender is gone.
pub(crate) async fn keep(api: Api, node: String, mut changes: watch::Receiver<Map<String, Value>>) {
    let path = format!("/api/v1/nodes/{node}");
    while changes.changed().await.is_ok() {
        let mut pause = Duration::from_millis(250);
        loop {
            let now = changes.borrow_and_update().clone();
            if now.is_empty() {
                break;
            }
            // The status, as flannel does: agents may write no more of their nodes.
            match api.patch_status(&path, &json!({ "metadata": { "annotations": now } })).await {
                Ok(_) => break,
                Err(error) => tracing::warn!("write flannel's annotations of node {node}: {error}"),
            }
            tokio::time::sleep(jittered(pause)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use FlannelAnnotation as A;

    #[test]
    fn only_what_differs_is_written_and_an_operator_s_own_stays() {
        let wanted = [(A::BackendType, "vxlan".into()), (A::PublicIp, "10.0.0.1".into())].into();
        let found = [
            (A::BackendType, "vxlan".into()),
            (A::PublicIp, "10.0.0.2".into()),
            (A::BackendV6Data, "null".into()),
            (A::PublicIpOverwrite, "10.0.0.1".into()),
        ]
        .into();
        let wanted_changes = json!({
            "flannel.alpha.coreos.com/public-ip": "10.0.0.1",
            "flannel.alpha.coreos.com/backend-v6-data": null,
        });
        assert_eq!(Value::Object(changes(&wanted, &found)), wanted_changes);
        assert!(changes(&wanted, &wanted).is_empty());
    }
}
