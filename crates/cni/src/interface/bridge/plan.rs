//! What the configuration wants of bridge and link, checked. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;
use weft_model::Mac;

use crate::interface::pod::{self, Neighbourhood};
use crate::interface::rules::Rules;
use crate::ipam::Ipam;
use crate::protocol::config::invalid;
use crate::protocol::error::CniError;
use crate::protocol::plugin::Call;
use crate::protocol::result::{CniResult, Route};

/// The bridge when the configuration names none, as the reference's.
const DEFAULT_BRIDGE: &str = "cni0";
/// The largest VLAN ID (IEEE 802.1Q).
const LARGEST_VLAN: i64 = 4094;

/// The plugin's own keys.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Keys {
    bridge: Option<String>,
    is_gateway: bool,
    is_default_gateway: bool,
    force_address: bool,
    hairpin_mode: bool,
    promisc_mode: bool,
    mtu: Option<i64>,
    enabledad: bool,
    vlan: Option<i64>,
    vlan_trunk: Option<Vec<TrunkKeys>>,
    preserve_default_vlan: bool,
    disable_container_interface: bool,
    port_isolation: bool,
}

#[derive(Debug, Deserialize)]
struct TrunkKeys {
    id: Option<i64>,
    #[serde(rename = "minID")]
    min: Option<i64>,
    #[serde(rename = "maxID")]
    max: Option<i64>,
}

/// The wanted state.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) bridge: String,
    pub(crate) is_gateway: bool,
    pub(crate) is_default_gateway: bool,
    pub(crate) force_address: bool,
    pub(crate) hairpin: bool,
    pub(crate) promiscuous: bool,
    pub(crate) detects_duplicates: bool,
    pub(crate) isolated: bool,
    /// Whether the container's interface is set up.
    pub(crate) sets_up: bool,
    pub(crate) mtu: Option<u32>,
    pub(crate) mac: Option<Mac>,
    /// None where the bridge does not filter VLANs.
    pub(crate) vlans: Option<Vlans>,
    pub(crate) rules: Rules,
}

/// The VLANs of the container's port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Vlans {
    /// Of untagged packets; 0 when the configuration names none.
    pub(crate) native: u16,
    /// That packets may be tagged with.
    pub(crate) trunk: BTreeSet<u16>,
    /// Whether the port stays in the bridge's default VLAN too.
    pub(crate) keeps_default: bool,
}

impl Plan {
    pub(crate) fn of(call: &Call) -> Result<Plan, CniError> {
        let keys: Keys = call.keys()?;
        pod::refuse_lo(call)?;
        if keys.hairpin_mode && keys.promisc_mode {
            return Err(invalid("hairpinMode and promiscMode exclude each other: remove one of them"));
        }
        let bridge = keys.bridge.as_deref().filter(|name| !name.is_empty()).unwrap_or(DEFAULT_BRIDGE);
        Ok(Plan {
            bridge: pod::link_name("bridge", bridge)?.to_owned(),
            is_gateway: keys.is_default_gateway || keys.is_gateway,
            is_default_gateway: keys.is_default_gateway,
            force_address: keys.force_address,
            hairpin: keys.hairpin_mode,
            promiscuous: keys.promisc_mode,
            detects_duplicates: keys.enabledad,
            isolated: keys.port_isolation,
            sets_up: !keys.disable_container_interface,
            mtu: pod::mtu(keys.mtu)?,
            mac: pod::mac(call)?,
            vlans: vlans(&keys)?,
            rules: Rules::of(call)?,
        })
    }

    /// Refuses what cannot go with this IPAM plugin.
    pub(crate) fn check_ipam(&self, ipam: &Ipam) -> Result<(), CniError> {
        if !self.sets_up && !matches!(ipam, Ipam::None) {
            return Err(invalid("disableContainerInterface: an interface that is down can have no ipam"));
        }
        pod::check_mtu(self.mtu, ipam.gives_v6())
    }

    /// Adds what follows from the bridge being the gateway: gateways, and default routes for
    /// the families that have none.
    pub(crate) fn complete(&self, result: &mut CniResult) -> Result<(), CniError> {
        pod::check_mtu(self.mtu, result.ips.iter().any(|ip| ip.address.addr().is_ipv6()))?;
        if !self.is_gateway {
            return Ok(());
        }
        for ip in &mut result.ips {
            let gateway = *ip.gateway.get_or_insert_with(|| first_address(&ip.address));
            let default = pod::default_of(&gateway);
            if self.is_default_gateway && !result.routes.iter().any(|route| route.dst == default) {
                result.routes.push(Route::new(default, Some(gateway)));
            }
        }
        Ok(())
    }

    /// The hardware address of the container's interface: asked for, or made from its first
    /// address.
    pub(crate) fn pod_mac(&self, result: &CniResult) -> Option<Mac> {
        let first = result.ips.first().map(|ip| ip.address.addr());
        self.mac.or_else(|| first.map(pod::mac_of))
    }

    /// It tells its neighbours when it comes up, and probes its IPv6 addresses only if asked to. One
    /// that is known to get none is left alone: what it would say at once to hundreds of neighbours
    /// takes longer than all the rest of an ADD.
    pub(crate) fn neighbourhood(&self, addresses: Option<&CniResult>) -> Neighbourhood {
        let may_have_v6 = addresses.is_none_or(|it| it.ips.iter().any(|ip| ip.address.addr().is_ipv6()));
        let v6: &[_] = match (self.detects_duplicates, may_have_v6) {
            (true, _) => &[("enhanced_dad", "1"), ("accept_dad", "1")],
            (false, true) => &[("accept_dad", "0")],
            (false, false) => &[],
        };
        Neighbourhood { arp_notify: true, v6 }
    }
}

fn vlans(keys: &Keys) -> Result<Option<Vlans>, CniError> {
    let native = keys.vlan.unwrap_or(0);
    if !(0..=LARGEST_VLAN).contains(&native) {
        return Err(invalid(&format!("vlan: {native} is not between 0 and {LARGEST_VLAN}")));
    }
    if native == 0 && keys.vlan_trunk.is_none() {
        return Ok(None);
    }
    let mut vlans = Vlans {
        native: u16::try_from(native).unwrap_or_default(),
        keeps_default: keys.preserve_default_vlan,
        ..Vlans::default()
    };
    for (index, entry) in keys.vlan_trunk.iter().flatten().enumerate() {
        let wrong = |reason: &str| invalid(&format!("vlanTrunk[{index}]: {reason}"));
        let id = |key: &str, id: i64| {
            let checked = u16::try_from(id).ok().filter(|id| (1..=LARGEST_VLAN as u16).contains(id));
            checked.ok_or_else(|| wrong(&format!("{key}: {id} is not between 1 and {LARGEST_VLAN}")))
        };
        match (entry.min, entry.max) {
            (Some(min), Some(max)) if min > max => {
                return Err(wrong(&format!("minID {min} is greater than maxID {max}")));
            }
            (Some(min), Some(max)) => vlans.trunk.extend(id("minID", min)?..=id("maxID", max)?),
            (None, None) => {}
            (Some(_), None) => return Err(wrong("maxID is missing beside minID")),
            (None, Some(_)) => return Err(wrong("minID is missing beside maxID")),
        }
        if let Some(single) = entry.id {
            vlans.trunk.insert(id("id", single)?);
        }
    }
    Ok(Some(vlans))
}

fn first_address(net: &IpNet) -> IpAddr {
    match net.network() {
        IpAddr::V4(ip) => IpAddr::V4((ip.to_bits() | 1).into()),
        IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() | 1).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::result::Ip;

    #[test]
    fn only_a_container_that_may_get_an_ipv6_address_has_its_detection_of_duplicates_set() {
        let plan = |detects_duplicates| Plan { detects_duplicates, ..Plan::default() };
        let of = |ip: &str| {
            let ip = Ip { address: ip.parse().unwrap(), gateway: None, interface: None };
            CniResult { ips: vec![ip], ..CniResult::default() }
        };
        let (v4, v6) = (of("10.1.0.2/16"), of("fd00::2/64"));
        assert_eq!(plan(false).neighbourhood(Some(&v4)).v6, []);
        assert_eq!(plan(false).neighbourhood(Some(&v6)).v6, [("accept_dad", "0")]);
        assert_eq!(plan(false).neighbourhood(None).v6, [("accept_dad", "0")]);
        assert_eq!(plan(true).neighbourhood(Some(&v4)).v6, [("enhanced_dad", "1"), ("accept_dad", "1")]);
    }

    fn vlans_of(json: &str) -> Result<Option<Vlans>, CniError> {
        vlans(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn a_trunk_is_single_ids_and_ranges() {
        assert_eq!(vlans_of("{}"), Ok(None));
        assert_eq!(vlans_of(r#"{"vlan":0}"#), Ok(None));
        assert_eq!(vlans_of(r#"{"vlanTrunk":[]}"#), Ok(Some(Vlans::default())));
        let both = vlans_of(r#"{"vlan":7,"vlanTrunk":[{"id":5},{"minID":10,"maxID":12},{"id":11}]}"#);
        let both = both.unwrap().unwrap();
        assert_eq!((both.native, both.trunk.into_iter().collect::<Vec<_>>()), (7, vec![5, 10, 11, 12]));
    }

    #[test]
    fn no_wrong_vlan_is_taken_for_another() {
        for (json, key) in [
            (r#"{"vlan":4095}"#, "vlan: 4095"),
            (r#"{"vlan":-1}"#, "vlan: -1"),
            (r#"{"vlan":65537}"#, "vlan: 65537"),
            (r#"{"vlanTrunk":[{"id":0}]}"#, "vlanTrunk[0]: id: 0"),
            (r#"{"vlanTrunk":[{"id":1},{"minID":5}]}"#, "vlanTrunk[1]: maxID is missing"),
            (r#"{"vlanTrunk":[{"maxID":5}]}"#, "minID is missing"),
            (r#"{"vlanTrunk":[{"minID":9,"maxID":5}]}"#, "minID 9 is greater"),
            (r#"{"vlanTrunk":[{"minID":9,"maxID":70000}]}"#, "maxID: 70000"),
        ] {
            let error = vlans_of(json).unwrap_err();
            assert!(error.code == 7 && error.message.contains(key), "{json}: {error}");
        }
    }
}
