//! The IPAM plugin `static`: the addresses that the configuration or the runtime names, with no
//! account of who has them.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;

use crate::ipam::host_local::{RouteKeys, route};
use crate::protocol::args::Command;
use crate::protocol::config::{Dns, RuntimeConfig, invalid};
use crate::protocol::error::{CniError, code};
use crate::protocol::plugin::{Answer, Call};
use crate::protocol::result::{CniResult, Ip, Route};
use crate::protocol::version::Version;

/// What `ipam` holds for `static`, checked.
#[derive(Debug)]
pub(crate) struct Static {
    ips: Vec<Ip>,
    routes: Vec<Route>,
    dns: Dns,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Keys {
    addresses: Option<Vec<AddressKeys>>,
    routes: Option<Vec<RouteKeys>>,
    dns: Option<Dns>,
}

#[derive(Deserialize)]
struct AddressKeys {
    address: String,
    gateway: Option<String>,
}

impl Static {
    /// Checks the configuration of a call. `runtimeConfig.ips` is instead of `args.cni.ips`, and
    /// that is instead of the addresses of the configuration and of CNI_ARGS.
    pub(crate) fn of(call: &Call) -> Result<Static, CniError> {
        let keys: Keys = call.ipam_keys()?;
        // Of what something else goes before, only the addresses of the configuration are not read.
        let in_keys = keys.addresses.unwrap_or_default().into_iter().enumerate().map(gateway_in_keys);
        let in_keys = in_keys.collect::<Result<Vec<_>, _>>()?;
        let in_args = of_cni_args(call)?;
        let legacy = call.conf.args.as_ref().and_then(|args| args.cni.as_ref());
        let legacy = listed("args.cni.ips", legacy)?;
        let runtime = listed("runtimeConfig.ips", call.conf.runtime_config.as_ref())?;
        let ips = match [runtime, legacy].into_iter().find(|list| !list.is_empty()) {
            Some(list) => list,
            None => {
                let configured = in_keys.into_iter().map(|(key, text, gateway)| ip(&key, &text, gateway));
                configured.chain(in_args.into_iter().map(Ok)).collect::<Result<Vec<Ip>, _>>()?
            }
        };
        let (four, six): (Vec<&Ip>, Vec<&Ip>) = ips.iter().partition(|ip: &&Ip| ip.address.addr().is_ipv4());
        if call.version < Version::V030 && (four.len() > 1 || six.len() > 1) {
            let version = call.version.text();
            return Err(invalid(&format!(
                "ipam.addresses: cniVersion {version} has one address of a family at most: use 0.3.0 or later"
            )));
        }
        let routes = keys.routes.unwrap_or_default().into_iter().enumerate().map(route);
        Ok(Static { routes: routes.collect::<Result<_, _>>()?, dns: keys.dns.unwrap_or_default(), ips })
    }

    /// The answer.
    pub(crate) fn result(&self) -> CniResult {
        CniResult {
            interfaces: Vec::new(),
            ips: self.ips.clone(),
            routes: self.routes.clone(),
            dns: self.dns.clone(),
        }
    }

    /// Whether it gives an IPv6 address.
    pub(crate) fn gives_v6(&self) -> bool {
        self.ips.iter().any(|ip| ip.address.addr().is_ipv6())
    }

    /// CHECK: an address that ADD answered has the gateway of the configuration.
    pub(crate) fn check(&self, call: &Call) -> Result<(), CniError> {
        let made = call.required_prev_result()?;
        for wanted in &self.ips {
            let same = made.ips.iter().filter(|ip| ip.address.addr() == wanted.address.addr());
            let mut others = same.filter(|ip| wanted.gateway.is_some() && ip.gateway != wanted.gateway);
            if let Some(other) = others.next() {
                let message =
                    format!("prevResult has another gateway for {} than ipam.addresses", other.address);
                return Err(CniError::new(code::NOT_AS_MADE, message));
            }
        }
        Ok(())
    }
}

fn listed(key: &str, config: Option<&RuntimeConfig>) -> Result<Vec<Ip>, CniError> {
    let texts = config.and_then(|config| config.ips.as_ref()).into_iter().flatten();
    texts.map(|text| ip(key, text, None)).collect()
}

/// The key of an address, its text and its gateway.
fn gateway_in_keys(
    (index, keys): (usize, AddressKeys),
) -> Result<(String, String, Option<IpAddr>), CniError> {
    let key = |field: &str| format!("ipam.addresses[{index}].{field}");
    let gateway = keys.gateway.filter(|gateway| !gateway.is_empty());
    let gateway = gateway.map(|text| gateway_of(&key("gateway"), &text)).transpose()?;
    Ok((key("address"), keys.address, gateway))
}

/// IP of CNI_ARGS, where each address has the gateway that is in its network.
fn of_cni_args(call: &Call) -> Result<Vec<Ip>, CniError> {
    let items = |text: &Option<String>| -> Vec<String> {
        let items = text.iter().flat_map(|text| text.split(','));
        items.map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect()
    };
    let extra = &call.args.extra;
    let mut ips = Vec::new();
    for text in items(&extra.ip) {
        ips.push(ip("CNI_ARGS: IP", &text, None)?);
    }
    for text in items(&extra.gateway) {
        let gateway = gateway_of("CNI_ARGS: GATEWAY", &text)?;
        for ip in ips.iter_mut().filter(|ip: &&mut Ip| ip.address.contains(&gateway)) {
            ip.gateway = Some(gateway);
        }
    }
    Ok(ips)
}

fn ip(key: &str, text: &str, gateway: Option<IpAddr>) -> Result<Ip, CniError> {
    let wrong =
        |_| invalid(&format!("{key}: {text:?} is no address with its prefix length, such as 10.1.2.3/24"));
    let address: IpNet = text.parse().map_err(wrong)?;
    Ok(Ip { address, gateway, interface: None })
}

fn gateway_of(key: &str, text: &str) -> Result<IpAddr, CniError> {
    text.parse().map_err(|_| invalid(&format!("{key}: {text:?} is no IP address")))
}

/// `static` called by its own name.
pub(crate) fn plugin(call: &Call, answer: Answer<'_>) -> Result<(), CniError> {
    if call.command == Command::Del {
        return Ok(());
    }
    let addresses = Static::of(call)?;
    match call.command {
        Command::Add => answer(&addresses.result()),
        Command::Check => addresses.check(call),
        _ => Ok(()),
    }
}
