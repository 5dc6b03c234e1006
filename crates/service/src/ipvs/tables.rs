//! The tables beside the virtual servers: who is masqueraded, refused, dropped, or led to a virtual server at
//! another address than he connected to. All of it is for a connection's first packet.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use weft_kernel::nft::{
    Base, Bytes, Chain, ChainKind, Datum, Element, Expr, Field, Hook, Nft, Outline, Rule, Set, SetKey, Shape,
    Side, Transaction, Type,
};
use weft_model::mark::MASQUERADE;
use weft_model::service::Protocol;

use super::inner;
use super::state::Difference;
use super::way::{Way, frontend};
use crate::Error;
use crate::nftables::chains::NODE_ADDRESSES;
use crate::nftables::sync::table;
use crate::nftables::way::TCP;

/// The numbers of ways with their chains.
const WAYS: &str = "ways";
/// What this makes the node's.
const ADDRESSES: &str = "addresses";
const SERVICES: &str = "services";
/// NF_IP_PRI_RAW, before any translation; NF_IP_PRI_NAT_DST and NF_IP_PRI_NAT_SRC.
const RAW: i32 = -300;
const DSTNAT: i32 = -100;
const SRCNAT: i32 = 100;
/// `ct state invalid`.
const INVALID: u32 = 1;

/// A map or set whose elements follow from frontends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Map {
    /// Frontend to the number of its way.
    Services,
    NodePorts,
    /// Frontend to the chain of who may connect to it.
    Firewall,
    /// Frontend to an inner address.
    Servers,
    NodeServers,
    /// The same for who comes from outside where he is led to this node's endpoints alone.
    ServersHere,
    NodeServersHere,
    /// Endpoints on this node, twice: as source and destination.
    Hairpin,
}

impl Map {
    const ALL: [Map; 8] = [
        Map::Services,
        Map::NodePorts,
        Map::Firewall,
        Map::Servers,
        Map::NodeServers,
        Map::ServersHere,
        Map::NodeServersHere,
        Map::Hairpin,
    ];

    pub(super) fn frontends(node: bool) -> Map {
        if node { Map::NodePorts } else { Map::Services }
    }

    pub(super) fn servers(node: bool, here: bool) -> Map {
        match (node, here) {
            (false, false) => Map::Servers,
            (false, true) => Map::ServersHere,
            (true, false) => Map::NodeServers,
            (true, true) => Map::NodeServersHere,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Map::Services => "services",
            Map::NodePorts => "node-ports",
            Map::Firewall => "firewall",
            Map::Servers => "servers",
            Map::NodeServers => "node-servers",
            Map::ServersHere => "servers-here",
            Map::NodeServersHere => "node-servers-here",
            Map::Hairpin => "hairpin",
        }
    }

    fn shape(self, ipv6: bool) -> Shape {
        let address = address(ipv6);
        let frontend = |node: bool| -> Vec<Type> {
            (!node).then_some(address).into_iter().chain([Type::Protocol, Type::Port]).collect()
        };
        match self {
            // The number is the second, as in the tables of the mode nftables.
            Map::Services => Shape::map(frontend(false), [Type::Mark, Type::Mark]),
            Map::NodePorts => Shape::map(frontend(true), [Type::Mark, Type::Mark]),
            Map::Firewall => Shape::verdicts(frontend(false)),
            Map::Servers | Map::ServersHere => Shape::map(frontend(false), [address, Type::Port]),
            Map::NodeServers | Map::NodeServersHere => Shape::map(frontend(true), [address, Type::Port]),
            Map::Hairpin => Shape::set([address, address]),
        }
    }
}

fn address(ipv6: bool) -> Type {
    if ipv6 { Type::Ipv6 } else { Type::Ipv4 }
}

/// What maps of frontends have for a way.
pub(super) fn way_number(number: u32) -> Datum {
    Datum::Fields(Bytes::EMPTY.mark(0).mark(number))
}

fn single(address: IpAddr) -> Bytes {
    Bytes::EMPTY.address(address)
}

/// The two maps that do not follow from frontends: what they are, and of the first the elements.
fn others(ipv6: bool) -> [(&'static str, Shape); 2] {
    [(WAYS, Shape::verdicts([Type::Mark])), (ADDRESSES, Shape::set([address(ipv6)]))]
}

fn ways() -> Vec<Element> {
    let goto = |way: &Way| Datum::Goto(way.chain().into());
    let all = Way::every();
    all.iter().map(|way| Element { key: Bytes::EMPTY.mark(way.number()), data: goto(way) }).collect()
}

/// Adds to a transaction what a difference changes of a family's table; `addresses` are new there.
pub(super) fn change(
    t: &mut Transaction,
    ipv6: bool,
    difference: &Difference,
    addresses: impl Iterator<Item = IpAddr>,
) {
    let table = &table(ipv6);
    for ((_, name), set) in difference.nets.iter().filter(|((of, _), _)| *of == ipv6) {
        t.flush_set(table, name);
        t.add_elements(table, name, set);
    }
    let chains = || difference.chains.iter().filter(|((of, _), _)| *of == ipv6);
    for ((_, name), rules) in chains() {
        if let Some(rules) = rules {
            t.add_chain(table, name, None);
            rules.iter().for_each(|rule| t.add_rule(table, name, rule));
        }
    }
    let elements = || difference.elements.iter().filter(|((of, _), _)| *of == ipv6);
    for ((_, map), elements) in elements() {
        t.remove(table, map.name(), &map.shape(ipv6), &elements.gone);
    }
    for ((_, map), elements) in elements() {
        t.insert(table, map.name(), &map.shape(ipv6), &elements.new);
    }
    let new: Vec<Element> = addresses
        .filter(|ip| ip.is_ipv6() == ipv6)
        .map(|ip| Element { key: single(ip), data: Datum::None })
        .collect();
    t.insert(table, ADDRESSES, &Shape::set([address(ipv6)]), &new);
    for ((_, name), _) in chains().filter(|(_, rules)| rules.is_none()) {
        t.flush_chain(table, name);
        t.delete_chain(table, name);
    }
}

/// Adds to a transaction that addresses are not made the node's any more.
pub(super) fn forget(t: &mut Transaction, addresses: &[IpAddr]) {
    for ipv6 in [false, true] {
        let gone: Vec<Bytes> =
            addresses.iter().filter(|ip| ip.is_ipv6() == ipv6).map(|ip| single(*ip)).collect();
        t.remove(&table(ipv6), ADDRESSES, &Shape::set([address(ipv6)]), &gone);
    }
}

/// Adds to a transaction what makes a family's table of nothing.
pub(super) fn create(t: &mut Transaction, ipv6: bool, whole: &Difference, addresses: &BTreeSet<IpAddr>) {
    let table = &table(ipv6);
    t.add_table(table, false);
    for ((_, name), set) in whole.nets.iter().filter(|((of, _), _)| *of == ipv6) {
        let empty = Set::nets(set.key, []);
        t.add_set(table, name, &empty);
    }
    for map in Map::ALL {
        t.add_map(table, map.name(), &map.shape(ipv6));
    }
    for (name, shape) in others(ipv6) {
        t.add_map(table, name, &shape);
    }
    let chains = chains(ipv6);
    for (name, chain) in &chains {
        t.add_chain(table, name, chain.base);
    }
    t.insert(table, WAYS, &others(ipv6)[0].1, &ways());
    for (name, chain) in &chains {
        chain.rules.iter().for_each(|rule| t.add_rule(table, name, rule));
    }
    change(t, ipv6, whole, addresses.iter().copied());
}

/// Adds to a transaction what makes a family's table as wanted, whatever is there, and says how many objects that
/// writes. What is as wanted is not touched: while a table is made anew a packet may be judged by rules of before with
/// elements of after, and its connection be refused.
pub(super) fn replace(
    t: &mut Transaction,
    nft: &mut Nft,
    ipv6: bool,
    whole: &Difference,
    addresses: &BTreeSet<IpAddr>,
) -> Result<usize, Error> {
    let outline = nft.outline(&table(ipv6))?;
    let mut wanted = chains(ipv6);
    for ((_, name), rules) in whole.chains.iter().filter(|((of, _), _)| *of == ipv6) {
        let rules = rules.clone().unwrap_or_default();
        wanted.insert(name.clone(), Chain { base: None, rules });
    }
    match outline {
        Some(outline) if fits(&outline, ipv6, whole) => {
            mend(t, nft, ipv6, &outline.chains, &wanted, whole, addresses)
        }
        outline => {
            if outline.is_some() {
                t.delete_table(&table(ipv6));
            }
            create(t, ipv6, whole, addresses);
            Ok(whole.writes(ipv6))
        }
    }
}

/// Whether what is there can be changed into what is wanted: what cannot be changed is as wanted.
fn fits(outline: &Outline, ipv6: bool, whole: &Difference) -> bool {
    let shapes = Map::ALL.map(|map| (map.name(), map.shape(ipv6)));
    let mut shapes = shapes.into_iter().chain(others(ipv6));
    let mut nets = whole.nets.keys().filter(|(of, _)| *of == ipv6);
    let fixed = chains(ipv6);
    let base = |name: &String| fixed.get(name).and_then(|chain| chain.base);
    shapes.all(|(name, shape)| outline.maps.get(name) == Some(&shape))
        && nets.all(|(_, name)| outline.maps.get(*name).is_some_and(|shape| shape.interval))
        && fixed.keys().all(|name| outline.chains.contains_key(name))
        && outline.chains.iter().all(|(name, chain)| chain.base == base(name))
}

/// Adds the difference between what is there and what is wanted.
fn mend(
    t: &mut Transaction,
    nft: &mut Nft,
    ipv6: bool,
    there: &BTreeMap<String, Chain>,
    wanted: &BTreeMap<String, Chain>,
    whole: &Difference,
    addresses: &BTreeSet<IpAddr>,
) -> Result<usize, Error> {
    let table = &table(ipv6);
    let key = if ipv6 { SetKey::Ipv6 } else { SetKey::Ipv4 };
    let mut writes = 0;
    for ((_, name), set) in whole.nets.iter().filter(|((of, _), _)| *of == ipv6) {
        if nft.net_set(table, name, key, true)? != *set {
            t.flush_set(table, name);
            t.add_elements(table, name, set);
            writes += 1;
        }
    }
    for (name, chain) in wanted {
        match there.get(name) {
            Some(found) if found.rules == chain.rules => continue,
            Some(_) => t.flush_chain(table, name),
            None => t.add_chain(table, name, None),
        }
        chain.rules.iter().for_each(|rule| t.add_rule(table, name, rule));
        writes += 1;
    }
    let own = addresses.iter().filter(|ip| ip.is_ipv6() == ipv6);
    let own = own.map(|ip| Element { key: single(*ip), data: Datum::None }).collect();
    let [ways_shape, addresses_shape] = others(ipv6).map(|(_, shape)| shape);
    let mut all = vec![(WAYS, ways_shape, ways()), (ADDRESSES, addresses_shape, own)];
    for map in Map::ALL {
        let elements = whole.elements.get(&(ipv6, map)).map(|elements| elements.new.clone());
        all.push((map.name(), map.shape(ipv6), elements.unwrap_or_default()));
    }
    for (name, shape, elements) in all {
        let mut new: HashMap<Bytes, Datum> = elements.into_iter().map(|e| (e.key, e.data)).collect();
        let mut gone = Vec::new();
        nft.elements(table, name, |found| {
            if new.get(&found.key) == Some(&found.data) {
                new.remove(&found.key);
            } else {
                gone.push(found.key);
            }
        })?;
        let new: Vec<Element> = new.into_iter().map(|(key, data)| Element { key, data }).collect();
        t.remove(table, name, &shape, &gone);
        t.insert(table, name, &shape, &new);
        writes += gone.len() + new.len();
    }
    for name in there.keys().filter(|name| !wanted.contains_key(*name)) {
        t.flush_chain(table, name);
        t.delete_chain(table, name);
        writes += 1;
    }
    Ok(writes)
}

/// The chains that are there whatever Services there are.
fn chains(ipv6: bool) -> BTreeMap<String, Chain> {
    let base =
        |kind, hook, priority, rules| Chain { base: Some(Base { kind, hook, priority, drop: false }), rules };
    let services = || vec![Rule::new("", [Expr::Jump(SERVICES.into())])];
    let invalid = Rule::new("no part of a connection", [Expr::State(INVALID), Expr::Drop]);
    let stranger = Rule::new(
        "only what was translated comes to an inner address",
        [Expr::iifname("lo").negated(), Expr::daddr(inner::net(ipv6)), Expr::Drop],
    );
    let fixed = [
        ("strangers", base(ChainKind::Filter, Hook::Prerouting, RAW, vec![stranger])),
        ("prerouting", base(ChainKind::Nat, Hook::Prerouting, DSTNAT, services())),
        ("output", base(ChainKind::Nat, Hook::Output, DSTNAT, services())),
        ("postrouting", base(ChainKind::Nat, Hook::Postrouting, SRCNAT, postrouting(ipv6))),
        ("forward", base(ChainKind::Filter, Hook::Forward, 0, vec![invalid])),
        (SERVICES, Chain { base: None, rules: lookups(ipv6) }),
    ];
    let ways = Way::every();
    let ways = ways.iter().map(|way| (way.chain(), Chain { base: None, rules: way.rules(ipv6) }));
    fixed.map(|(name, chain)| (name.to_owned(), chain)).into_iter().chain(ways).collect()
}

fn lookups(ipv6: bool) -> Vec<Rule> {
    let (mut firewall, _) = Expr::load(0, frontend(false, ipv6));
    firewall.push(Expr::VerdictMap { at: 0, map: Map::Firewall.name().into() });
    let mut rules = vec![Rule::new("who may connect", firewall)];
    for node in [false, true] {
        let mut exprs: Vec<Expr> = node.then(|| Expr::daddr_in(NODE_ADDRESSES, ipv6)).into_iter().collect();
        // The mark stands in the listing for what the map has.
        let (load, end) = Expr::load(0, frontend(node, ipv6).into_iter().chain([Field::Mark]));
        let number = end - 1;
        exprs.extend(load);
        exprs.extend([
            Expr::Map { at: 0, map: Map::frontends(node).name().into(), to: number - 1 },
            Expr::VerdictMap { at: number, map: WAYS.into() },
        ]);
        rules.push(Rule::new("the way of the frontend", exprs));
    }
    for protocol in Protocol::ALL {
        let number = protocol.number();
        let mut exprs = vec![Expr::daddr_in(ADDRESSES, ipv6), Expr::l4proto(number)];
        // What the node sends to a Service comes from the Service's address, and its answer, a reset, goes there.
        exprs.extend((number == TCP).then_some(Expr::TcpSyn));
        exprs.push(Expr::Reject { tcp_reset: number == TCP });
        rules.push(Rule::new("no port of the Service", exprs));
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
    let address = |side| Field::Address { side, ipv6 };
    let mut hairpin = Expr::load(0, [address(Side::Source), address(Side::Destination)]).0;
    hairpin.push(Expr::Lookup { at: 0, set: Map::Hairpin.name().into(), negate: false });
    hairpin.push(masquerade);
    vec![Rule::new("", marked), Rule::new("a pod reaches itself", hairpin)]
}
