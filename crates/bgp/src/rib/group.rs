//! Adj-RIB-Out: what peers are told. Peers that are alike are a group, for which every UPDATE is encoded once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::batch::{Batch, Told, tell};
use super::behind::{Behind, STRIDE, Walk, catch_up, prefixes, step};
use super::export::Kind;
use super::few::Few;
use super::log::{Log, To};
use super::table::Table;
use super::{Path, PeerId};
use crate::message::{self, Attributes, Nlri};
use crate::{Family, PerFamily};

/// About so many bytes are handed over at once.
const CHUNK: usize = 32 * 1024;

/// How far a member is.
#[derive(Debug)]
enum Place {
    /// At this place of the log.
    InStep(u64),
    /// Behind it: sent what is current, prefix by prefix.
    Behind(Behind),
}

#[derive(Debug)]
pub(super) struct Group {
    pub(super) kind: Kind,
    told: Vec<Few<Told>>,
    log: Log,
    places: BTreeMap<PeerId, Place>,
    /// The last route that was exported, and what came of it: the next one mostly has the same attributes.
    last: Option<Exported>,
    batch: Batch,
}

/// What came of a route's export.
#[derive(Debug)]
struct Exported {
    of: Arc<Attributes>,
    from: PeerId,
    family: Family,
    told: Option<Arc<Attributes>>,
}

impl Group {
    pub(super) fn new(kind: Kind) -> Group {
        Group {
            kind,
            told: Vec::new(),
            log: Log::default(),
            places: BTreeMap::new(),
            last: None,
            batch: Batch::default(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// A member more, which is to be told all that the others were.
    pub(super) fn join(&mut self, peer: PeerId) {
        let walk = Walk { next: 0, families: self.kind.terms.families, again: false };
        self.places.insert(peer, Place::Behind(Behind { walk: Some(walk), changed: BTreeSet::new() }));
    }

    /// A member is to be withdrawn these too, which another group has told it.
    pub(super) fn forget(&mut self, peer: PeerId, told: Vec<Nlri>) {
        if let Some(Place::Behind(behind)) = self.places.get_mut(&peer) {
            behind.changed.extend(told);
        }
    }

    /// A member less.
    pub(super) fn leave(&mut self, peer: PeerId) {
        if let Some(Place::InStep(place)) = self.places.remove(&peer) {
            self.log.leave(peer, place);
        }
    }

    /// All that a member may have been told.
    pub(super) fn all(&self, table: &Table) -> Vec<Nlri> {
        let told = self.told.iter().enumerate();
        told.filter_map(|(number, told)| Some((table.slot(number as u32)?.prefix, told)))
            .flat_map(|(prefix, told)| {
                told.as_slice().iter().map(move |told| Nlri { prefix, path: told.number })
            })
            .collect()
    }

    /// A member wants all routes of a family again.
    pub(super) fn again(&mut self, peer: PeerId, family: Family) {
        let Some(place) = self.places.get_mut(&peer) else { return };
        let mut behind = match std::mem::replace(place, Place::Behind(Behind::default())) {
            Place::InStep(at) => {
                let unread = self.log.leave(peer, at);
                Behind { walk: None, changed: prefixes(&unread, &self.kind.terms) }
            }
            Place::Behind(behind) => behind,
        };
        let mut families = PerFamily::default();
        families[family] = true;
        behind.walk = Some(match behind.walk {
            // Who has not heard all yet hears all from the beginning.
            Some(walk) => {
                families = PerFamily::from_fn(|of| families[of] || walk.families[of]);
                Walk { next: 0, families, again: walk.again }
            }
            None => Walk { next: 0, families, again: true },
        });
        *place = Place::Behind(behind);
    }

    /// Compares what is to be told of a prefix with what was told. `export` says what of a path.
    pub(super) fn update(
        &mut self,
        number: u32,
        prefix: ipnet::IpNet,
        paths: &[Path],
        best: Option<usize>,
        mut export: impl FnMut(&Kind, &Path) -> Option<Arc<Attributes>>,
    ) {
        let family = Family::of(&prefix);
        let several = self.kind.terms.add_path_out[family];
        let asks = self.kind.asks_for_prefix();
        let mut wanted = Few::default();
        let candidates =
            if several { paths } else { best.and_then(|best| paths.get(best..=best)).unwrap_or_default() };
        for path in candidates {
            let attributes = match &self.last {
                Some(last)
                    if !asks
                        && Arc::ptr_eq(&last.of, &path.attributes)
                        && (last.from, last.family) == (path.peer, family) =>
                {
                    last.told.clone()
                }
                _ => {
                    let (of, told) = (path.attributes.clone(), export(&self.kind, path));
                    self.last = Some(Exported { of, from: path.peer, family, told: told.clone() });
                    told
                }
            };
            if let Some(attributes) = attributes {
                let number = if several { path.number } else { 0 };
                wanted.push(Told { attributes, source: path.peer, number });
            }
        }
        let at = number as usize;
        if self.told.len() <= at {
            if wanted.as_slice().is_empty() {
                return;
            }
            self.told.resize_with(at + 1, Few::default);
        }
        if let Some(told) = self.told.get_mut(at) {
            let before = std::mem::replace(told, wanted);
            self.compare(number, prefix, &before);
        }
    }

    fn compare(&mut self, number: u32, prefix: ipnet::IpNet, before: &Few<Told>) {
        let Some(now) = self.told.get(number as usize) else { return };
        let (before, now) = (before.as_slice(), now.as_slice());
        let mut changed = Vec::new();
        for gone in before.iter().filter(|old| now.iter().all(|new| new.number != old.number)) {
            let nlri = Nlri { prefix, path: gone.number };
            self.batch.withdrawn[Family::of(&prefix)].push(nlri);
            changed.push((nlri, true));
        }
        for new in now {
            let old = before.iter().find(|old| old.number == new.number);
            let same_source = old.is_none_or(|old| old.source == new.source);
            if same_source && old.is_some_and(|old| Arc::ptr_eq(&old.attributes, &new.attributes)) {
                continue;
            }
            let nlri = Nlri { prefix, path: new.number };
            self.batch.announce(new, nlri);
            if !same_source && self.places.contains_key(&new.source) {
                self.batch.withdrawn_from.push((new.source, nlri));
            }
            changed.push((nlri, !same_source));
        }
        for place in self.places.values_mut() {
            let Place::Behind(behind) = place else { continue };
            // The walk will see what is announced, but not what is gone.
            let passed = behind.walk.as_ref().is_none_or(|walk| number < walk.next);
            behind.changed.extend(changed.iter().filter(|(_, gone)| *gone || passed).map(|(nlri, _)| *nlri));
        }
    }

    /// Encodes what [`Group::update`] has found.
    pub(super) fn finish(&mut self) {
        self.last = None;
        let batch = std::mem::take(&mut self.batch);
        let readers = self.places.values().filter(|place| matches!(place, Place::InStep(_))).count();
        if readers == 0 {
            return;
        }
        let terms = &self.kind.terms;
        let mut out = Vec::new();
        for family in Family::ALL {
            message::withdraw(&mut out, terms, family, batch.withdrawn[family].iter().copied());
        }
        let mut to = To::AllBut(PeerId::OWN);
        let mut push = |out: &mut Vec<u8>, to: To, enough: usize| {
            if out.len() > enough {
                self.log.push(std::mem::take(out), to, readers);
            }
        };
        for (attributes, source, family, routes) in batch.announced {
            if to != To::AllBut(source) {
                push(&mut out, to, 0);
                to = To::AllBut(source);
            }
            tell(&mut out, terms, &attributes, family, &routes);
            push(&mut out, to, CHUNK);
        }
        push(&mut out, to, 0);
        for (source, nlri) in batch.withdrawn_from {
            message::withdraw(&mut out, terms, Family::of(&nlri.prefix), [nlri]);
            push(&mut out, To::Only(source), 0);
        }
        self.drop_behind();
    }

    /// Takes members out of step that hold too much of the log.
    fn drop_behind(&mut self) {
        let limit = self.log.too_far_behind();
        for (peer, place) in &mut self.places {
            if let Place::InStep(at) = *place
                && at < limit
            {
                let changed = prefixes(&self.log.leave(*peer, at), &self.kind.terms);
                *place = Place::Behind(Behind { walk: None, changed });
            }
        }
    }

    /// The next that a member is to be sent.
    pub(super) fn poll(&mut self, peer: PeerId, table: &Table) -> Option<Arc<[u8]>> {
        let place = self.places.get_mut(&peer)?;
        let behind = match place {
            Place::InStep(at) => return self.log.read(peer, at),
            Place::Behind(behind) => behind,
        };
        let mut out = Vec::new();
        while out.is_empty() {
            if let Some(walk) = &mut behind.walk {
                let from = walk.next;
                step(&mut out, walk, peer, &self.told, &self.kind.terms, table);
                if walk.next == from {
                    behind.walk = None;
                }
            } else if !behind.changed.is_empty() {
                let rest = behind.changed.iter().nth(STRIDE).copied();
                let rest = rest.map(|rest| behind.changed.split_off(&rest)).unwrap_or_default();
                let now = std::mem::replace(&mut behind.changed, rest);
                catch_up(&mut out, &now, peer, &self.told, &self.kind.terms, table);
            } else {
                *place = Place::InStep(self.log.end());
                return None;
            }
        }
        Some(out.into())
    }
}
