//! The fields of Kubernetes' objects that the model has, and nothing else.

mod bgp;
mod load_balancer;
mod network;
mod pools;
mod service;
mod slice;

pub use network::decode_network;

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::Deserialize;
use weft_model::pools::{IpBlock, IpPool, Labels};
use weft_model::service::{EndpointSlice, Service};
use weft_model::{Node, Pod, PodKey, PodPhase};

/// Where `Network` objects are.
pub const NETWORK_PATH: &str = "/apis/weft.dev/v1/networks";
/// The taint of a node that the cluster's autoscaler removes.
const LEAVING: &str = "ToBeDeletedByClusterAutoscaler";
/// The longest name or label key of a Kubernetes object: a prefix of 253, a slash and 63.
const NAME_LIMIT: usize = 317;
/// The most labels that are kept of one object.
const LABEL_LIMIT: usize = 256;

/// A kind of object that the store keeps.
pub(crate) trait Kind: Sized + PartialEq + Send + Sync + 'static {
    /// What tells objects apart.
    type Key: Clone + Ord + std::hash::Hash + std::fmt::Display + Send + Sync + 'static;
    /// The collection's API path.
    const PATH: &'static str;
    /// The kind in words.
    const NAME: &'static str;
    /// Whether a cluster may not have the kind, or not show it to us: then there are no such objects.
    const OPTIONAL: bool = false;

    /// Reads an object, sharing the strings of its metadata with its key.
    fn decode(meta: &Meta, json: &str) -> Result<Self, String>;
    /// Its key, from its metadata.
    fn key(meta: &Meta) -> Self::Key;
}

/// What the reflector needs of any object's metadata.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Meta {
    pub(crate) name: Arc<str>,
    pub(crate) namespace: Arc<str>,
    pub(crate) uid: Arc<str>,
    pub(crate) resource_version: Arc<str>,
    pub(crate) creation_timestamp: Option<Arc<str>>,
}

#[derive(Deserialize)]
struct MetaOnly {
    metadata: Meta,
}

/// Reads a Node object; the error says what makes no sense.
pub fn decode_node(json: &str) -> Result<Node, String> {
    Node::decode(&meta(json)?, json)
}

/// Reads a Pod object; the error says what makes no sense.
pub fn decode_pod(json: &str) -> Result<Pod, String> {
    Pod::decode(&meta(json)?, json)
}

/// Reads an IPPool object; the error says what makes no sense.
pub fn decode_pool(json: &str) -> Result<IpPool, String> {
    IpPool::decode(&meta(json)?, json)
}

/// Reads an IPBlock object; the error says what makes no sense.
pub fn decode_block(json: &str) -> Result<IpBlock, String> {
    IpBlock::decode(&meta(json)?, json)
}

/// Reads a Service object; the error says what makes no sense.
pub fn decode_service(json: &str) -> Result<Service, String> {
    Service::decode(&meta(json)?, json)
}

/// Reads an EndpointSlice object; the error says what makes no sense.
pub fn decode_slice(json: &str) -> Result<EndpointSlice, String> {
    EndpointSlice::decode(&meta(json)?, json)
}

/// The metadata of an object whose other fields may make no sense.
pub(crate) fn meta(json: &str) -> Result<Meta, String> {
    let MetaOnly { metadata } = serde_json::from_str(json).map_err(|e| e.to_string())?;
    if metadata.name.is_empty() || metadata.name.len() > NAME_LIMIT || metadata.namespace.len() > NAME_LIMIT {
        return Err("its metadata.name or namespace is empty or too long".to_owned());
    }
    Ok(metadata)
}

/// The version that a bookmark carries.
pub(crate) fn version(json: &str) -> Option<String> {
    let MetaOnly { metadata } = serde_json::from_str(json).ok()?;
    Some(metadata.resource_version.to_string())
}

#[derive(Deserialize)]
struct NodeWire {
    metadata: NodeMeta,
    #[serde(default)]
    spec: NodeSpec,
    #[serde(default)]
    status: NodeStatus,
}

#[derive(Deserialize)]
struct NodeMeta {
    #[serde(default)]
    labels: Option<Labels>,
    #[serde(default)]
    annotations: Option<crate::flannel::Annotations>,
    #[serde(default, rename = "deletionTimestamp")]
    deleted: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct NodeSpec {
    #[serde(rename = "podCIDR")]
    pod_cidr: Option<String>,
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Option<Vec<String>>,
    taints: Option<Vec<Taint>>,
}

#[derive(Deserialize)]
struct Taint {
    key: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct NodeStatus {
    addresses: Option<Vec<NodeAddress>>,
}

#[derive(Deserialize)]
struct NodeAddress {
    #[serde(rename = "type")]
    kind: String,
    address: String,
}

impl Kind for Node {
    type Key = Arc<str>;
    const PATH: &'static str = "/api/v1/nodes";
    const NAME: &'static str = "node";

    fn decode(meta: &Meta, json: &str) -> Result<Self, String> {
        let NodeWire { metadata, spec, status } = serde_json::from_str(json).map_err(|e| e.to_string())?;
        let annotations = metadata.annotations.unwrap_or_default();
        let internal = status.addresses.unwrap_or_default().into_iter();
        let addresses = internal.filter(|a| a.kind == "InternalIP").map(|a| address(&a.address));
        let cidrs = spec.pod_cidrs.unwrap_or_else(|| spec.pod_cidr.into_iter().collect());
        let cidrs = cidrs.iter().filter(|text| !text.is_empty());
        let cidrs = cidrs.map(|text| weft_model::network::parse_cidr(text).map_err(|e| e.to_string()));
        Ok(Node {
            name: meta.name.clone(),
            uid: meta.uid.clone(),
            addresses: one_a_family(addresses.collect::<Result<Vec<_>, _>>()?, IpAddr::is_ipv4),
            pod_cidrs: one_a_family(cidrs.collect::<Result<Vec<_>, _>>()?, |net| matches!(net, IpNet::V4(_))),
            created: meta.creation_timestamp.clone().unwrap_or_default(),
            host: annotations.host,
            flannel: annotations.flannel,
            loans: Vec::new(),
            labels: bounded(metadata.labels.unwrap_or_default())?,
            bgp: annotations.bgp,
            leaving: metadata.deleted.is_some() || spec.taints.iter().flatten().any(|t| t.key == LEAVING),
        })
    }

    fn key(meta: &Meta) -> Arc<str> {
        meta.name.clone()
    }
}

#[derive(Deserialize)]
struct PodWire {
    metadata: Tags,
    #[serde(default)]
    spec: PodSpec,
    #[serde(default)]
    status: PodStatus,
}

/// What objects are marked with.
#[derive(Deserialize)]
struct Tags {
    #[serde(default)]
    labels: Option<Labels>,
    #[serde(default, deserialize_with = "pools::annotations")]
    annotations: pools::Annotations,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct PodSpec {
    node_name: Option<Arc<str>>,
    host_network: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct PodStatus {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<PodIp>>,
}

#[derive(Deserialize)]
struct PodIp {
    ip: String,
}

impl Kind for Pod {
    type Key = PodKey;
    const PATH: &'static str = "/api/v1/pods";
    const NAME: &'static str = "pod";

    fn decode(meta: &Meta, json: &str) -> Result<Self, String> {
        let PodWire { metadata, spec, status } = serde_json::from_str(json).map_err(|e| e.to_string())?;
        let texts: Vec<String> = match status.pod_ips.filter(|ips| !ips.is_empty()) {
            Some(ips) => ips.into_iter().map(|entry| entry.ip).collect(),
            None => status.pod_ip.into_iter().collect(),
        };
        let ips = texts.iter().filter(|text| !text.is_empty()).map(|text| address(text));
        Ok(Pod {
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            uid: meta.uid.clone(),
            labels: bounded(metadata.labels.unwrap_or_default())?,
            node: spec.node_name.filter(|name| !name.is_empty()),
            ips: one_a_family(ips.collect::<Result<Vec<_>, _>>()?, IpAddr::is_ipv4),
            host_network: spec.host_network.unwrap_or_default(),
            phase: phase(status.phase.as_deref()),
            wish: metadata.annotations.wish().map(Box::new),
        })
    }

    fn key(meta: &Meta) -> PodKey {
        PodKey::new(meta.namespace.clone(), meta.name.clone())
    }
}

fn phase(text: Option<&str>) -> PodPhase {
    match text {
        None | Some("" | "Pending") => PodPhase::Pending,
        Some("Running") => PodPhase::Running,
        Some("Succeeded") => PodPhase::Succeeded,
        Some("Failed") => PodPhase::Failed,
        Some(_) => PodPhase::Unknown,
    }
}

fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("{text:?} is not an IP address"))
}

fn bounded(labels: Labels) -> Result<Labels, String> {
    let fits = labels.iter().all(|(key, value)| key.len() <= NAME_LIMIT && value.len() <= NAME_LIMIT);
    if fits && labels.len() <= LABEL_LIMIT {
        Ok(labels)
    } else {
        Err(format!("it has more than {LABEL_LIMIT} labels or one of more than {NAME_LIMIT} bytes"))
    }
}

/// The first value of each family, in their order, in no more room than they need.
fn one_a_family<T>(values: Vec<T>, is_v4: impl Fn(&T) -> bool) -> Vec<T> {
    let mut seen = [false; 2];
    let mut kept = values;
    kept.retain(|value| !std::mem::replace(&mut seen[usize::from(is_v4(value))], true));
    kept.shrink_to_fit();
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode<K: Kind>(json: &str) -> Result<K, String> {
        K::decode(&meta(json)?, json)
    }

    const POD: &str = r#"{"kind":"Pod","metadata":{"name":"web-0","namespace":"shop","uid":"u1","resourceVersion":"9",
        "labels":{"app":"web"},"annotations":{"big":"x"},"managedFields":[{}]},
        "spec":{"nodeName":"node1","containers":[{"name":"a"}]},
        "status":{"phase":"Running","podIP":"10.244.0.7","podIPs":[{"ip":"10.244.0.7"},{"ip":"fd00::7"},{"ip":"10.9.9.9"}]}}"#;

    #[test]
    fn a_pod_has_the_fields_of_the_model() {
        let pod = decode::<Pod>(POD).unwrap();
        assert_eq!(pod.key().to_string(), "shop/web-0");
        assert_eq!(pod.node.as_deref(), Some("node1"));
        assert_eq!(pod.labels["app"].as_ref(), "web");
        assert_eq!(pod.phase, PodPhase::Running);
        let expected: Vec<IpAddr> = vec!["10.244.0.7".parse().unwrap(), "fd00::7".parse().unwrap()];
        assert_eq!(pod.ips, expected, "one address a family");
        assert_eq!(meta(POD).unwrap().resource_version.as_ref(), "9");
    }

    #[test]
    fn a_node_has_its_internal_addresses_and_both_families_of_pod_cidrs() {
        let node = decode::<Node>(
            r#"{"metadata":{"name":"node1","uid":"n"},"spec":{"podCIDR":"10.244.0.0/24","podCIDRs":["10.244.0.0/24","fd00:0:0:1::/64"]},
                "status":{"addresses":[{"type":"Hostname","address":"node1"},{"type":"InternalIP","address":"10.168.0.2"}]}}"#,
        )
        .unwrap();
        assert_eq!(node.addresses, ["10.168.0.2".parse::<IpAddr>().unwrap()]);
        assert_eq!(node.pod_cidrs.len(), 2);
        let bare = decode::<Node>(r#"{"metadata":{"name":"n"},"spec":{"podCIDR":"10.244.3.0/24"}}"#).unwrap();
        assert_eq!(bare.pod_cidrs.len(), 1, "the single field counts where the list is absent");
    }

    #[test]
    fn what_makes_no_sense_is_an_error_that_says_why() {
        for (bad, word) in [
            (r#"{"metadata":{"name":"p"},"status":{"podIP":"10.0.0.300"}}"#, "10.0.0.300"),
            (r#"{"metadata":{"name":"p"},"spec":{"nodeName":7}}"#, "invalid type"),
            (r#"{"metadata":{"name":"p","labels":{"a":["b"]}}}"#, "invalid type"),
            (r#"[]"#, "expected"),
            (r#"{"metadata":"#, "EOF"),
        ] {
            let error = decode::<Pod>(bad).unwrap_err();
            assert!(error.contains(word), "{bad}: {error}");
        }
        assert!(decode::<Node>(r#"{"metadata":{"name":"n"},"spec":{"podCIDR":"10.244.3.1/24"}}"#).is_err());
        assert!(meta(r#"{"metadata":{"name":""}}"#).is_err());
        let long = format!(r#"{{"metadata":{{"name":"p","labels":{{"a":"{}"}}}}}}"#, "x".repeat(4000));
        assert!(decode::<Pod>(&long).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(text in ".{0,200}", cut in 0..POD.len()) {
            let _ = (decode::<Pod>(&text), decode::<Node>(&text), meta(&text));
            let _ = (decode::<Pod>(&POD[..cut]), decode::<Node>(&POD[..cut]));
        }
    }
}
