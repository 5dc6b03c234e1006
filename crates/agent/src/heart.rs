//! The sign of life of a node that has no kubelet: its Lease, and its Ready condition. Where a kubelet
//! reports the node, that is the kubelet's to tell.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use weft_store::{Api, Error, HEARTBEAT, renew_node_lease};

use crate::conditions::{self, Condition, Report};
use crate::host;

/// How often a node with a kubelet is looked at again.
const KUBELET: Duration = Duration::from_secs(300);

/// Tells that the node lives, for good.
pub(crate) async fn keep(api: Api, node: String, host: Arc<str>) {
    loop {
        let pause = match beat(&api, &node, &host).await {
            Ok(Reporter::Kubelet) => KUBELET,
            Ok(Reporter::Agent | Reporter::OtherHost) => HEARTBEAT,
            Err(error) => {
                tracing::debug!("tell that node {node} lives: {error}");
                HEARTBEAT
            }
        };
        tokio::time::sleep(conditions::jittered(pause)).await;
    }
}

/// Who tells that a node lives.
#[derive(Debug, PartialEq)]
pub(crate) enum Reporter {
    Kubelet,
    Agent,
    /// The agent of another host, which has the node's name.
    OtherHost,
}

async fn beat(api: &Api, node: &str, host: &str) -> Result<Reporter, Error> {
    let object = api.get(&format!("/api/v1/nodes/{node}")).await?;
    if reporter(&object) == Reporter::Kubelet {
        return Ok(Reporter::Kubelet);
    }
    if host::said(&object).is_some_and(|said| said != host) {
        return Ok(Reporter::OtherHost);
    }
    renew_node_lease(api, node).await?;
    let report = Report { conditions: vec![Condition::ready()], ..Report::default() };
    conditions::write_to(api, node, &object, &report, Timestamp::now()).await?;
    Ok(Reporter::Agent)
}

/// A kubelet tells its version with the first status that it reports.
pub(crate) fn reporter(node: &Value) -> Reporter {
    let version = node.pointer("/status/nodeInfo/kubeletVersion").and_then(Value::as_str);
    if version.unwrap_or_default().is_empty() { Reporter::Agent } else { Reporter::Kubelet }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_kubelet_is_known_by_its_version() {
        assert_eq!(
            reporter(&json!({"status": {"nodeInfo": {"kubeletVersion": "v1.34.0"}}})),
            Reporter::Kubelet
        );
        assert_eq!(reporter(&json!({"status": {"nodeInfo": {"kubeletVersion": ""}}})), Reporter::Agent);
        assert_eq!(reporter(&json!({"metadata": {"name": "bare"}})), Reporter::Agent);
    }
}
