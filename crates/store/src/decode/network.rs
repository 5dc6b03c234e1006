//! weft.dev/v1 Network.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Deserialize;
use weft_model::network::{
    Backend, Ipam, Migration, Network, UDP_PORT, VXLAN_PORT, VXLAN_VNI, Vxlan, parse_cidr,
};

use super::{Kind, Meta};

/// The most networks that can be left out of masquerading.
const EXCEPTIONS: usize = 1024;
/// The most nodes that a migration can name.
const NODES: usize = 10_000;
/// VXLAN network identifiers have 24 bits (RFC 7348).
const VNI_LIMIT: u32 = 1 << 24;
/// What IPv6 asks of every link (RFC 8200), and the longest packet.
const MTU: std::ops::RangeInclusive<u32> = 1280..=65_535;

#[derive(Deserialize)]
struct Wire {
    spec: Spec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    backend: Option<Backend>,
    vxlan: Option<VxlanSpec>,
    udp_port: Option<u16>,
    ipam: Option<Ipam>,
    mtu: Option<u32>,
    no_masquerade: Option<Vec<String>>,
    migration: Option<MigrationSpec>,
}

#[derive(Deserialize)]
struct VxlanSpec {
    vni: Option<u32>,
    port: Option<u16>,
}

#[derive(Deserialize)]
struct MigrationSpec {
    to: Backend,
    nodes: Option<BTreeSet<Arc<str>>>,
}

/// Reads a Network object; the error says what makes no sense.
pub fn decode_network(json: &str) -> Result<Network, String> {
    let Wire { spec } = serde_json::from_str(json).map_err(|e| e.to_string())?;
    let (vni, port) = spec.vxlan.map_or((None, None), |vxlan| (vxlan.vni, vxlan.port));
    let vxlan = Vxlan { vni: vni.unwrap_or(VXLAN_VNI), port: port.unwrap_or(VXLAN_PORT) };
    let udp_port = spec.udp_port.unwrap_or(UDP_PORT);
    if vxlan.vni >= VNI_LIMIT || vxlan.port == 0 || udp_port == 0 {
        return Err(format!(
            "its spec.vxlan or udpPort is out of range: vni {}, port {}",
            vxlan.vni, vxlan.port
        ));
    }
    if let Some(mtu) = spec.mtu.filter(|mtu| !MTU.contains(mtu)) {
        return Err(format!("its spec.mtu is {mtu}: give {} to {}", MTU.start(), MTU.end()));
    }
    let exceptions = spec.no_masquerade.unwrap_or_default();
    let migration = spec.migration.map(|m| Migration { to: m.to, nodes: m.nodes.unwrap_or_default() });
    if exceptions.len() > EXCEPTIONS || migration.as_ref().is_some_and(|m| m.nodes.len() > NODES) {
        return Err(format!("it names more than {EXCEPTIONS} exceptions or {NODES} nodes"));
    }
    let exceptions = exceptions.iter().map(|text| parse_cidr(text).map_err(|e| e.to_string()));
    Ok(Network {
        backend: spec.backend.unwrap_or(Backend::AUTO),
        vxlan,
        udp_port,
        ipam: spec.ipam,
        mtu: spec.mtu,
        no_masquerade: exceptions.collect::<Result<_, _>>()?,
        migration,
    })
}

impl Kind for Network {
    type Key = Arc<str>;
    const PATH: &'static str = super::NETWORK_PATH;
    const NAME: &'static str = "network";
    const OPTIONAL: bool = true;

    fn decode(_: &Meta, json: &str) -> Result<Self, String> {
        decode_network(json)
    }

    fn key(meta: &Meta) -> Arc<str> {
        meta.name.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(spec: &str) -> Result<Network, String> {
        decode_network(&format!(r#"{{"metadata":{{"name":"default"}},"spec":{spec}}}"#))
    }

    #[test]
    fn what_is_absent_is_the_default_and_what_is_written_is_read_again() {
        assert_eq!(spec("{}"), Ok(Network::default()));
        let whole = Network {
            backend: Backend::VXLAN,
            vxlan: Vxlan { vni: 7, port: 4789 },
            udp_port: 9000,
            ipam: None,
            mtu: Some(1400),
            no_masquerade: vec!["192.0.2.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
            migration: Some(Migration { to: Backend::UDP, nodes: ["a".into()].into() }),
        };
        assert_eq!(spec(&serde_json::to_string(&whole).unwrap()), Ok(whole));
        assert_eq!(spec(&serde_json::to_string(&Network::default()).unwrap()), Ok(Network::default()));
    }

    #[test]
    fn what_makes_no_sense_is_refused_whole() {
        for (bad, word) in [
            (r#"{"backend":"gre"}"#, "unknown backend"),
            (r#"{"vxlan":{"vni":16777216}}"#, "out of range"),
            (r#"{"udpPort":0}"#, "out of range"),
            (r#"{"mtu":500}"#, "1280"),
            (r#"{"noMasquerade":["10.0.0.1/8"]}"#, "did you mean"),
            (r#"{"migration":{}}"#, "missing field"),
        ] {
            let error = spec(bad).unwrap_err();
            assert!(error.contains(word), "{bad}: {error}");
        }
    }
}
