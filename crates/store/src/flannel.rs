//! Flannel's annotations among all of a node's.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use weft_model::{FlannelAnnotation, FlannelAnnotations};

/// The most that is kept of one text, in bytes. Flannel's own have 60; a longer one that was cut
/// makes no sense to whoever reads it.
const LIMIT: usize = 256;

/// Those annotations of an object that are flannel's.
#[derive(Default)]
pub(crate) struct Annotations(pub(crate) FlannelAnnotations);

impl<'de> Deserialize<'de> for Annotations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Flannels)
    }
}

struct Flannels;

impl<'de> Visitor<'de> for Flannels {
    type Value = Annotations;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("annotations")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Annotations, A::Error> {
        let mut found = FlannelAnnotations::new();
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            match FlannelAnnotation::of_key(&key) {
                Some(annotation) => {
                    let text: Cow<'de, str> = map.next_value()?;
                    found.insert(annotation, bounded(&text));
                }
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Annotations(found))
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
    fn flannel_s_annotations_are_kept_and_no_others() {
        let long = "x".repeat(100_000);
        let json = serde_json::json!({"metadata": {"name": "n", "annotations": {
            "flannel.alpha.coreos.com/backend-data": "{\"VNI\":1,\"VtepMAC\":\"3a:0f:2e:0c:9d:51\"}",
            "flannel.alpha.coreos.com/backend-type": "vxlan",
            "flannel.alpha.coreos.com/public-ip": long,
            "flannel.alpha.coreos.com/unknown": "1",
            "big": long,
        }}});
        let found = decode_node(&json.to_string()).unwrap().flannel;
        assert_eq!(found.len(), 3);
        assert_eq!(&*found[&FlannelAnnotation::BackendData], "{\"VNI\":1,\"VtepMAC\":\"3a:0f:2e:0c:9d:51\"}");
        assert_eq!(found[&FlannelAnnotation::PublicIp].len(), LIMIT);
        let without = decode_node(r#"{"metadata":{"name":"n","annotations":null}}"#).unwrap();
        assert!(without.flannel.is_empty());
    }
}
