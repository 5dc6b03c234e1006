//! The keys of `ovs`, as the Open vSwitch plugin of KubeVirt has them.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use weft_model::Mac;

use crate::interface::pod;
use crate::protocol::config::invalid;
use crate::protocol::error::{CniError, code};
use crate::protocol::plugin::Call;

const SOCKET: &str = "/var/run/openvswitch/db.sock";
/// The bridge of a logical port of OVN.
const OVN_BRIDGE: &str = "br-int";
const LARGEST_VLAN: i64 = 4095;
/// Port numbers above are reserved (OFPP_MAX).
const LARGEST_PORT: i64 = 0xfeff;
/// How often, and in which distance in milliseconds, the link state is looked at.
const CHECKS: u64 = 5;
const INTERVAL: u64 = 1000;
/// No configuration waits longer.
const LONGEST: Duration = Duration::from_secs(120);

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Keys {
    bridge: Option<String>,
    vlan: Option<i64>,
    trunk: Option<Vec<TrunkKeys>>,
    mtu: Option<i64>,
    socket_file: Option<String>,
    ofport_request: Option<i64>,
    interface_type: Option<String>,
    #[serde(rename = "deviceID")]
    device_id: Option<String>,
    link_state_check_retries: Option<u64>,
    link_state_check_interval: Option<u64>,
    args: Option<Args>,
}

#[derive(Deserialize)]
struct TrunkKeys {
    id: Option<i64>,
    #[serde(rename = "minID")]
    min: Option<i64>,
    #[serde(rename = "maxID")]
    max: Option<i64>,
}

#[derive(Deserialize)]
struct Args {
    cni: Option<CniArgs>,
}

#[derive(Deserialize)]
struct CniArgs {
    #[serde(rename = "OvnPort")]
    ovn_port: Option<String>,
}

/// What is wanted, checked.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) bridge: String,
    pub(super) vlans: Vlans,
    pub(super) mtu: Option<u32>,
    pub(super) mac: Option<Mac>,
    pub(super) port_number: Option<u16>,
    pub(super) interface_type: Option<String>,
    pub(super) ovn_port: Option<String>,
    /// How long Open vSwitch may take until the port is up.
    pub(super) patience: Duration,
}

/// The VLANs of a port.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Vlans {
    /// Packets with any tag or none.
    All,
    /// Packets without a tag, which are in this VLAN.
    Access(u16),
    /// Packets with one of these tags.
    Trunk(BTreeSet<u16>),
}

impl Keys {
    /// Where the database's server listens.
    pub(super) fn socket(&self) -> PathBuf {
        let given = self.socket_file.as_deref().filter(|path| !path.is_empty()).unwrap_or(SOCKET);
        given.strip_prefix("unix:").unwrap_or(given).into()
    }
}

impl Wanted {
    pub(super) fn of(call: &Call, keys: Keys) -> Result<Wanted, CniError> {
        let runtime = call.conf.runtime_config.as_ref();
        let device = keys.device_id.as_ref().or_else(|| runtime?.device_id.as_ref());
        if let Some(device) = device.filter(|device| !device.is_empty()) {
            let message = format!("deviceID: {device}: offloading to hardware is not supported: remove it");
            return Err(CniError::new(code::UNSUPPORTED_FIELD, message));
        }
        let in_args = keys.args.and_then(|args| args.cni?.ovn_port);
        let ovn_port = in_args.or_else(|| call.args.extra.ovn_port.clone()).filter(|port| !port.is_empty());
        let bridge = keys.bridge.filter(|name| !name.is_empty());
        let bridge = bridge.or_else(|| ovn_port.as_ref().map(|_| OVN_BRIDGE.to_owned()));
        let bridge = bridge.ok_or_else(|| invalid("bridge is missing: name the bridge of Open vSwitch"))?;
        let checks = keys.link_state_check_retries.unwrap_or(CHECKS);
        let interval = Duration::from_millis(keys.link_state_check_interval.unwrap_or(INTERVAL));
        let patience = interval.checked_mul(u32::try_from(checks).unwrap_or(u32::MAX)).unwrap_or(LONGEST);
        Ok(Wanted {
            bridge: pod::link_name("bridge", &bridge)?.to_owned(),
            vlans: vlans(keys.vlan, keys.trunk.unwrap_or_default())?,
            mtu: pod::mtu(keys.mtu)?,
            mac: pod::mac(call)?,
            port_number: port_number(keys.ofport_request)?,
            interface_type: keys.interface_type.filter(|kind| !kind.is_empty()),
            ovn_port,
            patience: patience.min(LONGEST),
        })
    }
}

fn port_number(key: Option<i64>) -> Result<Option<u16>, CniError> {
    match key.unwrap_or(0) {
        0 => Ok(None),
        number if (1..=LARGEST_PORT).contains(&number) => Ok(u16::try_from(number).ok()),
        number => Err(invalid(&format!("ofport_request: {number} is not between 1 and {LARGEST_PORT}"))),
    }
}

fn vlans(vlan: Option<i64>, trunk: Vec<TrunkKeys>) -> Result<Vlans, CniError> {
    let checked = |key: &str, id: i64| {
        let inside = u16::try_from(id).ok().filter(|_| (0..=LARGEST_VLAN).contains(&id));
        inside.ok_or_else(|| invalid(&format!("{key}: {id} is not between 0 and {LARGEST_VLAN}")))
    };
    if let (Some(_), false) = (vlan, trunk.is_empty()) {
        return Err(invalid("vlan and trunk exclude each other: remove one of them"));
    }
    if let Some(id) = vlan {
        return Ok(Vlans::Access(checked("vlan", id)?));
    }
    let mut ids = BTreeSet::new();
    for (index, entry) in trunk.iter().enumerate() {
        let key = |field: &str| format!("trunk[{index}].{field}");
        match (entry.min, entry.max) {
            (Some(min), Some(max)) if min > max => {
                return Err(invalid(&format!("{}: {min} is greater than maxID {max}", key("minID"))));
            }
            (Some(min), Some(max)) => ids.extend(checked(&key("minID"), min)?..=checked(&key("maxID"), max)?),
            (None, None) => {}
            (Some(_), None) => return Err(invalid(&format!("{} is missing beside minID", key("maxID")))),
            (None, Some(_)) => return Err(invalid(&format!("{} is missing beside maxID", key("minID")))),
        }
        if let Some(id) = entry.id {
            ids.insert(checked(&key("id"), id)?);
        }
    }
    Ok(if ids.is_empty() { Vlans::All } else { Vlans::Trunk(ids) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vlans_of(json: &str) -> Result<Vlans, CniError> {
        let keys: Keys = serde_json::from_str(json).unwrap();
        vlans(keys.vlan, keys.trunk.unwrap_or_default())
    }

    #[test]
    fn a_port_is_of_one_vlan_some_or_all() {
        assert_eq!(vlans_of("{}"), Ok(Vlans::All));
        assert_eq!(vlans_of(r#"{"vlan":100}"#), Ok(Vlans::Access(100)));
        let trunk = vlans_of(r#"{"trunk":[{"minID":10,"maxID":12},{"id":42},{"id":11}]}"#);
        assert_eq!(trunk, Ok(Vlans::Trunk([10, 11, 12, 42].into())));
        for (json, key) in [
            (r#"{"vlan":4096}"#, "vlan: 4096"),
            (r#"{"vlan":1,"trunk":[{"id":2}]}"#, "exclude"),
            (r#"{"trunk":[{"id":1},{"minID":5}]}"#, "trunk[1].maxID"),
            (r#"{"trunk":[{"minID":9,"maxID":5}]}"#, "trunk[0].minID"),
            (r#"{"trunk":[{"minID":9,"maxID":70000}]}"#, "trunk[0].maxID"),
        ] {
            let error = vlans_of(json).unwrap_err();
            assert!(error.code == 7 && error.message.contains(key), "{json}: {error}");
        }
    }

    #[test]
    fn the_socket_may_be_written_as_open_vswitch_writes_it() {
        let socket = |text: &str| Keys { socket_file: Some(text.into()), ..Keys::default() }.socket();
        assert_eq!(socket("unix:/run/ovs/db.sock"), PathBuf::from("/run/ovs/db.sock"));
        assert_eq!(socket("/run/ovs/db.sock"), PathBuf::from("/run/ovs/db.sock"));
        assert_eq!(socket(""), PathBuf::from(SOCKET));
    }
}
