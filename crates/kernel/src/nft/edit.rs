//! Changes of single chains and rules, for tables that others write to as well.

use super::client::{Nft, is_passing};
use super::dump::live_rule;
use super::ruleset::{Base, Rule, Table};
use super::transaction::Transaction;
use super::wire::{Attributes, Body, F_APPEND, F_CREATE, F_DUMP, F_EXCL, msg};
use super::{LiveRule, lower};
use crate::{Error, Result};

impl Transaction {
    /// Refuses the transaction (ERESTART) if the rule set is not of this generation any more
    /// ([`Nft::generation`]).
    pub fn expect_generation(&mut self, generation: u32) {
        self.generation = Some(generation);
    }

    /// Goes with a rule set of any generation again.
    pub fn expect_any_generation(&mut self) {
        self.generation = None;
    }

    /// Adds a table with a comment; where it exists it stays as it is.
    pub fn add_commented_table(&mut self, table: &Table, comment: &str) {
        let mut body = Body::default();
        body.text(1, &table.name).bytes(6, &user_data(comment));
        self.push(table, msg::NEW_TABLE, F_CREATE, body, "add nft table", String::new());
    }

    /// Adds a chain, with a comment unless that is empty; where it exists it stays as it is, its
    /// policy too.
    fn ensure_chain(&mut self, table: &Table, name: &str, base: Option<Base>, comment: &str) {
        let mut body = Body::default();
        body.text(1, &table.name).text(3, name);
        if let Some(base) = base {
            body.nest(4, |hook| {
                hook.be32(1, base.hook.number()).be32(2, base.priority.cast_unsigned());
            });
            if base.drop {
                body.be32(5, 0);
            }
            body.text(7, base.kind.name());
        }
        if !comment.is_empty() {
            body.bytes(12, &user_data(comment));
        }
        self.push(table, msg::NEW_CHAIN, F_CREATE, body, "add nft chain", format!(" chain {name}"));
    }

    /// Adds a chain that must not be there yet (EEXIST).
    pub(crate) fn new_chain(&mut self, table: &Table, name: &str) {
        let mut body = Body::default();
        body.text(1, &table.name).text(3, name);
        let flags = F_CREATE | F_EXCL;
        self.push(table, msg::NEW_CHAIN, flags, body, "add nft chain", format!(" chain {name}"));
    }

    /// Puts a rule before all others of its chain.
    pub fn insert_rule(&mut self, table: &Table, chain: &str, rule: &Rule) {
        let mut body = Body::default();
        rule_body(&mut body, table, chain, rule);
        let object = format!(" chain {chain} rule `{rule}`");
        self.push(table, msg::NEW_RULE, F_CREATE, body, "insert nft rule", object);
    }

    /// Appends a rule, or puts it first, given as the kernel's own expressions.
    pub(crate) fn add_raw_rule(
        &mut self,
        table: &Table,
        chain: &str,
        first: bool,
        body: Body,
        described: &str,
    ) {
        let flags = if first { F_CREATE } else { F_CREATE | F_APPEND };
        let object = format!(" chain {chain} rule `{described}`");
        self.push(table, msg::NEW_RULE, flags, body, "add rule to", object);
    }

    /// Deletes one rule by its handle.
    pub fn delete_rule(&mut self, table: &Table, chain: &str, handle: u64) {
        let mut body = Body::default();
        body.text(1, &table.name).text(2, chain).bytes(3, &handle.to_be_bytes());
        let object = format!(" chain {chain} rule with handle {handle}");
        self.push(table, msg::DEL_RULE, 0, body, "delete nft rule", object);
    }

    /// Deletes all rules of a chain.
    pub fn flush_chain(&mut self, table: &Table, chain: &str) {
        let mut body = Body::default();
        body.text(1, &table.name).text(2, chain);
        self.push(table, msg::DEL_RULE, 0, body, "flush nft chain", format!(" chain {chain}"));
    }

    /// Deletes a chain that nothing refers to.
    pub fn delete_chain(&mut self, table: &Table, chain: &str) {
        let mut body = Body::default();
        body.text(1, &table.name).text(3, chain);
        self.push(table, msg::DEL_CHAIN, 0, body, "delete nft chain", format!(" chain {chain}"));
    }
}

/// How often changes by others make ours, or a reading, start again.
const CONFLICTS: u32 = 1000;
const INTERRUPTIONS: u32 = 1000;

impl Nft {
    /// Makes the changes that `plan` finds necessary from what it reads. It is called again when
    /// another change came between; says whether there was anything to do.
    pub fn change<E: From<Error>>(
        &mut self,
        mut plan: impl FnMut(&mut Nft) -> std::result::Result<Transaction, E>,
    ) -> std::result::Result<bool, E> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let generation = self.generation()?;
            let mut transaction = plan(self)?;
            if transaction.is_empty() {
                return Ok(false);
            }
            transaction.expect_generation(generation);
            match self.apply(&transaction) {
                Err(e) if attempt < CONFLICTS && e.is_outdated() => {}
                done => return Ok(done.map(|()| true)?),
            }
        }
    }

    /// Adds to `transaction` that there is this chain, unless it is there now. What tells the kernel
    /// again of a chain that it has is destroyed a grace period later, for which the next one with
    /// a transaction waits.
    pub fn ensure_chain(
        &mut self,
        transaction: &mut Transaction,
        table: &Table,
        name: &str,
        base: Option<Base>,
        comment: &str,
    ) -> Result<()> {
        if !self.has_chain(table, name)? {
            transaction.ensure_chain(table, name, base, comment);
        }
        Ok(())
    }

    /// The rules of one chain of any table; `None` where there is no such chain.
    pub fn chain_rules(&mut self, table: &Table, chain: &str) -> Result<Option<Vec<LiveRule>>> {
        if !self.has_chain(table, chain)? {
            return Ok(None);
        }
        let read = |a| live_rule(table.family, a);
        Ok(Some(
            self.rule_records(table, chain, |_| true)?.iter().filter_map(|r| read(Attributes(r))).collect(),
        ))
    }

    /// Those rules of a chain that have `text` in a comment or elsewhere, and perhaps others; none
    /// where there is no such chain.
    pub fn rules_mentioning(&mut self, table: &Table, chain: &str, text: &str) -> Result<Vec<LiveRule>> {
        if !self.has_chain(table, chain)? {
            return Ok(Vec::new());
        }
        let keep = |record: &[u8]| contains(record, text.as_bytes());
        let found = self.rule_records(table, chain, keep)?;
        Ok(found.iter().filter_map(|record| live_rule(table.family, Attributes(record))).collect())
    }

    /// Whether the table has a chain of this name.
    pub fn has_chain(&mut self, table: &Table, chain: &str) -> Result<bool> {
        let mut body = Body::default();
        body.text(1, &table.name).text(3, chain);
        let what = format!("chain {chain} of table {table}");
        match self.request(msg::GET_CHAIN, 0, table.family, &body.0, &what) {
            Err(e) if e.not_found() => Ok(false),
            other => other.map(|_| true),
        }
    }

    /// The attributes of the rules of a chain that `keep` likes, first to last.
    pub(crate) fn rule_records(
        &mut self,
        table: &Table,
        chain: &str,
        keep: impl Fn(&[u8]) -> bool,
    ) -> Result<Vec<Vec<u8>>> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let mut found = Vec::new();
            let read = self.each_rule(table, chain, |record| {
                if keep(record) {
                    found.push(record.to_vec());
                }
                true
            });
            match read {
                // Another change came between two parts of the answer.
                Err(e) if attempt < INTERRUPTIONS && is_passing(&e) => {}
                read => return read.map(|()| found),
            }
        }
    }

    /// Gives the attributes of each rule of a chain to `visit`, first to last, until that says no.
    pub(crate) fn each_rule(
        &mut self,
        table: &Table,
        chain: &str,
        mut visit: impl FnMut(&[u8]) -> bool,
    ) -> Result<()> {
        let mut body = Body::default();
        body.text(1, &table.name).text(2, chain);
        let what = format!("rules of table {table} chain {chain}");
        let is = |value: Option<&[u8]>, name: &str| {
            value.and_then(|value| value.strip_suffix(b"\0")) == Some(name.as_bytes())
        };
        // A kernel that does not look for the chain alone answers with more.
        let ours = |_, data: &[u8]| {
            let a = Attributes(data);
            !is(a.get(1), &table.name) || !is(a.get(2), chain) || visit(data)
        };
        self.request_each(msg::GET_RULE, F_DUMP, table.family, &body.0, &what, ours)
    }
}

/// Whether the bytes of `part` are somewhere in `record`.
pub(crate) fn contains(record: &[u8], part: &[u8]) -> bool {
    part.is_empty() || record.windows(part.len()).any(|window| window == part)
}

/// Table, chain, expressions and comment of a rule.
pub(super) fn rule_body(body: &mut Body, table: &Table, chain: &str, rule: &Rule) {
    body.text(1, &table.name).text(2, chain);
    body.nest(4, |list| {
        rule.exprs.iter().flat_map(|e| lower::lower(table.family, e)).for_each(|low| low.write(list));
    });
    if !rule.comment.is_empty() {
        body.bytes(7, &user_data(&rule.comment));
    }
}

/// A comment in nft's own layout of user data: type 0, length, text with its NUL.
fn user_data(comment: &str) -> Vec<u8> {
    let text = comment.as_bytes();
    let text = &text[..text.len().min(254)];
    let mut data = vec![0, (text.len() + 1) as u8];
    data.extend(text);
    data.push(0);
    data
}
