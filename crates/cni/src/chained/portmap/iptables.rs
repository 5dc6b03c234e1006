//! The iptables backend: each container has a chain `CNI-DN-…` in the `nat` table, which
//! `CNI-HOSTPORT-DNAT` jumps to for its ports.

use std::net::IpAddr;

use ipnet::IpNet;
use weft_kernel::nft::{Family, Table};
use weft_kernel::xtables::{AddressKind, Edit, Edits, Is, Match, PortKind, Rule, Target, Xtables};

use crate::chained::portmap::config::Config;
use crate::chained::portmap::ports::Mapping;
use crate::netfilter::{chain_name, family, missing};
use crate::protocol::config::{ValidAttachment, invalid};
use crate::protocol::error::CniError;

const DNAT: &str = "CNI-HOSTPORT-DNAT";
const SET_MARK: &str = "CNI-HOSTPORT-SETMARK";
const MASQUERADE: &str = "CNI-HOSTPORT-MASQ";
/// Made by older versions of the reference.
const OLD_SNAT: &str = "CNI-HOSTPORT-SNAT";
/// multiport's most ports in one rule.
const PORTS: usize = 15;
/// iptables' longest comment.
const COMMENT: usize = 255;
/// Where a container's chain is made.
const NAT: &str = "nat";

pub(super) fn add(config: &Config, addresses: &[IpNet]) -> Result<(), CniError> {
    let edits: Vec<Edits> = addresses.iter().map(|net| edits(config, net)).collect();
    let mut xtables = Xtables::open();
    let done = xtables
        .apply_if(&edits, |xtables| addresses.iter().try_for_each(|net| refuse_taken(config, net, xtables)));
    xtables.close_later();
    done.map(drop)
}

pub(super) fn remove(config: &Config) -> Result<(), CniError> {
    let mut xtables = Xtables::open();
    let done = xtables.apply(&removal(&config.network, &config.container_id));
    xtables.close_later();
    Ok(done.map(drop)?)
}

/// The rules of the container and those that lead to them.
pub(super) fn check(config: &Config, addresses: &[IpNet]) -> Result<(), CniError> {
    let (mut xtables, chain) = (Xtables::open(), config.chain());
    for net in addresses {
        let table = Table::new(family(net.addr()), NAT);
        let own = own_rules(config, net).into_iter().map(|rule| (chain.as_str(), rule));
        let entries = entries(config, net).into_iter().map(|rule| (DNAT, rule));
        for (chain, rule) in own.chain(entries) {
            let rules = xtables.rules(&table, chain)?;
            let rules = rules.ok_or_else(|| missing(format!("table {table} has no chain {chain}")))?;
            // Words for iptables alone cannot be compared: that the rule leads here is what counts.
            let worded = rule.matches.iter().any(|m| matches!(m, Match::Words(_)));
            let same = |live: &Rule| *live == rule || worded && live.jumps_to() == rule.jumps_to();
            if !rules.iter().any(same) {
                return Err(missing(format!("chain {chain} of table {table} has no rule `{rule}`")));
            }
        }
    }
    Ok(())
}

/// Removes the chains of the network's containers that are not among the valid ones. Their names
/// are in the comments of the rules that lead to them.
pub(super) fn gc(network: &str, valid: &[ValidAttachment]) -> Result<(), CniError> {
    let kept: Vec<String> = valid.iter().map(|a| comment(network, &a.container_id)).collect();
    let ours = format!("dnat name: \"{network}\" id: ");
    let mut xtables = Xtables::open();
    for family in [Family::Ip, Family::Ip6] {
        let rules = xtables.rules(&Table::new(family, NAT), DNAT)?.unwrap_or_default();
        let mut edits = Edits::of(family, NAT);
        for rule in rules.iter() {
            let stale =
                comment_of(rule).is_some_and(|c| c.starts_with(&ours) && !kept.iter().any(|k| k == c));
            if let Some(chain) = rule.jumps_to().filter(|_| stale) {
                edits = leave(edits, DNAT, chain);
            }
        }
        xtables.apply(&[edits])?;
    }
    xtables.close_later();
    Ok(())
}

/// All changes for one address of the container.
fn edits(config: &Config, net: &IpNet) -> Edits {
    let mut edits = Edits::of(family(net.addr()), NAT);
    if config.snat && config.set_mark_chain.is_none() {
        let (value, mask) = (config.mark, config.mark);
        let mark = Rule::to(Target::Mark { value, mask }).comment("CNI portfwd masquerade mark");
        let marked = Match::Mark { value: Is::so(value), mask };
        edits = edits
            .edit(Edit::Chain(SET_MARK.into()))
            .append(SET_MARK, mark)
            .edit(Edit::Chain(MASQUERADE.into()))
            .append(MASQUERADE, Rule::to(Target::Masquerade).matching(marked))
            // Before the masquerading of interface plugins, which would end the way.
            .insert("POSTROUTING", Rule::jump(MASQUERADE).comment("CNI portfwd requiring masquerade"));
    }
    let local = Match::AddressKind { source: None, destination: Some(Is::so(AddressKind::LOCAL)) };
    edits = edits.edit(Edit::Chain(DNAT.into()));
    for from in ["PREROUTING", "OUTPUT"] {
        edits = edits.append(from, Rule::jump(DNAT).matching(local.clone()));
    }
    let chain = config.chain();
    edits = edits.edit(Edit::Chain(chain.clone()));
    edits = own_rules(config, net).into_iter().fold(edits, |edits, rule| edits.append(&chain, rule));
    entries(config, net).into_iter().fold(edits, |edits, rule| edits.append(DNAT, rule))
}

/// The rules that lead to the container's chain, for all ports of a protocol together.
fn entries(config: &Config, net: &IpNet) -> Vec<Rule> {
    let mut mappings: Vec<&Mapping> = config.mappings.iter().collect();
    mappings.sort_by_key(|mapping| mapping.protocol.name);
    let same = |a: &&Mapping, b: &&Mapping| a.protocol == b.protocol;
    let chunks = mappings.chunk_by(same).flat_map(|of_protocol| of_protocol.chunks(PORTS));
    let rule = |chunk: &[&Mapping]| {
        let ports = chunk.iter().map(|mapping| (mapping.host_port, mapping.host_port)).collect();
        let number = chunk.first().map_or(0, |mapping| mapping.protocol.number);
        Rule::jump(&config.chain())
            .protocol(number)
            .comment(&comment(&config.network, &config.container_id))
            .matching(Match::MultiPort { kind: PortKind::Destination, ports: Is::so(ports) })
            .with(config.conditions(net.addr()))
    };
    chunks.map(rule).collect()
}

/// The rules of the container's chain: marks for masquerading before each translation.
fn own_rules(config: &Config, net: &IpNet) -> Vec<Rule> {
    let set_mark = config.set_mark_chain.as_deref().unwrap_or(SET_MARK);
    let mut out = Vec::new();
    for mapping in config.mappings.iter().filter(|mapping| mapping.is_for(net.addr())) {
        let base = |target: Target| {
            let rule = Rule::to(target).protocol(mapping.protocol.number).to_port(mapping.host_port);
            match mapping.destination() {
                Some(ip) => rule.towards(ip),
                None => rule,
            }
        };
        let mark = || base(Target::Jump(set_mark.to_owned()));
        if config.snat {
            // From the container itself, or anybody.
            out.push(if config.masquerades_all { mark() } else { mark().from(*net) });
            if net.addr().is_ipv4() && !config.masquerades_all {
                out.push(mark().from(IpAddr::from([127, 0, 0, 1])));
            }
        }
        out.push(base(Target::Dnat(net.addr(), mapping.container_port)));
    }
    out
}

fn removal(network: &str, container_id: &str) -> Vec<Edits> {
    let of = |family| {
        let edits = leave(Edits::of(family, NAT), DNAT, &chain_name("DN-", network, container_id));
        leave(edits, OLD_SNAT, &chain_name("SN-", network, container_id))
    };
    vec![of(Family::Ip), of(Family::Ip6)]
}

fn leave(edits: Edits, from: &str, chain: &str) -> Edits {
    edits
        .edit(Edit::RemoveJumps { from: from.into(), to: chain.into() })
        .edit(Edit::RemoveChain(chain.into()))
}

fn comment(network: &str, container_id: &str) -> String {
    let mut text = format!("dnat name: \"{network}\" id: \"{container_id}\"");
    if text.len() > COMMENT {
        text.truncate(COMMENT - 3);
        text.push_str("...");
    }
    text
}

fn comment_of(rule: &Rule) -> Option<&str> {
    rule.matches.iter().find_map(|one| match one {
        Match::Comment(text) => Some(text.as_str()),
        _ => None,
    })
}

/// Refuses a port that another container has published where both would get the same packets.
fn refuse_taken(config: &Config, net: &IpNet, xtables: &mut Xtables) -> Result<(), CniError> {
    let table = Table::new(family(net.addr()), NAT);
    let ours: Vec<&Mapping> = config.mappings.iter().filter(|mapping| mapping.is_for(net.addr())).collect();
    let ports: Vec<u16> = ours.iter().map(|mapping| mapping.host_port).collect();
    let rules = xtables.rules_with_ports(&table, DNAT, &ports)?;
    let ids = format!(" id: \"{}\"", config.container_id);
    let entries = entries(config, net);
    for rule in rules.iter() {
        let (Some(chain), Some(protocol), Some(owner)) = (rule.jumps_to(), &rule.protocol, comment_of(rule))
        else {
            continue;
        };
        // The same container may have the port in several networks.
        if chain == config.chain() || owner.ends_with(&ids) {
            continue;
        }
        let near = |m: &&Mapping| m.protocol.number == protocol.value && has_port(rule, m.host_port);
        let same_conditions = || entries.iter().any(|entry| conditions(entry) == conditions(rule));
        if !ours.iter().any(near) || !same_conditions() {
            continue;
        }
        for theirs in xtables.rules(&table, chain)?.unwrap_or_default().iter() {
            let Some(taken) = ours.iter().find(|mapping| translates(theirs, mapping)) else { continue };
            let (port, name) = (taken.host_port, taken.protocol.name);
            return Err(invalid(&format!(
                "portMappings: host port {port}/{name} is taken by another container ({}): choose another port or remove that container",
                owner.trim_start_matches("dnat ")
            )));
        }
    }
    Ok(())
}

fn has_port(rule: &Rule, port: u16) -> bool {
    rule.matches.iter().any(|one| match one {
        Match::MultiPort { ports, .. } => {
            ports.value.iter().any(|(first, last)| (*first..=*last).contains(&port))
        }
        _ => false,
    })
}

/// What a rule asks for besides protocol and ports.
fn conditions(rule: &Rule) -> Rule {
    let mut rule = Rule { protocol: None, target: None, ..rule.clone() };
    rule.matches.retain(|one| !matches!(one, Match::Comment(_) | Match::MultiPort { .. }));
    rule
}

fn translates(rule: &Rule, mapping: &Mapping) -> bool {
    let port = rule.matches.iter().find_map(|one| match one {
        Match::Port { kind: PortKind::Destination, range } => Some(range.value.0),
        _ => None,
    });
    let (Some(Target::Dnat(..)), Some(protocol), Some(port)) = (&rule.target, &rule.protocol, port) else {
        return false;
    };
    mapping.meets(protocol.value, port, rule.destination.as_ref().map(|is| is.value.addr()))
}
