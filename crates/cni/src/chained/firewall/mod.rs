//! The `firewall` plugin: the container's traffic may be forwarded whatever the node's policy is,
//! and with an `ingressPolicy` only where that lets it.
//!
//! The rules name addresses and no containers, as the reference's do, so DEL needs what the ADD
//! answered and GC has nothing to go by.

mod bus;
mod firewalld;
mod rules;

use ipnet::IpNet;
use serde::Deserialize;
use weft_kernel::xtables::{Variant, Xtables};

use crate::chained::firewall::firewalld::Firewalld;
use crate::chained::firewall::rules::Policy;
use crate::protocol::args::Command;
use crate::protocol::config::invalid;
use crate::protocol::error::{CniError, code};
use crate::protocol::plugin::{Answer, Call};
use crate::protocol::result::CniResult;
use crate::protocol::version::Version;

/// The chain of the administrator's own rules, unless the configuration names another.
const ADMIN: &str = "CNI-ADMIN";
/// firewalld's zone, unless the configuration names another.
const ZONE: &str = "trusted";

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Keys {
    backend: Option<String>,
    iptables_admin_chain_name: Option<String>,
    firewalld_zone: Option<String>,
    ingress_policy: Option<String>,
}

/// The wanted state.
#[derive(Debug)]
struct Config {
    backend: Backend,
    admin_chain: String,
    zone: String,
    policy: Policy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Backend {
    Iptables,
    /// The same rules in nf_tables, also where iptables is the legacy variant. In a table of
    /// their own they could not let pass what another table drops.
    Nftables,
    Firewalld,
    /// firewalld if it runs, otherwise iptables.
    Unsaid,
}

pub(crate) fn plugin(call: &Call, answer: Answer<'_>) -> Result<(), CniError> {
    match call.command {
        Command::Add => {
            let config = Config::of(call)?;
            let prev = call.required_prev_result()?;
            add(&config, &prev, answer)
        }
        Command::Check => {
            let config = Config::of(call)?;
            check(&config, &call.required_prev_result()?)
        }
        Command::Del => {
            // What cannot be read cannot say what is to be removed.
            let (Ok(config), Ok(Some(made))) = (Config::of(call), call.prev_result()) else { return Ok(()) };
            // A daemon that does not run has no zones that an address could be in.
            let Ok(mut firewall) = config.firewall() else { return Ok(()) };
            let done = firewall.remove(&config, &addresses(&made));
            firewall.close();
            done
        }
        Command::Gc => {
            Config::of(call)?;
            let unsaid = || invalid("cni.dev/valid-attachments is missing: nothing was removed");
            call.conf.valid_attachments.as_ref().map(drop).ok_or_else(unsaid)
        }
        _ => Config::of(call)?.firewall().map(drop),
    }
}

fn add(config: &Config, prev: &CniResult, answer: Answer<'_>) -> Result<(), CniError> {
    let addresses = addresses(prev);
    let bridge = config.policy.bridge(prev)?;
    let mut firewall = config.firewall()?;
    let done = firewall.add(config, &addresses, bridge).and_then(|()| answer(prev));
    if done.is_err() {
        firewall.remove(config, &addresses).ok();
    }
    firewall.close();
    done
}

fn check(config: &Config, made: &CniResult) -> Result<(), CniError> {
    let addresses = addresses(made);
    match config.firewall()? {
        Firewall::Rules(mut xtables) => rules::check(&mut xtables, &config.admin_chain, &addresses),
        Firewall::Daemon(mut daemon) => {
            addresses.iter().try_for_each(|net| daemon.check_source(&config.zone, net))
        }
    }
}

fn addresses(result: &CniResult) -> Vec<IpNet> {
    result.ips.iter().map(|ip| IpNet::from(ip.address.addr())).collect()
}

/// What the rules are given to.
enum Firewall {
    Rules(Xtables),
    Daemon(Firewalld),
}

impl Firewall {
    fn add(&mut self, config: &Config, addresses: &[IpNet], bridge: Option<&str>) -> Result<(), CniError> {
        let mut edits = Vec::new();
        match self {
            Firewall::Rules(_) => edits.extend(rules::forward(&config.admin_chain, addresses)),
            Firewall::Daemon(daemon) => {
                addresses.iter().try_for_each(|net| daemon.add_source(&config.zone, net))?;
            }
        }
        edits.extend(bridge.map(|bridge| config.policy.edits(bridge, addresses)).unwrap_or_default());
        match self {
            Firewall::Rules(xtables) => xtables.apply(&edits).map(drop)?,
            // Isolation is always by rules.
            Firewall::Daemon(_) if edits.is_empty() => {}
            Firewall::Daemon(_) => {
                let mut xtables = Xtables::open();
                xtables.apply(&edits)?;
                xtables.close_later();
            }
        }
        Ok(())
    }

    fn remove(&mut self, config: &Config, addresses: &[IpNet]) -> Result<(), CniError> {
        match self {
            Firewall::Rules(xtables) => {
                xtables.apply(&rules::removal(addresses))?;
            }
            // A zone that has not the address has nothing to lose.
            Firewall::Daemon(daemon) => {
                for net in addresses {
                    daemon.remove_source(&config.zone, net).ok();
                }
            }
        }
        Ok(())
    }

    fn close(self) {
        if let Firewall::Rules(xtables) = self {
            xtables.close_later();
        }
    }
}

impl Config {
    fn of(call: &Call) -> Result<Config, CniError> {
        if call.version < Version::V040 && call.command == Command::Add {
            let message =
                format!("firewall: cniVersion {} is too old: use 0.4.0 or later", call.version.text());
            return Err(CniError::new(code::INCOMPATIBLE_VERSION, message));
        }
        let keys: Keys = call.keys()?;
        let or = |value: Option<String>, otherwise: &str| {
            value.filter(|value| !value.is_empty()).unwrap_or_else(|| otherwise.to_owned())
        };
        let admin_chain = or(keys.iptables_admin_chain_name, ADMIN);
        let plain = admin_chain.len() < 29 && admin_chain.chars().all(|c| c.is_ascii_graphic());
        if !plain || admin_chain.starts_with(['-', '!']) {
            return Err(invalid(&format!(
                "iptablesAdminChainName: {admin_chain:?} is no chain's name of at most 28 characters"
            )));
        }
        Ok(Config {
            backend: match keys.backend.as_deref() {
                Some("iptables") => Backend::Iptables,
                Some("nftables") => Backend::Nftables,
                Some("firewalld") => Backend::Firewalld,
                _ => Backend::Unsaid,
            },
            admin_chain,
            zone: or(keys.firewalld_zone, ZONE),
            policy: Policy::of(keys.ingress_policy.as_deref())?,
        })
    }

    fn firewall(&self) -> Result<Firewall, CniError> {
        match self.backend {
            Backend::Iptables => Ok(Firewall::Rules(Xtables::open())),
            Backend::Nftables => {
                let native = Variant { legacy: false, ..Variant::find() };
                Ok(Firewall::Rules(Xtables::with(native)))
            }
            Backend::Firewalld => Firewalld::connect().map(Firewall::Daemon),
            Backend::Unsaid => Ok(match Firewalld::running() {
                Some(daemon) => Firewall::Daemon(daemon),
                None => Firewall::Rules(Xtables::open()),
            }),
        }
    }
}
