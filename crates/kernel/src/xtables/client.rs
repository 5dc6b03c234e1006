//! Reading and changing iptables' tables, by nf_tables or by iptables-restore.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::arguments::split;
use super::plan::{self, Edits, Id, Live, Step, View};
use super::raise;
use super::render;
use super::rule::{Match, Rule, Target};
use super::variant::Variant;
use crate::nft::edit::contains;
use crate::nft::low::Low;
use crate::nft::wire::Attributes;
use crate::nft::{Family, Nft, Table, Transaction};
use crate::{Error, Result};

/// How long changes by others, each of which makes ours start again, are borne.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often something that was there and is not, or the reverse, makes ours start again.
const VANISHED: u32 = 8;

/// iptables and ip6tables of the calling thread's network namespace.
#[derive(Debug)]
pub struct Xtables {
    variant: Variant,
    nft: Option<Nft>,
}

impl Xtables {
    /// Those that this machine has ([`Variant::find`]).
    pub fn open() -> Xtables {
        Xtables::with(Variant::find())
    }

    /// Those of a given variant.
    pub fn with(variant: Variant) -> Xtables {
        Xtables { variant, nft: None }
    }

    /// Which they are.
    pub fn variant(&self) -> &Variant {
        &self.variant
    }

    /// Closes its socket without waiting for the kernel to destroy what was deleted.
    pub fn close_later(self) {
        if let Some(nft) = self.nft {
            nft.close_later();
        }
    }

    /// The rules of a chain, first to last; no list where there is no such chain. What is not
    /// understood of one is [`Match::Words`] without words.
    pub fn rules(&mut self, table: &Table, chain: &str) -> Result<Option<Vec<Rule>>> {
        self.rules_where(table, chain, |_| true)
    }

    /// Those rules of a chain that may name one of these ports in `-m multiport`, and perhaps
    /// others.
    pub fn rules_with_ports(&mut self, table: &Table, chain: &str, ports: &[u16]) -> Result<Vec<Rule>> {
        let ports: Vec<[u8; 2]> = ports.iter().map(|port| port.to_ne_bytes()).collect();
        let named = |record: &[u8]| ports.iter().any(|port| contains(record, port));
        Ok(self.rules_where(table, chain, named)?.unwrap_or_default())
    }

    /// Whether one of iptables' own chains drops what none of its rules decided.
    pub fn drops(&mut self, table: &Table, chain: &str) -> Result<bool> {
        if self.variant.legacy {
            let policy = format!(":{chain} DROP ");
            return Ok(self.save(table)?.lines().any(|line| line.starts_with(&policy)));
        }
        let all = self.nft()?.base_chains()?;
        Ok(all.iter().any(|(of, name, base)| of == table && name == chain && base.drop))
    }

    fn rules_where(
        &mut self,
        table: &Table,
        chain: &str,
        keep: impl Fn(&[u8]) -> bool,
    ) -> Result<Option<Vec<Rule>>> {
        let rules = if self.variant.legacy {
            self.saved(table)?.remove(chain)
        } else if self.nft()?.has_chain(table, chain)? {
            Some(self.read(table, chain, keep)?)
        } else {
            None
        };
        let unknown = |jump: Option<String>| Rule {
            target: jump.map(Target::Jump),
            ..Rule::default().matching(Match::Words(Vec::new()))
        };
        let rule = |live: Live| live.rule.unwrap_or_else(|| unknown(live.jump));
        Ok(rules.map(|rules| rules.into_iter().map(rule).collect()))
    }

    /// Makes the changes, those of all tables together; says whether there was any.
    pub fn apply(&mut self, edits: &[Edits]) -> Result<bool> {
        self.retry(|xtables| xtables.apply_once(edits, false))
    }

    /// The same if `check` finds good what it reads, which is still so at the moment of the
    /// change. It is called again when another change came between.
    pub fn apply_if<E: From<Error>>(
        &mut self,
        edits: &[Edits],
        mut check: impl FnMut(&mut Xtables) -> std::result::Result<(), E>,
    ) -> std::result::Result<bool, E> {
        let mut refused = None;
        let done = self.retry(|xtables| {
            // The generation is asked for before anything is read.
            let generation = xtables.generation(edits)?;
            match check(xtables) {
                Ok(()) => xtables.apply_of(edits, generation, true),
                Err(error) => {
                    refused = Some(error);
                    Ok(false)
                }
            }
        });
        match refused {
            Some(error) => Err(error),
            None => Ok(done?),
        }
    }

    fn retry(&mut self, mut work: impl FnMut(&mut Xtables) -> Result<bool>) -> Result<bool> {
        let deadline = Instant::now() + PATIENCE;
        let mut vanished = 0;
        loop {
            match work(self) {
                Err(e) if is_conflict(&e) && Instant::now() < deadline => {}
                // It came or went between; but a chain of somebody else may simply be missing.
                Err(e) if may_have_changed(&e) && vanished < VANISHED => vanished += 1,
                other => return other,
            }
        }
    }

    fn apply_once(&mut self, edits: &[Edits], tied: bool) -> Result<bool> {
        let generation = self.generation(edits)?;
        self.apply_of(edits, generation, tied)
    }

    /// The generation that the rules to be read will be of; none where iptables is started.
    fn generation(&mut self, edits: &[Edits]) -> Result<Option<u32>> {
        let plain = !self.variant.legacy && edits.iter().all(Edits::is_plain);
        plain.then(|| self.nft()?.generation()).transpose()
    }

    fn apply_of(&mut self, edits: &[Edits], generation: Option<u32>, tied: bool) -> Result<bool> {
        match generation {
            Some(generation) => self.commit(edits, generation, tied),
            None => self.restore(edits),
        }
    }

    fn nft(&mut self) -> Result<&mut Nft> {
        match &mut self.nft {
            Some(nft) => Ok(nft),
            none => Ok(none.insert(Nft::open()?)),
        }
    }

    /// One transaction. It is tied to the generation only if rules were read for it: what makes
    /// chains of its own alone conflicts with nobody.
    fn commit(&mut self, edits: &[Edits], generation: u32, mut tied: bool) -> Result<bool> {
        let mut transaction = Transaction::default();
        for of_table in edits {
            let (view, read) = self.view(of_table)?;
            tied |= read;
            add(self.nft()?, &mut transaction, of_table, &plan::steps(of_table, view))?;
        }
        if transaction.is_empty() {
            return Ok(false);
        }
        if tied {
            transaction.expect_generation(generation);
        }
        self.nft()?.apply(&transaction)?;
        Ok(true)
    }

    fn view(&mut self, edits: &Edits) -> Result<(View, bool)> {
        let mut there = BTreeSet::new();
        for chain in plan::asked(edits) {
            if self.nft()?.has_chain(&edits.table, chain)? {
                there.insert(chain.to_owned());
            }
        }
        let needed = plan::needed(edits, &there);
        let mut view: View = there.iter().map(|chain| (chain.clone(), Vec::new())).collect();
        for chain in &needed {
            view.insert((*chain).to_owned(), self.find(edits, chain)?);
        }
        Ok((view, !needed.is_empty()))
    }

    fn read(&mut self, table: &Table, chain: &str, keep: impl Fn(&[u8]) -> bool) -> Result<Vec<Live>> {
        let records = self.nft()?.rule_records(table, chain, keep)?;
        Ok(records.iter().filter_map(|record| live(table.family, Attributes(record))).collect())
    }

    /// The rules of a chain that the edits are about. Hundreds of other containers' are neither
    /// understood nor, once all that is sought is found, read.
    fn find(&mut self, edits: &Edits, chain: &str) -> Result<Vec<Live>> {
        let marks = plan::marks(edits, chain);
        let mut sought = plan::sought(edits, chain);
        let mut found = Vec::new();
        self.nft()?.each_rule(&edits.table, chain, |record| {
            let ours = marks.iter().any(|mark| contains(record, mark));
            if let Some(live) = ours.then(|| live(edits.table.family, Attributes(record))).flatten() {
                if let Some(sought) = &mut sought {
                    sought.retain(|rule| live.rule.as_ref() != Some(*rule));
                }
                found.push(live);
            }
            sought.as_ref().is_none_or(|sought| !sought.is_empty())
        })?;
        Ok(found)
    }

    /// The whole table as iptables-save prints it.
    fn save(&self, table: &Table) -> Result<String> {
        let program = self.variant.program(table.family, "-save");
        let named = format!("{} -t {}", program.display(), table.name);
        let failed = |e| Error::sys("run", &named, e);
        succeeded(&named, Command::new(&program).args(["-t", &table.name]).output().map_err(failed)?)
    }

    /// The same, understood.
    fn saved(&self, table: &Table) -> Result<View> {
        let text = self.save(table)?;
        let mut view = View::new();
        for line in text.lines() {
            if let Some(chain) = line.strip_prefix(':').and_then(|rest| rest.split(' ').next()) {
                view.insert(chain.to_owned(), Vec::new());
            } else if let Some((chain, words)) =
                line.strip_prefix("-A ").and_then(|rest| rest.split_once(' '))
            {
                let rule = Rule::parse(&split(words));
                let jump = rule.jumps_to().map(str::to_owned);
                let live = Live { id: Id::Text(words.to_owned()), rule: Some(rule), jump };
                view.entry(chain.to_owned()).or_default().push(live);
            }
        }
        Ok(view)
    }

    /// One iptables-restore for each family.
    fn restore(&mut self, edits: &[Edits]) -> Result<bool> {
        let mut changed = false;
        for family in [Family::Ip, Family::Ip6] {
            let mut text = String::new();
            for of_table in edits.iter().filter(|edits| edits.table.family == family) {
                let steps = plan::steps(of_table, self.saved(&of_table.table)?);
                text.push_str(&restore_text(&of_table.table.name, &steps));
            }
            if !text.is_empty() {
                self.run_restore(family, &text)?;
                changed = true;
            }
        }
        Ok(changed)
    }

    fn run_restore(&self, family: Family, text: &str) -> Result<()> {
        let program = self.variant.program(family, "-restore");
        let named = format!("{} --noflush -w", program.display());
        let failed = |e| Error::sys("run", &named, e);
        let mut child = Command::new(&program)
            .args(["--noflush", "-w"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        if let Some(mut input) = child.stdin.take() {
            // A program that refuses a line may end before it has read the rest.
            input.write_all(text.as_bytes()).ok();
        }
        succeeded(&named, child.wait_with_output().map_err(failed)?).map(drop)
    }
}

/// Another change came between reading and writing.
fn is_conflict(error: &Error) -> bool {
    matches!(error.errno(), Some(libc::ERESTART | libc::EBUSY | libc::EINTR | libc::EAGAIN))
}

/// Something came or went between; what iptables-restore refused has no number.
fn may_have_changed(error: &Error) -> bool {
    error.not_found() || error.exists() || error.errno().is_none()
}

fn succeeded(named: &str, output: Output) -> Result<String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let failed = std::io::Error::other(format!("ended with {}", output.status));
    Err(Error::Sys { op: "run", object: named.to_owned(), message: said, errno: failed })
}

/// A rule as the kernel has it.
pub(super) fn live(family: Family, a: Attributes<'_>) -> Option<Live> {
    let lows: Vec<Low> = a.nested(4).map(|(_, element)| Low::read(Attributes(element))).collect();
    let jump = raise::jump(&lows).map(str::to_owned);
    Some(Live { id: Id::Handle(a.be64(3)?), rule: raise::rule(family, &lows), jump })
}

/// Adds the steps for one table; iptables' own table and chains before them, as far as they are
/// used.
fn add(nft: &mut Nft, transaction: &mut Transaction, edits: &Edits, steps: &[Step]) -> Result<()> {
    if steps.is_empty() {
        return Ok(());
    }
    let table = &edits.table;
    if steps.iter().any(|step| matches!(step, Step::NewChain(_) | Step::Add { .. })) {
        transaction.add_table(table, false);
    }
    let mut own = BTreeSet::new();
    for step in steps {
        match step {
            // That it was missing is why no rules were read: should it be there by now, all is
            // thought out anew.
            Step::NewChain(chain) => transaction.new_chain(table, chain),
            Step::Add { chain, rule, first } => {
                let base = plan::base(&table.name, chain);
                if base.is_some() && own.insert(chain) {
                    nft.ensure_chain(transaction, table, chain, base, "")?;
                }
                if let Some(body) = render::body(rule, table.family, &table.name, chain) {
                    transaction.add_raw_rule(table, chain, *first, body, &rule.to_string());
                }
            }
            Step::Delete { chain, id: Id::Handle(handle) } => transaction.delete_rule(table, chain, *handle),
            Step::Delete { .. } => {}
            Step::DeleteChain(chain) => transaction.delete_chain(table, chain),
        }
    }
    Ok(())
}

/// The input of iptables-restore for one table.
pub(super) fn restore_text(table: &str, steps: &[Step]) -> String {
    if steps.is_empty() {
        return String::new();
    }
    let mut out = format!("*{table}\n");
    for step in steps {
        let line = match step {
            // `:CHAIN` would empty one that has come between.
            Step::NewChain(chain) => format!("-N {chain}"),
            Step::Add { chain, rule, first: true } => format!("-I {chain} {rule}"),
            Step::Add { chain, rule, first: false } => format!("-A {chain} {rule}"),
            Step::Delete { chain, id: Id::Text(words) } => format!("-D {chain} {words}"),
            Step::Delete { .. } => continue,
            Step::DeleteChain(chain) => format!("-F {chain}\n-X {chain}"),
        };
        out.push_str(&line);
        out.push('\n');
    }
    out.push_str("COMMIT\n");
    out
}
