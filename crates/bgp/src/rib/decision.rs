//! Which of several paths is the best: RFC 4271 9.1.2.2 with RFC 4456 9 and RFC 9494, step by step.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use super::table::Path;
use crate::message::{Community, Relation};

/// What the decision asks of a path besides its attributes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    /// How its peer stands to us; `None` for a route of our own.
    pub(super) relation: Option<Relation>,
    /// Its peer's BGP identifier.
    pub(super) id: Ipv4Addr,
    /// Its peer's address.
    pub(super) address: IpAddr,
    /// How far its next hop is; `None`: not to be reached.
    pub(super) metric: Option<u32>,
}

/// A step of the decision, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Its next hop cannot be reached.
    NextHop,
    /// It is long-lived stale.
    LongLivedStale,
    /// Another is of our own.
    Own,
    /// Another has a higher LOCAL_PREF.
    LocalPref,
    /// Another's AS_PATH is shorter.
    AsPath,
    /// Another's ORIGIN is better.
    Origin,
    /// Another of the same neighbouring AS has a lower MED.
    Med,
    /// Another came from outside.
    External,
    /// Another's next hop is nearer.
    Metric,
    /// Another came into the AS by a speaker of a lower identifier.
    Identifier,
    /// Another came through fewer clusters.
    Clusters,
    /// Another peer has the lower address.
    Address,
    /// The same peer told another one under a lower number.
    Number,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::NextHop => "next hop cannot be reached",
            Step::LongLivedStale => "long-lived stale",
            Step::Own => "not of our own",
            Step::LocalPref => "lower local preference",
            Step::AsPath => "longer AS path",
            Step::Origin => "worse origin",
            Step::Med => "higher MED from the same AS",
            Step::External => "not from outside",
            Step::Metric => "farther next hop",
            Step::Identifier => "higher identifier",
            Step::Clusters => "more clusters",
            Step::Address => "higher peer address",
            Step::Number => "higher path number",
        })
    }
}

/// What became of each of the paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The best, which is told to others.
    Best,
    /// As good for packets, which may take it too; by this step another is told to others.
    Multipath(Step),
    /// Lost, by this step.
    Lost(Step),
}

/// The steps after which paths that are left are equally good for packets.
const LAST_FOR_PACKETS: Step = Step::Metric;

/// The place of the best of these paths.
pub(super) fn best(paths: &[Path], facts: impl Fn(&Path) -> Facts) -> Option<usize> {
    match paths {
        [] => None,
        [path] => facts(path).metric.map(|_| 0),
        paths => eliminate(paths, facts, |_, _| {}),
    }
}

/// What becomes of each of these paths.
pub(super) fn decide(paths: &[Path], facts: impl Fn(&Path) -> Facts) -> Vec<Verdict> {
    let mut verdicts = vec![Verdict::Best; paths.len()];
    eliminate(paths, facts, |lost, step| {
        if let Some(verdict) = verdicts.get_mut(lost) {
            let packets = step > LAST_FOR_PACKETS;
            *verdict = if packets { Verdict::Multipath(step) } else { Verdict::Lost(step) };
        }
    });
    verdicts
}

/// A path that is left, and its place.
type Candidate<'a> = (usize, &'a Path, Facts);

/// Goes step by step until one path is left, or none. Tells who is lost by which step.
fn eliminate(
    paths: &[Path],
    facts: impl Fn(&Path) -> Facts,
    mut lost: impl FnMut(usize, Step),
) -> Option<usize> {
    let mut left: Vec<Candidate<'_>> =
        paths.iter().enumerate().map(|(i, path)| (i, path, facts(path))).collect();
    for step in STEPS {
        let mut keep = |left: &mut Vec<Candidate<'_>>, stays: &dyn Fn(&Path, &Facts) -> bool| {
            left.retain(|(i, path, facts)| {
                let stays = stays(path, facts);
                if !stays {
                    lost(*i, step);
                }
                stays
            });
        };
        match step {
            Step::NextHop => keep(&mut left, &|_, facts| facts.metric.is_some()),
            _ if left.len() < 2 => break,
            Step::Med => {
                let first = med(left[0].1);
                if left.iter().any(|(_, path, _)| med(path) != first) {
                    let all: Vec<&Path> = left.iter().map(|(_, path, _)| *path).collect();
                    let better = |a: &Path, b: &Path| {
                        med(a) < med(b)
                            && a.attributes.as_path.neighbour() == b.attributes.as_path.neighbour()
                    };
                    keep(&mut left, &|path, _| !all.iter().any(|other| better(other, path)));
                }
            }
            step => {
                let lowest = left.iter().map(|(_, path, facts)| rank(step, path, facts)).min();
                keep(&mut left, &|path, facts| Some(rank(step, path, facts)) == lowest);
            }
        }
    }
    left.first().map(|(i, ..)| *i)
}

/// None is as good as 0.
fn med(path: &Path) -> u32 {
    path.attributes.med.unwrap_or(0)
}

const STEPS: [Step; 13] = [
    Step::NextHop,
    Step::LongLivedStale,
    Step::Own,
    Step::LocalPref,
    Step::AsPath,
    Step::Origin,
    Step::Med,
    Step::External,
    Step::Metric,
    Step::Identifier,
    Step::Clusters,
    Step::Address,
    Step::Number,
];

/// The lower the better.
fn rank(step: Step, path: &Path, facts: &Facts) -> u128 {
    let attributes = &path.attributes;
    match step {
        Step::NextHop => facts.metric.is_none().into(),
        Step::LongLivedStale => attributes.has(Community::LLGR_STALE).into(),
        Step::Own => facts.relation.is_some().into(),
        Step::LocalPref => (u32::MAX - attributes.local_pref.unwrap_or(super::LOCAL_PREF)).into(),
        Step::AsPath => attributes.as_path.length() as u128,
        Step::Origin => attributes.origin as u128,
        // Of the same neighbouring AS alone.
        Step::Med => 0,
        Step::External => (facts.relation != Some(Relation::External)).into(),
        Step::Metric => facts.metric.unwrap_or(u32::MAX).into(),
        Step::Identifier => attributes.originator.unwrap_or(facts.id).to_bits().into(),
        Step::Clusters => attributes.cluster_list.len() as u128,
        Step::Address => match facts.address {
            IpAddr::V4(ip) => ip.to_bits().into(),
            IpAddr::V6(ip) => ip.to_bits(),
        },
        Step::Number => path.received.into(),
    }
}
