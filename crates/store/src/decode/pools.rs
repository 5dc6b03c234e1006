//! Namespaces, weft.dev/v1 IPPool and IPBlock, and the annotations that choose pools.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use weft_model::network::parse_cidr;
use weft_model::pools::{
    ADDRESS_ANNOTATIONS, Ask, BLOCK_SIZE_V4, BLOCK_SIZE_V6, IpBlock, IpPool, LabelSelector, Namespace,
    POOL_ANNOTATIONS, Wish,
};

use super::{Kind, Meta, NAME_LIMIT, Tags, address, bounded};

/// The most addresses that a block can have (/20), so that can be lent.
const ADDRESSES: usize = 4096;
/// The most that one node's entry in `asked` is read.
const ASKS: usize = 64;

/// The few annotations that are read, by key.
#[derive(Default)]
pub(super) struct Annotations(BTreeMap<String, String>);

impl Annotations {
    /// What is asked for. The plugin tells the pod's owner of one that makes no sense.
    pub(super) fn wish(&self) -> Option<Wish> {
        let wish = Wish::of(|key| self.0.get(key).map(String::as_str)).ok()?;
        (!wish.is_empty()).then_some(wish)
    }
}

/// Keeps the annotations of ours; others, which may be large, are passed over.
pub(super) fn annotations<'de, D: Deserializer<'de>>(from: D) -> Result<Annotations, D::Error> {
    struct Ours;
    impl<'de> Visitor<'de> for Ours {
        type Value = Annotations;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map of strings")
        }

        fn visit_unit<E>(self) -> Result<Annotations, E> {
            Ok(Annotations::default())
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Annotations, A::Error> {
            let mut kept = BTreeMap::new();
            while let Some(key) = map.next_key::<String>()? {
                if ADDRESS_ANNOTATIONS.iter().chain(&POOL_ANNOTATIONS).any(|ours| *ours == key) {
                    kept.insert(key, map.next_value::<String>()?);
                } else {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            Ok(Annotations(kept))
        }
    }
    from.deserialize_any(Ours)
}

#[derive(Deserialize)]
struct NamespaceWire {
    metadata: Tags,
}

impl Kind for Namespace {
    type Key = Arc<str>;
    const PATH: &'static str = "/api/v1/namespaces";
    const NAME: &'static str = "namespace";
    const OPTIONAL: bool = true;

    fn decode(meta: &Meta, json: &str) -> Result<Self, String> {
        let NamespaceWire { metadata } = serde_json::from_str(json).map_err(|e| e.to_string())?;
        Ok(Namespace {
            name: meta.name.clone(),
            labels: bounded(metadata.labels.unwrap_or_default())?,
            pools: metadata.annotations.wish().unwrap_or_default().pools,
        })
    }

    fn key(meta: &Meta) -> Arc<str> {
        meta.name.clone()
    }
}

#[derive(Deserialize)]
struct PoolWire {
    spec: PoolSpec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PoolSpec {
    cidr: String,
    block_size: Option<u8>,
    disabled: Option<bool>,
    nat_outgoing: Option<bool>,
    assignment: Option<String>,
    #[serde(rename = "disableBGPExport")]
    disable_bgp_export: Option<bool>,
    node_selector: Option<LabelSelector>,
    namespace_selector: Option<LabelSelector>,
}

impl Kind for IpPool {
    type Key = Arc<str>;
    const PATH: &'static str = "/apis/weft.dev/v1/ippools";
    const NAME: &'static str = "pool";
    const OPTIONAL: bool = true;

    fn decode(meta: &Meta, json: &str) -> Result<Self, String> {
        let PoolWire { spec } = serde_json::from_str(json).map_err(|e| e.to_string())?;
        let cidr = parse_cidr(&spec.cidr).map_err(|e| e.to_string())?;
        let usual = if cidr.addr().is_ipv4() { BLOCK_SIZE_V4 } else { BLOCK_SIZE_V6 };
        Ok(IpPool {
            name: meta.name.clone(),
            uid: meta.uid.clone(),
            created: meta.creation_timestamp.clone().unwrap_or_default(),
            cidr,
            block_size: spec.block_size.unwrap_or(usual),
            disabled: spec.disabled.unwrap_or_default(),
            nat_outgoing: spec.nat_outgoing.unwrap_or_default(),
            manual: spec.assignment.as_deref() == Some("Manual"),
            disable_bgp_export: spec.disable_bgp_export.unwrap_or_default(),
            node_selector: spec.node_selector.unwrap_or_default(),
            namespace_selector: spec.namespace_selector.unwrap_or_default(),
        })
    }

    fn key(meta: &Meta) -> Arc<str> {
        meta.name.clone()
    }
}

#[derive(Deserialize)]
struct BlockWire {
    spec: BlockSpec,
}

#[derive(Deserialize)]
struct BlockSpec {
    cidr: String,
    pool: Arc<str>,
    node: Option<Arc<str>>,
    #[serde(rename = "natOutgoing")]
    nat_outgoing: Option<bool>,
    #[serde(default)]
    borrowed: BTreeMap<String, Arc<str>>,
    #[serde(default)]
    asked: BTreeMap<Arc<str>, Vec<String>>,
    #[serde(default)]
    release: Vec<String>,
}

impl Kind for IpBlock {
    type Key = Arc<str>;
    const PATH: &'static str = "/apis/weft.dev/v1/ipblocks";
    const NAME: &'static str = "block";
    const OPTIONAL: bool = true;

    fn decode(meta: &Meta, json: &str) -> Result<Self, String> {
        let BlockWire { spec } = serde_json::from_str(json).map_err(|e| e.to_string())?;
        let cidr = parse_cidr(&spec.cidr).map_err(|e| e.to_string())?;
        if spec.borrowed.len() > ADDRESSES || spec.release.len() > ADDRESSES {
            return Err(format!("more than {ADDRESSES} of its addresses are named"));
        }
        let inside = |text: &str| -> Result<IpAddr, String> {
            let ip = address(text)?;
            if cidr.contains(&ip) { Ok(ip) } else { Err(format!("{ip} is not in {cidr}")) }
        };
        let borrowed = spec.borrowed.iter().map(|(text, node)| Ok((inside(text)?, node.clone())));
        Ok(IpBlock {
            name: meta.name.clone(),
            uid: meta.uid.clone(),
            version: meta.resource_version.clone(),
            pool: spec.pool,
            node: spec.node.filter(|node| !node.is_empty()),
            nat_outgoing: spec.nat_outgoing.unwrap_or_default(),
            borrowed: borrowed.collect::<Result<_, String>>()?,
            asked: spec.asked.into_iter().map(|(node, asks)| (node, read_asks(&cidr, asks))).collect(),
            release: spec.release.iter().map(|text| inside(text)).collect::<Result<BTreeSet<_>, _>>()?,
            cidr,
        })
    }

    fn key(meta: &Meta) -> Arc<str> {
        meta.name.clone()
    }
}

/// What makes no sense is not asked; the owner takes it away with the rest.
fn read_asks(cidr: &IpNet, asks: Vec<String>) -> BTreeSet<Ask> {
    let read = |text: String| match text.as_str() {
        "any" => Some(Ask::Any),
        _ if text.len() > NAME_LIMIT => None,
        _ => text.parse().ok().filter(|ip| cidr.contains(ip)).map(Ask::This),
    };
    asks.into_iter().take(ASKS).filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Pod, decode_pod, meta};
    use super::*;

    fn decode<K: Kind>(json: &str) -> Result<K, String> {
        K::decode(&meta(json)?, json)
    }

    #[test]
    fn pools_and_blocks_have_the_fields_of_the_model() {
        let pool: IpPool = decode(
            r#"{"metadata":{"name":"gold","uid":"u","creationTimestamp":"2026-01-01T00:00:00Z"},
                "spec":{"cidr":"10.9.0.0/16","natOutgoing":true,"namespaceSelector":{"matchLabels":{"tier":"gold"}}}}"#,
        )
        .unwrap();
        assert_eq!(
            (pool.block_size, pool.nat_outgoing, pool.disabled, pool.manual),
            (26, true, false, false)
        );
        assert!(pool.node_selector.is_all() && !pool.namespace_selector.is_all());
        let block: IpBlock = decode(
            r#"{"metadata":{"name":"10-9-0-0-26","uid":"u","resourceVersion":"7"},
                "spec":{"cidr":"10.9.0.0/26","pool":"gold","node":"a","natOutgoing":true,"borrowed":{"10.9.0.5":"b"},
                "asked":{"c":["any","10.9.0.9","10.8.0.1","x"]},"release":["10.9.0.5"]}}"#,
        )
        .unwrap();
        assert_eq!((&*block.version, block.node.as_deref(), block.nat_outgoing), ("7", Some("a"), true));
        assert_eq!(block.borrowed.len(), 1);
        assert_eq!(block.asked["c"], [Ask::Any, Ask::This("10.9.0.9".parse().unwrap())].into());
    }

    #[test]
    fn what_makes_no_sense_is_an_error() {
        let block =
            |spec: &str| decode::<IpBlock>(&format!(r#"{{"metadata":{{"name":"b"}},"spec":{spec}}}"#));
        for bad in [
            r#"{"cidr":"10.9.0.1/26","pool":"p"}"#,
            r#"{"cidr":"10.9.0.0/26"}"#,
            r#"{"cidr":"10.9.0.0/26","pool":"p","borrowed":{"10.9.1.1":"b"}}"#,
        ] {
            assert!(block(bad).is_err(), "{bad}");
        }
        assert!(
            decode::<IpPool>(r#"{"metadata":{"name":"p"},"spec":{"cidr":"10.0.0.0/8","blockSize":300}}"#)
                .is_err()
        );
    }

    #[test]
    fn a_pod_s_wish_is_kept_and_its_other_annotations_are_not() {
        let pod = |annotations: &str| -> Pod {
            decode_pod(&format!(
                r#"{{"metadata":{{"name":"p","namespace":"d","annotations":{annotations}}}}}"#
            ))
            .unwrap()
        };
        let wish = pod(r#"{"a":"b","cni.projectcalico.org/ipAddrs":"[\"10.9.0.7\"]"}"#).wish.unwrap();
        assert_eq!(wish.ips, ["10.9.0.7".parse::<IpAddr>().unwrap()]);
        for none in ["null", "{}", r#"{"weft.dev/ip-addresses":"nonsense"}"#] {
            assert_eq!(pod(none).wish, None, "{none}");
        }
    }
}
