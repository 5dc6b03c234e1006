//! The network configuration on standard input.

use std::collections::BTreeMap;
use std::io::{Read, Take};

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use weft_ipam::range::RangeSpec;

use crate::protocol::any_case::{self, AnyCase};
use crate::protocol::args::Command;
use crate::protocol::error::{CniError, code};
use crate::protocol::readers::Readers;
use crate::protocol::record::Registration;
use crate::protocol::version::Version;

/// No configuration is larger; what is, is an attack or a mistake.
const LARGEST: u64 = 1 << 20;

/// The keys that all plugins have in common; others belong to one plugin, which reads them by
/// [`keys`], or are passed over, as the specification wants. `P` is what `prevResult` is read as.
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
    #[serde(default, deserialize_with = "any_case::read")]
    pub dns: Option<Dns>,
    /// What the plugin before in the chain, or the ADD before this call, answered.
    pub prev_result: Option<P>,
    /// What the runtime adds for this container.
    #[serde(default, deserialize_with = "any_case::read")]
    pub runtime_config: Option<RuntimeConfig>,
    /// What the runtime adds in the older way.
    #[serde(default, deserialize_with = "any_case::read")]
    pub args: Option<LegacyArgs>,
    /// GC: the attachments that stay.
    #[serde(rename = "cni.dev/valid-attachments")]
    pub valid_attachments: Option<Vec<ValidAttachment>>,
    /// How containers that no API object declares are registered.
    pub weft: Option<Registration>,
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

/// What the runtime adds, as far as several plugins understand it; the rest (port mappings,
/// bandwidth) is read by the plugin that it is for (CONVENTIONS of the CNI specification).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeConfig {
    /// MAC of the container's interface.
    pub mac: Option<String>,
    /// Requested addresses.
    pub ips: Option<Vec<String>>,
    /// Ranges that go before the configured ones.
    pub ip_ranges: Option<Vec<Vec<RangeSpec>>>,
    /// DNS settings of the container.
    pub dns: Option<RuntimeDns>,
    /// The device that a device plugin chose: a PCI address.
    #[serde(rename = "deviceID")]
    pub device_id: Option<String>,
    /// The annotations of the pod, as containerd and CRI-O tell them.
    #[serde(rename = "io.kubernetes.cri.pod-annotations")]
    pub pod_annotations: Option<BTreeMap<String, String>>,
}

/// The capability `dns`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct RuntimeDns {
    /// Name servers.
    pub servers: Option<Vec<String>>,
    /// Search domains.
    pub searches: Option<Vec<String>>,
    /// Resolver options.
    pub options: Option<Vec<String>>,
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
    let whole = std::str::from_utf8(bytes).map_err(|error| undecodable(&error)).and_then(|_| decode(bytes));
    match whole {
        // What the ADD before answered must not stop a DEL.
        Err(_) if command == Command::Del => {
            decode::<NetConf<IgnoredAny>>(bytes).map(NetConf::without_prev_result)
        }
        other => other,
    }
}

/// A plugin's own keys, in any case.
pub fn keys<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CniError> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    decoded(bytes, || T::deserialize(AnyCase(&mut json)).and_then(|read| json.end().map(|()| read)))
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CniError> {
    decoded(bytes, || serde_json::from_slice(bytes))
}

fn decoded<T: DeserializeOwned>(
    bytes: &[u8],
    read: impl FnOnce() -> serde_json::Result<T>,
) -> Result<T, CniError> {
    // A list would be taken for the fields in their order.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(undecodable(&"it is not a JSON object"));
    }
    read().map_err(|error| {
        // Looked at once more, it is known which key is of the wrong type.
        let named = |value: Value| Readers::default().read::<T>("", &value).err();
        let named = serde_json::from_slice(bytes).ok().filter(|_| error.is_data()).and_then(named);
        named.map_or_else(|| undecodable(&error), |named| undecodable(&named))
    })
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
    /// Anything but a text would count as no IPAM plugin at all.
    pub(crate) fn check_ipam_type(&self) -> Result<(), CniError> {
        match self.ipam.as_ref().and_then(|ipam| ipam.get("type")) {
            None | Some(Value::Null | Value::String(_)) => Ok(()),
            Some(other) => Err(undecodable(&format!("ipam.type: {other} is no text"))),
        }
    }

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

impl NetConf<IgnoredAny> {
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
            weft: self.weft,
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
