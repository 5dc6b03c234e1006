//! Reading a table back, whole and consistent: the generation before and after must be one.

use std::collections::BTreeMap;

use super::client::{Nft, is_passing};
use super::expr::Expr;
use super::low::Low;
use super::ruleset::{Base, Chain, ChainKind, Family, Hook, Rule, Ruleset, Set, SetKey, Table};
use super::wire::{Attributes, Body, F_DUMP, msg};
use crate::{Error, Result};

const ATTEMPTS: u32 = 10;
const SET_ANONYMOUS: u32 = 0x1;
const SET_INTERVAL: u32 = 0x4;
const ELEMENT_IS_END: u32 = 0x1;

/// A rule as it is in the kernel, of any table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveRule {
    /// The chain it is in.
    pub chain: String,
    /// The kernel's number for it in its table.
    pub handle: u64,
    /// What it says, as far as understood.
    pub rule: Rule,
}

impl Nft {
    /// The table as it is in the kernel; `None` when there is none of that name.
    pub fn dump(&mut self, family: Family, name: &str) -> Result<Option<Ruleset>> {
        let table = Table::new(family, name);
        self.consistent(|nft| nft.dump_once(&table))
    }

    /// All tables of the namespace.
    pub fn tables(&mut self) -> Result<Vec<Table>> {
        self.consistent(|nft| {
            let found = nft.request(msg::GET_TABLE, F_DUMP, Family::Other(0), &[], "the tables")?;
            let table = |(family, data): &(u8, Vec<u8>)| {
                Some(Table { family: Family::from_number(*family), name: Attributes(data).text(1)? })
            };
            Ok(found.iter().filter_map(table).collect())
        })
    }

    /// The chains that the kernel calls by itself, of all families and tables.
    pub fn base_chains(&mut self) -> Result<Vec<(Table, String, Base)>> {
        self.consistent(|nft| {
            let found = nft.request(msg::GET_CHAIN, F_DUMP, Family::Other(0), &[], "the chains")?;
            let chain = |(family, data): &(u8, Vec<u8>)| {
                let a = Attributes(data);
                let table = Table { family: Family::from_number(*family), name: a.text(1)? };
                Some((table, a.text(3)?, base(a)?))
            };
            Ok(found.iter().filter_map(chain).collect())
        })
    }

    /// The rules of any table, with their handles.
    pub fn rules(&mut self, family: Family, table: &str) -> Result<Vec<LiveRule>> {
        let table = Table::new(family, table);
        self.consistent(|nft| nft.rules_once(&table))
    }

    /// The ruleset's generation number; each transaction makes a new one.
    pub fn generation(&mut self) -> Result<u32> {
        let found = self.request(msg::GET_GEN, 0, Family::Other(0), &[], "the generation")?;
        let number = found.first().and_then(|(_, data)| Attributes(data).be32(1));
        number.ok_or(Error::Malformed { op: "read the nft generation", detail: "no number in the answer" })
    }

    /// What `read` finds with one rule set in force from its beginning to its end; it is called
    /// again when there was another.
    pub fn consistent<T>(&mut self, mut read: impl FnMut(&mut Nft) -> Result<T>) -> Result<T> {
        for _ in 0..ATTEMPTS {
            let before = self.generation()?;
            match read(self) {
                Err(e) if is_passing(&e) => continue,
                // What changed under the reader may show as missing.
                Err(e) if e.not_found() && self.generation()? != before => continue,
                Err(e) => return Err(e),
                Ok(found) if self.generation()? == before => return Ok(found),
                Ok(_) => {}
            }
        }
        Err(Error::Inconsistent { object: "the nft table", attempts: ATTEMPTS })
    }

    fn dump_once(&mut self, table: &Table) -> Result<Option<Ruleset>> {
        let Some(chains) = self.chains_with_rules(table)? else { return Ok(None) };
        Ok(Some(Ruleset { table: table.clone(), sets: self.sets(table)?, chains }))
    }

    /// The chains of a table with their rules; `None` when there is no such table.
    pub(super) fn chains_with_rules(&mut self, table: &Table) -> Result<Option<BTreeMap<String, Chain>>> {
        let mut body = Body::default();
        body.text(1, &table.name);
        match self.request(msg::GET_TABLE, 0, table.family, &body.0, &format!("table {table}")) {
            Err(e) if e.not_found() => return Ok(None),
            other => other?,
        };
        let mut chains = self.chains(table)?;
        for live in self.rules_once(table)? {
            chains.entry(live.chain).or_default().rules.push(live.rule);
        }
        Ok(Some(chains))
    }

    fn chains(&mut self, table: &Table) -> Result<BTreeMap<String, Chain>> {
        let what = format!("chains of table {table}");
        let found = self.request(msg::GET_CHAIN, F_DUMP, table.family, &[], &what)?;
        let ours = found.iter().map(|(_, data)| Attributes(data));
        let ours = ours.filter(|a| a.text(1).as_deref() == Some(&table.name));
        Ok(ours.filter_map(|a| Some((a.text(3)?, Chain { base: base(a), rules: Vec::new() }))).collect())
    }

    fn rules_once(&mut self, table: &Table) -> Result<Vec<LiveRule>> {
        let mut body = Body::default();
        body.text(1, &table.name);
        let what = format!("rules of table {table}");
        let found = self.request(msg::GET_RULE, F_DUMP, table.family, &body.0, &what)?;
        let ours = found.iter().filter(|(family, _)| *family == table.family.number());
        let ours =
            ours.map(|(_, data)| Attributes(data)).filter(|a| a.text(1).as_deref() == Some(&table.name));
        Ok(ours.filter_map(|a| live_rule(table.family, a)).collect())
    }

    fn sets(&mut self, table: &Table) -> Result<BTreeMap<String, Set>> {
        let mut body = Body::default();
        body.text(1, &table.name);
        let what = format!("sets of table {table}");
        let found = self.request(msg::GET_SET, F_DUMP, table.family, &body.0, &what)?;
        let mut out = BTreeMap::new();
        for (_, data) in &found {
            let a = Attributes(data);
            let flags = a.be32(3).unwrap_or(0);
            let Some(name) = a.text(2).filter(|_| flags & SET_ANONYMOUS == 0) else { continue };
            let key = SetKey::from_number(a.be32(4).unwrap_or(0));
            let interval = flags & SET_INTERVAL != 0;
            let ranges = self.ranges(table, &name, interval)?;
            out.insert(name, Set::from_ranges(key, interval, &ranges));
        }
        Ok(out)
    }

    pub(super) fn ranges(
        &mut self,
        table: &Table,
        set: &str,
        interval: bool,
    ) -> Result<Vec<(u128, Option<u128>)>> {
        let mut body = Body::default();
        body.text(1, &table.name).text(2, set);
        let what = format!("elements of table {table} set {set}");
        let found = self.request(msg::GET_SET_ELEM, F_DUMP, table.family, &body.0, &what)?;
        let mut keys: Vec<(u128, bool)> = Vec::new();
        for (_, data) in &found {
            for (_, element) in Attributes(data).nested(3) {
                let element = Attributes(element);
                let end = element.be32(3).unwrap_or(0) & ELEMENT_IS_END != 0;
                keys.extend(element.nested(1).get(1).and_then(number).map(|key| (key, end)));
            }
        }
        Ok(join(keys, interval))
    }
}

/// Starts and ends, in any order, to ranges. nft itself writes an end at zero; it ends nothing.
fn join(mut keys: Vec<(u128, bool)>, interval: bool) -> Vec<(u128, Option<u128>)> {
    if !interval {
        return keys.into_iter().map(|(key, _)| (key, key.checked_add(1))).collect();
    }
    // At one address the end of a range comes before the start of the next.
    keys.sort_by_key(|(key, end)| (*key, !end));
    let mut out: Vec<(u128, Option<u128>)> = Vec::new();
    for (key, end) in keys {
        match (end, out.last_mut()) {
            (false, _) => out.push((key, None)),
            (true, Some((_, open @ None))) => *open = Some(key),
            (true, _) => {}
        }
    }
    out
}

fn number(bytes: &[u8]) -> Option<u128> {
    (bytes.len() <= 16).then(|| bytes.iter().fold(0, |n, b| n << 8 | u128::from(*b)))
}

fn base(a: Attributes<'_>) -> Option<Base> {
    let hook = a.nested(4);
    Some(Base {
        kind: ChainKind::from_name(&a.text(7)?)?,
        hook: Hook::from_number(hook.be32(1)?)?,
        priority: hook.be32(2)?.cast_signed(),
        drop: a.be32(5) == Some(0),
    })
}

pub(super) fn live_rule(family: Family, a: Attributes<'_>) -> Option<LiveRule> {
    let lows: Vec<Low> = a.nested(4).map(|(_, element)| Low::read(Attributes(element))).collect();
    let rule =
        Rule { exprs: Expr::raise(family, &lows), comment: a.get(7).and_then(comment).unwrap_or_default() };
    Some(LiveRule { chain: a.text(2)?, handle: a.be64(3)?, rule })
}

/// The comment in nft's user data: type, length, value in a row.
fn comment(mut data: &[u8]) -> Option<String> {
    loop {
        let (kind, length) = (*data.first()?, usize::from(*data.get(1)?));
        let value = data.get(2..2 + length)?;
        if kind == 0 {
            return Some(super::wire::text(value));
        }
        data = data.get(2 + length..)?;
    }
}
