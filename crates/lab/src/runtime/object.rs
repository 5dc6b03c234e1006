use std::collections::HashMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

/// A pod as a kubelet needs it (core/v1 Pod).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PodObject {
    pub(crate) metadata: Metadata,
    pub(crate) spec: Spec,
    pub(crate) status: Status,
    /// Why the rest of it cannot be read; then only its metadata and its node are known.
    #[serde(skip)]
    pub(crate) unreadable: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Metadata {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) uid: String,
    pub(crate) deletion_timestamp: Option<String>,
    /// How long it may take to end, in seconds.
    pub(crate) deletion_grace_period_seconds: Option<u64>,
    pub(crate) annotations: HashMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Spec {
    pub(crate) node_name: Option<String>,
    pub(crate) host_network: bool,
    pub(crate) containers: Vec<Container>,
    pub(crate) init_containers: Vec<Container>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Container {
    pub(crate) name: String,
    pub(crate) image: String,
    pub(crate) ports: Vec<Port>,
    pub(crate) restart_policy: Option<String>,
    lifecycle: Lifecycle,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Lifecycle {
    pre_stop: Handler,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Handler {
    sleep: Sleep,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Sleep {
    seconds: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Port {
    pub(crate) container_port: u16,
    pub(crate) host_port: u16,
    #[serde(rename = "hostIP")]
    pub(crate) host_ip: Option<String>,
    pub(crate) protocol: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Status {
    pub(crate) phase: Option<String>,
    pub(crate) start_time: Option<String>,
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Condition {
    reason: Option<String>,
}

/// A pod that the node runs already and tells the API of (a kubelet's mirror pods have it too).
const MIRROR: &str = "kubernetes.io/config.mirror";

impl PodObject {
    /// How long its containers serve on after its deletion: as long as the slowest of them sleeps before it
    /// stops (`lifecycle.preStop.sleep`).
    pub(crate) fn sleeps(&self) -> Duration {
        let all = self.spec.containers.iter().map(|container| container.lifecycle.pre_stop.sleep.seconds);
        Duration::from_secs(all.max().unwrap_or(0))
    }

    /// Whether the node runs it whatever the API says, so that nobody is to run it again.
    pub(crate) fn is_mirror(&self) -> bool {
        self.metadata.annotations.contains_key(MIRROR)
    }

    /// The pod; None for what is none, as a bookmark.
    pub(crate) fn parse(value: Value) -> Option<PodObject> {
        let pod = PodObject::deserialize(&value).or_else(|error| {
            let metadata = Metadata::deserialize(value.get("metadata").unwrap_or(&Value::Null))?;
            let node_name = value.pointer("/spec/nodeName").and_then(Value::as_str).map(str::to_owned);
            let spec = Spec { node_name, ..Spec::default() };
            Ok::<_, serde_json::Error>(PodObject {
                metadata,
                spec,
                unreadable: Some(error.to_string()),
                ..PodObject::default()
            })
        });
        let pod = pod.ok()?;
        // The UID becomes a file name.
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        let uid = &pod.metadata.uid;
        (!uid.is_empty() && uid.len() <= 64 && uid.bytes().all(plain)).then_some(pod)
    }

    pub(crate) fn has_finished(&self) -> bool {
        matches!(self.status.phase.as_deref(), Some("Succeeded" | "Failed"))
    }

    /// Whether others wrote that the pod is not ready, because its node was silent.
    pub(crate) fn was_taken_for_dead(&self) -> bool {
        self.status.conditions.iter().any(|one| one.reason.as_deref() == Some("NodeNotReady"))
    }

    /// `namespace/name`.
    pub(crate) fn key(&self) -> String {
        format!("{}/{}", self.metadata.namespace, self.metadata.name)
    }

    /// Its API path.
    pub(crate) fn path(&self) -> String {
        format!("/api/v1/namespaces/{}/pods/{}", self.metadata.namespace, self.metadata.name)
    }

    /// The containers that run for the pod's life: sidecars too.
    pub(crate) fn running_containers(&self) -> impl Iterator<Item = &Container> {
        let sidecars = self.spec.init_containers.iter();
        let sidecars = sidecars.filter(|one| one.restart_policy.as_deref() == Some("Always"));
        sidecars.chain(&self.spec.containers)
    }

    /// The ports its containers declare, each once.
    pub(crate) fn ports(&self) -> Vec<(u16, Protocol)> {
        let declared = self.running_containers().flat_map(|container| &container.ports);
        let ports = declared.map(|port| (port.container_port, Protocol::of(port.protocol.as_deref())));
        let distinct: std::collections::BTreeSet<_> = ports.filter(|(port, _)| *port > 0).collect();
        distinct.into_iter().collect()
    }
}

/// What a port speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    pub(crate) fn of(text: Option<&str>) -> Protocol {
        match text {
            Some("UDP") => Protocol::Udp,
            Some("SCTP") => Protocol::Sctp,
            _ => Protocol::Tcp,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ports_are_listed_once_and_those_of_sidecars_too() {
        let port = |port: u16, protocol: &str| json!({"containerPort": port, "protocol": protocol});
        let pod = PodObject::parse(json!({
            "metadata": {"name": "a", "namespace": "b", "uid": "c-1"},
            "spec": {
                "containers": [{"ports": [port(80, "TCP"), port(53, "UDP")]}, {"ports": [{"containerPort": 80}]}],
                "initContainers": [{"ports": [port(1, "TCP")]}, {"restartPolicy": "Always", "ports": [port(9, "SCTP")]}],
            },
        }));
        let expected = [(9, Protocol::Sctp), (53, Protocol::Udp), (80, Protocol::Tcp)];
        assert_eq!(pod.unwrap().ports(), expected);
    }

    #[test]
    fn a_pod_with_a_field_of_the_wrong_type_is_still_known_and_says_so() {
        let pod = PodObject::parse(json!({
            "metadata": {"name": "a", "namespace": "b", "uid": "c"},
            "spec": {"nodeName": "node1", "containers": [{"image": true}]},
        }));
        let pod = pod.unwrap();
        assert_eq!(pod.spec.node_name.as_deref(), Some("node1"));
        assert!(pod.unreadable.unwrap().contains("expected a string"));
        for none in [json!({}), json!({"metadata": {"uid": "../x"}}), json!({"metadata": 3}), json!(null)] {
            assert!(PodObject::parse(none).is_none());
        }
    }
}
