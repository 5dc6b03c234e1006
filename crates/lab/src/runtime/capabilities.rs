//! What a container runtime tells plugins of a pod beside their configuration, in `runtimeConfig`: for
//! each capability that a plugin declares (CNI conventions, "Dynamic Plugin specific fields").

use serde_json::{Map, Value, json};

use super::object::{PodObject, Protocol};

/// The capability by which containerd and CRI-O hand on a pod's annotations.
const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";
const INGRESS: &str = "kubernetes.io/ingress-bandwidth";
const EGRESS: &str = "kubernetes.io/egress-bandwidth";
/// What kubelet lets pass (`pkg/util/bandwidth`): from 1 kbit/s to 1 Pbit/s.
const RATES: std::ops::RangeInclusive<u64> = 1_000..=1_000_000_000_000_000;
/// The burst that containerd asks for, in bits.
const BURST: u64 = u32::MAX as u64;

/// `runtimeConfig` for a plugin of this configuration; an annotation that makes no sense is an error.
pub(super) fn runtime_config(plugin: &Map<String, Value>, pod: &PodObject) -> anyhow::Result<Option<Value>> {
    let declared = plugin.get("capabilities").and_then(Value::as_object);
    let declares = |name: &str| declared.is_some_and(|all| all.get(name) == Some(&Value::Bool(true)));
    let mut config = Map::new();
    if declares(ANNOTATIONS) {
        config.insert(ANNOTATIONS.into(), json!(pod.metadata.annotations));
    }
    if declares("portMappings") {
        let ports = port_mappings(pod);
        config.extend((!ports.is_empty()).then(|| ("portMappings".to_owned(), Value::Array(ports))));
    }
    if declares("bandwidth") {
        config.extend(bandwidth(pod)?.map(|limits| ("bandwidth".to_owned(), limits)));
    }
    Ok((!config.is_empty()).then_some(Value::Object(config)))
}

fn port_mappings(pod: &PodObject) -> Vec<Value> {
    let declared = pod.running_containers().flat_map(|container| &container.ports);
    let published = declared.filter(|port| port.host_port > 0);
    let mapping = published.map(|port| {
        let protocol = match Protocol::of(port.protocol.as_deref()) {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        };
        let host_ip = port.host_ip.as_deref().unwrap_or_default();
        json!({"hostPort": port.host_port, "containerPort": port.container_port, "protocol": protocol, "hostIP": host_ip})
    });
    mapping.collect()
}

fn bandwidth(pod: &PodObject) -> anyhow::Result<Option<Value>> {
    let mut limits = Map::new();
    for (annotation, name) in [(INGRESS, "ingress"), (EGRESS, "egress")] {
        let Some(text) = pod.metadata.annotations.get(annotation) else { continue };
        let rate = quantity(text).filter(|rate| RATES.contains(rate));
        let rate = rate.ok_or_else(|| {
            anyhow::anyhow!("annotation {annotation} is {text:?}: give bits a second, 1k to 1P, such as 10M")
        })?;
        limits.insert(format!("{name}Rate"), rate.into());
        limits.insert(format!("{name}Burst"), BURST.into());
    }
    Ok((!limits.is_empty()).then_some(Value::Object(limits)))
}

/// A number with one of Kubernetes' suffixes (`apimachinery/pkg/api/resource`), made whole.
fn quantity(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let factor: u64 = match suffix {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "P" => 1_000_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => return None,
    };
    // What is too large for an integer becomes the largest, which is out of range.
    Some((number.parse::<f64>().ok()? * factor as f64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(annotations: Value, ports: Value) -> PodObject {
        let object = json!({
            "metadata": {"name": "a", "namespace": "b", "uid": "c", "annotations": annotations},
            "spec": {"containers": [{"ports": ports}]},
        });
        PodObject::parse(object).unwrap()
    }

    fn told(capabilities: Value, pod: &PodObject) -> Option<Value> {
        let Value::Object(plugin) = json!({"type": "x", "capabilities": capabilities}) else {
            unreachable!()
        };
        runtime_config(&plugin, pod).unwrap()
    }

    #[test]
    fn a_plugin_is_told_what_it_declares_and_no_more() {
        let ports =
            json!([{"containerPort": 80, "hostPort": 8080}, {"containerPort": 53, "protocol": "UDP"}]);
        let pod = pod(json!({INGRESS: "10M", "other": "x"}), ports);
        assert_eq!(told(json!({}), &pod), None);
        assert_eq!(told(json!({"portMappings": false}), &pod), None);
        let mapping = json!({"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": ""});
        assert_eq!(told(json!({"portMappings": true}), &pod), Some(json!({"portMappings": [mapping]})));
        let limits = json!({"ingressRate": 10_000_000, "ingressBurst": BURST});
        assert_eq!(told(json!({"bandwidth": true}), &pod), Some(json!({"bandwidth": limits})));
        let all = told(json!({ANNOTATIONS: true}), &pod).unwrap();
        assert_eq!(all[ANNOTATIONS]["other"], "x");
    }

    #[test]
    fn a_rate_that_makes_no_sense_is_refused_by_name() {
        for bad in ["", ".", "fast", "10m", "1e6", "-5", "1", "99999999999999999999", "2000P"] {
            let pod = pod(json!({EGRESS: bad}), json!([]));
            let Value::Object(plugin) = json!({"capabilities": {"bandwidth": true}}) else { unreachable!() };
            let error = runtime_config(&plugin, &pod).unwrap_err().to_string();
            assert!(error.contains("egress-bandwidth") && error.contains("10M"), "{bad}: {error}");
        }
        assert_eq!((quantity("10Mi"), quantity("1.5k")), (Some(10 << 20), Some(1_500)));
    }
}
