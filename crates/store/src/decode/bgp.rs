//! weft.dev/v1 BGPPeer, BGPConfiguration and BGPFilter. One that makes no sense is kept with the reason, so that it
//! can be told.

mod configuration;
mod filter;
mod peer;

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use weft_model::bgp::{BgpConfiguration, BgpFilter, BgpPeer, MOST_RESTART_TIME, SecretKey};
use weft_model::network::parse_cidr;

use super::{Kind, Meta};

/// Where a Secret is whose namespace nobody says: where `deploy/weft.yaml` has the agents.
const NAMESPACE: &str = "weft-system";

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow)]
    spec: &'a RawValue,
}

/// Reads `spec` and makes sense of it.
fn spec<W: DeserializeOwned, S>(json: &str, sense: impl FnOnce(W) -> Result<S, String>) -> Result<S, String> {
    let Wire { spec } = serde_json::from_str(json).map_err(|error| error.to_string())?;
    sense(serde_json::from_str(spec.get()).map_err(|error| error.to_string())?)
}

impl Kind for BgpPeer {
    type Key = Arc<str>;
    const PATH: &'static str = "/apis/weft.dev/v1/bgppeers";
    const NAME: &'static str = "BGP peer";
    const OPTIONAL: bool = true;

    fn decode(meta: &Meta, json: &str) -> Result<Self, String> {
        let created = meta.creation_timestamp.clone().unwrap_or_default();
        Ok(BgpPeer { name: meta.name.clone(), created, spec: spec(json, peer::sense) })
    }

    fn key(meta: &Meta) -> Arc<str> {
        meta.name.clone()
    }
}

impl Kind for BgpConfiguration {
    type Key = Arc<str>;
    const PATH: &'static str = "/apis/weft.dev/v1/bgpconfigurations";
    const NAME: &'static str = "BGP configuration";
    const OPTIONAL: bool = true;

    fn decode(meta: &Meta, json: &str) -> Result<Self, String> {
        Ok(BgpConfiguration { name: meta.name.clone(), spec: spec(json, configuration::sense) })
    }

    fn key(meta: &Meta) -> Arc<str> {
        meta.name.clone()
    }
}

impl Kind for BgpFilter {
    type Key = Arc<str>;
    const PATH: &'static str = "/apis/weft.dev/v1/bgpfilters";
    const NAME: &'static str = "BGP filter";
    const OPTIONAL: bool = true;

    fn decode(meta: &Meta, json: &str) -> Result<Self, String> {
        Ok(BgpFilter { name: meta.name.clone(), spec: spec(json, filter::sense) })
    }

    fn key(meta: &Meta) -> Arc<str> {
        meta.name.clone()
    }
}

/// An AS number: a number, or a text in either form.
#[derive(Deserialize)]
#[serde(untagged)]
enum AsWire {
    Number(u32),
    Text(String),
}

impl AsWire {
    fn number(&self) -> Result<u32, String> {
        match self {
            AsWire::Number(number) => weft_model::bgp::as_number(&number.to_string()),
            AsWire::Text(text) => weft_model::bgp::as_number(text),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PasswordWire {
    secret_key_ref: SecretWire,
}

#[derive(Deserialize)]
struct SecretWire {
    namespace: Option<Arc<str>>,
    name: Arc<str>,
    key: Arc<str>,
}

impl PasswordWire {
    fn key(self) -> Result<SecretKey, String> {
        let SecretWire { namespace, name, key } = self.secret_key_ref;
        let namespace = namespace.unwrap_or_else(|| NAMESPACE.into());
        // They become part of a path.
        let plain =
            |text: &str| !text.is_empty() && !text.contains(['/', '?', '#', '%']) && text.len() <= 253;
        if plain(&namespace) && plain(&name) && plain(&key) {
            return Ok(SecretKey { namespace, name, key });
        }
        Err("secretKeyRef names no key of a Secret".to_owned())
    }
}

fn network(text: &str) -> Result<IpNet, String> {
    parse_cidr(text).map_err(|error| error.to_string())
}

/// An address at which there can be a router.
fn router(field: &str, text: &str) -> Result<IpAddr, String> {
    let ip: IpAddr = text.parse().map_err(|_| format!("{field} {text:?} is no IP address"))?;
    let bad = match ip {
        IpAddr::V4(ip) => ip.is_broadcast() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.to_ipv4_mapped().is_some(),
    };
    if bad || ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() {
        return Err(format!("{field} {ip} is no address of a router"));
    }
    Ok(ip)
}

/// A duration in whole seconds, as Kubernetes writes it: 120s, 2m0s.
fn seconds(field: &str, text: &str) -> Result<u16, String> {
    let read = || {
        let (mut rest, mut total) = (text, 0u32);
        while !rest.is_empty() {
            let (number, tail) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
            let unit = match tail.get(..1)? {
                "s" => 1,
                "m" => 60,
                "h" => 3600,
                _ => return None,
            };
            total = number.parse::<u32>().ok()?.checked_mul(unit)?.checked_add(total)?;
            rest = &tail[1..];
        }
        u16::try_from(total).ok().filter(|total| !text.is_empty() && *total <= MOST_RESTART_TIME)
    };
    read().ok_or_else(|| format!("{field} {text:?} is none of 0s to {MOST_RESTART_TIME}s"))
}

fn at_most<T>(field: &str, list: &[T], limit: usize) -> Result<(), String> {
    if list.len() <= limit { Ok(()) } else { Err(format!("{field} has more than {limit} entries")) }
}
