use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};

use super::expr::Expr;
use super::transaction::Transaction;

/// Which packets a table sees (`NFPROTO_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet,
    /// IPv4.
    Ip,
    /// ARP.
    Arp,
    /// One device's ingress or egress.
    Netdev,
    /// Frames forwarded by bridges.
    Bridge,
    /// IPv6.
    Ip6,
    /// A number this program does not know.
    Other(u8),
}

impl Family {
    /// The kernel's number.
    pub fn number(self) -> u8 {
        match self {
            Family::Inet => 1,
            Family::Ip => 2,
            Family::Arp => 3,
            Family::Netdev => 5,
            Family::Bridge => 7,
            Family::Ip6 => 10,
            Family::Other(number) => number,
        }
    }

    /// The family with the kernel's number.
    pub fn from_number(number: u8) -> Family {
        let known = [Family::Inet, Family::Ip, Family::Arp, Family::Netdev, Family::Bridge, Family::Ip6];
        known.into_iter().find(|f| f.number() == number).unwrap_or(Family::Other(number))
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::Inet => "inet",
            Family::Ip => "ip",
            Family::Arp => "arp",
            Family::Netdev => "netdev",
            Family::Bridge => "bridge",
            Family::Ip6 => "ip6",
            Family::Other(number) => return write!(f, "family-{number}"),
        })
    }
}

/// A table's name in its family.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Table {
    /// Which packets it sees.
    pub family: Family,
    /// Its name.
    pub name: String,
}

impl Table {
    /// The table `name` of `family`.
    pub fn new(family: Family, name: &str) -> Table {
        Table { family, name: name.into() }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.family, self.name)
    }
}

/// Where in a packet's way a base chain runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// Before routing, for what arrives.
    Prerouting,
    /// For what is delivered to this host.
    Input,
    /// For what passes through.
    Forward,
    /// For what this host sends.
    Output,
    /// After routing, for what leaves.
    Postrouting,
}

impl Hook {
    const ALL: [Hook; 5] = [Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output, Hook::Postrouting];

    /// `NF_INET_*`.
    pub(super) fn number(self) -> u32 {
        self as u32
    }

    pub(super) fn from_number(number: u32) -> Option<Hook> {
        Hook::ALL.into_iter().find(|h| h.number() == number)
    }
}

/// What a base chain may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChainKind {
    /// Decide.
    Filter,
    /// Translate addresses; sees the first packet of a connection only.
    Nat,
    /// Decide, and route again after a change.
    Route,
}

impl ChainKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            ChainKind::Filter => "filter",
            ChainKind::Nat => "nat",
            ChainKind::Route => "route",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<ChainKind> {
        [ChainKind::Filter, ChainKind::Nat, ChainKind::Route].into_iter().find(|k| k.name() == name)
    }
}

/// What makes a chain a base chain: the kernel calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// What it may do.
    pub kind: ChainKind,
    /// Where it runs.
    pub hook: Hook,
    /// Order among chains of one hook; smaller is earlier (-300 raw, 0 filter, 100 srcnat).
    pub priority: i32,
    /// Whether a packet that no rule decided is dropped.
    pub drop: bool,
}

/// One rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Matches and statements, from left to right.
    pub exprs: Vec<Expr>,
    /// Shown by `nft list`; at most 127 bytes, more is cut. Empty: none.
    pub comment: String,
}

impl Rule {
    /// A rule with a comment.
    pub fn new(comment: &str, exprs: impl IntoIterator<Item = Expr>) -> Rule {
        let mut end = comment.len().min(127);
        while !comment.is_char_boundary(end) {
            end -= 1;
        }
        Rule { exprs: exprs.into_iter().collect(), comment: comment[..end].into() }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text: Vec<String> = self.exprs.iter().map(Expr::to_string).collect();
        f.write_str(&text.join(" "))?;
        if self.comment.is_empty() { Ok(()) } else { write!(f, " comment {:?}", self.comment) }
    }
}

/// A list of rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// What makes the kernel call it; `None` for a chain that only others jump to.
    pub base: Option<Base>,
    /// The rules, first to last.
    pub rules: Vec<Rule>,
}

/// What a set holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetKey {
    /// `ipv4_addr`.
    Ipv4,
    /// `ipv6_addr`.
    Ipv6,
    /// Another type, by nft's number; its elements are not read.
    Other(u32),
}

impl SetKey {
    pub(super) fn number(self) -> u32 {
        match self {
            SetKey::Ipv4 => 7,
            SetKey::Ipv6 => 8,
            SetKey::Other(number) => number,
        }
    }

    pub(super) fn from_number(number: u32) -> SetKey {
        match number {
            7 => SetKey::Ipv4,
            8 => SetKey::Ipv6,
            other => SetKey::Other(other),
        }
    }
}

/// A named set of addresses or prefixes. Prefixes that touch are joined, so that equal sets of
/// addresses are equal values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// What it holds.
    pub key: SetKey,
    /// Whether it holds prefixes and not only whole addresses.
    pub interval: bool,
    /// The elements, of the key's family.
    elements: BTreeSet<IpNet>,
}

impl Set {
    /// A set of prefixes; those of the other family are left out.
    pub fn nets(key: SetKey, nets: impl IntoIterator<Item = IpNet>) -> Set {
        Set { key, interval: true, elements: IpNet::aggregate(&of(key, nets)).into_iter().collect() }
    }

    /// A set of whole addresses; prefixes and those of the other family are left out.
    pub fn addresses(key: SetKey, addresses: impl IntoIterator<Item = IpNet>) -> Set {
        let whole = of(key, addresses).into_iter().filter(|n| n.prefix_len() == n.max_prefix_len());
        Set { key, interval: false, elements: whole.collect() }
    }

    /// The elements, joined where they touch.
    pub fn elements(&self) -> &BTreeSet<IpNet> {
        &self.elements
    }

    /// The elements as the kernel has them: first address and the one after the last (none
    /// where the range reaches the end of the address space).
    pub(super) fn ranges(&self) -> Vec<(u128, Option<u128>)> {
        let mut out: Vec<(u128, Option<u128>)> = Vec::new();
        for net in &self.elements {
            let (first, end) = match net {
                IpNet::V4(n) => {
                    let end = u128::from(u32::from(n.broadcast())) + 1;
                    (u128::from(u32::from(n.network())), (end <= u128::from(u32::MAX)).then_some(end))
                }
                IpNet::V6(n) => (u128::from(n.network()), u128::from(n.broadcast()).checked_add(1)),
            };
            match out.last_mut() {
                Some(last) if self.interval && last.1 == Some(first) => last.1 = end,
                _ => out.push((first, end)),
            }
        }
        out
    }

    /// A set from ranges read back.
    pub(super) fn from_ranges(key: SetKey, interval: bool, ranges: &[(u128, Option<u128>)]) -> Set {
        let v4 = |n: u128| Ipv4Addr::from(u32::try_from(n).unwrap_or(u32::MAX));
        let nets = ranges.iter().flat_map(|(first, end)| -> Vec<IpNet> {
            let last = end.map_or(u128::MAX, |e| e.saturating_sub(1));
            match key {
                SetKey::Ipv4 => Ipv4Subnets::new(v4(*first), v4(last), 0).map(IpNet::V4).collect(),
                SetKey::Ipv6 => {
                    let (first, last) = (Ipv6Addr::from(*first), Ipv6Addr::from(last));
                    Ipv6Subnets::new(first, last, 0).map(IpNet::V6).collect()
                }
                SetKey::Other(_) => Vec::new(),
            }
        });
        if interval { Set::nets(key, nets) } else { Set::addresses(key, nets) }
    }
}

fn of(key: SetKey, nets: impl IntoIterator<Item = IpNet>) -> Vec<IpNet> {
    let same = |n: &IpNet| match n {
        IpNet::V4(_) => key == SetKey::Ipv4,
        IpNet::V6(_) => key == SetKey::Ipv6,
    };
    nets.into_iter().map(|n| n.trunc()).filter(same).collect()
}

/// A whole table as a plain value: what is wanted, or what was read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruleset {
    /// Its name and family.
    pub table: Table,
    /// Sets by name.
    pub sets: BTreeMap<String, Set>,
    /// Chains by name.
    pub chains: BTreeMap<String, Chain>,
}

impl Ruleset {
    /// An empty table.
    pub fn new(family: Family, name: &str) -> Ruleset {
        Ruleset { table: Table::new(family, name), sets: BTreeMap::new(), chains: BTreeMap::new() }
    }

    /// With a set.
    pub fn with_set(mut self, name: &str, set: Set) -> Ruleset {
        self.sets.insert(name.into(), set);
        self
    }

    /// With a base chain whose policy is accept.
    pub fn with_base_chain(
        mut self,
        name: &str,
        kind: ChainKind,
        hook: Hook,
        priority: i32,
        rules: Vec<Rule>,
    ) -> Ruleset {
        let base = Some(Base { kind, hook, priority, drop: false });
        self.chains.insert(name.into(), Chain { base, rules });
        self
    }

    /// The transaction that makes `existing` (as read back) this table: empty when it is equal,
    /// set elements alone when only those differ, else the table whole. Nothing in between is
    /// ever in force.
    pub fn replace_transaction(&self, existing: Option<&Ruleset>) -> Transaction {
        let mut t = Transaction::default();
        match existing {
            Some(existing) if existing == self => {}
            Some(existing) if self.same_but_elements(existing) => {
                for (name, set) in
                    self.sets.iter().filter(|(name, set)| existing.sets.get(*name) != Some(*set))
                {
                    t.flush_set(&self.table, name);
                    t.add_elements(&self.table, name, set);
                }
            }
            _ => self.replace_whole(&mut t),
        }
        t
    }

    fn same_but_elements(&self, other: &Ruleset) -> bool {
        let shape = |r: &Ruleset| -> Vec<(String, SetKey, bool)> {
            r.sets.iter().map(|(n, s)| (n.clone(), s.key, s.interval)).collect()
        };
        self.table == other.table && self.chains == other.chains && shape(self) == shape(other)
    }

    fn replace_whole(&self, t: &mut Transaction) {
        // Added first so that the deletion finds it; both and the rest are one transaction.
        t.add_table(&self.table, false);
        t.delete_table(&self.table);
        self.add_to(t, false);
    }

    /// Adds the whole table to a transaction. With `owned` it belongs to the socket that sends
    /// it and vanishes when that closes (`NFT_TABLE_F_OWNER`): for temporary tables only.
    pub fn add_to(&self, t: &mut Transaction, owned: bool) {
        t.add_table(&self.table, owned);
        for (name, set) in &self.sets {
            t.add_set(&self.table, name, set);
            t.add_elements(&self.table, name, set);
        }
        for (name, chain) in &self.chains {
            t.add_chain(&self.table, name, chain.base);
        }
        for (name, chain) in &self.chains {
            for rule in &chain.rules {
                t.add_rule(&self.table, name, rule);
            }
        }
    }
}
