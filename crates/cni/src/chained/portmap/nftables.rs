//! The nftables backend: the tables `ip cni_hostport` and `ip6 cni_hostport`, with a rule for each
//! published port, whose comment is the container's ID.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use weft_kernel::nft::{Base, ChainKind, Expr, Family, Hook, Nft, Rule, Side, Table, Transaction};

use crate::chained::portmap::config::Config;
use crate::chained::portmap::ports::Mapping;
use crate::netfilter::{family, host, missing, with_nft};
use crate::protocol::config::invalid;
use crate::protocol::error::{CniError, code};

const TABLE: &str = "cni_hostport";
const TABLE_COMMENT: &str = "CNI portmap plugin";
/// Where the rules of containers are.
const PORTS: &str = "hostports";
/// Jumped to as well, for rules that older versions put there.
const OLD_PORTS: &str = "hostip_hostports";
const ALL: &str = "hostports_all";
const MASQUERADING: &str = "masquerading";
/// Before and after other translation (`dstnat`, `srcnat`).
const DESTINATION: i32 = -100;
const SOURCE: i32 = 100;

pub(super) fn add(config: &Config, addresses: &[IpNet]) -> Result<(), CniError> {
    with_nft(|nft| {
        nft.change(|nft| {
            let mut transaction = Transaction::default();
            for net in addresses {
                refuse_taken(config, net, nft)?;
                add_to(&mut transaction, config, net, nft)?;
            }
            Ok(transaction)
        })
        .map(drop)
    })
}

pub(super) fn remove(config: &Config) -> Result<(), CniError> {
    with_nft(|nft| {
        nft.change(|nft| {
            let mut transaction = Transaction::default();
            for of in [Family::Ip, Family::Ip6] {
                let table = Table::new(of, TABLE);
                for chain in [PORTS, OLD_PORTS, MASQUERADING] {
                    for live in nft.rules_mentioning(&table, chain, &config.container_id)? {
                        if live.rule.comment == config.container_id {
                            transaction.delete_rule(&table, chain, live.handle);
                        }
                    }
                }
            }
            Ok(transaction)
        })
        .map(drop)
    })
}

pub(super) fn check(config: &Config, addresses: &[IpNet]) -> Result<(), CniError> {
    let mut nft = Nft::open()?;
    for net in addresses {
        let table = Table::new(family(net.addr()), TABLE);
        for (chain, wanted) in [(PORTS, ports(config, net)), (MASQUERADING, masquerading(config, net))] {
            let rules = nft.chain_rules(&table, chain)?.unwrap_or_default();
            if let Some(rule) = wanted.iter().find(|rule| !rules.iter().any(|live| live.rule == **rule)) {
                return Err(missing(format!("chain {chain} of table {table} has no rule `{rule}`")));
            }
        }
    }
    Ok(())
}

fn add_to(t: &mut Transaction, config: &Config, net: &IpNet, nft: &mut Nft) -> Result<(), CniError> {
    let table = Table::new(family(net.addr()), TABLE);
    t.add_commented_table(&table, TABLE_COMMENT);
    for chain in [PORTS, OLD_PORTS, ALL] {
        nft.ensure_chain(t, &table, chain, None, "")?;
    }
    let jump = |chain: &str| Expr::Jump(chain.into());
    keep(t, nft, &table, ALL, &[Rule::new("", [jump(OLD_PORTS)]), Rule::new("", [jump(PORTS)])])?;
    let mut entry = conditions(config, net.addr())?;
    entry.extend([Expr::LocalDestination, jump(ALL)]);
    let entry = [Rule::new("", entry)];
    for (chain, hook) in [("prerouting", Hook::Prerouting), ("output", Hook::Output)] {
        nft.ensure_chain(t, &table, chain, Some(base(hook, DESTINATION)), "")?;
        keep(t, nft, &table, chain, &entry)?;
    }
    if config.snat {
        nft.ensure_chain(t, &table, MASQUERADING, Some(base(Hook::Postrouting, SOURCE)), "")?;
    }
    ports(config, net).iter().for_each(|rule| t.add_rule(&table, PORTS, rule));
    masquerading(config, net).iter().for_each(|rule| t.add_rule(&table, MASQUERADING, rule));
    Ok(())
}

/// Makes the chain's rules the wanted ones, unless they are.
fn keep(
    t: &mut Transaction,
    nft: &mut Nft,
    table: &Table,
    chain: &str,
    wanted: &[Rule],
) -> Result<(), CniError> {
    let there = nft.chain_rules(table, chain)?.unwrap_or_default();
    if there.iter().map(|live| &live.rule).eq(wanted) {
        return Ok(());
    }
    if !there.is_empty() {
        t.flush_chain(table, chain);
    }
    wanted.iter().for_each(|rule| t.add_rule(table, chain, rule));
    Ok(())
}

fn base(hook: Hook, priority: i32) -> Base {
    Base { kind: ChainKind::Nat, hook, priority, drop: false }
}

fn ports(config: &Config, net: &IpNet) -> Vec<Rule> {
    let rule = |mapping: &Mapping| {
        let mut exprs: Vec<Expr> =
            mapping.destination().map(|ip| Expr::daddr(IpNet::from(ip))).into_iter().collect();
        exprs.extend([
            Expr::l4proto(mapping.protocol.number),
            Expr::Port { side: Side::Destination, port: mapping.host_port },
            Expr::Dnat(SocketAddr::new(net.addr(), mapping.container_port)),
        ]);
        Rule { exprs, comment: config.container_id.clone() }
    };
    config.mappings.iter().filter(|mapping| mapping.is_for(net.addr())).map(rule).collect()
}

/// What comes from the container itself or from the node's loopback must come back the same way.
fn masquerading(config: &Config, net: &IpNet) -> Vec<Rule> {
    if !config.snat {
        return Vec::new();
    }
    let from = |source: IpNet| Rule {
        exprs: vec![Expr::saddr(source), Expr::daddr(host(net)), Expr::Masquerade { random_fully: false }],
        comment: config.container_id.clone(),
    };
    let mut out = vec![from(host(net))];
    if net.addr().is_ipv4() {
        out.push(from(IpNet::from(IpAddr::from([127, 0, 0, 1]))));
    }
    out
}

/// `conditionsV4` and `conditionsV6` in nft's words: addresses and devices, each compared or not.
fn conditions(config: &Config, ip: IpAddr) -> Result<Vec<Expr>, CniError> {
    let text = config.conditions(ip).join(" ");
    let key = if ip.is_ipv4() { "conditionsV4" } else { "conditionsV6" };
    let (mut words, mut out) = (text.split_whitespace().peekable(), Vec::new());
    let refused = || {
        let known = "use `ip saddr`, `ip daddr` (ip6 for IPv6), `iifname` and `oifname`";
        CniError::new(code::UNSUPPORTED_FIELD, format!("{key}: {text:?} is not supported: {known}"))
    };
    while let Some(word) = words.next() {
        let side = match word {
            "ip" | "ip6" => Some(words.next().ok_or_else(refused)?),
            _ => None,
        };
        let not = words.peek() == Some(&"!=");
        if not || words.peek() == Some(&"==") {
            words.next();
        }
        let value = words.next().ok_or_else(refused)?;
        let name = || value.trim_matches('"');
        let net = || {
            let whole = value.parse::<IpAddr>().map(IpNet::from);
            let net: IpNet = value.parse().or(whole).map_err(|_| refused())?;
            if net.addr().is_ipv4() == (word == "ip") { Ok(net.trunc()) } else { Err(refused()) }
        };
        let expr = match (word, side) {
            (_, Some("saddr")) => Expr::saddr(net()?),
            (_, Some("daddr")) => Expr::daddr(net()?),
            ("iifname", None) => Expr::iifname(name()),
            ("oifname", None) => Expr::oifname(name()),
            _ => return Err(refused()),
        };
        out.push(if not { expr.negated() } else { expr });
    }
    Ok(out)
}

/// Refuses a port that another container has published.
fn refuse_taken(config: &Config, net: &IpNet, nft: &mut Nft) -> Result<(), CniError> {
    let table = Table::new(family(net.addr()), TABLE);
    for live in nft.chain_rules(&table, PORTS)?.unwrap_or_default() {
        let owner = &live.rule.comment;
        let Some((protocol, port, ip)) = published(&live.rule).filter(|_| *owner != config.container_id)
        else {
            continue;
        };
        let ours = |m: &&Mapping| m.is_for(net.addr()) && m.meets(protocol, port, ip);
        if let Some(taken) = config.mappings.iter().find(ours) {
            let (port, name) = (taken.host_port, taken.protocol.name);
            return Err(invalid(&format!(
                "portMappings: host port {port}/{name} is taken by another container (id: {owner:?}): choose another port or remove that container"
            )));
        }
    }
    Ok(())
}

/// Protocol, port and address of the node that a rule translates.
fn published(rule: &Rule) -> Option<(u8, u16, Option<IpAddr>)> {
    let (mut protocol, mut port, mut ip) = (None, None, None);
    for expr in &rule.exprs {
        match expr {
            Expr::Protocol { number, negate: false } => protocol = Some(*number),
            Expr::Port { side: Side::Destination, port: number } => port = Some(*number),
            Expr::Address { side: Side::Destination, net, negate: false } => ip = Some(net.addr()),
            _ => {}
        }
    }
    Some((protocol?, port?, ip))
}
