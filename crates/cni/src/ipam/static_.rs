//! The IPAM plugin `static`: the addresses that the configuration or the runtime names, with no
//! account of who has them.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;

use crate::ipam::host_local::{RouteKeys, route};
use crate::protocol::args::Command;
use crate::protocol::config::{Dns, invalid};
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
        let ipam = Value::Object(call.conf.ipam.clone().unwrap_or_default());
        let keys = Keys::deserialize(ipam).map_err(|error| {
            CniError::new(code::DECODE, format!("cannot decode ipam in the configuration: {error}"))
        })?;
        let legacy = call.conf.args.as_ref().and_then(|args| args.cni.as_ref());
        let asked = [("runtimeConfig.ips", call.conf.runtime_config.as_ref()), ("args.cni.ips", legacy)];
        let mut lists = asked.into_iter().filter_map(|(key, config)| Some((key, config?.ips.as_ref()?)));
        let ips = match lists.find(|(_, list)| !list.is_empty()) {
            Some((key, list)) => list.iter().map(|text| ip(key, text, None)).collect::<Result<_, _>>()?,
            None => configured(call, keys.addresses.unwrap_or_default())?,
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

/// Those of the configuration, then those of CNI_ARGS, whose gateways are for the latter.
fn configured(call: &Call, keys: Vec<AddressKeys>) -> Result<Vec<Ip>, CniError> {
    let from_keys = keys.into_iter().enumerate().map(|(index, keys)| {
        let gateway = keys.gateway.filter(|gateway| !gateway.is_empty());
        let parsed = gateway.map(|gateway| gateway_of(&format!("ipam.addresses[{index}].gateway"), &gateway));
        ip(&format!("ipam.addresses[{index}].address"), &keys.address, parsed.transpose()?)
    });
    let mut ips = from_keys.collect::<Result<Vec<Ip>, _>>()?;
    let listed = |text: &Option<String>| -> Vec<String> {
        let items = text.iter().flat_map(|text| text.split(','));
        items.map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect()
    };
    let first = ips.len();
    for text in listed(&call.args.extra.ip) {
        ips.push(ip("CNI_ARGS: IP", &text, None)?);
    }
    for text in listed(&call.args.extra.gateway) {
        let gateway = gateway_of("CNI_ARGS: GATEWAY", &text)?;
        for ip in ips[first..].iter_mut().filter(|ip| ip.address.contains(&gateway)) {
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
