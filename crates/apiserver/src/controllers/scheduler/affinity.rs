//! Required affinity and anti-affinity between pods, and the spread over domains.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::super::matching;
use super::super::object::{self, list};
use super::Board;
use crate::label_selector::matches;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const AFFINITY: &str = "node(s) didn't match pod affinity rules";
const ANTI_AFFINITY: &str = "node(s) didn't match pod anti-affinity rules";
const OTHERS: &str = "node(s) didn't satisfy existing pods anti-affinity rules";
const SPREAD: &str = "node(s) didn't match pod topology spread constraints";
const NO_DOMAIN: &str = "node(s) didn't match pod topology spread constraints (missing required label)";

/// The required terms of `podAffinity` or `podAntiAffinity`.
pub(in super::super) fn terms<'a>(pod: &'a Value, kind: &str) -> impl Iterator<Item = &'a Value> {
    list(&pod["spec"]["affinity"][kind][REQUIRED])
}

/// Values of a label of nodes.
struct Domains {
    key: String,
    values: HashSet<String>,
}

impl Domains {
    fn has(&self, node: &Value) -> bool {
        domain(node, &self.key).is_some_and(|value| self.values.contains(value))
    }
}

/// A constraint on the spread: how many of the pods each domain has.
struct Spread {
    key: String,
    most: u64,
    least: u64,
    own: u64,
    counts: HashMap<String, u64>,
}

/// Where other pods let one pod go.
pub(super) struct Neighbours {
    wanted: Vec<Domains>,
    /// The pod is the first of those that want each other's company.
    first: bool,
    shunned: Vec<Domains>,
    shunning: Vec<Domains>,
    spread: Vec<Spread>,
}

impl Neighbours {
    pub(super) fn of(board: &Board<'_>, pod: &Value) -> Self {
        let domains = |term: &Value| {
            let key = topology(term).to_owned();
            let near = board.pods_in(term, pod).into_iter().filter(|other| chosen(board, term, pod, other));
            let values = near.filter_map(|other| domain(board.node_of(other)?, &key)).map(str::to_owned);
            Domains { values: values.collect(), key }
        };
        let wanted: Vec<Domains> = terms(pod, "podAffinity").map(domains).collect();
        let alone = wanted.iter().all(|domains| domains.values.is_empty());
        let first = alone && terms(pod, "podAffinity").all(|term| chosen(board, term, pod, pod));
        let shunned = terms(pod, "podAntiAffinity").map(domains).collect();
        let mut shunning = Vec::new();
        for other in board.shunning() {
            let Some(node) = board.node_of(other) else { continue };
            for term in terms(other, "podAntiAffinity").filter(|term| chosen(board, term, other, pod)) {
                let values = domain(node, topology(term)).map(str::to_owned).into_iter().collect();
                shunning.push(Domains { key: topology(term).to_owned(), values });
            }
        }
        let hard = |c: &&Value| c["whenUnsatisfiable"] == "DoNotSchedule";
        let spread = list(&pod["spec"]["topologySpreadConstraints"]).filter(hard);
        let spread = spread.map(|constraint| Spread::of(board, pod, constraint)).collect();
        Neighbours { wanted, first, shunned, shunning, spread }
    }

    /// Why the pod may not go to a node because of other pods.
    pub(super) fn obstacle(&self, node: &Value) -> Option<&'static str> {
        if let Some(why) = self.spread.iter().find_map(|spread| spread.obstacle(node)) {
            return Some(why);
        }
        let beside =
            |domains: &Domains| domains.has(node) || (self.first && domain(node, &domains.key).is_some());
        if !self.wanted.iter().all(beside) {
            return Some(AFFINITY);
        }
        if self.shunned.iter().any(|domains| domains.has(node)) {
            return Some(ANTI_AFFINITY);
        }
        self.shunning.iter().any(|domains| domains.has(node)).then_some(OTHERS)
    }
}

fn topology(term: &Value) -> &str {
    term["topologyKey"].as_str().unwrap_or_default()
}

fn domain<'a>(node: &'a Value, key: &str) -> Option<&'a str> {
    node["metadata"]["labels"][key].as_str()
}

/// Whether a term of `owner` is about the pod `other`.
fn chosen(board: &Board<'_>, term: &Value, owner: &Value, other: &Value) -> bool {
    board.namespace_chosen(term, owner, object::namespace(other))
        && matches(&term["labelSelector"], &other["metadata"]["labels"])
}

impl Spread {
    fn of(board: &Board<'_>, pod: &Value, constraint: &Value) -> Self {
        let (key, selector) = (topology(constraint).to_owned(), &constraint["labelSelector"]);
        let honours = |field: &str, default: &str| constraint[field].as_str().unwrap_or(default) == "Honor";
        let eligible = |node: &Value| {
            (!honours("nodeAffinityPolicy", "Honor") || matching::selected(pod, node))
                && (!honours("nodeTaintsPolicy", "Ignore") || matching::tolerated(pod, node))
        };
        let eligible = board.nodes().filter(|node| eligible(node));
        let mut counts: HashMap<String, u64> =
            eligible.filter_map(|node| Some((domain(node, &key)?.to_owned(), 0))).collect();
        let near = board.pods_of(object::namespace(pod), selector);
        for other in near.into_iter().filter(|other| !object::terminating(other)) {
            if matches(selector, &other["metadata"]["labels"])
                && let Some(count) = board.node_of(other).and_then(|node| counts.get_mut(domain(node, &key)?))
            {
                *count += 1;
            }
        }
        let enough = constraint["minDomains"]
            .as_u64()
            .is_none_or(|least| u64::try_from(counts.len()).is_ok_and(|domains| domains >= least));
        let least = if enough { counts.values().min().copied().unwrap_or(0) } else { 0 };
        let own = u64::from(matches(selector, &pod["metadata"]["labels"]));
        Spread { key, most: constraint["maxSkew"].as_u64().unwrap_or(1), least, own, counts }
    }

    fn obstacle(&self, node: &Value) -> Option<&'static str> {
        let Some(domain) = domain(node, &self.key) else { return Some(NO_DOMAIN) };
        let there = self.counts.get(domain).copied().unwrap_or(0);
        (there + self.own > self.least + self.most).then_some(SPREAD)
    }
}
