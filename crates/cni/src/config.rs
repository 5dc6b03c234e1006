//! The network configuration on standard input.

use std::io::{Read, Take};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use weft_ipam::range::RangeSpec;

use crate::args::Command;
use crate::error::{CniError, code};
use crate::version::Version;

/// No configuration is larger; what is, is an attack or a mistake.
const LARGEST: u64 = 1 << 20;

/// The keys that the plugins know; others are passed over, as the specification wants. `P` is
/// what `prevResult` is read as.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetConf<P = Value> {
    /// The version that the answer is to have.
    pub cni_version: Option<String>,
    /// The network's name.
    pub name: Option<String>,
    /// The plugin's name.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// How addresses are given; its keys belong to the IPAM plugin.
    pub ipam: Option<serde_json::Map<String, Value>>,
    /// DNS settings, which go before those of the IPAM plugin.
    pub dns: Option<Dns>,
    /// What the plugin before in the chain, or the ADD before this call, answered.
    pub prev_result: Option<P>,
    /// What the runtime adds for this container.
    pub runtime_config: Option<RuntimeConfig>,
    /// What the runtime adds in the older way.
    pub args: Option<LegacyArgs>,
    /// GC: the attachments that stay.
    #[serde(rename = "cni.dev/valid-attachments")]
    pub valid_attachments: Option<Vec<ValidAttachment>>,
    /// bridge: the bridge's name.
    pub bridge: Option<String>,
    /// bridge: the bridge has the gateway's address.
    pub is_gateway: Option<bool>,
    /// bridge: and is the container's default gateway.
    pub is_default_gateway: Option<bool>,
    /// bridge: replaces another address of the bridge.
    pub force_address: Option<bool>,
    /// bridge: a container may reach itself through the bridge.
    pub hairpin_mode: Option<bool>,
    /// MTU in bytes; 0 is the kernel's default.
    pub mtu: Option<i64>,
    /// bridge: IPv6 duplicate address detection in the container.
    pub enabledad: Option<bool>,
    /// Not supported unless absent, false, 0 or empty; so are all below.
    pub ip_masq: Option<Value>,
    /// See `ip_masq`.
    pub promisc_mode: Option<Value>,
    /// See `ip_masq`.
    pub vlan: Option<Value>,
    /// See `ip_masq`.
    pub vlan_trunk: Option<Value>,
    /// See `ip_masq`.
    pub macspoofchk: Option<Value>,
    /// See `ip_masq`.
    pub disable_container_interface: Option<Value>,
    /// See `ip_masq`.
    pub port_isolation: Option<Value>,
}

/// DNS settings of a result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// Name servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// The local domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Search domains.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Resolver options.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

impl Dns {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Dns::default()
    }
}

/// The capabilities that are understood.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeConfig {
    /// MAC of the container's interface.
    pub mac: Option<String>,
    /// Requested addresses.
    pub ips: Option<Vec<String>>,
    /// Ranges that go before the configured ones.
    pub ip_ranges: Option<Vec<Vec<RangeSpec>>>,
}

/// `args` of the configuration.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct LegacyArgs {
    /// `args.cni`.
    pub cni: Option<RuntimeConfig>,
}

/// An attachment as GC names it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ValidAttachment {
    /// The container.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// Its interface.
    pub ifname: String,
}

/// Standard input, up to the limit.
pub fn read(input: impl Read) -> Result<Vec<u8>, CniError> {
    let mut limited: Take<_> = input.take(LARGEST + 1);
    let mut bytes = Vec::with_capacity(4096);
    limited
        .read_to_end(&mut bytes)
        .map_err(|error| CniError::new(code::IO, format!("cannot read the configuration: {error}")))?;
    if bytes.len() as u64 > LARGEST {
        return Err(invalid("the configuration is larger than 1 MiB"));
    }
    Ok(bytes)
}

/// Decodes a configuration for `command`.
pub fn parse(bytes: &[u8], command: Command) -> Result<NetConf, CniError> {
    if matches!(command, Command::Del) {
        // What the ADD before answered must not stop a DEL, so it is not even decoded.
        let conf: NetConf<serde::de::IgnoredAny> = decode(bytes)?;
        return Ok(conf.without_prev_result());
    }
    std::str::from_utf8(bytes).map_err(|error| undecodable(&error))?;
    decode(bytes)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CniError> {
    // A list would be taken for the fields in their order.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(undecodable(&"it is not a JSON object"));
    }
    serde_json::from_slice(bytes).map_err(|error| undecodable(&error))
}

/// The version of the configuration, and whether it has `command`.
pub fn version<P>(conf: &NetConf<P>, command: Command) -> Result<Version, CniError> {
    let incompatible = |message: String| CniError::new(code::INCOMPATIBLE_VERSION, message);
    let known = Version::ALL.map(Version::text).join(", ");
    let text = conf
        .cni_version
        .as_deref()
        .ok_or_else(|| incompatible(format!("cniVersion is missing: give one of {known}")))?;
    let Some(version) = Version::parse(text) else {
        let message = format!("cniVersion {text:?} is not supported: give one of {known}");
        let later = matches!(command, Command::Check | Command::Gc | Command::Status);
        let malformed = later && !Version::is_well_formed(text);
        return Err(if malformed { CniError::new(code::DECODE, message) } else { incompatible(message) });
    };
    let (since, name) = match command {
        Command::Check => (Version::V040, "CHECK"),
        Command::Gc => (Version::V110, "GC"),
        Command::Status => (Version::V110, "STATUS"),
        _ => (Version::V010, ""),
    };
    if version < since {
        return Err(incompatible(format!("{name} needs cniVersion {} or later, not {text}", since.text())));
    }
    Ok(version)
}

impl<P> NetConf<P> {
    /// The network's name, checked.
    pub fn network(&self) -> Result<&str, CniError> {
        let name = self.name.as_deref().unwrap_or_default();
        if name.is_empty() {
            return Err(invalid("name is missing: give the network a name"));
        }
        let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        let rest = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
        if !first || !rest || name.len() > 253 {
            return Err(invalid(&format!(
                "name: {:?} starts with a letter or digit and has letters, digits, '_', '.' and '-' only, at most 253",
                name.chars().take(64).collect::<String>()
            )));
        }
        Ok(name)
    }

    /// The IPAM plugin's name; empty when there is none.
    pub fn ipam_type(&self) -> &str {
        let ipam = self.ipam.as_ref();
        ipam.and_then(|ipam| ipam.get("type")).and_then(Value::as_str).unwrap_or_default()
    }
}

impl NetConf<serde::de::IgnoredAny> {
    fn without_prev_result(self) -> NetConf {
        NetConf {
            prev_result: None,
            cni_version: self.cni_version,
            name: self.name,
            kind: self.kind,
            ipam: self.ipam,
            dns: self.dns,
            runtime_config: self.runtime_config,
            args: self.args,
            valid_attachments: self.valid_attachments,
            bridge: self.bridge,
            is_gateway: self.is_gateway,
            is_default_gateway: self.is_default_gateway,
            force_address: self.force_address,
            hairpin_mode: self.hairpin_mode,
            mtu: self.mtu,
            enabledad: self.enabledad,
            ip_masq: self.ip_masq,
            promisc_mode: self.promisc_mode,
            vlan: self.vlan,
            vlan_trunk: self.vlan_trunk,
            macspoofchk: self.macspoofchk,
            disable_container_interface: self.disable_container_interface,
            port_isolation: self.port_isolation,
        }
    }
}

/// A configuration that decodes but cannot be.
pub fn invalid(message: &str) -> CniError {
    CniError::new(code::INVALID_CONFIG, message)
}

fn undecodable(error: &dyn std::fmt::Display) -> CniError {
    CniError::new(code::DECODE, format!("cannot decode the configuration on standard input: {error}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_del_does_not_look_at_what_the_add_answered() {
        let deep = format!(r#"{{"name":"n","prevResult":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert!(parse(deep.as_bytes(), Command::Del).is_ok());
        assert_eq!(parse(deep.as_bytes(), Command::Add).unwrap_err().code, code::DECODE);
    }

    proptest! {
        #[test]
        fn no_input_makes_it_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200), name in ".{0,40}", version in ".{0,8}",
        ) {
            let _ = parse(&bytes, Command::Add);
            let json = serde_json::json!({"name": name, "cniVersion": version, "type": "bridge"}).to_string();
            let conf = parse(json.as_bytes(), Command::Check).unwrap();
            let _ = (conf.network(), super::version(&conf, Command::Check));
        }
    }
}
