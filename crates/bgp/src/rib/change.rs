//! How routes come and go.

use std::sync::Arc;

use ipnet::IpNet;

use super::{Path, PeerId, Rib, TooMany, import};
use crate::message::{Attributes, Community, NlriList, Update};
use crate::{Family, PerFamily, policy};

impl Rib {
    /// A peer is down. Routes of families that are `kept` are stale from now on; the others, and those that were stale
    /// already, go.
    pub fn down(&mut self, peer: PeerId, kept: PerFamily<bool>) {
        self.leave(peer);
        for family in Family::ALL {
            match kept[family] {
                true => {
                    self.remove_where(peer, family, |path| path.stale);
                    self.change_where(peer, family, |path| {
                        path.stale = true;
                        path.awaited = false;
                    });
                }
                false => self.remove_where(peer, family, |_| true),
            }
        }
    }

    /// The routes of a peer that are still stale go.
    pub fn sweep(&mut self, peer: PeerId, family: Family) {
        self.remove_where(peer, family, |path| path.stale);
    }

    /// The stale routes of a peer are long-lived stale from now on (RFC 9494): the last to be taken, and those that do
    /// not want to be kept go.
    pub fn long_lived(&mut self, peer: PeerId, family: Family) {
        self.remove_where(peer, family, |path| path.stale && path.attributes.has(Community::NO_LLGR));
        for number in self.told_by(peer, family) {
            let Some(slot) = self.table.slot_mut(number) else { continue };
            for path in slot.paths_mut().iter_mut().filter(|path| path.peer == peer && path.stale) {
                let mut attributes = (*path.attributes).clone();
                policy::add(&mut attributes.communities, Community::LLGR_STALE);
                path.attributes = self.interner.intern(attributes);
            }
            self.mark(&[number]);
        }
    }

    /// A peer has told routes.
    pub fn handle_update(&mut self, peer: PeerId, update: Update<'_>) -> Result<(), TooMany> {
        for list in update.withdrawn() {
            for nlri in list.iter() {
                self.remove(peer, &nlri.prefix, nlri.path);
            }
        }
        for (attributes, list) in update.into_announced() {
            self.announced(peer, attributes, list)?;
        }
        Ok(())
    }

    fn announced(&mut self, peer: PeerId, attributes: Attributes, list: NlriList<'_>) -> Result<(), TooMany> {
        let Some(known) = self.peers.get_mut(&peer) else { return Ok(()) };
        let Some(terms) = &known.terms else { return Ok(()) };
        let family = list.family();
        let whole = import::check(&self.config, known, terms, &attributes);
        let asks = known.config.import.as_ref().is_some_and(|policy| policy.asks_for_prefix());
        let mut last: Option<Arc<Attributes>> = None;
        let mut refused = Vec::new();
        for nlri in list.iter() {
            let taken = match whole.and_then(|()| import::accept(known, &nlri.prefix, &attributes)) {
                Ok(taken) => taken,
                Err(refusal) => {
                    if let Some(count) = known.counters.refused.get_mut(refusal as usize) {
                        *count += 1;
                    }
                    refused.push(nlri);
                    continue;
                }
            };
            let attributes = match &last {
                Some(last) if !asks => last.clone(),
                _ => last.insert(self.interner.intern(taken.into_owned())).clone(),
            };
            let (number, slot) = self.table.entry(nlri.prefix);
            known.counters.paths[family] += usize::from(slot.put(peer, nlri.path, attributes));
            if !std::mem::replace(&mut slot.dirty, true) {
                self.dirty.push(number);
            }
        }
        let limit = known.config.max_prefixes[family];
        let over = limit.filter(|limit| known.counters.paths[family] > *limit);
        // What is not taken is no more what was taken before.
        for nlri in refused {
            self.remove(peer, &nlri.prefix, nlri.path);
        }
        over.map_or(Ok(()), |limit| Err(TooMany { family, limit }))
    }

    pub(super) fn mark(&mut self, numbers: &[u32]) {
        for number in numbers {
            if let Some(slot) = self.table.slot_mut(*number)
                && !std::mem::replace(&mut slot.dirty, true)
            {
                self.dirty.push(*number);
            }
        }
    }

    pub(super) fn remove(&mut self, peer: PeerId, prefix: &IpNet, received: u32) {
        if let Some(number) = self.table.find(prefix) {
            self.remove_paths(number, peer, |path| path.received == received);
        }
    }

    fn remove_paths(&mut self, number: u32, peer: PeerId, which: impl Fn(&Path) -> bool) {
        let Some(slot) = self.table.slot_mut(number) else { return };
        let gone = slot.remove(|path| path.peer == peer && which(path));
        let family = Family::of(&slot.prefix);
        if gone > 0 {
            if let Some(known) = self.peers.get_mut(&peer) {
                known.counters.paths[family] -= gone;
            }
            self.mark(&[number]);
        }
    }

    /// The numbers of prefixes that a peer has told paths to.
    fn told_by(&self, peer: PeerId, family: Family) -> Vec<u32> {
        let told = self.table.iter().filter(|(_, slot)| {
            Family::of(&slot.prefix) == family && slot.paths().iter().any(|path| path.peer == peer)
        });
        told.map(|(number, _)| number).collect()
    }

    pub(super) fn remove_where(&mut self, peer: PeerId, family: Family, which: impl Fn(&Path) -> bool) {
        for number in self.told_by(peer, family) {
            self.remove_paths(number, peer, &which);
        }
    }

    pub(super) fn change_where(&mut self, peer: PeerId, family: Family, mut change: impl FnMut(&mut Path)) {
        let told = self.told_by(peer, family);
        for number in &told {
            if let Some(slot) = self.table.slot_mut(*number) {
                slot.paths_mut().iter_mut().filter(|path| path.peer == peer).for_each(&mut change);
            }
        }
        self.mark(&told);
    }
}
