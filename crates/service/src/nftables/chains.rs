//! The chains that are there whatever Services there are.

use std::collections::BTreeMap;

use ipnet::IpNet;
use weft_kernel::nft::{Base, Chain, ChainKind, Expr, Field, Hook, Rule, Side};
use weft_model::mark::MASQUERADE;
use weft_model::service::Protocol;

use super::maps::Map;
use super::way::{PODS, TCP, address, frontend};

/// The node's addresses that serve node ports.
pub(crate) const NODE_ADDRESSES: &str = "node-addresses";
/// Where packets of both base chains go.
const SERVICES: &str = "services";
/// NF_IP_PRI_NAT_DST and NF_IP_PRI_NAT_SRC.
const DSTNAT: i32 = -100;
const SRCNAT: i32 = 100;
/// `ct state invalid`, `ct status dnat`.
const INVALID: u32 = 1;
const TRANSLATED: u32 = 0x20;

/// The chains by name. Only the first packet of a connection meets those of kind nat.
pub(super) fn fixed(ipv6: bool) -> BTreeMap<String, Chain> {
    let base =
        |kind, hook, priority, rules| Chain { base: Some(Base { kind, hook, priority, drop: false }), rules };
    let services = || vec![Rule::new("", [Expr::Jump(SERVICES.into())])];
    let invalid = Rule::new("no part of a connection", [Expr::State(INVALID), Expr::Drop]);
    let chains = [
        ("prerouting", base(ChainKind::Nat, Hook::Prerouting, DSTNAT, services())),
        ("output", base(ChainKind::Nat, Hook::Output, DSTNAT, services())),
        ("postrouting", base(ChainKind::Nat, Hook::Postrouting, SRCNAT, postrouting(ipv6))),
        ("forward", base(ChainKind::Filter, Hook::Forward, 0, vec![invalid])),
        (SERVICES, Chain { base: None, rules: lookups(ipv6) }),
    ];
    chains.map(|(name, chain)| (name.to_owned(), chain)).into()
}

/// To the chain of the way that a frontend's number says.
fn lookup(node: bool, ipv6: bool, comment: &str) -> Rule {
    let mut exprs = Vec::new();
    if node {
        exprs.push(Expr::daddr_in(NODE_ADDRESSES, ipv6));
    }
    // The mark stands in the listing for what the map has.
    let (load, end) = Expr::load(0, frontend(node, ipv6).into_iter().chain([Field::Mark]));
    let number = end - 1;
    exprs.extend(load);
    exprs.extend([
        Expr::Map { at: 0, map: Map::Services.name(node).into(), to: number - 1 },
        Expr::VerdictMap { at: number, map: Map::Ways.name(false).into() },
    ]);
    Rule::new(comment, exprs)
}

fn lookups(ipv6: bool) -> Vec<Rule> {
    let (mut firewall, _) = Expr::load(0, frontend(false, ipv6));
    firewall.push(Expr::VerdictMap { at: 0, map: Map::Firewall.name(false).into() });
    let mut rules = vec![
        Rule::new("who may connect", firewall),
        lookup(false, ipv6, "what the map services has says the way"),
        lookup(true, ipv6, "what the map node-ports has says the way"),
    ];
    for protocol in Protocol::ALL {
        let number = protocol.number();
        let of = Expr::daddr_in(Map::ClusterIps.name(false), ipv6);
        let refuse = Expr::Reject { tcp_reset: number == TCP };
        rules.push(Rule::new("no port of the Service", [of, Expr::l4proto(number), refuse]));
    }
    rules
}

fn postrouting(ipv6: bool) -> Vec<Rule> {
    let masquerade = Expr::Masquerade { random_fully: true };
    let marked = [
        Expr::Mark { value: MASQUERADE, mask: MASQUERADE },
        Expr::SetMark { mask: !MASQUERADE, xor: 0 },
        masquerade.clone(),
    ];
    let mut hairpin = vec![Expr::Status(TRANSLATED)];
    hairpin.extend(Expr::load(0, [address(Side::Source, ipv6), address(Side::Destination, ipv6)]).0);
    hairpin.push(Expr::Lookup { at: 0, set: Map::Hairpin.name(false).into(), negate: false });
    hairpin.push(masquerade);
    vec![Rule::new("", marked), Rule::new("a pod reaches itself", hairpin)]
}

/// A chain of who may connect.
pub(crate) fn sources(allowed: &[IpNet]) -> Vec<Rule> {
    let rules = allowed.iter().map(|net| Rule::new("", [Expr::saddr(*net), Expr::Return]));
    rules.chain([Rule::new("", [Expr::Drop])]).collect()
}

/// The names of the sets of networks.
pub(super) const NETS: [&str; 2] = [PODS, NODE_ADDRESSES];
