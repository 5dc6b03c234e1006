//! What the configuration wants of bridge and link, checked. Pure.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;
use weft_model::{Mac, mark};

use crate::config::{NetConf, invalid};
use crate::error::{CniError, code};
use crate::plugin::Call;
use crate::result::{CniResult, Route};

/// The bridge when the configuration names none, as the reference's.
const DEFAULT_BRIDGE: &str = "cni0";
/// The least MTU of IPv4 and of IPv6 in bytes, and the largest of any link.
const LEAST_V4: i64 = 68;
const LEAST_V6: u32 = 1280;
const LARGEST: i64 = 65535;

/// The wanted state.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) bridge: String,
    pub(crate) is_gateway: bool,
    pub(crate) is_default_gateway: bool,
    pub(crate) force_address: bool,
    pub(crate) hairpin: bool,
    pub(crate) detects_duplicates: bool,
    pub(crate) mtu: Option<u32>,
    pub(crate) mac: Option<Mac>,
    pub(crate) host_link: String,
    pub(crate) alias: Option<String>,
}

impl Plan {
    pub(crate) fn of(call: &Call) -> Result<Plan, CniError> {
        let conf = &call.conf;
        refuse_unsupported(conf)?;
        let bridge =
            conf.bridge.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| DEFAULT_BRIDGE.into());
        let odd = |c: char| matches!(c, '/' | ':' | '%') || c.is_whitespace() || c.is_control();
        if bridge.len() > 15 || bridge == "." || bridge == ".." || bridge.contains(odd) {
            return Err(invalid(&format!("bridge: {bridge:?} is no interface name of at most 15 bytes")));
        }
        if call.args.ifname == "lo" {
            let message =
                "environment variable CNI_IFNAME: \"lo\" is in every namespace: choose another name";
            return Err(CniError::new(code::INVALID_ENVIRONMENT, message));
        }
        let is_default_gateway = conf.is_default_gateway == Some(true);
        Ok(Plan {
            bridge,
            is_gateway: is_default_gateway || conf.is_gateway == Some(true),
            is_default_gateway,
            force_address: conf.force_address == Some(true),
            hairpin: conf.hairpin_mode == Some(true),
            detects_duplicates: conf.enabledad == Some(true),
            mtu: mtu(conf)?,
            mac: mac(call)?,
            host_link: mark::host_link_name(&call.args.container_id, &call.args.ifname),
            alias: call.args.extra.pod.as_ref().map(|pod| format!("{}{pod}", mark::ALIAS_PREFIX)),
        })
    }

    /// IPv6 needs a larger MTU than IPv4.
    pub(crate) fn check_mtu(&self, has_v6: bool) -> Result<(), CniError> {
        match self.mtu.filter(|mtu| has_v6 && *mtu < LEAST_V6) {
            Some(mtu) => Err(invalid(&format!("mtu: {mtu} is too small for IPv6: use {LEAST_V6} or more"))),
            None => Ok(()),
        }
    }

    /// Adds what follows from the bridge being the gateway: gateways, and default routes for
    /// the families that have none.
    pub(crate) fn complete(&self, result: &mut CniResult) -> Result<(), CniError> {
        self.check_mtu(result.ips.iter().any(|ip| ip.address.addr().is_ipv6()))?;
        if !self.is_gateway {
            return Ok(());
        }
        for ip in &mut result.ips {
            let gateway = *ip.gateway.get_or_insert_with(|| first_address(&ip.address));
            let default = default_of(&gateway);
            if self.is_default_gateway && !result.routes.iter().any(|route| route.dst == default) {
                result.routes.push(route(default, gateway));
            }
        }
        Ok(())
    }

    /// The hardware address of the container's interface: asked for, or made from its first
    /// address, so that neighbours' caches stay right when the address is given again.
    pub(crate) fn pod_mac(&self, result: &CniResult) -> Mac {
        let first = result.ips.first().map(|ip| ip.address.addr());
        self.mac.or_else(|| first.map(mac_of)).unwrap_or_default()
    }

    /// The hardware address of the host side: from its name. One that is set when the link is
    /// made is left alone by udev.
    pub(crate) fn host_mac(&self) -> Mac {
        let digits = self.host_link.get(2..12).unwrap_or("0000000000");
        let number = u64::from_str_radix(digits, 16).unwrap_or_default().to_be_bytes();
        Mac([0x5a, number[3], number[4], number[5], number[6], number[7]])
    }
}

/// `0a:58` and the four bytes of an IPv4 address, as kubenet has it; of an IPv6 address its
/// last four.
pub(crate) fn mac_of(ip: IpAddr) -> Mac {
    let [a, b, c, d] = match ip {
        IpAddr::V4(ip) => ip.octets(),
        IpAddr::V6(ip) => (ip.to_bits() as u32).to_be_bytes(),
    };
    Mac([0x0a, 0x58, a, b, c, d])
}

pub(crate) fn default_of(ip: &IpAddr) -> IpNet {
    match ip {
        IpAddr::V4(_) => IpNet::V4(ipnet::Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(ipnet::Ipv6Net::default()),
    }
}

fn first_address(net: &IpNet) -> IpAddr {
    match net.network() {
        IpAddr::V4(ip) => IpAddr::V4((ip.to_bits() | 1).into()),
        IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() | 1).into()),
    }
}

fn route(dst: IpNet, gw: IpAddr) -> Route {
    Route { dst, gw: Some(gw), mtu: None, advmss: None, priority: None, table: None, scope: None }
}

fn mtu(conf: &NetConf) -> Result<Option<u32>, CniError> {
    match conf.mtu.unwrap_or(0) {
        0 => Ok(None),
        mtu if (LEAST_V4..=LARGEST).contains(&mtu) => Ok(u32::try_from(mtu).ok()),
        mtu => Err(invalid(&format!("mtu: {mtu} is not between {LEAST_V4} and {LARGEST}"))),
    }
}

fn mac(call: &Call) -> Result<Option<Mac>, CniError> {
    let runtime = call.conf.runtime_config.as_ref().and_then(|config| config.mac.as_ref());
    let legacy = call.conf.args.as_ref().and_then(|args| args.cni.as_ref()?.mac.as_ref());
    let text = runtime.or(legacy).or(call.args.extra.mac.as_ref()).filter(|text| !text.is_empty());
    let Some(text) = text else { return Ok(None) };
    let mac: Mac = text.parse().map_err(|error| invalid(&format!("mac: {text:?} is {error}")))?;
    if mac.0[0] & 1 == 1 || mac == Mac::default() {
        return Err(invalid(&format!("mac: {mac} is no address of one interface")));
    }
    Ok(Some(mac))
}

fn refuse_unsupported(conf: &NetConf) -> Result<(), CniError> {
    let fields = [
        ("ipMasq", &conf.ip_masq, "the agent masquerades for the whole node"),
        ("promiscMode", &conf.promisc_mode, "use hairpinMode"),
        ("vlan", &conf.vlan, "remove it"),
        ("vlanTrunk", &conf.vlan_trunk, "remove it"),
        ("macspoofchk", &conf.macspoofchk, "remove it"),
        ("disableContainerInterface", &conf.disable_container_interface, "remove it"),
        ("portIsolation", &conf.port_isolation, "remove it"),
    ];
    for (key, value, advice) in fields {
        let unset = match value {
            None | Some(Value::Null | Value::Bool(false)) => true,
            Some(Value::Number(number)) => number.as_i64() == Some(0),
            Some(Value::Array(items)) => items.is_empty(),
            Some(_) => false,
        };
        if let (false, Some(value)) = (unset, value) {
            let message = format!("{key}: {value} is not supported by this plugin: {advice}");
            return Err(CniError::new(code::UNSUPPORTED_FIELD, message));
        }
    }
    Ok(())
}
