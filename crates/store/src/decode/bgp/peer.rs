//! weft.dev/v1 BGPPeer.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::Deserialize;
use weft_model::bgp::{PORT, Peering, RESTART_TIME, Remote, Speakers};
use weft_model::pools::LabelSelector;

use super::{AsWire, PasswordWire, at_most, router, seconds};

/// The most filters of one peer.
const FILTERS: usize = 64;
/// The most of our own AS in a path.
const OWN_AS: u8 = 10;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spec {
    node: Option<Arc<str>>,
    node_selector: Option<LabelSelector>,
    #[serde(rename = "peerIP")]
    peer_ip: Option<String>,
    as_number: Option<AsWire>,
    peer_selector: Option<LabelSelector>,
    password: Option<PasswordWire>,
    source_address: Option<SourceAddress>,
    filters: Option<Vec<Arc<str>>>,
    keep_original_next_hop: Option<bool>,
    max_restart_time: Option<String>,
    ttl_security: Option<u8>,
    #[serde(rename = "numAllowedLocalASNumbers")]
    allowed_own_as: Option<u8>,
    reachable_by: Option<String>,
}

#[derive(Deserialize, PartialEq)]
enum SourceAddress {
    #[serde(rename = "UseNodeIP")]
    NodeAddress,
    None,
}

/// What it says, or why it makes no sense.
pub(super) fn sense(spec: Spec) -> Result<Peering, String> {
    let of = match (spec.node.filter(|node| !node.is_empty()), spec.node_selector) {
        (Some(_), Some(_)) => return Err("give node or nodeSelector, not both".to_owned()),
        (Some(node), None) => Speakers::Node(node),
        (None, Some(selector)) => Speakers::Labelled(selector),
        (None, None) => Speakers::All,
    };
    let asn = spec.as_number.map(|number| number.number()).transpose()?;
    let with = match (spec.peer_ip.as_deref(), spec.peer_selector) {
        (Some(_), Some(_)) => return Err("give peerIP or peerSelector, not both".to_owned()),
        (None, None) => return Err("give peerIP, or peerSelector for nodes".to_owned()),
        (Some(text), None) => {
            let (ip, port) = address(text)?;
            Remote::Router { ip, port, asn }
        }
        (None, Some(_)) if asn.is_some() || spec.reachable_by.is_some() => {
            return Err("asNumber and reachableBy are for a peerIP; nodes have their own".to_owned());
        }
        (None, Some(selector)) => Remote::Nodes(selector),
    };
    let reachable_by = spec.reachable_by.map(|text| router("reachableBy", &text)).transpose()?;
    if let (Some(gateway), Remote::Router { ip, .. }) = (reachable_by, &with)
        && gateway.is_ipv4() != ip.is_ipv4()
    {
        return Err(format!("reachableBy {gateway} is not of the family of peerIP {ip}"));
    }
    let filters = spec.filters.unwrap_or_default();
    at_most("filters", &filters, FILTERS)?;
    let allowed_own_as = spec.allowed_own_as.unwrap_or_default();
    if allowed_own_as > OWN_AS {
        return Err(format!("numAllowedLocalASNumbers is {allowed_own_as}; give 0 to {OWN_AS}"));
    }
    let restart_time = spec.max_restart_time.map(|text| seconds("maxRestartTime", &text));
    Ok(Peering {
        of,
        with,
        password: spec.password.map(PasswordWire::key).transpose()?,
        from_node_address: spec.source_address != Some(SourceAddress::None),
        filters,
        keep_next_hop: spec.keep_original_next_hop.unwrap_or_default(),
        restart_time: restart_time.transpose()?.unwrap_or(RESTART_TIME),
        ttl_security: spec.ttl_security.filter(|hops| *hops > 0),
        allowed_own_as,
        reachable_by,
    })
}

/// An address, also with a port.
fn address(text: &str) -> Result<(IpAddr, u16), String> {
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() == 0 => Err(format!("peerIP {text:?} has no port")),
        Ok(address) => Ok((router("peerIP", &address.ip().to_string())?, address.port())),
        Err(_) => Ok((router("peerIP", text)?, PORT)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::{Kind, meta};
    use super::*;
    use weft_model::bgp::BgpPeer;

    fn peering(spec: &str) -> Result<Peering, String> {
        let json = format!(r#"{{"metadata":{{"name":"p"}},"spec":{spec}}}"#);
        BgpPeer::decode(&meta(&json).unwrap(), &json).unwrap().spec
    }

    #[test]
    fn a_peer_says_who_speaks_with_whom() {
        let tor = peering(
            r#"{"peerIP":"[fd00::1]:1790","asNumber":"64086.59904","nodeSelector":{"matchLabels":{"rack":"a"}},
                "password":{"secretKeyRef":{"name":"s","key":"k"}},"filters":["f"],"ttlSecurity":1,
                "keepOriginalNextHop":true,"maxRestartTime":"1m30s","numAllowedLocalASNumbers":2,"reachableBy":"fd00::9"}"#,
        )
        .unwrap();
        let ip = "fd00::1".parse().unwrap();
        assert_eq!(tor.with, Remote::Router { ip, port: 1790, asn: Some(4_200_000_000) });
        assert!(matches!(tor.of, Speakers::Labelled(_)) && tor.keep_next_hop && tor.from_node_address);
        assert_eq!((tor.restart_time, tor.ttl_security, tor.allowed_own_as), (90, Some(1), 2));
        assert_eq!(tor.password.unwrap().to_string(), "k of the Secret weft-system/s");
        let bare = peering(r#"{"peerIP":"192.0.2.1"}"#).unwrap();
        assert_eq!((bare.of, bare.restart_time, bare.ttl_security), (Speakers::All, 120, None));
        let nodes = peering(r#"{"node":"a","peerSelector":{},"sourceAddress":"None"}"#).unwrap();
        assert_eq!(nodes.with, Remote::Nodes(LabelSelector::default()));
        assert!(!nodes.from_node_address);
    }

    #[test]
    fn what_makes_no_sense_is_kept_with_the_reason() {
        for (bad, word) in [
            (r#"{}"#, "give peerIP"),
            (r#"{"peerIP":"192.0.2.1","peerSelector":{}}"#, "not both"),
            (r#"{"peerIP":"192.0.2.1","node":"a","nodeSelector":{}}"#, "not both"),
            (r#"{"peerSelector":{},"asNumber":65001}"#, "asNumber"),
            (r#"{"peerIP":"192.0.2.300"}"#, "no IP address"),
            (r#"{"peerIP":"127.0.0.1"}"#, "no address of a router"),
            (r#"{"peerIP":"fe80::1"}"#, "no address of a router"),
            (r#"{"peerIP":"192.0.2.1:0"}"#, "no port"),
            (r#"{"peerIP":"192.0.2.1","asNumber":0}"#, "reserved"),
            (r#"{"peerIP":"192.0.2.1","asNumber":"x"}"#, "no AS number"),
            (r#"{"peerIP":"192.0.2.1","reachableBy":"fd00::1"}"#, "family"),
            (r#"{"peerIP":"192.0.2.1","maxRestartTime":"2h"}"#, "4095s"),
            (r#"{"peerIP":"192.0.2.1","maxRestartTime":"99999999999s"}"#, "4095s"),
            (r#"{"peerIP":"192.0.2.1","ttlSecurity":300}"#, "invalid value"),
            (r#"{"peerIP":"192.0.2.1","numAllowedLocalASNumbers":11}"#, "0 to 10"),
            (r#"{"peerIP":"192.0.2.1","sourceAddress":"Any"}"#, "unknown variant"),
            (r#"{"peerIP":"192.0.2.1","password":{"secretKeyRef":{"name":"../x","key":"k"}}}"#, "no key"),
            (r#"7"#, "invalid type"),
        ] {
            let error = peering(bad).unwrap_err();
            assert!(error.contains(word), "{bad}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in ".{0,60}") {
            let _ = peering(&serde_json::json!({"peerIP": text, "maxRestartTime": text, "asNumber": text}).to_string());
            let _ = peering(&serde_json::json!({"peerIP": "192.0.2.1", "maxRestartTime": text}).to_string());
        }
    }
}
