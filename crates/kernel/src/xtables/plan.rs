//! From what is wanted and what is there to the steps between. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::rule::{Match, Rule};
use crate::nft::{Base, ChainKind, Family, Hook, Table};

/// A change of a table; nothing happens where it is so already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// There is a chain of this name.
    Chain(String),
    /// A chain has this rule.
    Rule {
        /// The chain; one of iptables' own is made when it is missing.
        chain: String,
        /// The rule.
        rule: Rule,
        /// Whether it goes before all others if it is not there.
        first: bool,
    },
    /// The chain has this rule in addition to those that it has, equal ones too: to look for them
    /// in a chain of a thousand rules takes longer than all the rest.
    Append {
        /// The chain; one of iptables' own is made when it is missing.
        chain: String,
        /// The rule.
        rule: Rule,
    },
    /// The chain has this rule no more: the first that is equal goes.
    RemoveRule {
        /// The chain.
        chain: String,
        /// The rule.
        rule: Rule,
    },
    /// No rule of one chain jumps to the other, whatever else it says.
    RemoveJumps {
        /// The chain that has the rules.
        from: String,
        /// The chain they jump to.
        to: String,
    },
    /// There is no chain of this name, nor its rules.
    RemoveChain(String),
}

/// Changes of one table of iptables (family `Ip`) or ip6tables (`Ip6`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edits {
    /// `nat`, `filter`, …
    pub table: Table,
    /// In their order.
    pub edits: Vec<Edit>,
}

impl Edits {
    /// No change yet.
    pub fn of(family: Family, table: &str) -> Edits {
        Edits { table: Table::new(family, table), edits: Vec::new() }
    }

    /// With one more.
    pub fn edit(mut self, edit: Edit) -> Edits {
        self.edits.push(edit);
        self
    }

    /// With the rule at the end of the chain, unless it is there.
    pub fn append(self, chain: &str, rule: Rule) -> Edits {
        self.edit(Edit::Rule { chain: chain.into(), rule, first: false })
    }

    /// With the rule before all others of the chain, unless it is there.
    pub fn insert(self, chain: &str, rule: Rule) -> Edits {
        self.edit(Edit::Rule { chain: chain.into(), rule, first: true })
    }

    /// Whether the kernel can be told without iptables.
    pub(super) fn is_plain(&self) -> bool {
        self.edits.iter().all(|edit| match edit {
            Edit::Rule { rule, .. } | Edit::Append { rule, .. } | Edit::RemoveRule { rule, .. } => {
                rule.is_plain()
            }
            _ => true,
        })
    }
}

/// How a rule that is there is named to be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Id {
    Handle(u64),
    /// Its words as iptables-save gave them.
    Text(String),
    /// Added by these very steps.
    New,
}

/// A rule that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Live {
    pub(super) id: Id,
    /// What it says, if it is understood.
    pub(super) rule: Option<Rule>,
    pub(super) jump: Option<String>,
}

/// The chains of a table that are there, with their rules as far as they were needed.
pub(super) type View = BTreeMap<String, Vec<Live>>;

/// One step to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    NewChain(String),
    Add { chain: String, rule: Rule, first: bool },
    Delete { chain: String, id: Id },
    DeleteChain(String),
}

/// iptables' own chain: `table` and `name` as iptables has them.
pub(super) fn base(table: &str, name: &str) -> Option<Base> {
    let hook = match name {
        "PREROUTING" => Hook::Prerouting,
        "INPUT" => Hook::Input,
        "FORWARD" => Hook::Forward,
        "OUTPUT" => Hook::Output,
        "POSTROUTING" => Hook::Postrouting,
        _ => return None,
    };
    let (kind, priority) = match (table, hook) {
        ("filter", Hook::Input | Hook::Forward | Hook::Output) => (ChainKind::Filter, 0),
        ("nat", Hook::Prerouting | Hook::Output) => (ChainKind::Nat, -100),
        ("nat", Hook::Input | Hook::Postrouting) => (ChainKind::Nat, 100),
        ("mangle", Hook::Output) => (ChainKind::Route, -150),
        ("mangle", _) => (ChainKind::Filter, -150),
        ("raw", Hook::Prerouting | Hook::Output) => (ChainKind::Filter, -300),
        _ => return None,
    };
    Some(Base { kind, hook, priority, drop: false })
}

/// The chains that must be known to be there or not.
pub(super) fn asked(edits: &Edits) -> BTreeSet<&str> {
    let mut named = BTreeSet::new();
    for edit in &edits.edits {
        match edit {
            Edit::Chain(chain) | Edit::RemoveChain(chain) => drop(named.insert(chain.as_str())),
            Edit::RemoveJumps { from, to } => named.extend([from.as_str(), to.as_str()]),
            Edit::Rule { chain, .. } | Edit::Append { chain, .. } | Edit::RemoveRule { chain, .. } => {
                named.insert(chain.as_str());
            }
        }
    }
    named.retain(|chain| base(&edits.table.name, chain).is_none());
    named
}

/// The chains whose rules must be read, when `there` are: a chain that is not there has none, and
/// no rule jumps to it.
pub(super) fn needed<'a>(edits: &'a Edits, there: &BTreeSet<String>) -> BTreeSet<&'a str> {
    let asked = asked(edits);
    let own = |chain: &str| base(&edits.table.name, chain).is_some();
    let missing = |chain: &str| asked.contains(chain) && !there.contains(chain);
    let jump_missing = |rule: &Rule| rule.jumps_to().is_some_and(missing);
    let mut out = BTreeSet::new();
    for edit in &edits.edits {
        let (chain, needed) = match edit {
            Edit::Rule { chain, rule, .. } | Edit::RemoveRule { chain, rule } => (chain, !jump_missing(rule)),
            Edit::RemoveJumps { from, to } => (from, !missing(to)),
            _ => continue,
        };
        if needed && (own(chain) || there.contains(chain.as_str())) {
            out.insert(chain.as_str());
        }
    }
    out
}

/// Bytes of which one is in every record of the kernel that the edits of `chain` could be about.
/// An empty one is in all.
pub(super) fn marks(edits: &Edits, chain: &str) -> BTreeSet<Vec<u8>> {
    let mut out = BTreeSet::new();
    for edit in &edits.edits {
        match edit {
            Edit::Rule { chain: of, rule, .. } | Edit::RemoveRule { chain: of, rule } if of == chain => {
                out.insert(mark(rule));
            }
            Edit::RemoveJumps { from, to } if from == chain => drop(out.insert(to.as_bytes().to_vec())),
            _ => {}
        }
    }
    out
}

/// The rules that may be all that is sought in a chain; none if every rule must be looked at.
pub(super) fn sought<'a>(edits: &'a Edits, chain: &str) -> Option<Vec<&'a Rule>> {
    let mut out = Vec::new();
    for edit in &edits.edits {
        match edit {
            Edit::Rule { chain: of, rule, .. } | Edit::RemoveRule { chain: of, rule } if of == chain => {
                out.push(rule);
            }
            Edit::RemoveJumps { from, .. } if from == chain => return None,
            _ => {}
        }
    }
    Some(out)
}

/// What tells this rule best from others: a whole address, a comment, the chain it jumps to.
fn mark(rule: &Rule) -> Vec<u8> {
    let address = [&rule.source, &rule.destination].into_iter().flatten().find_map(|is| {
        let whole = is.value.prefix_len() == is.value.max_prefix_len();
        whole.then(|| match is.value.addr() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        })
    });
    let comment = || {
        rule.matches.iter().find_map(|one| match one {
            Match::Comment(text) => Some(text.as_bytes().to_vec()),
            _ => None,
        })
    };
    let jump = || rule.jumps_to().map(|chain| chain.as_bytes().to_vec());
    address.or_else(comment).or_else(jump).unwrap_or_default()
}

/// The steps from `view` to what is wanted.
pub(super) fn steps(edits: &Edits, mut view: View) -> Vec<Step> {
    let mut out = Vec::new();
    let own = |chain: &str| base(&edits.table.name, chain).is_some();
    for edit in &edits.edits {
        match edit {
            Edit::Chain(chain) => {
                if !view.contains_key(chain) && !own(chain) {
                    view.insert(chain.clone(), Vec::new());
                    out.push(Step::NewChain(chain.clone()));
                }
            }
            Edit::Rule { chain, rule, first } => {
                let rules = view.entry(chain.clone()).or_default();
                if rules.iter().any(|live| live.rule.as_ref() == Some(rule)) {
                    continue;
                }
                let jump = rule.jumps_to().map(str::to_owned);
                rules.push(Live { id: Id::New, rule: Some(rule.clone()), jump });
                out.push(Step::Add { chain: chain.clone(), rule: rule.clone(), first: *first });
            }
            Edit::Append { chain, rule } => {
                out.push(Step::Add { chain: chain.clone(), rule: rule.clone(), first: false });
            }
            Edit::RemoveRule { chain, rule } => {
                let rules = view.entry(chain.clone()).or_default();
                let at = rules.iter().position(|live| live.rule.as_ref() == Some(rule) && live.id != Id::New);
                if let Some(at) = at {
                    out.push(Step::Delete { chain: chain.clone(), id: rules.remove(at).id });
                }
            }
            Edit::RemoveJumps { from, to } => {
                let rules = view.entry(from.clone()).or_default();
                let goes = |live: &Live| live.jump.as_deref() == Some(to) && live.id != Id::New;
                for live in rules.extract_if(.., |live| goes(live)) {
                    out.push(Step::Delete { chain: from.clone(), id: live.id });
                }
            }
            Edit::RemoveChain(chain) => {
                if view.remove(chain).is_some() {
                    out.push(Step::DeleteChain(chain.clone()));
                }
            }
        }
    }
    out
}
