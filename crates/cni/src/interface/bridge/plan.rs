//! What the configuration wants of bridge and link, checked. Pure.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;
use weft_model::{Mac, mark};

use crate::interface::pod;
use crate::protocol::error::{CniError, code};
use crate::protocol::plugin::Call;
use crate::protocol::result::{CniResult, Route};

/// The bridge when the configuration names none, as the reference's.
const DEFAULT_BRIDGE: &str = "cni0";

/// The plugin's own keys.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Keys {
    bridge: Option<String>,
    is_gateway: Option<bool>,
    is_default_gateway: Option<bool>,
    force_address: Option<bool>,
    hairpin_mode: Option<bool>,
    mtu: Option<i64>,
    enabledad: Option<bool>,
    ip_masq: Option<Value>,
    promisc_mode: Option<Value>,
    vlan: Option<Value>,
    vlan_trunk: Option<Value>,
    macspoofchk: Option<Value>,
    disable_container_interface: Option<Value>,
    port_isolation: Option<Value>,
}

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
        let conf: Keys = call.keys()?;
        refuse_unsupported(&conf)?;
        let bridge = conf.bridge.as_deref().filter(|name| !name.is_empty()).unwrap_or(DEFAULT_BRIDGE);
        let bridge = pod::link_name("bridge", bridge)?.to_owned();
        pod::refuse_lo(call)?;
        let is_default_gateway = conf.is_default_gateway == Some(true);
        Ok(Plan {
            bridge,
            is_gateway: is_default_gateway || conf.is_gateway == Some(true),
            is_default_gateway,
            force_address: conf.force_address == Some(true),
            hairpin: conf.hairpin_mode == Some(true),
            detects_duplicates: conf.enabledad == Some(true),
            mtu: pod::mtu(conf.mtu)?,
            mac: pod::mac(call)?,
            host_link: mark::host_link_name(&call.args.container_id, &call.args.ifname),
            alias: call.args.extra.pod.as_ref().map(|pod| format!("{}{pod}", mark::ALIAS_PREFIX)),
        })
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
                result.routes.push(route(default, gateway));
            }
        }
        Ok(())
    }

    /// The hardware address of the container's interface: asked for, or made from its first
    /// address, so that neighbours' caches stay right when the address is given again.
    pub(crate) fn pod_mac(&self, result: &CniResult) -> Mac {
        let first = result.ips.first().map(|ip| ip.address.addr());
        self.mac.or_else(|| first.map(pod::mac_of)).unwrap_or_default()
    }

    /// The hardware address of the host side: from its name. One that is set when the link is
    /// made is left alone by udev.
    pub(crate) fn host_mac(&self) -> Mac {
        let digits = self.host_link.get(2..12).unwrap_or("0000000000");
        let number = u64::from_str_radix(digits, 16).unwrap_or_default().to_be_bytes();
        Mac([0x5a, number[3], number[4], number[5], number[6], number[7]])
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

fn refuse_unsupported(conf: &Keys) -> Result<(), CniError> {
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
