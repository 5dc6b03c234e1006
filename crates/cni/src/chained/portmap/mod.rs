//! The `portmap` plugin: ports of the node lead to the container (`portMappings` of the runtime).
//!
//! [`config`] is what is asked for, checked; `iptables` and `nftables` are the two backends. The
//! reference lets a host port be published twice, and the container that came first keeps getting
//! all connections; here the second ADD fails and names the owner.

mod config;
mod iptables;
mod nftables;
mod ports;

use std::net::IpAddr;

use ipnet::IpNet;
use weft_kernel::nft::Nft;
use weft_kernel::{LinkSet, Netlink, Op, conntrack};

use crate::chained::portmap::config::{Config, UDP};
use crate::netfilter::{Backend, family};
use crate::protocol::args::Command;
use crate::protocol::config::invalid;
use crate::protocol::error::{CniError, code};
use crate::protocol::plugin::{Answer, Call};
use crate::protocol::result::CniResult;

pub(crate) fn plugin(call: &Call, answer: Answer<'_>) -> Result<(), CniError> {
    match call.command {
        Command::Add => add(call, answer),
        Command::Del => del(call),
        Command::Check => {
            let made = call.required_prev_result()?;
            let config = Config::of(call)?;
            let addresses = container_addresses(call, &made);
            match config.backend {
                _ if config.mappings.is_empty() => Ok(()),
                Backend::Iptables => iptables::check(&config, &addresses),
                Backend::Nftables => nftables::check(&config, &addresses),
            }
        }
        Command::Gc => {
            Config::of(call)?;
            let valid = call.conf.valid_attachments.as_ref();
            let unsaid = || invalid("cni.dev/valid-attachments is missing: nothing was removed");
            iptables::gc(call.conf.network()?, valid.ok_or_else(unsaid)?)
        }
        _ => {
            Config::of(call)?;
            let ready = Nft::open().and_then(|mut nft| nft.generation());
            let refused = |e| CniError::new(code::NOT_AVAILABLE, format!("portmap: {e}"));
            ready.map(drop).map_err(refused)
        }
    }
}

fn add(call: &Call, answer: Answer<'_>) -> Result<(), CniError> {
    let prev = call.required_prev_result()?;
    let config = Config::of(call)?;
    if config.mappings.is_empty() {
        return answer(&prev);
    }
    let addresses = container_addresses(call, &prev);
    let done = forward(&config, &addresses).and_then(|()| answer(&prev));
    if done.is_err() {
        remove(&config).ok();
    }
    done
}

fn forward(config: &Config, addresses: &[IpNet]) -> Result<(), CniError> {
    match config.backend {
        Backend::Iptables => iptables::add(config, addresses)?,
        Backend::Nftables => nftables::add(config, addresses)?,
    }
    forget_connections(config, addresses);
    match addresses.iter().find(|net| net.addr().is_ipv4() && config.snat) {
        Some(net) => let_loopback_out(net.addr()),
        None => Ok(()),
    }
}

fn del(call: &Call) -> Result<(), CniError> {
    // What the ADD before was given must not stop a DEL: the rules are found by the container.
    let config = Config::of(call).unwrap_or_else(|_| Config::bare(call));
    remove(&config)?;
    let families = ["0.0.0.0/0", "::/0"].map(|net| net.parse::<IpNet>());
    forget_connections(&config, &families.into_iter().flatten().collect::<Vec<_>>());
    Ok(())
}

/// Removes the rules of both backends: the configuration may have named the other one at the ADD.
fn remove(config: &Config) -> Result<(), CniError> {
    let by_iptables = iptables::remove(config);
    nftables::remove(config)?;
    by_iptables
}

/// The container's first address of each family: those of its interface in the sandbox, and those
/// of which nothing says where they are.
fn container_addresses(call: &Call, result: &CniResult) -> Vec<IpNet> {
    let elsewhere = |at: usize| {
        result.interfaces.get(at).is_some_and(|i| {
            i.name != call.args.ifname || i.sandbox.as_deref().unwrap_or_default().is_empty()
        })
    };
    let mut inside = result.ips.iter().filter(|ip| !ip.interface.is_some_and(elsewhere)).map(|ip| ip.address);
    let all: Vec<IpNet> = inside.by_ref().collect();
    let first = |v4: bool| all.iter().find(|net| net.addr().is_ipv4() == v4).copied();
    [first(true), first(false)].into_iter().flatten().collect()
}

/// A UDP peer that keeps sending would stay with what its packets were translated to before.
/// Best effort: a kernel may track no connections at all.
fn forget_connections(config: &Config, addresses: &[IpNet]) {
    for mapping in config.mappings.iter().filter(|mapping| mapping.protocol.number == UDP) {
        for net in addresses {
            conntrack::forget_port(family(net.addr()), UDP, mapping.host_port).ok();
        }
    }
}

/// What the node sends to its own 127.0.0.1 may leave by the interface that leads to the
/// container.
fn let_loopback_out(container: IpAddr) -> Result<(), CniError> {
    let mut netlink = Netlink::open()?;
    let Some(index) = netlink.route_get(container, None, None).ok().and_then(|route| route.oif) else {
        return Ok(());
    };
    let Some(link) = netlink.link_by_index(index)? else { return Ok(()) };
    if !link.route_localnet {
        netlink.apply(&Op::LinkSet(LinkSet { index, route_localnet: Some(true), ..LinkSet::default() }))?;
    }
    Ok(())
}
