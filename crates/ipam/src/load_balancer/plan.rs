//! The plan: every Service's addresses, and how the pools stand.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use weft_model::load_balancer::{CLASS, Claim, LoadBalancerPool, Verdict};
use weft_model::pools::Labels;
use weft_model::service::ServiceKey;

use super::catalogue::{Catalogue, Entry};
use super::choose::{Problem, Taken};

/// The reason of a Service that has some of what it asks for, and not all.
const INCOMPLETE: &str = "Incomplete";

/// What a plan is made of.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// The Services that addresses may have to do with.
    pub claims: &'a BTreeMap<ServiceKey, Arc<Claim>>,
    /// The pools, in any order.
    pub pools: &'a [Arc<LoadBalancerPool>],
    /// The labels of namespaces, by name.
    pub namespaces: &'a BTreeMap<Arc<str>, Labels>,
    /// Networks that no pool may overlap, and what they are.
    pub others: &'a [(IpNet, &'a str)],
    /// The nodes' addresses: no Service gets one of them.
    pub nodes: &'a BTreeSet<IpAddr>,
}

/// What should be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// What every Service of ours should have; the others are left alone.
    pub services: BTreeMap<ServiceKey, Outcome>,
    /// How every pool stands.
    pub pools: BTreeMap<Arc<str>, PoolStatus>,
}

/// What a Service should have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Its addresses, in the order of its families; `None` where they are somebody else's to write.
    pub ips: Option<Vec<IpAddr>>,
    /// What its condition says; `None` where it is not ours any more.
    pub verdict: Option<Verdict>,
}

/// How a pool stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolStatus {
    /// Addresses of it that Services have.
    pub assigned: u64,
    /// Addresses that are free; not more than a number of JSON holds exactly.
    pub available: u64,
    /// Whether it gives any, and why not.
    pub verdict: Verdict,
}

/// The most that is told to be available.
const MOST: u128 = (1 << 53) - 1;

/// Says what every Service and every pool should have in its status.
pub fn plan(input: Input<'_>) -> Plan {
    let catalogue = Catalogue::of(input.pools.iter().map(|pool| &**pool), input.others);
    let mut plan = Plan::default();
    let mut ours = Vec::new();
    let mut taken = Taken::new(input.claims.values().map(|claim| &**claim), input.nodes);
    for claim in input.claims.values() {
        let whose = whose(claim, &catalogue);
        if whose == Whose::Ours {
            ours.push(&**claim);
            continue;
        }
        if whose == Whose::Others {
            claim.ips().for_each(|ip| taken.give(claim, ip));
        }
        // What a Service of another type has left is taken away with our condition, so that it is known as ours.
        if claim.verdict().is_some() {
            let ips = (whose == Whose::Nobodys).then(Vec::new);
            plan.services.insert(claim.key.clone(), Outcome { ips, verdict: None });
        }
    }
    ours.sort_by(|a, b| (&a.created, &a.key, &a.uid).cmp(&(&b.created, &b.key, &b.uid)));
    let kept: Vec<Vec<IpAddr>> = ours.iter().map(|claim| keep(claim, &mut taken)).collect();
    let none = Labels::default();
    for (claim, kept) in ours.into_iter().zip(kept) {
        let namespace = input.namespaces.get(&claim.key.namespace).unwrap_or(&none);
        let outcome = Chooser { catalogue: &catalogue, claim, namespace, kept }.choose(&mut taken);
        plan.services.insert(claim.key.clone(), outcome);
    }
    let pools = catalogue.pools.iter().map(|entry| (entry.name().clone(), status(entry, &taken)));
    plan.pools = pools.collect();
    plan
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    Ours,
    /// Another controller's.
    Others,
    /// It is of no type that has such addresses.
    Nobodys,
}

/// Who gives a Service its addresses. Where no class says it, that of a Service with addresses that we did not
/// give and could not give is somebody else; and without pools nobody is asked for anything.
fn whose(claim: &Claim, catalogue: &Catalogue<'_>) -> Whose {
    if !claim.balanced {
        return Whose::Nobodys;
    }
    if !claim.is_ours() {
        return Whose::Others;
    }
    let verdict = claim.verdict();
    if claim.class.as_deref() == Some(CLASS) {
        return Whose::Ours;
    }
    let ours = verdict.as_ref().is_some_and(|verdict| verdict.good || &*verdict.reason == INCOMPLETE);
    let strange = claim.held.iter().any(|held| match held.ip {
        Some(ip) => !ours && catalogue.around(ip).is_none(),
        None => true,
    });
    match strange || (catalogue.pools.is_empty() && verdict.is_none()) {
        true => Whose::Others,
        false => Whose::Ours,
    }
}

/// The addresses that a Service goes on having: one of each of its families that no older one has.
fn keep<'a>(claim: &'a Claim, taken: &mut Taken<'a>) -> Vec<IpAddr> {
    let asked = claim.request.as_ref().map_or(&[][..], |request| &request.ips);
    let mut kept = Vec::new();
    for v4 in &claim.families {
        let of_family = || claim.ips().filter(|ip| ip.is_ipv4() == *v4 && taken.rival(claim, *ip).is_none());
        if let Some(ip) = of_family().find(|ip| asked.contains(ip)).or_else(|| of_family().next()) {
            taken.give(claim, ip);
            kept.push(ip);
        }
    }
    kept
}

struct Chooser<'a, 'c> {
    catalogue: &'c Catalogue<'a>,
    claim: &'a Claim,
    namespace: &'c Labels,
    kept: Vec<IpAddr>,
}

impl<'a> Chooser<'a, '_> {
    fn choose(self, taken: &mut Taken<'a>) -> Outcome {
        let (mut ips, mut problems) = (Vec::new(), Vec::new());
        for v4 in self.claim.families.iter().copied() {
            let before = self.kept.iter().find(|ip| ip.is_ipv4() == v4).copied();
            let (ip, problem) = match self.one(v4, before, taken) {
                Ok(ip) => (Some(ip), None),
                Err(problem) => (before, Some(problem)),
            };
            ips.extend(ip);
            problems.extend(problem);
        }
        if self.claim.one_is_enough && !ips.is_empty() {
            problems.retain(|problem| !matches!(problem.reason, "NoPool" | "PoolFull"));
        }
        // Of a Service that must have both, neither is given alone; what it has it keeps.
        if !self.claim.one_is_enough && ips.len() < self.claim.families.len() {
            ips.clone_from(&self.kept);
        }
        let changed = self.kept.iter().filter(|ip| !ips.contains(ip));
        changed.for_each(|ip| taken.take(self.claim, *ip));
        ips.iter().filter(|ip| !self.kept.contains(ip)).for_each(|ip| taken.give(self.claim, *ip));
        let verdict = Some(self.verdict(&ips, &problems));
        Outcome { ips: Some(ips), verdict }
    }

    /// The address of one family.
    fn one(&self, v4: bool, before: Option<IpAddr>, taken: &mut Taken<'a>) -> Result<IpAddr, Problem> {
        let request = match &self.claim.request {
            Ok(request) => request,
            Err(why) => return Err(Problem::new("BadRequest", why.clone())),
        };
        if let Some(ip) = request.ips.iter().find(|ip| ip.is_ipv4() == v4) {
            if before != Some(*ip) {
                taken.asked(self.catalogue, self.claim, self.namespace, *ip)?;
            }
            return Ok(*ip);
        }
        let Some(name) = &request.pool else {
            return before.map_or_else(|| self.automatic(v4, taken), Ok);
        };
        let entry = self.named(name)?;
        match before.filter(|ip| entry.ranges().any(|range| range.contains(*ip))) {
            Some(ip) => Ok(ip),
            None => taken.find(entry, self.claim, v4).ok_or_else(|| full(v4, std::slice::from_ref(name))),
        }
    }

    fn named(&self, name: &str) -> Result<&Entry<'a>, Problem> {
        let Some(entry) = self.catalogue.get(name) else {
            let message = format!("there is no LoadBalancerPool {name}; make it, or ask for another");
            return Err(Problem::new("NoPool", message));
        };
        if let Some(fault) = &entry.fault {
            return Err(Problem::new("NoPool", format!("the pool {name} cannot be used: {fault}")));
        }
        if !entry.chooses(self.claim, self.namespace) {
            let message = format!(
                "the selectors of the pool {name} do not choose this Service; label it, or ask for another pool"
            );
            return Err(Problem::new("NotAllowed", message));
        }
        Ok(entry)
    }

    fn automatic(&self, v4: bool, taken: &mut Taken<'a>) -> Result<IpAddr, Problem> {
        let mut tried = Vec::new();
        for entry in &self.catalogue.pools {
            let has_family = entry.ranges().any(|range| range.is_ipv4() == v4);
            if !entry.pool.auto_assign || !has_family || !entry.chooses(self.claim, self.namespace) {
                continue;
            }
            if let Some(ip) = taken.find(entry, self.claim, v4) {
                return Ok(ip);
            }
            tried.push(entry.name().clone());
        }
        if !tried.is_empty() {
            return Err(full(v4, &tried));
        }
        let message = match self.catalogue.pools.is_empty() {
            true => "there is no LoadBalancerPool; make one".to_owned(),
            false => format!(
                "no LoadBalancerPool gives this Service an {} address; look at the addresses, selectors and autoAssign of the pools, and at their conditions",
                family(v4)
            ),
        };
        Err(Problem::new("NoPool", message))
    }

    fn verdict(&self, ips: &[IpAddr], problems: &[Problem]) -> Verdict {
        let has = |ip: &IpAddr| match self.catalogue.around(*ip) {
            Some(entry) => format!("{ip} of the pool {}", entry.name()),
            None => format!(
                "{ip}, which no pool gives any more; it stays until the Service goes or asks for another"
            ),
        };
        let has = ips.iter().map(has).collect::<Vec<_>>().join(", ");
        let [first, ..] = problems else {
            let gone = ips.iter().any(|ip| self.catalogue.around(*ip).is_none());
            let reason = if gone { "PoolGone" } else { "Assigned" };
            return Verdict { good: true, reason: reason.into(), message: has.into() };
        };
        let mut sentences: Vec<&str> = problems.iter().map(|problem| &*problem.message).collect();
        sentences.dedup();
        let wrong = sentences.join("; ");
        match ips.is_empty() {
            true => Verdict { good: false, reason: first.reason.into(), message: wrong.into() },
            false => Verdict {
                good: false,
                reason: INCOMPLETE.into(),
                message: format!("{wrong}. The Service has {has}").into(),
            },
        }
    }
}

fn family(v4: bool) -> &'static str {
    if v4 { "IPv4" } else { "IPv6" }
}

fn full(v4: bool, pools: &[Arc<str>]) -> Problem {
    let (family, pools) = (family(v4), pools.join(", "));
    Problem::new("PoolFull", format!("no {family} address is left in {pools}; add addresses to a pool"))
}

fn status(entry: &Entry<'_>, taken: &Taken<'_>) -> PoolStatus {
    let (assigned, given) = taken.used(entry);
    let all: u128 = entry.ranges().map(|range| range.size()).sum();
    let buggy = if entry.pool.avoid_buggy { entry.ranges().map(|range| range.buggy()).sum() } else { 0 };
    let free = all.saturating_sub(buggy + taken.at_nodes(entry) + u128::from(given));
    let verdict = match &entry.fault {
        None => Verdict { good: true, reason: "Usable".into(), message: "".into() },
        Some(why) => Verdict { good: false, reason: "BadAddresses".into(), message: why.as_str().into() },
    };
    let available = u64::try_from(free.min(MOST)).unwrap_or(u64::MAX);
    PoolStatus { assigned, available: if entry.fault.is_some() { 0 } else { available }, verdict }
}
