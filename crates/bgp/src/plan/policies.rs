//! Which routes a node takes and tells.
//!
//! A node tells what is its own and nothing else, unless it is a route reflector. What is its own is marked by a large
//! community when it is made and told without, so that policies do not grow with what there is to tell.

use std::collections::BTreeMap;
use std::sync::Arc;

use weft_model::Cluster;
use weft_model::bgp::{CommunityValue, FilterRule, Operation, PrefixMatch, Rules};

use crate::message::{Community, LargeCommunity};
use crate::policy::{Match, Policy, Prefixes, Rule, Set, Verdict};

/// The second number of marks; the first is the cluster's AS.
const MARKS: u32 = 87;

/// A node's own route: taken away when it is told.
pub(super) fn own(asn: u32) -> LargeCommunity {
    LargeCommunity(asn, MARKS, 1)
}

/// A route from a router of another AS: not told to a third one.
fn outside(asn: u32) -> LargeCommunity {
    LargeCommunity(asn, MARKS, 2)
}

/// A route that no router of another AS is told.
pub(super) fn inside(asn: u32) -> LargeCommunity {
    LargeCommunity(asn, MARKS, 3)
}

/// The policies of a node's sessions.
pub(super) struct Policies<'a> {
    asn: u32,
    reflects: bool,
    filters: BTreeMap<&'a str, Result<&'a Rules, &'a str>>,
    nodes: (Arc<Policy>, Arc<Policy>),
}

/// Import and export.
pub(super) type Pair = (Option<Arc<Policy>>, Option<Arc<Policy>>);

impl<'a> Policies<'a> {
    /// `asn`: the cluster's. `reflects`: the node is a route reflector.
    pub(super) fn of(cluster: &'a Cluster, asn: u32, reflects: bool) -> Policies<'a> {
        let filters = cluster
            .bgp_filters
            .values()
            .map(|filter| (&*filter.name, filter.spec.as_ref().map_err(String::as_str)));
        let import = policy(vec![next(vec![], vec![Set::RemoveLarge(own(asn))])]);
        let mut export = own_alone(asn, reflects);
        export.push(next(vec![], vec![Set::RemoveLarge(own(asn))]));
        Policies { asn, reflects, filters: filters.collect(), nodes: (import, policy(export)) }
    }

    /// Those towards another node: what it tells is taken, and what is one's own told.
    pub(super) fn node(&self, names: &[Arc<str>]) -> Result<Pair, String> {
        if names.is_empty() {
            return Ok((Some(self.nodes.0.clone()), Some(self.nodes.1.clone())));
        }
        self.filtered(names, &self.nodes.0.rules, &self.nodes.1.rules)
    }

    /// Those towards a router. One of another AS is told nothing and nothing taken from without a filter (RFC 8212).
    pub(super) fn router(&self, names: &[Arc<str>], external: bool) -> Result<Pair, String> {
        if external && names.is_empty() {
            return Err("no filter says what is taken and told: nothing is (RFC 8212)".to_owned());
        }
        let (own, outside, inside) = (own(self.asn), outside(self.asn), inside(self.asn));
        let mut import = vec![next(vec![], vec![Set::RemoveLarge(own)])];
        let mut export = own_alone(self.asn, self.reflects);
        if external {
            import.push(next(vec![], vec![Set::RemoveLarge(inside), Set::AddLarge(outside)]));
            export.push(reject(vec![Match::LargeCommunity(vec![outside, inside])]));
            export.push(next(vec![], vec![Set::RemoveLarge(outside)]));
        }
        export.push(next(vec![], vec![Set::RemoveLarge(own)]));
        self.filtered(names, &import, &export)
    }

    fn filtered(&self, names: &[Arc<str>], import: &[Rule], export: &[Rule]) -> Result<Pair, String> {
        let (mut import, mut export) = (import.to_vec(), export.to_vec());
        for name in names {
            match self.filters.get(&**name) {
                Some(Ok(rules)) => {
                    import.extend(rules.import.iter().map(|rule| self.rule(rule)));
                    export.extend(rules.export.iter().map(|rule| self.rule(rule)));
                }
                Some(Err(why)) => return Err(format!("BGPFilter {name}: {why}")),
                None => return Err(format!("there is no BGPFilter {name}")),
            }
        }
        Ok((Some(policy(import)), Some(policy(export))))
    }

    fn rule(&self, rule: &FilterRule) -> Rule {
        let family = if rule.ipv4 { "0.0.0.0/0" } else { "::/0" };
        let mut matches = vec![match &rule.prefix {
            Some(prefix) => prefixes(prefix),
            None => Match::Prefix(family.parse().map(Prefixes::within).into_iter().collect()),
        }];
        if rule.prefix.as_ref().is_some_and(|prefix| !prefix.positive) {
            // What is not inside of a network is of the rule's family all the same.
            matches.push(Match::Prefix(family.parse().map(Prefixes::within).into_iter().collect()));
        }
        if !rule.communities.is_empty() {
            matches.push(communities(&rule.communities));
        }
        matches.extend(rule.neighbour.map(Match::Neighbour));
        matches.extend(rule.origin.map(Match::OriginAs));
        let then = if rule.accept { Verdict::Accept } else { Verdict::Reject };
        Rule { matches, set: rule.operations.iter().flat_map(operation).collect(), then }
    }
}

fn policy(rules: Vec<Rule>) -> Arc<Policy> {
    Arc::new(Policy { rules, otherwise: Verdict::Accept })
}

fn next(matches: Vec<Match>, set: Vec<Set>) -> Rule {
    Rule { matches, set, then: Verdict::Next }
}

fn reject(matches: Vec<Match>) -> Rule {
    Rule { matches, set: Vec::new(), then: Verdict::Reject }
}

/// What keeps a node that is no reflector from telling what others told.
fn own_alone(asn: u32, reflects: bool) -> Vec<Rule> {
    let own = Match::LargeCommunity(vec![own(asn)]);
    if reflects { Vec::new() } else { vec![reject(vec![Match::Not(own.into())])] }
}

fn prefixes(prefix: &PrefixMatch) -> Match {
    let one = Prefixes { inside: prefix.inside, lengths: prefix.lengths.clone() };
    let holds = Match::Prefix(vec![one]);
    if prefix.positive { holds } else { Match::Not(holds.into()) }
}

/// One of these, of either kind: neither none of the one nor none of the other.
fn communities(values: &[CommunityValue]) -> Match {
    let (mut standard, mut large) = (Vec::new(), Vec::new());
    for value in values {
        match *value {
            CommunityValue::Standard(number) => standard.push(Community(number)),
            CommunityValue::Large(asn, a, b) => large.push(LargeCommunity(asn, a, b)),
        }
    }
    match (standard.is_empty(), large.is_empty()) {
        (_, true) => Match::Community(standard),
        (true, false) => Match::LargeCommunity(large),
        (false, false) => Match::Any(vec![Match::Community(standard), Match::LargeCommunity(large)]),
    }
}

fn operation(operation: &Operation) -> Vec<Set> {
    match operation {
        Operation::AddCommunity(CommunityValue::Standard(number)) => vec![Set::Add(Community(*number))],
        Operation::AddCommunity(CommunityValue::Large(asn, a, b)) => {
            vec![Set::AddLarge(LargeCommunity(*asn, *a, *b))]
        }
        Operation::Prepend(path) => path.iter().rev().map(|asn| Set::Prepend(*asn, 1)).collect(),
        Operation::LocalPreference(value) => vec![Set::LocalPref(*value)],
        Operation::Med(value) => vec![Set::Med(Some(*value))],
    }
}
