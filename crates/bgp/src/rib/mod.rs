//! Routes: what peers have told (Adj-RIB-In), which of them are the best (Loc-RIB), and what peers are told
//! (Adj-RIB-Out).
//!
//! Who holds a [`Rib`] passes on what sessions tell: [`Rib::up`], [`Rib::down`], [`Rib::handle_update`],
//! [`Rib::handle_refresh`], [`Rib::sweep`], [`Rib::long_lived`]. None of these decides anything.
//! [`Rib::flush`] does, for as many prefixes as it is allowed: what changes many times in between is decided and told
//! once. It says which prefixes may have changed, for [`Rib::next_hops`]; then [`Rib::poll_transmit`] has what
//! each peer is to be sent, as fast as its session takes it.

mod batch;
mod behind;
mod change;
mod decision;
mod export;
mod few;
mod group;
mod hash;
mod import;
mod intern;
mod log;
mod peer;
mod table;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::IpNet;

pub use decision::{Step, Verdict};
pub use peer::{Counters, Peer, PeerId, Refusal};
pub use table::Path;

use crate::message::{Attributes, Negotiated, NextHop, RefreshKind};
use crate::{Family, PerFamily};
use decision::Facts;
use export::{Kind, Source};
use group::Group;
use intern::Interner;
use peer::Known;
use table::Table;

/// What a route is worth that nobody has said anything about.
pub const LOCAL_PREF: u32 = 100;

/// Who we are.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our AS; of a confederation, our member's.
    pub asn: u32,
    /// The confederation's AS, as those outside see it (RFC 5065).
    pub confederation: Option<u32>,
    /// Our BGP identifier.
    pub id: Ipv4Addr,
    /// The cluster that we reflect routes in, where that is not our identifier.
    pub cluster: Option<Ipv4Addr>,
    /// Our own addresses: nobody's next hop for us.
    pub addresses: BTreeSet<IpAddr>,
}

impl Config {
    fn cluster(&self) -> Ipv4Addr {
        self.cluster.unwrap_or(self.id)
    }
}

/// A peer has told more than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {limit} prefixes")]
pub struct TooMany {
    /// Of this family.
    pub family: Family,
    /// More than so many.
    pub limit: usize,
}

/// What a flush has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flushed {
    /// Prefixes whose next hops may be others now.
    pub changed: Vec<IpNet>,
    /// There is more to be done.
    pub more: bool,
}

/// Routes and peers.
#[derive(Debug)]
pub struct Rib {
    config: Config,
    table: Table,
    interner: Interner,
    peers: BTreeMap<PeerId, Known>,
    groups: Vec<Option<Group>>,
    /// Numbers of prefixes whose paths have changed.
    dirty: Vec<u32>,
    /// Next hops of which something is known; others are as near as can be.
    metrics: HashMap<IpAddr, Option<u32>>,
    held_back: bool,
}

impl Rib {
    /// One without routes and peers.
    pub fn new(config: Config) -> Rib {
        Rib {
            config,
            table: Table::new(),
            interner: Interner::new(),
            peers: BTreeMap::new(),
            groups: Vec::new(),
            dirty: Vec::new(),
            metrics: HashMap::new(),
            held_back: false,
        }
    }

    /// How many prefixes there are.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many different attributes there are, or were a moment ago.
    pub fn attribute_blocks(&self) -> usize {
        self.interner.len()
    }

    /// What has been counted of a peer.
    pub fn counters(&self, peer: PeerId) -> Counters {
        self.peers.get(&peer).map(|peer| peer.counters).unwrap_or_default()
    }

    /// A peer more, which is not up.
    pub fn add_peer(&mut self, config: Peer) -> PeerId {
        let id = (0..).map(PeerId).find(|id| !self.peers.contains_key(id)).unwrap_or(PeerId::OWN);
        let counters = Counters::default();
        self.peers.insert(id, Known { config, terms: None, group: None, counters });
        id
    }

    /// A peer less, and all that it told.
    pub fn remove_peer(&mut self, peer: PeerId) {
        self.down(peer, PerFamily::default());
        self.peers.remove(&peer);
    }

    /// A peer's configuration has changed. What is told to it changes at once; for what it tells, ask it again.
    pub fn configure(&mut self, peer: PeerId, config: Peer) {
        let Some(known) = self.peers.get_mut(&peer) else { return };
        known.config = config;
        if known.group.is_some()
            && let Some(terms) = known.terms.clone()
        {
            let before = known.group.and_then(|at| self.groups.get(at)?.as_ref());
            let told = before.map(|group| group.all(&self.table)).unwrap_or_default();
            self.join(peer, &terms);
            if let Some(group) = self.group_of(peer) {
                group.forget(peer, told);
            }
        }
    }

    /// A peer is up.
    pub fn up(&mut self, peer: PeerId, terms: &Negotiated) {
        if let Some(known) = self.peers.get_mut(&peer) {
            known.terms = Some(terms.clone());
            self.join(peer, terms);
        }
    }

    /// A peer wants our routes again, or marks that it sends its own again.
    pub fn handle_refresh(&mut self, peer: PeerId, family: Family, kind: RefreshKind) {
        match kind {
            RefreshKind::Request => {
                if let Some(group) = self.group_of(peer) {
                    group.again(peer, family);
                }
            }
            RefreshKind::Begin => self.change_where(peer, family, |path| path.awaited = true),
            RefreshKind::End => self.remove_where(peer, family, |path| path.awaited),
        }
    }

    /// A route of our own.
    pub fn originate(&mut self, prefix: IpNet, attributes: Attributes) {
        let attributes = self.interner.intern(attributes);
        let (number, slot) = self.table.entry(prefix);
        slot.put(PeerId::OWN, 0, attributes);
        if !std::mem::replace(&mut slot.dirty, true) {
            self.dirty.push(number);
        }
    }

    /// No route of our own any more.
    pub fn withdraw(&mut self, prefix: &IpNet) {
        self.remove(PeerId::OWN, prefix, 0);
    }

    /// How far a next hop is; `None`: it cannot be reached.
    pub fn set_metric(&mut self, next_hop: IpAddr, metric: Option<u32>) {
        if self.metrics.insert(next_hop, metric) != Some(metric) {
            let uses = |path: &Path| path.attributes.next_hop.address() == next_hop;
            let using = self.table.iter().filter(|(_, slot)| !slot.dirty && slot.paths().iter().any(uses));
            let using: Vec<u32> = using.map(|(number, _)| number).collect();
            self.mark(&using);
        }
    }

    /// Our own addresses are others now. Of routes that were refused for it, ask the peers again.
    pub fn set_addresses(&mut self, addresses: BTreeSet<IpAddr>) {
        self.config.addresses = addresses;
    }

    /// While routes are held back nothing is decided and nothing told: who has restarted first hears his peers
    /// (RFC 4724 4.1).
    pub fn hold_back(&mut self, held_back: bool) {
        self.held_back = held_back;
    }

    /// Decides about as many prefixes as this, and finds what peers are to be told.
    pub fn flush(&mut self, limit: usize) -> Flushed {
        if self.held_back {
            return Flushed::default();
        }
        let rest = self.dirty.split_off(limit.min(self.dirty.len()));
        let batch = std::mem::replace(&mut self.dirty, rest);
        let mut changed = Vec::with_capacity(batch.len());
        let mut groups = std::mem::take(&mut self.groups);
        for number in batch {
            if let Some(slot) = self.table.slot_mut(number) {
                slot.dirty = false;
                changed.push(slot.prefix);
            }
            let best = self.best(number);
            groups.iter_mut().flatten().for_each(|group| self.tell(group, number, best));
            if self.table.slot(number).is_some_and(|slot| slot.paths().is_empty()) {
                self.table.remove(number);
            }
        }
        groups.iter_mut().flatten().for_each(Group::finish);
        self.groups = groups;
        Flushed { changed, more: !self.dirty.is_empty() }
    }

    /// What a peer is to be sent next.
    pub fn poll_transmit(&mut self, peer: PeerId) -> Option<Arc<[u8]>> {
        let group = self.peers.get(&peer)?.group.filter(|_| !self.held_back)?;
        self.groups.get_mut(group)?.as_mut()?.poll(peer, &self.table)
    }

    /// Where packets to a prefix may go: the next hops of the best path and of those that are as good. None, where
    /// there is no path, or where the best is our own.
    pub fn next_hops(&self, prefix: &IpNet) -> Vec<NextHop> {
        let mut next_hops = Vec::new();
        for (path, verdict) in self.explain(prefix) {
            if verdict == Verdict::Best && path.peer == PeerId::OWN {
                return Vec::new();
            }
            let takes = matches!(verdict, Verdict::Best | Verdict::Multipath(_)) && path.peer != PeerId::OWN;
            if takes && !next_hops.contains(&path.attributes.next_hop) {
                next_hops.push(path.attributes.next_hop);
            }
        }
        next_hops
    }

    /// What became of each path to a prefix, and by which step of the decision.
    pub fn explain(&self, prefix: &IpNet) -> Vec<(&Path, Verdict)> {
        let slot = self.table.find(prefix).and_then(|number| self.table.slot(number));
        let paths = slot.map_or(&[][..], |slot| slot.paths());
        paths.iter().zip(decision::decide(paths, |path| self.facts(path))).collect()
    }

    /// All prefixes and the paths to them, in no order.
    pub fn routes(&self) -> impl Iterator<Item = (&IpNet, &[Path])> {
        self.table.iter().map(|(_, slot)| (&slot.prefix, slot.paths()))
    }

    fn facts(&self, path: &Path) -> Facts {
        let metric = self.metrics.get(&path.attributes.next_hop.address()).copied().unwrap_or(Some(0));
        match self.peers.get(&path.peer) {
            Some(peer) => peer.facts(metric),
            None => Facts {
                relation: None,
                id: self.config.id,
                address: IpAddr::V4(self.config.id),
                metric: Some(0),
            },
        }
    }

    /// The place of the best path to a prefix.
    fn best(&self, number: u32) -> Option<usize> {
        decision::best(self.table.slot(number)?.paths(), |path| self.facts(path))
    }

    /// Finds what a group is to be told of a prefix.
    fn tell(&mut self, group: &mut Group, number: u32, best: Option<usize>) {
        let Some(slot) = self.table.slot(number) else { return };
        let (config, peers, interner) = (&self.config, &self.peers, &mut self.interner);
        group.update(number, slot.prefix, slot.paths(), best, |kind, path| {
            let known = peers.get(&path.peer);
            let terms = known.and_then(|known| known.terms.as_ref());
            let source = Source {
                relation: terms.map(|terms| terms.relation),
                client: known.is_some_and(|known| known.config.client),
                id: terms.map_or(config.id, |terms| terms.peer_id),
            };
            let told = kind.export(config, &slot.prefix, source, &path.attributes)?;
            Some(interner.intern(told))
        });
    }

    fn group_of(&mut self, peer: PeerId) -> Option<&mut Group> {
        let at = self.peers.get(&peer)?.group?;
        self.groups.get_mut(at)?.as_mut()
    }

    /// Makes a peer a member of the group of those that are like it.
    fn join(&mut self, peer: PeerId, terms: &Negotiated) {
        self.leave(peer);
        let Some(known) = self.peers.get(&peer) else { return };
        let kind = Kind::new(&known.config, terms);
        let like = |group: &Option<Group>| group.as_ref().is_some_and(|group| group.kind.is_like(&kind));
        let at = self.groups.iter().position(like).unwrap_or_else(|| {
            let mut group = Group::new(kind);
            let numbers: Vec<u32> = self.table.iter().map(|(number, _)| number).collect();
            numbers.into_iter().for_each(|number| self.tell(&mut group, number, self.best(number)));
            group.finish();
            let free = self.groups.iter().position(Option::is_none).unwrap_or(self.groups.len());
            self.groups.resize_with(self.groups.len().max(free + 1), || None);
            self.groups[free] = Some(group);
            free
        });
        if let Some(group) = self.groups.get_mut(at).and_then(Option::as_mut) {
            group.join(peer);
        }
        if let Some(known) = self.peers.get_mut(&peer) {
            known.group = Some(at);
        }
    }

    /// Takes a peer out of its group, which goes with its last member.
    fn leave(&mut self, peer: PeerId) {
        let Some(at) = self.peers.get_mut(&peer).and_then(|known| known.group.take()) else { return };
        let Some(slot) = self.groups.get_mut(at) else { return };
        if let Some(group) = slot {
            group.leave(peer);
            if group.is_empty() {
                *slot = None;
            }
        }
    }
}
