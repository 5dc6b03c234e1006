//! The Pod of a container that no API object declares. Pure.

use std::net::IpAddr;

use serde_json::{Value, json};
use weft_cni::protocol::record::Record;

/// The annotation that makes a Pod ours: the container's ID.
pub(super) const CONTAINER: &str = "weft.dev/container";
/// Says that the node runs it whatever the API says (a mirror pod).
const MIRROR: &str = "kubernetes.io/config.mirror";
/// Longest name that is a label's value too.
const LONGEST: usize = 63;

/// The name of the Pod: the container's, as Kubernetes spells names.
pub(super) fn name(record: &Record) -> String {
    let named = record.name.as_deref().map(spelt).filter(|name| !name.is_empty());
    named.unwrap_or_else(|| spelt(&record.container_id.chars().take(12).collect::<String>()))
}

fn spelt(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let spelt: String = name.chars().map(plain).collect();
    let start = spelt.trim_start_matches('-');
    start[..start.len().min(LONGEST)].trim_end_matches('-').to_owned()
}

/// What a Service finds several containers of one kind by: the name without a number at its end.
fn group(name: &str) -> &str {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let stem = stem.strip_suffix('-').unwrap_or(name);
    if stem.is_empty() { name } else { stem }
}

/// The object to create.
pub(super) fn object(record: &Record, node: &str) -> Value {
    let name = name(record);
    let mut labels = serde_json::Map::new();
    labels.insert("app.kubernetes.io/name".into(), group(&name).into());
    labels.insert("app.kubernetes.io/instance".into(), name.as_str().into());
    labels.extend(record.labels.iter().map(|(key, value)| (key.clone(), value.as_str().into())));
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": record.namespace,
            "labels": labels,
            "annotations": {
                MIRROR: record.container_id,
                "kubernetes.io/config.source": "weft-cni",
                CONTAINER: record.container_id,
            },
        },
        "spec": {
            "nodeName": node,
            "hostNetwork": false,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "enableServiceLinks": false,
            "automountServiceAccountToken": false,
            // It runs whatever becomes of the node.
            "tolerations": [{"operator": "Exists"}],
            "containers": [{"name": "container", "image": "unknown", "imagePullPolicy": "Never"}],
        },
    })
}

/// The addresses as a Pod's status lists them.
pub(super) fn addresses(ips: &[IpAddr]) -> Value {
    ips.iter().map(|ip| json!({ "ip": ip.to_string() })).collect()
}

/// The patch that says that it runs; `now` is RFC 3339.
pub(super) fn status(record: &Record, uid: &str, now: &str) -> Value {
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": now});
    let conditions: Vec<Value> =
        ["PodScheduled", "Initialized", "ContainersReady", "Ready"].into_iter().map(condition).collect();
    let container = json!({
        "name": "container", "image": "unknown", "imageID": "", "restartCount": 0, "ready": true, "started": true,
        "containerID": format!("cni://{}", record.container_id), "state": {"running": {"startedAt": now}},
    });
    json!({
        "metadata": {"uid": uid},
        "status": {
            "phase": "Running",
            "startTime": now,
            "podIP": record.ips.first().map(IpAddr::to_string),
            "podIPs": addresses(&record.ips),
            "conditions": conditions,
            "containerStatuses": [container],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str) -> Record {
        Record { container_id: "0a1b2c3d4e5f6a7b".into(), name: Some(name.into()), ..Record::default() }
    }

    #[test]
    fn names_are_spelt_as_kubernetes_does() {
        for (given, spelt) in [
            ("web", "web"),
            ("happy_Curie", "happy-curie"),
            ("_x_", "x"),
            ("..", "0a1b2c3d4e5f"),
            ("", "0a1b2c3d4e5f"),
            ("ä", "0a1b2c3d4e5f"),
        ] {
            assert_eq!(name(&record(given)), spelt, "{given}");
        }
        assert_eq!(name(&record(&format!("{}-x", "a".repeat(62)))).len(), 62);
        assert_eq!(["web-1", "web", "web2", "12", "a-b-10"].map(group), ["web", "web", "web2", "12", "a-b"]);
    }

    #[test]
    fn labels_of_the_network_go_before_those_of_the_name() {
        let mut record = record("web-1");
        record.labels.insert("app.kubernetes.io/name".into(), "shop".into());
        record.labels.insert("tier".into(), "front".into());
        let labels = &object(&record, "n")["metadata"]["labels"];
        assert_eq!(
            labels,
            &json!({"app.kubernetes.io/name": "shop", "app.kubernetes.io/instance": "web-1", "tier": "front"})
        );
    }
}
