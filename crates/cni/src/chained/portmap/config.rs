//! What is asked for, checked.

use std::net::IpAddr;

use serde::Deserialize;

use crate::chained::portmap::ports::{Mapping, PortMapping, mappings};
use crate::netfilter::{Backend, chain_name};
use crate::protocol::config::invalid;
use crate::protocol::error::CniError;
use crate::protocol::plugin::Call;

pub(super) const UDP: u8 = 17;
/// The bit of the packet mark that asks for masquerading, unless the configuration says another.
const MARK_BIT: i64 = 13;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Keys {
    backend: Option<String>,
    snat: Option<bool>,
    conditions_v4: Option<Vec<String>>,
    conditions_v6: Option<Vec<String>>,
    masq_all: Option<bool>,
    mark_masq_bit: Option<i64>,
    external_set_mark_chain: Option<String>,
    runtime_config: Option<Runtime>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Runtime {
    port_mappings: Option<Vec<PortMapping>>,
}

/// The wanted state.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) network: String,
    pub(super) container_id: String,
    pub(super) backend: Backend,
    /// Whether connections from the node's loopback and from the container itself are masqueraded.
    pub(super) snat: bool,
    /// Words that a packet must match besides, for IPv4 and IPv6.
    conditions: [Vec<String>; 2],
    /// Whether all connections are masqueraded.
    pub(super) masquerades_all: bool,
    /// The bit of the mark that asks for masquerading.
    pub(super) mark: u32,
    /// Somebody else's chain that sets it.
    pub(super) set_mark_chain: Option<String>,
    pub(super) mappings: Vec<Mapping>,
}

impl Config {
    pub(super) fn of(call: &Call) -> Result<Config, CniError> {
        let keys: Keys = call.keys()?;
        if keys.mark_masq_bit.is_some() && keys.external_set_mark_chain.is_some() {
            return Err(invalid(
                "markMasqBit and externalSetMarkChain exclude each other: remove one of them",
            ));
        }
        let bit = keys.mark_masq_bit.unwrap_or(MARK_BIT);
        let mark = u32::try_from(bit).ok().and_then(|bit| 1u32.checked_shl(bit));
        let mark = mark.ok_or_else(|| invalid(&format!("markMasqBit: {bit} is no bit from 0 to 31")))?;
        if let Some(chain) = &keys.external_set_mark_chain {
            let plain = !chain.is_empty() && chain.len() < 29 && chain.chars().all(|c| c.is_ascii_graphic());
            if !plain || chain.starts_with(['-', '!']) {
                return Err(invalid(&format!("externalSetMarkChain: {chain:?} is no chain's name")));
            }
        }
        let backend = Backend::of("backend", keys.backend.as_deref())?;
        let conditions = [keys.conditions_v4.unwrap_or_default(), keys.conditions_v6.unwrap_or_default()];
        check_backend(backend, keys.external_set_mark_chain.is_some(), &conditions)?;
        Ok(Config {
            network: call.conf.network()?.to_owned(),
            container_id: call.args.container_id.clone(),
            backend,
            snat: keys.snat.unwrap_or(true),
            conditions,
            masquerades_all: keys.masq_all.unwrap_or(false),
            mark,
            set_mark_chain: keys.external_set_mark_chain,
            mappings: mappings(keys.runtime_config.unwrap_or_default().port_mappings.unwrap_or_default())?,
        })
    }

    /// Enough to find what an ADD made, when the configuration says no more.
    pub(super) fn bare(call: &Call) -> Config {
        Config {
            network: call.conf.name.clone().unwrap_or_default(),
            container_id: call.args.container_id.clone(),
            backend: Backend::Iptables,
            snat: true,
            conditions: [Vec::new(), Vec::new()],
            masquerades_all: false,
            mark: 1 << MARK_BIT,
            set_mark_chain: None,
            mappings: Vec::new(),
        }
    }

    /// The container's own chain in iptables' tables.
    pub(super) fn chain(&self) -> String {
        chain_name("DN-", &self.network, &self.container_id)
    }

    pub(super) fn conditions(&self, ip: IpAddr) -> &[String] {
        &self.conditions[usize::from(ip.is_ipv6())]
    }
}

/// Keys that only one backend understands must not be given to the other.
fn check_backend(
    backend: Backend,
    set_mark_chain: bool,
    conditions: &[Vec<String>; 2],
) -> Result<(), CniError> {
    let wrong = |key: &str| {
        let (name, other) = match backend {
            Backend::Iptables => ("iptables", "nftables"),
            Backend::Nftables => ("nftables", "iptables"),
        };
        Err(invalid(&format!("{key} is written for {other} but the backend is {name}: change one of them")))
    };
    if set_mark_chain && backend == Backend::Nftables {
        return wrong("externalSetMarkChain");
    }
    for (key, words) in ["conditionsV4", "conditionsV6"].into_iter().zip(conditions) {
        let Some(first) = words.first().filter(|word| !word.is_empty()) else { continue };
        // No expression of nftables begins so, and every option of iptables does.
        let for_iptables = first.starts_with(['-', '!']);
        if for_iptables != (backend == Backend::Iptables) {
            return wrong(key);
        }
    }
    Ok(())
}
