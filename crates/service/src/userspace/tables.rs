//! The small tables that lead clients from the addresses and ports of frontends to the proxy's own, where
//! the kernel has nftables. A connection's first packet alone meets them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use weft_kernel::nft::{
    Base, Bytes, Chain, ChainKind, Datum, Element, Expr, Family, Field, Hook, Nft, Rule, Set, SetKey, Shape,
    Side, Table, Transaction, Type,
};
use weft_model::service::Protocol;

use crate::nftables::TABLE;
use crate::{Error, FrontendKey, Place};

/// Where the proxy listens: addresses of no network, the node's by routes of kind local.
const OWN: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 87, 1)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x5765, 0x6674, 0, 0, 0, 0, 1)),
];

const NODE_ADDRESSES: &str = "node-addresses";
const CLUSTER_IPS: &str = "cluster-ips";
const SERVICES: &str = "services";
const REFUSED: &str = "refused";
/// NF_IP_PRI_RAW, before any translation, and NF_IP_PRI_NAT_DST.
const RAW: i32 = -300;
const DSTNAT: i32 = -100;
const TCP: u8 = 6;

/// Where the proxy listens for frontends of a family.
pub(super) fn own(ipv6: bool) -> IpAddr {
    OWN[usize::from(ipv6)]
}

/// What becomes of a frontend's clients.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lead {
    /// They come to the proxy here.
    To(SocketAddr),
    /// They are told that nobody is there.
    Refuse,
    /// They hear nothing.
    Drop,
}

/// What the tables have.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(super) struct Tables {
    pub leads: BTreeMap<FrontendKey, Lead>,
    pub cluster_ips: BTreeSet<IpAddr>,
    pub node_addresses: Vec<IpNet>,
}

/// A map of leads or of verdicts, of addresses or of node ports.
type Map = (bool, bool);
const MAPS: [Map; 4] = [(false, false), (false, true), (true, false), (true, true)];

fn name((verdicts, node): Map) -> &'static str {
    match (verdicts, node) {
        (false, false) => "frontends",
        (false, true) => "node-frontends",
        (true, false) => "closed",
        (true, true) => "node-closed",
    }
}

fn shape((verdicts, node): Map, ipv6: bool) -> Shape {
    let address = if ipv6 { Type::Ipv6 } else { Type::Ipv4 };
    let key: Vec<Type> = (!node).then_some(address).into_iter().chain([Type::Protocol, Type::Port]).collect();
    if verdicts { Shape::verdicts(key) } else { Shape::map(key, [address, Type::Port]) }
}

fn element(key: &FrontendKey, lead: Lead) -> (Map, Element) {
    let (node, bytes) = match key.place {
        Place::Address(address) => (false, Bytes::EMPTY.address(address)),
        Place::NodePort { .. } => (true, Bytes::EMPTY),
    };
    let data = match lead {
        Lead::To(to) => Datum::Fields(Bytes::EMPTY.address(to.ip()).port(to.port())),
        Lead::Refuse => Datum::Goto(REFUSED.into()),
        Lead::Drop => Datum::Drop,
    };
    let key = bytes.protocol(key.protocol.number()).port(key.port);
    ((!matches!(lead, Lead::To(_)), node), Element { key, data })
}

fn table(ipv6: bool) -> Table {
    Table::new(if ipv6 { Family::Ip6 } else { Family::Ip }, TABLE)
}

impl Tables {
    /// Where clients of UDP are led.
    pub(super) fn datagrams(&self) -> BTreeSet<SocketAddr> {
        let udp = self.leads.iter().filter(|(key, _)| key.protocol == Protocol::Udp);
        udp.filter_map(|(_, lead)| if let Lead::To(at) = lead { Some(*at) } else { None }).collect()
    }

    fn is_used(&self, ipv6: bool) -> bool {
        self.leads.keys().any(|key| key.place.is_ipv6() == ipv6)
            || self.cluster_ips.iter().any(|ip| ip.is_ipv6() == ipv6)
    }

    fn sets(&self, ipv6: bool) -> [(&'static str, Set); 2] {
        let key = || if ipv6 { SetKey::Ipv6 } else { SetKey::Ipv4 };
        let nodes = self.node_addresses.iter().copied().filter(|net| net.addr().is_ipv6() == ipv6);
        let ips = self.cluster_ips.iter().filter(|ip| ip.is_ipv6() == ipv6).map(|ip| IpNet::from(*ip));
        [(NODE_ADDRESSES, Set::nets(key(), nodes)), (CLUSTER_IPS, Set::addresses(key(), ips))]
    }

    /// Adds to `t` what makes these of `before`. Says how many elements and sets that is.
    pub(super) fn change(&self, t: &mut Transaction, before: &Tables) -> usize {
        let mut writes = 0;
        for ipv6 in [false, true] {
            match (before.is_used(ipv6), self.is_used(ipv6)) {
                (false, false) => {}
                (true, false) => {
                    t.delete_table(&table(ipv6));
                    writes += 1;
                }
                (false, true) => writes += self.create(t, ipv6),
                (true, true) => writes += self.advance(t, before, ipv6),
            }
        }
        writes
    }

    fn advance(&self, t: &mut Transaction, before: &Tables, ipv6: bool) -> usize {
        let table = table(ipv6);
        let mut writes = 0;
        for ((name, new), (_, old)) in self.sets(ipv6).iter().zip(before.sets(ipv6)) {
            if *new != old {
                t.flush_set(&table, name);
                t.add_elements(&table, name, new);
                writes += 1;
            }
        }
        let differ = |one: &Tables, other: &Tables| {
            let own = one.leads.iter().filter(|(key, _)| key.place.is_ipv6() == ipv6);
            let differ = own.filter(|(key, lead)| other.leads.get(key) != Some(lead));
            let mut by_map: BTreeMap<Map, Vec<Element>> = BTreeMap::new();
            for (key, lead) in differ {
                let (map, element) = element(key, *lead);
                by_map.entry(map).or_default().push(element);
            }
            by_map
        };
        for (map, gone) in differ(before, self) {
            writes += gone.len();
            let gone: Vec<Bytes> = gone.into_iter().map(|element| element.key).collect();
            t.remove(&table, name(map), &shape(map, ipv6), &gone);
        }
        for (map, new) in differ(self, before) {
            writes += new.len();
            t.insert(&table, name(map), &shape(map, ipv6), &new);
        }
        writes
    }

    fn create(&self, t: &mut Transaction, ipv6: bool) -> usize {
        let table = table(ipv6);
        t.add_table(&table, false);
        for (name, set) in Tables::default().sets(ipv6) {
            t.add_set(&table, name, &set);
        }
        for map in MAPS {
            t.add_map(&table, name(map), &shape(map, ipv6));
        }
        let chains = chains(ipv6);
        for (name, chain) in &chains {
            t.add_chain(&table, name, chain.base);
        }
        for (name, chain) in &chains {
            chain.rules.iter().for_each(|rule| t.add_rule(&table, name, rule));
        }
        chains.len() + self.advance(t, &Tables::default(), ipv6)
    }

    /// Makes the kernel's as these, whatever is there. Says how many elements, sets and chains were written;
    /// none where it is so already.
    pub(super) fn replace(&self, nft: &mut Nft) -> Result<usize, Error> {
        let mut writes = 0;
        nft.change(|nft| -> Result<Transaction, Error> {
            let mut t = Transaction::default();
            writes = 0;
            for ipv6 in [false, true] {
                if self.is_there(nft, ipv6)? {
                    continue;
                }
                if nft.outline(&table(ipv6))?.is_some() {
                    t.delete_table(&table(ipv6));
                    writes += 1;
                }
                if self.is_used(ipv6) {
                    writes += self.create(&mut t, ipv6);
                }
            }
            Ok(t)
        })?;
        Ok(writes)
    }

    fn is_there(&self, nft: &mut Nft, ipv6: bool) -> Result<bool, Error> {
        let table = table(ipv6);
        let Some(outline) = nft.outline(&table)? else { return Ok(!self.is_used(ipv6)) };
        let as_wanted = self.is_used(ipv6)
            && outline.chains == chains(ipv6)
            && MAPS.iter().all(|map| outline.maps.get(name(*map)) == Some(&shape(*map, ipv6)));
        if !as_wanted {
            return Ok(false);
        }
        for (name, set) in self.sets(ipv6) {
            let key = if ipv6 { SetKey::Ipv6 } else { SetKey::Ipv4 };
            if nft.net_set(&table, name, key, name == NODE_ADDRESSES)? != set {
                return Ok(false);
            }
        }
        for map in MAPS {
            let leads = self.leads.iter().filter(|(key, _)| key.place.is_ipv6() == ipv6);
            let elements = leads.map(|(key, lead)| element(key, *lead)).filter(|(of, _)| *of == map);
            let wanted: HashMap<Bytes, Datum> = elements.map(|(_, e)| (e.key, e.data)).collect();
            if !nft.holds(&table, name(map), wanted)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn chains(ipv6: bool) -> BTreeMap<String, Chain> {
    let base =
        |kind, hook, priority, rules| Chain { base: Some(Base { kind, hook, priority, drop: false }), rules };
    let services = || vec![Rule::new("", [Expr::Jump(SERVICES.into())])];
    let own = IpNet::from(own(ipv6));
    let stranger = Rule::new(
        "only what was translated comes to the proxy",
        [Expr::iifname("lo").negated(), Expr::daddr(own), Expr::Drop],
    );
    let refused = [
        Rule::new("", [Expr::l4proto(TCP), Expr::Reject { tcp_reset: true }]),
        Rule::new("", [Expr::Reject { tcp_reset: false }]),
    ];
    let chains = [
        ("strangers", base(ChainKind::Filter, Hook::Prerouting, RAW, vec![stranger])),
        ("prerouting", base(ChainKind::Nat, Hook::Prerouting, DSTNAT, services())),
        ("output", base(ChainKind::Nat, Hook::Output, DSTNAT, services())),
        (SERVICES, Chain { base: None, rules: lookups(ipv6) }),
        (REFUSED, Chain { base: None, rules: refused.into() }),
    ];
    chains.map(|(name, chain)| (name.to_owned(), chain)).into()
}

fn lookups(ipv6: bool) -> Vec<Rule> {
    let load = |node: bool| {
        let to = (!node).then_some(Field::Address { side: Side::Destination, ipv6 });
        Expr::load(0, to.into_iter().chain([Field::Protocol, Field::Port(Side::Destination)]))
    };
    let mut rules = Vec::new();
    for node in [false, true] {
        let only = || node.then(|| Expr::daddr_in(NODE_ADDRESSES, ipv6)).into_iter();
        let (fields, end) = load(node);
        let to =
            [Expr::Map { at: 0, map: name((false, node)).into(), to: end }, Expr::DnatTo { at: end, ipv6 }];
        rules.push(Rule::new("to the proxy", only().chain(fields).chain(to)));
        let verdict = Expr::VerdictMap { at: 0, map: name((true, node)).into() };
        rules.push(Rule::new("nobody is there", only().chain(load(node).0).chain([verdict])));
    }
    for protocol in Protocol::ALL {
        let no_port = [
            Expr::daddr_in(CLUSTER_IPS, ipv6),
            Expr::l4proto(protocol.number()),
            Expr::Reject { tcp_reset: protocol.number() == TCP },
        ];
        rules.push(Rule::new("no port of the Service", no_port));
    }
    rules
}
