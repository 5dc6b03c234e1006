use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use serde::Serialize;

use super::matrix::{self, Cell};
use super::probe::{Observed, Probed};
use super::sizes::PathReport;
use super::why::Reasons;
use super::world::World;
use crate::oracle::{Expectation, Proto};

/// A probe of which something else came than should.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mismatch {
    /// Who sent it: `namespace/pod` or `node/name`.
    pub from: String,
    /// To whom.
    pub to: String,
    /// By what.
    pub proto: Proto,
    /// To which address; none where the target has none.
    pub address: Option<IpAddr>,
    /// To which port; none for ICMP.
    pub port: Option<u16>,
    /// What should have come of it.
    pub expected: String,
    /// What came of it.
    pub observed: String,
    /// The likely cause.
    pub why: String,
}

/// A pod that was not checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// `namespace/pod`.
    pub name: String,
    /// Why not.
    pub why: String,
}

/// What a check found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CheckReport {
    /// Ordered pairs probed, each with ICMP, TCP and UDP in every family that both have.
    pub pairs: usize,
    /// Those of which all came out as they should.
    pub matching: usize,
    /// Each probe that did not.
    pub mismatches: Vec<Mismatch>,
    /// Whether only some of the pairs were probed.
    pub sampled: bool,
    /// How many pairs there are.
    pub all_pairs: usize,
    /// Probes sent, without retries.
    pub probes: usize,
    /// Probes whose first try was lost; each was tried once more.
    pub retries: usize,
    /// How long it took.
    pub seconds: f64,
    /// Pods that were not checked.
    pub skipped: Vec<Skipped>,
    /// Connections to Services, of every member to every address and port that it has a family of.
    pub services: usize,
    /// Those of which the right thing came: an answer of the right endpoint to the right source, a refusal
    /// or silence.
    pub services_matching: usize,
    /// What paths between nodes take, where that was asked for.
    pub paths: Vec<PathReport>,
    #[serde(skip)]
    names: Vec<matrix::Name>,
    #[serde(skip)]
    cells: BTreeMap<(usize, usize), Cell>,
}

impl CheckReport {
    pub(super) fn new(world: &World, all_pairs: usize, pairs: usize) -> Self {
        let name = |member: &super::Member| matrix::Name {
            name: member.party.name.clone(),
            node: member.party.node.clone(),
            workload: member.workload.clone(),
            is_node: member.is_node(),
        };
        CheckReport {
            sampled: pairs < all_pairs,
            all_pairs,
            skipped: world.skipped.clone(),
            names: world.members.iter().map(name).collect(),
            ..CheckReport::default()
        }
    }

    pub(super) fn add(
        &mut self,
        world: &World,
        reasons: &Reasons,
        (from, to): (usize, usize),
        found: Vec<Probed>,
    ) {
        let mut cell = Cell::default();
        let mut matches = true;
        let (source, target) = (&world.members[from], &world.members[to]);
        for probed in found {
            self.probes += 1;
            self.retries += usize::from(probed.retried);
            let v6 = probed.ip.is_some_and(|ip| ip.is_ipv6());
            let Some((expected, observed)) = judge(&target.party.name, &probed) else {
                cell.pass(v6);
                continue;
            };
            matches = false;
            cell.fail(v6, probed.proto);
            self.mismatches.push(Mismatch {
                from: source.party.name.clone(),
                to: target.party.name.clone(),
                proto: probed.proto,
                address: probed.ip,
                port: probed.port,
                expected,
                observed,
                why: reasons.between(source, target),
            });
        }
        self.pairs += 1;
        self.matching += usize::from(matches);
        self.cells.insert((from, to), cell);
    }

    pub(super) fn add_knocked(&mut self, knocked: super::services::Knocked) {
        self.probes += 1;
        self.services += 1;
        self.retries += usize::from(knocked.retried);
        match knocked.mismatch {
            Some(mismatch) => self.mismatches.push(mismatch),
            None => self.services_matching += 1,
        }
    }

    pub(super) fn finish(&mut self, took: Duration) {
        self.seconds = (took.as_secs_f64() * 1000.0).round() / 1000.0;
        self.mismatches
            .sort_by(|a, b| (&a.from, &a.to, a.address, a.proto).cmp(&(&b.from, &b.to, b.address, b.proto)));
    }

    /// Whether all came out as it should.
    pub fn all_match(&self) -> bool {
        self.matching == self.pairs
            && self.services_matching == self.services
            && self.paths.iter().all(|path| path.failed.is_empty())
    }

    /// Who could reach whom, with rows and columns named.
    pub fn matrix(&self, colour: bool) -> String {
        matrix::render(&self.names, &self.cells, colour)
    }
}

/// What was expected and what came instead, where they differ.
fn judge(target: &str, probed: &Probed) -> Option<(String, String)> {
    let expected = &probed.expected;
    match (&probed.observed, expected.reachable) {
        (Observed::Answered { by, source }, true) => {
            let other = by.as_ref().filter(|by| *by != target);
            let seen = source.is_some_and(|ip| expected.sources.contains(&ip));
            (other.is_some() || !seen).then(|| (words(expected), answered(by.as_deref(), *source)))
        }
        (Observed::Refused | Observed::Lost { .. }, false) => None,
        (observed, _) => Some((words(expected), observed_words(observed))),
    }
}

fn words(expected: &Expectation) -> String {
    if !expected.reachable {
        return format!("no answer ({})", expected.rule);
    }
    let sources: Vec<String> = expected.sources.iter().map(IpAddr::to_string).collect();
    format!("an answer, seen from {} ({})", sources.join(" or "), expected.rule)
}

fn answered(by: Option<&str>, source: Option<IpAddr>) -> String {
    let by = by.map_or(String::new(), |by| format!(" by {by}"));
    match source {
        Some(source) => format!("answered{by}, seen from {source}"),
        None => format!("answered{by}, but the target did not see the request"),
    }
}

pub(super) fn observed_words(observed: &Observed) -> String {
    match observed {
        Observed::Answered { by, source } => answered(by.as_deref(), *source),
        Observed::Refused => "refused: nobody listens there".into(),
        Observed::Lost { seen: None } => "no answer in 1 s, nor to a second try in 2 s".into(),
        Observed::Lost { seen: Some(ip) } => {
            format!("the target saw it, from {ip}, but no reply came back, nor to a second try")
        }
        Observed::Failed(reason) => reason.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::check::tests::world;

    fn probed(proto: Proto, observed: Observed) -> Probed {
        let expected = Expectation {
            reachable: true,
            sources: ["10.244.0.2".parse().unwrap()].into(),
            rule: "pod to pod: no NAT",
        };
        let port = (proto != Proto::Icmp).then_some(80);
        Probed { proto, port, ip: "10.244.1.2".parse().ok(), expected, observed, retried: false }
    }

    fn answer(by: Option<&str>, source: &str) -> Observed {
        Observed::Answered { by: by.map(str::to_owned), source: Some(source.parse().unwrap()) }
    }

    #[test]
    fn the_json_has_the_shape_that_was_promised() {
        let world = world();
        let mut report = CheckReport::new(&world, 21, 1);
        report.add(
            &world,
            &Reasons::default(),
            (0, 1),
            vec![
                probed(Proto::Icmp, answer(None, "10.244.0.2")),
                probed(Proto::Tcp, answer(Some("default/b"), "10.168.0.2")),
                probed(Proto::Udp, answer(Some("default/b"), "10.244.0.2")),
            ],
        );
        report.finish(Duration::from_millis(1234));
        let value = serde_json::to_value(&report).unwrap();
        assert_eq!((&value["pairs"], &value["matching"]), (&json!(1), &json!(0)));
        assert_eq!(value["sampled"], json!(true));
        let mismatch = &value["mismatches"][0];
        let mut keys: Vec<_> = mismatch.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(keys, ["address", "expected", "from", "observed", "port", "proto", "to", "why"]);
        assert_eq!(mismatch["proto"], "tcp");
        assert_eq!(mismatch["observed"], "answered by default/b, seen from 10.168.0.2");
        assert_eq!(mismatch["expected"], "an answer, seen from 10.244.0.2 (pod to pod: no NAT)");
        assert!(!report.all_match());
    }

    #[test]
    fn an_answer_counts_when_the_right_one_gave_it_to_the_right_source() {
        let differs = |proto, observed| judge("default/b", &probed(proto, observed)).is_some();
        assert!(!differs(Proto::Icmp, answer(None, "10.244.0.2")));
        assert!(differs(Proto::Tcp, answer(Some("default/c"), "10.244.0.2")));
        assert!(differs(Proto::Tcp, Observed::Refused));
        assert!(differs(Proto::Udp, Observed::Lost { seen: None }));
        assert!(differs(Proto::Icmp, Observed::Answered { by: None, source: None }));
        let mut closed = probed(Proto::Tcp, Observed::Refused);
        closed.expected.reachable = false;
        assert_eq!(judge("default/b", &closed), None);
    }
}
