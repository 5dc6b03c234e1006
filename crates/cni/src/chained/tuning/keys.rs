//! The keys of `tuning`.

use std::fmt;
use std::path::PathBuf;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use weft_model::Mac;

use crate::interface::pod::{mtu, parse_mac};
use crate::protocol::config::invalid;
use crate::protocol::error::CniError;
use crate::protocol::plugin::Call;

const DATA_DIR: &str = "/run/cni/tuning";

/// As the configuration has them.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Keys {
    data_dir: Option<PathBuf>,
    #[serde(flatten)]
    values: Values,
    args: Option<Args>,
}

#[derive(Deserialize)]
struct Args {
    cni: Option<Values>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Values {
    sysctl: Option<Sysctls>,
    mac: Option<String>,
    promisc: Option<bool>,
    mtu: Option<i64>,
    #[serde(rename = "txQLen")]
    tx_q_len: Option<i64>,
    allmulti: Option<bool>,
}

/// Names with values in the order in which they stand, none twice.
#[derive(Default)]
struct Sysctls(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Sysctls {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Sysctls, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Sysctls;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of kernel parameters with their values as strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Sysctls, A::Error> {
                let mut pairs: Vec<(String, String)> = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, String>()? {
                    if pairs.iter().any(|(other, _)| *other == name) {
                        let message = format!("sysctl: {name:?} is there twice");
                        return Err(serde::de::Error::custom(message));
                    }
                    pairs.push((name, value));
                }
                Ok(Sysctls(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

impl Keys {
    pub(super) fn data_dir(&self) -> PathBuf {
        let given = self.data_dir.clone().filter(|path| !path.as_os_str().is_empty());
        given.unwrap_or_else(|| DATA_DIR.into())
    }
}

/// What is set, checked.
pub(super) struct Wanted {
    pub(super) data_dir: PathBuf,
    pub(super) sysctls: Vec<Sysctl>,
    pub(super) mac: Option<WantedMac>,
    pub(super) promiscuous: bool,
    pub(super) mtu: Option<u32>,
    pub(super) allmulti: Option<bool>,
    pub(super) tx_queue_len: Option<u32>,
}

/// A hardware address and how it was written, which is how the result has it.
pub(super) struct WantedMac {
    pub(super) mac: Mac,
    pub(super) text: String,
}

/// A kernel parameter of the container's namespace.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sysctl {
    /// As the configuration names it, for the allow list and errors.
    pub(super) key: String,
    /// Where it is below `/proc/sys`.
    pub(super) path: String,
    /// Its value.
    pub(super) value: String,
}

impl Wanted {
    /// `args.cni` goes before the runtime's MAC, that before the one in CNI_ARGS, and the keys of
    /// the configuration are last.
    pub(super) fn of(call: &Call, keys: Keys) -> Result<Wanted, CniError> {
        let data_dir = keys.data_dir();
        let own = keys.values;
        let args = keys.args.and_then(|args| args.cni).unwrap_or_default();
        let mut sysctls = own.sysctl.unwrap_or_default().0;
        for (name, value) in args.sysctl.unwrap_or_default().0 {
            match sysctls.iter_mut().find(|(other, _)| *other == name) {
                Some(pair) => pair.1 = value,
                None => sysctls.push((name, value)),
            }
        }
        let runtime = call.conf.runtime_config.as_ref().and_then(|config| config.mac.clone());
        let full = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let given = [args.mac, full(&runtime), full(&call.args.extra.mac), own.mac];
        let mac = given.into_iter().flatten().next().filter(|text| !text.is_empty());
        Ok(Wanted {
            data_dir,
            sysctls: sysctls
                .into_iter()
                .map(|pair| sysctl(pair, &call.args.ifname))
                .collect::<Result<_, _>>()?,
            mac: mac.map(wanted_mac).transpose()?,
            promiscuous: args.promisc.or(own.promisc).unwrap_or(false),
            mtu: mtu(args.mtu.or(own.mtu))?,
            allmulti: args.allmulti.or(own.allmulti),
            tx_queue_len: args.tx_q_len.or(own.tx_q_len).map(queue_len).transpose()?,
        })
    }
}

fn wanted_mac(text: String) -> Result<WantedMac, CniError> {
    Ok(WantedMac { mac: parse_mac("mac", &text)?, text })
}

fn queue_len(packets: i64) -> Result<u32, CniError> {
    u32::try_from(packets).map_err(|_| invalid(&format!("txQLen: {packets} is no number of packets")))
}

/// Dots and slashes part the name, and the first `IFNAME` stands for the container's interface.
fn sysctl((key, value): (String, String), ifname: &str) -> Result<Sysctl, CniError> {
    let whole = key.replace('.', "/").replacen("IFNAME", ifname, 1);
    let parts: Vec<&str> = whole.split('/').filter(|part| !part.is_empty()).collect();
    let plain = parts.iter().all(|part| *part != "." && *part != "..");
    if parts.len() < 2 || parts[0] != "net" || !plain || key.contains("..") {
        return Err(invalid(&format!(
            "sysctl: {key:?} is no parameter of a network namespace: only those below net can be set"
        )));
    }
    Ok(Sysctl { path: parts.join("/"), key, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_have_dots_or_slashes_and_stays_below_net() {
        let path = |key: &str| sysctl((key.into(), "1".into()), "eth0.7").map(|sysctl| sysctl.path);
        let expected = "net/ipv4/conf/eth0.7/arp_ignore";
        for key in [
            "net.ipv4.conf.IFNAME.arp_ignore",
            "net/ipv4/conf/IFNAME/arp_ignore",
            "/net/ipv4/conf/IFNAME/arp_ignore",
        ] {
            assert_eq!(path(key).unwrap(), expected, "{key}");
        }
        for bad in ["kernel.shm_rmid_forced", "net", "", "../net.ipv4.x", "networks.x", "vm/net/x"] {
            assert!(path(bad).is_err(), "{bad}");
        }
        let above = sysctl(("net.IFNAME.kernel.x".into(), String::new()), "..");
        assert!(above.is_err());
    }

    #[test]
    fn a_parameter_that_is_there_twice_is_refused() {
        let twice = r#"{"sysctl": {"net.ipv4.x": "1", "net.ipv4.x": "2"}}"#;
        let error = serde_json::from_str::<Keys>(twice).err().unwrap().to_string();
        assert!(error.contains("net.ipv4.x"), "{error}");
        assert!(serde_json::from_str::<Keys>(r#"{"sysctl": {"net.ipv4.x": 1}}"#).is_err());
    }
}
