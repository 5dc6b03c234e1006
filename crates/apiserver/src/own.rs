//! The definitions of Weft's own kinds, which every server has from its start.

use serde_json::Value;

use crate::error::ApiError;
use crate::kinds::CUSTOM_RESOURCE_DEFINITIONS;
use crate::registry::{Part, Registry};

const DEFINITIONS: &[&str] = &[
    include_str!("../../store/definitions/networks.yaml"),
    include_str!("../../store/definitions/ippools.yaml"),
    include_str!("../../store/definitions/ipblocks.yaml"),
    include_str!("../../store/definitions/loadbalancerpools.yaml"),
    include_str!("../../store/definitions/bgpconfigurations.yaml"),
    include_str!("../../store/definitions/bgppeers.yaml"),
    include_str!("../../store/definitions/bgpfilters.yaml"),
];

/// Makes what is missing, and brings what an older version made up to date.
pub(crate) async fn ensure(registry: &Registry) -> Result<(), ApiError> {
    for text in DEFINITIONS {
        let definition: Value =
            serde_saphyr::from_str(text).map_err(|error| ApiError::internal(error.to_string()))?;
        one(registry, definition).await?;
    }
    Ok(())
}

async fn one(registry: &Registry, definition: Value) -> Result<(), ApiError> {
    let name = definition["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    match registry.create(&CUSTOM_RESOURCE_DEFINITIONS, None, definition.clone()).await {
        Err(error) if error.reason == "AlreadyExists" => {}
        other => return other.map(drop),
    }
    let kind = &CUSTOM_RESOURCE_DEFINITIONS;
    let found = registry.get(kind, None, &name).await?;
    if found["spec"]["versions"] == definition["spec"]["versions"] {
        return Ok(());
    }
    let update = move |object: &mut Value| {
        object["spec"]["versions"] = definition["spec"]["versions"].clone();
        Ok(())
    };
    registry.modify(kind, None, &name, Part::Whole, update).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::RegistryConfig;
    use serde_json::json;

    #[tokio::test]
    async fn own_kinds_are_served_once_and_bad_objects_refused() {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::open(dir.path(), RegistryConfig::default()).await.unwrap();
        ensure(&registry).await.unwrap();
        let seen = registry.seen();
        ensure(&registry).await.unwrap();
        assert_eq!(registry.seen(), seen, "nothing is written again");
        let pools = registry.kind("weft.dev", "v1", "ippools").unwrap();
        let pool = |name: &str, spec: Value| {
            json!({"apiVersion": "weft.dev/v1", "kind": "IPPool",
            "metadata": {"name": name}, "spec": spec})
        };
        let make = async |name: &str, spec: Value| registry.create(&pools, None, pool(name, spec)).await;
        make("a", json!({"cidr": "10.9.0.0/16"})).await.unwrap();
        make("six", json!({"cidr": "fd00:9::/64", "blockSize": 122})).await.unwrap();
        for (spec, word) in [
            (json!({"cidr": "10.9.0.0/28"}), "smaller than a block"),
            (json!({"cidr": "10.9.0.0/26", "blockSize": 25}), "smaller than a block"),
            (json!({"cidr": "10.9.0.0/16", "blockSize": 19}), "blockSize"),
            (json!({"cidr": "fd00::/64", "blockSize": 64}), "116 to 126"),
            (json!({"cidr": "pods"}), "cidr"),
            (json!({}), "cidr"),
        ] {
            let error = make("bad", spec.clone()).await.unwrap_err();
            assert!(error.message.contains(word), "{spec}: {}", error.message);
        }
        let edit = |object: &mut Value| {
            object["spec"]["cidr"] = json!("10.8.0.0/16");
            Ok(())
        };
        let error = registry.modify(&pools, None, "a", Part::Whole, edit).await.unwrap_err();
        assert!(error.message.contains("does not change"), "{}", error.message);
    }

    #[tokio::test]
    async fn sessions_of_bgp_that_make_no_sense_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::open(dir.path(), RegistryConfig::default()).await.unwrap();
        ensure(&registry).await.unwrap();
        let make = async |kind: &str, name: &str, spec: &Value| {
            let resource = registry.kind("weft.dev", "v1", &format!("{}s", kind.to_lowercase())).unwrap();
            let object =
                json!({"apiVersion": "weft.dev/v1", "kind": kind, "metadata": {"name": name}, "spec": spec});
            registry.create(&resource, None, object).await
        };
        let good = [
            (
                "BGPPeer",
                json!({"peerIP": "192.0.2.1", "asNumber": 65001, "filters": ["f"], "nodeSelector": {}}),
            ),
            (
                "BGPPeer",
                json!({"peerIP": "[2001:db8::1]:1790", "password": {"secretKeyRef": {"name": "s", "key": "k"}}}),
            ),
            ("BGPPeer", json!({"peerSelector": {"matchLabels": {"rr": "yes"}}, "maxRestartTime": "1m30s"})),
            (
                "BGPConfiguration",
                json!({"asNumber": 4200000000u32, "serviceClusterIPs": [{"cidr": "10.96.0.0/12"}]}),
            ),
            (
                "BGPFilter",
                json!({"importV4": [{"action": "Accept", "cidr": "0.0.0.0/0", "matchOperator": "Equal",
                "operations": [{"setLocalPreference": {"value": 200}}]}, {"action": "Reject"}]}),
            ),
        ];
        for (at, (kind, spec)) in good.iter().enumerate() {
            make(kind, &format!("good{at}"), spec).await.unwrap();
        }
        for (kind, spec, word) in [
            ("BGPPeer", json!({}), "give peerIP"),
            ("BGPPeer", json!({"peerIP": "192.0.2.1", "peerSelector": {}}), "not both"),
            ("BGPPeer", json!({"peerIP": "192.0.2.1", "node": "a", "nodeSelector": {}}), "not both"),
            ("BGPPeer", json!({"peerSelector": {}, "asNumber": 65001}), "asNumber"),
            ("BGPPeer", json!({"peerIP": "tor.example"}), "peerIP"),
            ("BGPPeer", json!({"peerIP": "192.0.2.1", "asNumber": 0}), "asNumber"),
            ("BGPPeer", json!({"peerIP": "192.0.2.1", "sourceAddress": "Any"}), "sourceAddress"),
            ("BGPConfiguration", json!({"listenPort": 0}), "listenPort"),
            ("BGPConfiguration", json!({"communities": [{"name": "a", "value": "x"}]}), "value"),
            ("BGPFilter", json!({"importV4": [{"action": "Permit"}]}), "action"),
            (
                "BGPFilter",
                json!({"importV4": [{"action": "Accept", "cidr": "10.0.0.0/8"}]}),
                "belong together",
            ),
            (
                "BGPFilter",
                json!({"exportV4": [{"action": "Reject", "operations": [{"setMED": {"value": 1}}]}]}),
                "operations",
            ),
            ("BGPFilter", json!({"exportV4": [{"action": "Accept", "operations": [{}]}]}), "operations"),
        ] {
            let error = make(kind, "bad", &spec).await.unwrap_err();
            assert!(error.message.contains(word), "{spec}: {}", error.message);
        }
    }
}
