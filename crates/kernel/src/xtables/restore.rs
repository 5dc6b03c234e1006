//! The input of `iptables-restore --noflush`, done without it: one transaction of nf_tables for all tables in it.

use std::collections::BTreeSet;

use super::arguments::split;
use super::client::live;
use super::plan::{self, Id};
use super::{Rule, render};
use crate::Result;
use crate::nft::wire::Attributes;
use crate::nft::{Family, Nft, Table, Transaction};

/// A line of it.
enum Line<'a> {
    Table(&'a str),
    /// A chain that is to be there and empty.
    Chain(&'a str),
    Add {
        chain: &'a str,
        rule: &'a str,
        first: bool,
    },
    Remove {
        chain: &'a str,
        rule: &'a str,
    },
    RemoveChain(&'a str),
    Commit,
}

/// Does what `iptables-restore --noflush` would do with `script`, of all tables together or nothing. Says no, and
/// has done nothing, where a line of it is one that only iptables understands, or all of it is more than this
/// process may send at once.
pub fn restore(nft: &mut Nft, family: Family, script: &str) -> Result<bool> {
    let Some(transaction) = transaction(nft, family, script)? else { return Ok(false) };
    match nft.apply(&transaction) {
        Err(error) if error.errno() == Some(libc::EMSGSIZE) => Ok(false),
        done => done.map(|()| true),
    }
}

fn transaction(nft: &mut Nft, family: Family, script: &str) -> Result<Option<Transaction>> {
    let mut out = Transaction::default();
    let mut table = Table::new(family, "");
    let mut own = BTreeSet::new();
    for text in script.lines() {
        match read(text) {
            Some(Line::Table(name)) => {
                table = Table::new(family, name);
                own.clear();
                out.add_table(&table, false);
            }
            Some(Line::Chain(chain)) => {
                out.add_chain(&table, chain, None);
                out.flush_chain(&table, chain);
            }
            Some(Line::Add { chain, rule, first }) => {
                let base = plan::base(&table.name, chain);
                if base.is_some() && own.insert(chain) {
                    nft.ensure_chain(&mut out, &table, chain, base, "")?;
                }
                let parsed = Rule::parse(&split(rule));
                let Some(body) = render::body(&parsed, family, &table.name, chain) else { return Ok(None) };
                out.add_raw_rule(&table, chain, first, body, rule);
            }
            Some(Line::Remove { chain, rule }) => {
                let rule = Rule::parse(&split(rule));
                let all = nft.rule_records(&table, chain, |_| true)?;
                let mut all = all.iter().filter_map(|record| live(family, Attributes(record)));
                match all.find(|live| live.rule.as_ref() == Some(&rule)).map(|live| live.id) {
                    Some(Id::Handle(handle)) => out.delete_rule(&table, chain, handle),
                    _ => return Ok(None),
                }
            }
            Some(Line::RemoveChain(chain)) => out.delete_chain(&table, chain),
            Some(Line::Commit) => {}
            None => return Ok(None),
        }
    }
    Ok(Some(out))
}

fn read(text: &str) -> Option<Line<'_>> {
    if let Some(name) = text.strip_prefix('*') {
        return Some(Line::Table(name));
    }
    if let Some(rest) = text.strip_prefix(':') {
        let (chain, policy) = rest.split_once(' ')?;
        return policy.starts_with('-').then_some(Line::Chain(chain));
    }
    Some(match text.split_once(' ') {
        Some((flag @ ("-A" | "-I" | "-D"), rest)) => {
            let (chain, rule) = rest.split_once(' ')?;
            if flag == "-D" {
                Line::Remove { chain, rule }
            } else {
                Line::Add { chain, rule, first: flag == "-I" }
            }
        }
        Some(("-X", chain)) => Line::RemoveChain(chain),
        None if text == "COMMIT" => Line::Commit,
        _ => return None,
    })
}
