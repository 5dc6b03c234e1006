//! weft.dev/v1 BGPConfiguration.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::Deserialize;
use weft_model::bgp::{CommunityValue, Speaking};

use super::{AsWire, PasswordWire, at_most, network, seconds};

/// The most entries of each list.
const ENTRIES: usize = 256;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spec {
    as_number: Option<AsWire>,
    node_to_node_mesh_enabled: Option<bool>,
    node_mesh_password: Option<PasswordWire>,
    node_mesh_max_restart_time: Option<String>,
    listen_port: Option<u16>,
    bind_mode: Option<BindMode>,
    #[serde(rename = "serviceClusterIPs", default)]
    cluster_ips: Vec<Block>,
    #[serde(rename = "serviceExternalIPs", default)]
    external_ips: Vec<Block>,
    #[serde(rename = "serviceLoadBalancerIPs", default)]
    load_balancer_ips: Vec<Block>,
    #[serde(default)]
    communities: Vec<Named>,
    #[serde(default)]
    prefix_advertisements: Vec<Advertisement>,
}

#[derive(Deserialize, PartialEq)]
enum BindMode {
    None,
    #[serde(rename = "NodeIP")]
    NodeAddress,
}

#[derive(Deserialize)]
struct Block {
    cidr: String,
}

#[derive(Deserialize)]
struct Named {
    name: String,
    value: String,
}

#[derive(Deserialize)]
struct Advertisement {
    cidr: String,
    #[serde(default)]
    communities: Vec<String>,
}

/// What it says, or why it makes no sense.
pub(super) fn sense(spec: Spec) -> Result<Speaking, String> {
    let usual = Speaking::default();
    let mesh_restart_time =
        spec.node_mesh_max_restart_time.map(|text| seconds("nodeMeshMaxRestartTime", &text));
    if spec.listen_port == Some(0) {
        return Err("listenPort is 0; give 1 to 65535".to_owned());
    }
    Ok(Speaking {
        as_number: spec.as_number.map(|number| number.number()).transpose()?.unwrap_or(usual.as_number),
        mesh: spec.node_to_node_mesh_enabled.unwrap_or(usual.mesh),
        mesh_password: spec.node_mesh_password.map(PasswordWire::key).transpose()?,
        mesh_restart_time: mesh_restart_time.transpose()?.unwrap_or(usual.mesh_restart_time),
        port: spec.listen_port.unwrap_or(usual.port),
        bind_node_address: spec.bind_mode == Some(BindMode::NodeAddress),
        cluster_ips: networks("serviceClusterIPs", &spec.cluster_ips)?,
        external_ips: networks("serviceExternalIPs", &spec.external_ips)?,
        load_balancer_ips: networks("serviceLoadBalancerIPs", &spec.load_balancer_ips)?,
        communities: communities(&spec.communities, &spec.prefix_advertisements)?,
    })
}

fn networks(field: &str, blocks: &[Block]) -> Result<Vec<IpNet>, String> {
    at_most(field, blocks, ENTRIES)?;
    blocks.iter().map(|block| network(&block.cidr).map_err(|error| format!("{field}: {error}"))).collect()
}

/// The communities of each network: by name, or as they are.
fn communities(
    named: &[Named],
    advertisements: &[Advertisement],
) -> Result<Vec<(IpNet, Vec<CommunityValue>)>, String> {
    at_most("communities", named, ENTRIES)?;
    at_most("prefixAdvertisements", advertisements, ENTRIES)?;
    let named = named.iter().map(|one| Ok((one.name.as_str(), one.value.parse::<CommunityValue>()?)));
    let named: BTreeMap<&str, CommunityValue> = named.collect::<Result<_, String>>()?;
    let one = |advertisement: &Advertisement| {
        at_most("communities", &advertisement.communities, ENTRIES)?;
        let values = advertisement.communities.iter().map(|text| match named.get(text.as_str()) {
            Some(value) => Ok(*value),
            None => text.parse().map_err(|error: String| format!("prefixAdvertisements: {error}")),
        });
        Ok((network(&advertisement.cidr)?, values.collect::<Result<_, String>>()?))
    };
    advertisements.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::{Kind, meta};
    use super::*;
    use weft_model::bgp::BgpConfiguration;

    fn speaking(spec: &str) -> Result<Speaking, String> {
        let json = format!(r#"{{"metadata":{{"name":"default"}},"spec":{spec}}}"#);
        BgpConfiguration::decode(&meta(&json).unwrap(), &json).unwrap().spec
    }

    #[test]
    fn what_is_absent_is_the_default() {
        assert_eq!(speaking("{}"), Ok(Speaking::default()));
        let all = speaking(
            r#"{"asNumber":65001,"nodeToNodeMeshEnabled":false,"listenPort":1790,"bindMode":"NodeIP",
                "nodeMeshMaxRestartTime":"30s","nodeMeshPassword":{"secretKeyRef":{"namespace":"n","name":"s","key":"k"}},
                "serviceClusterIPs":[{"cidr":"10.96.0.0/12"}],"serviceExternalIPs":[],"serviceLoadBalancerIPs":[{"cidr":"192.0.2.0/24"}],
                "communities":[{"name":"blue","value":"64512:7"}],
                "prefixAdvertisements":[{"cidr":"10.244.0.0/16","communities":["blue","1:2:3"]}]}"#,
        )
        .unwrap();
        assert_eq!((all.as_number, all.mesh, all.port, all.bind_node_address), (65_001, false, 1790, true));
        assert_eq!((all.cluster_ips.len(), all.external_ips.len(), all.load_balancer_ips.len()), (1, 0, 1));
        let values = vec![CommunityValue::Standard(64_512 << 16 | 7), CommunityValue::Large(1, 2, 3)];
        assert_eq!(all.communities, [("10.244.0.0/16".parse().unwrap(), values)]);
        assert_eq!(all.mesh_restart_time, 30);
    }

    #[test]
    fn what_makes_no_sense_is_kept_with_the_reason() {
        for (bad, word) in [
            (r#"{"asNumber":23456}"#, "reserved"),
            (r#"{"listenPort":0}"#, "listenPort"),
            (r#"{"bindMode":"All"}"#, "unknown variant"),
            (r#"{"serviceClusterIPs":[{"cidr":"10.96.0.1/12"}]}"#, "did you mean"),
            (r#"{"communities":[{"name":"a","value":"x"}]}"#, "no community"),
            (r#"{"prefixAdvertisements":[{"cidr":"10.0.0.0/8","communities":["red"]}]}"#, "no community"),
        ] {
            let error = speaking(bad).unwrap_err();
            assert!(error.contains(word), "{bad}: {error}");
        }
    }
}
