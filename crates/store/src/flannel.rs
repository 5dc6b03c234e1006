//! A node's annotations, as far as they matter: flannel's, BGP's, and whose host it is.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use weft_model::bgp::{AS_ANNOTATIONS, CLUSTER_ANNOTATIONS, NodeBgp};
use weft_model::network::HOST_ANNOTATION;
use weft_model::{FlannelAnnotation, FlannelAnnotations};

/// The most that is kept of one text, in bytes. Flannel's own have 60; a longer one that was cut
/// makes no sense to whoever reads it.
const LIMIT: usize = 256;

/// Those annotations of a node that are read.
#[derive(Default)]
pub(crate) struct Annotations {
    pub(crate) flannel: FlannelAnnotations,
    /// [`HOST_ANNOTATION`].
    pub(crate) host: Option<Arc<str>>,
    /// What it says of itself as a speaker of BGP.
    pub(crate) bgp: NodeBgp,
}

impl<'de> Deserialize<'de> for Annotations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Known)
    }
}

struct Known;

impl<'de> Visitor<'de> for Known {
    type Value = Annotations;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("annotations")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Annotations, A::Error> {
        let mut found = Annotations::default();
        let mut bgp: BTreeMap<&'static str, Arc<str>> = BTreeMap::new();
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            match FlannelAnnotation::of_key(&key) {
                Some(annotation) => {
                    let text: Cow<'de, str> = map.next_value()?;
                    found.flannel.insert(annotation, bounded(&text));
                }
                None if key == HOST_ANNOTATION => {
                    let text: Cow<'de, str> = map.next_value()?;
                    found.host = Some(bounded(&text));
                }
                None => match AS_ANNOTATIONS.iter().chain(&CLUSTER_ANNOTATIONS).find(|ours| **ours == key) {
                    Some(key) => _ = bgp.insert(key, bounded(&map.next_value::<Cow<'de, str>>()?)),
                    None => drop(map.next_value::<IgnoredAny>()?),
                },
            }
        }
        found.bgp = NodeBgp::of(|key| bgp.get(key).map(|text| &**text));
        Ok(found)
    }
}

fn bounded(text: &str) -> Arc<str> {
    text.get(..text.floor_char_boundary(LIMIT)).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode_node;

    #[test]
    fn flannel_s_annotations_and_the_host_are_kept_and_no_others() {
        let long = "x".repeat(100_000);
        let json = serde_json::json!({"metadata": {"name": "n", "annotations": {
            "flannel.alpha.coreos.com/backend-data": "{\"VNI\":1,\"VtepMAC\":\"3a:0f:2e:0c:9d:51\"}",
            "flannel.alpha.coreos.com/backend-type": "vxlan",
            "flannel.alpha.coreos.com/public-ip": long,
            "flannel.alpha.coreos.com/unknown": "1",
            "big": long, "weft.dev/host": "one",
        }}});
        let node = decode_node(&json.to_string()).unwrap();
        assert_eq!(node.host.as_deref(), Some("one"));
        let found = node.flannel;
        assert_eq!(found.len(), 3);
        assert_eq!(&*found[&FlannelAnnotation::BackendData], "{\"VNI\":1,\"VtepMAC\":\"3a:0f:2e:0c:9d:51\"}");
        assert_eq!(found[&FlannelAnnotation::PublicIp].len(), LIMIT);
        let without = decode_node(r#"{"metadata":{"name":"n","annotations":null}}"#).unwrap();
        assert!(without.flannel.is_empty());
    }
}
