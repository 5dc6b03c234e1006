//! What ADD answers, in every version of the specification.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use weft_kernel::Link;

use crate::protocol::config::Dns;
use crate::protocol::error::{CniError, code};
use crate::protocol::version::Version;

/// A result, in the words of the newest version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CniResult {
    /// Interfaces made; an address names one by its place in this list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<Interface>,
    /// Addresses given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ips: Vec<Ip>,
    /// Routes made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// DNS settings for the container.
    #[serde(default)]
    pub dns: Dns,
}

/// An interface of a result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its hardware address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Its MTU in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The network namespace it is in; none for the node's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<String>,
    /// A socket that belongs to it.
    #[serde(rename = "socketPath", default, skip_serializing_if = "Option::is_none")]
    pub socket_path: Option<String>,
    /// The PCI device that it is.
    #[serde(rename = "pciID", default, skip_serializing_if = "Option::is_none")]
    pub pci_id: Option<String>,
}

/// An address of a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ip {
    /// With its prefix length.
    pub address: IpNet,
    /// The default gateway of its subnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// The place of its interface in the list of interfaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<usize>,
}

/// A route of a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Destination.
    pub dst: IpNet,
    /// Next hop; the gateway of the address of its family when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
    /// Path MTU in bytes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mtu: Option<u32>,
    /// Maximal segment size to advertise, in bytes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub advmss: Option<u32>,
    /// Metric; the lowest wins.
    #[serde(default, skip_serializing_if = "is_default")]
    pub priority: Option<u32>,
    /// Routing table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
    /// Scope as the kernel numbers it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<u8>,
}

impl Interface {
    /// A link as the kernel has it; `sandbox` is its network namespace, none for the node's.
    pub(crate) fn of(link: &Link, sandbox: Option<String>) -> Interface {
        Interface {
            name: link.name.clone(),
            mac: link.mac.map(|mac| mac.to_string()),
            mtu: Some(link.mtu),
            sandbox,
            ..Interface::default()
        }
    }
}

/// Whether a route's setting is the kernel's own, so that there is nothing to tell.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_default(setting: &Option<u32>) -> bool {
    setting.is_none_or(|value| value == 0)
}

impl Route {
    /// A route by `gw` with all else as the kernel has it.
    pub(crate) fn new(dst: IpNet, gw: Option<IpAddr>) -> Route {
        Route { dst, gw, mtu: None, advmss: None, priority: None, table: None, scope: None }
    }
}

impl CniResult {
    /// The result object of this version, with its cniVersion.
    pub fn to_value(&self, version: Version) -> Value {
        let mut value = match version {
            Version::V010 | Version::V020 => self.by_family(),
            _ => serde_json::to_value(self).unwrap_or_default(),
        };
        if version < Version::V110 {
            strip(&mut value, "interfaces", &["mtu", "socketPath", "pciID"]);
            strip(&mut value, "routes", &["mtu", "advmss", "priority", "table", "scope"]);
        }
        // As the reference leaves it out from then on.
        if version >= Version::V100
            && self.dns.is_empty()
            && let Value::Object(object) = &mut value
        {
            object.remove("dns");
        }
        if (Version::V030..=Version::V040).contains(&version) {
            for (ip, given) in list(&mut value, "ips").zip(&self.ips) {
                ip.insert("version".into(), family(&given.address).into());
            }
        }
        if let Value::Object(object) = &mut value {
            object.insert("cniVersion".into(), version.text().into());
        }
        value
    }

    /// Reads a result object; its own cniVersion goes before `version`.
    pub fn from_value(value: &Value, version: Version) -> Result<CniResult, CniError> {
        let own = value.get("cniVersion").and_then(Value::as_str).map(Version::parse);
        let version = own.unwrap_or(Some(version)).ok_or_else(|| undecodable("its cniVersion is unknown"))?;
        if !value.is_object() {
            return Err(undecodable("it is no JSON object"));
        }
        if version <= Version::V020 {
            return CniResult::from_families(value);
        }
        let result = CniResult::deserialize(value).map_err(|error| undecodable(&error.to_string()))?;
        let stray = result.ips.iter().filter_map(|ip| ip.interface).find(|at| *at >= result.interfaces.len());
        match stray {
            Some(at) => Err(undecodable(&format!("an address names interface {at}, which is not listed"))),
            None => Ok(result),
        }
    }

    /// Versions 0.1.0 and 0.2.0 have one address for each family, with that family's routes.
    fn by_family(&self) -> Value {
        let mut object = Map::new();
        for (key, version) in [("ip4", "4"), ("ip6", "6")] {
            let Some(ip) = self.ips.iter().find(|ip| family(&ip.address) == version) else { continue };
            let routes: Vec<&Route> = self.routes.iter().filter(|r| family(&r.dst) == version).collect();
            let mut entry = json!({ "ip": ip.address });
            if let Some(gateway) = ip.gateway {
                entry["gateway"] = gateway.to_string().into();
            }
            if !routes.is_empty() {
                entry["routes"] = serde_json::to_value(routes).unwrap_or_default();
                strip(&mut entry, "routes", &["mtu", "advmss", "priority", "table", "scope"]);
            }
            object.insert(key.into(), entry);
        }
        object.insert("dns".into(), serde_json::to_value(&self.dns).unwrap_or_default());
        Value::Object(object)
    }

    fn from_families(value: &Value) -> Result<CniResult, CniError> {
        #[derive(Deserialize)]
        struct Entry {
            ip: IpNet,
            gateway: Option<IpAddr>,
            routes: Option<Vec<Route>>,
        }
        #[derive(Deserialize)]
        struct Old {
            ip4: Option<Entry>,
            ip6: Option<Entry>,
            dns: Option<Dns>,
        }
        let old = Old::deserialize(value).map_err(|error| undecodable(&error.to_string()))?;
        let mut result = CniResult { dns: old.dns.unwrap_or_default(), ..CniResult::default() };
        for entry in [old.ip4, old.ip6].into_iter().flatten() {
            result.ips.push(Ip { address: entry.ip, gateway: entry.gateway, interface: None });
            result.routes.extend(entry.routes.unwrap_or_default());
        }
        Ok(result)
    }
}

fn family(net: &IpNet) -> &'static str {
    if matches!(net, IpNet::V4(_)) { "4" } else { "6" }
}

fn list<'a>(value: &'a mut Value, key: &str) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    let items = value.get_mut(key).and_then(Value::as_array_mut);
    items.into_iter().flatten().filter_map(Value::as_object_mut)
}

fn strip(value: &mut Value, key: &str, fields: &[&str]) {
    for item in list(value, key) {
        item.retain(|field, _| !fields.contains(&field.as_str()));
    }
}

fn undecodable(reason: &str) -> CniError {
    CniError::new(code::DECODE, format!("cannot decode prevResult: {reason}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> CniResult {
        let value = json!({
            "interfaces": [{"name": "weft0", "mac": "0a:58:0a:09:00:01", "mtu": 1400},
                           {"name": "eth0", "sandbox": "/run/netns/a"}],
            "ips": [{"address": "10.9.0.2/24", "gateway": "10.9.0.1", "interface": 1},
                    {"address": "fd00::2/64", "interface": 1}],
            "routes": [{"dst": "0.0.0.0/0", "gw": "10.9.0.1", "priority": 7}],
            "dns": {"nameservers": ["10.96.0.10"]},
        });
        CniResult::from_value(&value, Version::V110).unwrap()
    }

    #[test]
    fn each_version_has_its_form() {
        let newest = sample().to_value(Version::V110);
        assert_eq!(newest["interfaces"][0]["mtu"], 1400);
        assert_eq!(newest["routes"][0]["priority"], 7);
        assert!(newest["ips"][0].get("version").is_none());
        let one = sample().to_value(Version::V100);
        assert!(one["interfaces"][0].get("mtu").is_none() && one["routes"][0].get("priority").is_none());
        let three = sample().to_value(Version::V031);
        assert_eq!(three["cniVersion"], "0.3.1");
        assert_eq!((&three["ips"][0]["version"], &three["ips"][1]["version"]), (&json!("4"), &json!("6")));
        let old = sample().to_value(Version::V020);
        assert_eq!(old["ip4"]["ip"], "10.9.0.2/24");
        assert_eq!(old["ip4"]["routes"][0], json!({"dst": "0.0.0.0/0", "gw": "10.9.0.1"}));
        assert!(old.get("interfaces").is_none() && old.get("ips").is_none());
    }

    #[test]
    fn what_a_version_can_say_comes_back() {
        for version in Version::ALL {
            let value = sample().to_value(version);
            let back = CniResult::from_value(&value, Version::V110).unwrap();
            assert_eq!(back.to_value(version), value, "{}", version.text());
        }
    }

    proptest! {
        #[test]
        fn no_prev_result_makes_it_panic(text in r#"[\[\]{}":,0-9a-z/. ]{0,60}"#, ip in ".{0,20}", at in any::<u64>()) {
            if let Ok(value) = serde_json::from_str::<Value>(&text) {
                let _ = CniResult::from_value(&value, Version::V100);
            }
            let value = json!({"ips": [{"address": ip, "interface": at}], "ip4": {"ip": ip}});
            let _ = CniResult::from_value(&value, Version::V010);
            let _ = CniResult::from_value(&value, Version::V110);
            let fair = json!({"ips": [{"address": "10.0.0.1/8", "interface": at}]});
            prop_assert!(CniResult::from_value(&fair, Version::V110).is_err());
        }
    }
}
