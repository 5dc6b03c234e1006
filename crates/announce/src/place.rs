//! One address as one node sees it: who may have it, who says that he has it, and whose turn it is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::election::{Owner, SILENCE, Why};
use crate::rank;

/// An address that somebody else claims too is announced again, when he should have heard of it.
const AGAIN: [Duration; 2] = [Duration::from_millis(300), Duration::from_millis(1000)];
/// Who claims an address for so long, though he must have heard that another has it, means it.
const INSISTS: Duration = SILENCE;
/// More nodes than these are not heard of one address.
const MOST_CLAIMS: usize = 1024;

/// Who looks at it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Own<'a> {
    /// This node's name.
    pub node: &'a str,
    /// Whether it knows what the API says now.
    pub current: bool,
}

/// What somebody else said of an address, while it is believed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim {
    /// When it was first said, without a pause.
    since: Duration,
    heard: Duration,
    pub until: Duration,
    restarts: bool,
    /// Whether he knows what the API says now.
    current: bool,
}

/// An address that this node has.
#[derive(Debug)]
pub(crate) struct Mine {
    pub why: Why,
    /// When it is announced next, the next last.
    pub announce: Vec<Duration>,
}

/// An address that is to be somebody's.
#[derive(Debug, Default)]
pub(crate) struct Place {
    pub candidates: BTreeSet<Arc<str>>,
    /// Since when this node could have it.
    pub since: Option<Duration>,
    pub claims: BTreeMap<Arc<str>, Claim>,
    /// When the last claim of one that goes before this node ended, whose it was and how.
    ended: Option<(Duration, Arc<str>, End)>,
    /// Who let it go since he last had it.
    let_go: BTreeSet<Arc<str>>,
    pub mine: Option<Mine>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Silence,
    Said,
}

impl Place {
    /// Somebody says that he has it, and is believed for `wait`. Says whether he is to be told that this node
    /// has it.
    pub(crate) fn claim(
        &mut self,
        address: IpAddr,
        own: Own<'_>,
        node: &Arc<str>,
        (wait, restarts, current): (Duration, bool, bool),
        now: Duration,
    ) -> bool {
        let before = self.claims.get(node).filter(|claim| claim.current == current);
        if before.is_none() && self.claims.len() >= MOST_CLAIMS {
            return false;
        }
        let since = before.map_or(now, |claim| claim.since);
        let claim = Claim { since, heard: now, until: now + wait, restarts, current };
        self.claims.insert(node.clone(), claim);
        self.let_go.remove(node);
        if rank::order(address, node, own.node).is_lt() {
            self.ended = None;
        }
        if self.mine.is_none() || self.respects(address, own, node, &claim) {
            return false;
        }
        self.announce_again(now);
        true
    }

    /// Somebody says that he has it no more.
    pub(crate) fn let_go(&mut self, address: IpAddr, own: &str, node: &Arc<str>, now: Duration) {
        self.end(address, own, node, now, End::Said);
        if self.candidates.contains(node) {
            self.let_go.insert(node.clone());
        }
    }

    /// The claim of `node` ends; `own` is this node.
    pub(crate) fn end(&mut self, address: IpAddr, own: &str, node: &Arc<str>, at: Duration, how: End) {
        if self.claims.remove(node).is_none() {
            return;
        }
        if rank::order(address, node, own).is_lt() {
            self.ended = Some((at, node.clone(), how));
        }
        // Neighbours may have believed him.
        self.announce_again(at);
    }

    fn announce_again(&mut self, now: Duration) {
        if let Some(mine) = self.mine.as_mut().filter(|mine| mine.announce.is_empty()) {
            mine.announce = AGAIN.iter().rev().map(|after| now + *after).collect();
        }
    }

    /// Whether somebody else's claim keeps this node from having it.
    pub(crate) fn yields(&self, address: IpAddr, own: Own<'_>) -> bool {
        self.claims.iter().any(|(node, claim)| self.respects(address, own, node, claim))
    }

    /// Whether this one does: the claim of who goes before. But of two who do not agree who may have it, the
    /// one that knows what the API says now goes before one that does not.
    fn respects(&self, address: IpAddr, own: Own<'_>, node: &str, claim: &Claim) -> bool {
        if rank::order(address, node, own.node).is_lt() {
            return !own.current || claim.current || self.candidates.contains(node);
        }
        let insists = claim.heard >= claim.since + INSISTS;
        !own.current && claim.current && (insists || self.mine.is_none())
    }

    /// Who goes before `own` and may still take it. Of those that went before one that was then lost
    /// nothing was heard while he had it, so that nobody waits for them again.
    fn before<'a>(
        &'a self,
        address: IpAddr,
        own: &'a str,
        dead: &'a BTreeSet<Arc<str>>,
    ) -> impl Iterator<Item = &'a Arc<str>> {
        let after = match &self.ended {
            Some((_, node, End::Silence)) => Some(node),
            _ => None,
        };
        let is_before = move |a: &str, b: &str| rank::order(address, a, b).is_lt();
        self.candidates.iter().filter(move |node| {
            is_before(node, own)
                && after.is_none_or(|after| is_before(after, node))
                && !dead.contains(*node)
                && !self.let_go.contains(*node)
        })
    }

    /// When it is this node's turn, while nobody keeps it from it.
    pub(crate) fn turn(&self, address: IpAddr, own: &str, dead: &BTreeSet<Arc<str>>) -> Option<Duration> {
        let from =
            self.ended.as_ref().map_or(self.since?, |(at, ..)| self.since.max(Some(*at)).unwrap_or(*at));
        let waits = self.before(address, own, dead).count();
        Some(from + SILENCE * u32::try_from(waits).unwrap_or(u32::MAX))
    }

    /// Why this node has it when it takes it now.
    pub(crate) fn why(&self, address: IpAddr, own: &str) -> Why {
        match &self.ended {
            _ if !self.candidates.iter().any(|node| rank::order(address, node, own).is_lt()) => Why::First,
            Some((_, node, End::Silence)) => Why::Lost(node.clone()),
            Some((_, node, End::Said)) => Why::LetGo(node.clone()),
            None => Why::Silent,
        }
    }

    /// Who has it, if anybody.
    pub(crate) fn owner(&self, address: IpAddr, own: Own<'_>, name: &Arc<str>) -> Option<Owner> {
        if let Some(mine) = &self.mine {
            return Some(Owner { node: name.clone(), why: mine.why.clone() });
        }
        let passed =
            |node: &str, claim: &Claim| own.current && !claim.current && !self.candidates.contains(node);
        let (node, claim) = self.claims.iter().min_by(|a, b| {
            passed(a.0, a.1).cmp(&passed(b.0, b.1)).then_with(|| rank::order(address, a.0, b.0))
        })?;
        let insists = rank::order(address, own.node, node).is_lt() && self.candidates.contains(own.node);
        let why = match claim {
            claim if claim.restarts => Why::Restarts,
            claim if claim.current && !own.current && insists => Why::Insists,
            _ => Why::Says,
        };
        Some(Owner { node: node.clone(), why })
    }
}
