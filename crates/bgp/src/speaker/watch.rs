//! BFD for the neighbours that are to be watched: what becomes of its sessions becomes of theirs.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::epoll::{self, EventData, EventFlags};

use super::peer::Peer;
use super::token::Token;
use super::worker::Worker;
use crate::bfd::{self, Bfd, Change, Intervals, Key};
use crate::message::Reason;

/// The sessions of BFD.
#[derive(Debug, Default)]
pub(super) struct Watch {
    bfd: Option<Bfd>,
    wanted: BTreeMap<Key, Intervals>,
    /// What each did last.
    last: BTreeMap<Key, Change>,
    /// Why there is none.
    error: Option<String>,
    /// Neighbours have come, changed or gone.
    pub(super) outdated: bool,
}

impl Watch {
    /// Has these sessions and no others.
    fn set(&mut self, poll: &OwnedFd, wanted: BTreeMap<Key, Intervals>) {
        if wanted.is_empty() {
            *self = Watch::default();
            return;
        }
        if self.bfd.is_none() {
            (self.bfd, self.error) = match start(poll) {
                Ok(bfd) => (Some(bfd), None),
                Err(error) => (None, Some(error)),
            };
        } else if wanted == self.wanted {
            return;
        }
        self.last.retain(|key, _| wanted.contains_key(key));
        if let Some(bfd) = &self.bfd {
            bfd.set(wanted.clone());
        }
        self.wanted = wanted;
    }

    fn next(&mut self) -> Option<(Key, Change)> {
        let (key, change) = self.bfd.as_ref()?.try_next()?;
        // What was told before it heard that one is not wanted any more is of nobody.
        if self.wanted.contains_key(&key) {
            self.last.insert(key.clone(), change);
        }
        Some((key, change))
    }

    /// Whether a neighbour's session may be: always, unless it is only to be while BFD says that packets pass, or that
    /// the neighbour wants none of it.
    pub(super) fn allows(&self, peer: &Peer) -> bool {
        let strict = peer.neighbour.bfd.is_some_and(|watched| watched.strict);
        !strict || matches!(self.last.get(&key(peer)), Some(Change::Up | Change::AdminDown))
    }

    /// What BFD says of a neighbour that it watches.
    pub(super) fn of(&self, peer: &Peer) -> Option<String> {
        peer.neighbour.bfd?;
        Some(match (&self.error, self.last.get(&key(peer))) {
            (Some(error), _) => error.clone(),
            (None, None) => "down".to_owned(),
            (None, Some(Change::Up)) => "up".to_owned(),
            (None, Some(Change::Down(why))) => format!("down: {why}"),
            (None, Some(Change::AdminDown)) => "held down by the neighbour".to_owned(),
        })
    }

    /// All that BFD says.
    pub(super) fn status(&self) -> Option<bfd::Status> {
        self.bfd.as_ref().map(Bfd::status)
    }
}

fn start(poll: &OwnedFd) -> Result<Bfd, String> {
    let failed = |error: &dyn std::error::Error| match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    let bfd = Bfd::start().map_err(|error| failed(&error))?;
    epoll::add(poll, &bfd, EventData::new_u64(Token::Watch.write()), EventFlags::IN)
        .map_err(|error| failed(&error))?;
    Ok(bfd)
}

fn key(peer: &Peer) -> Key {
    Key { peer: peer.address, local: peer.neighbour.local_address, interface: None }
}

impl Worker {
    /// Watches the neighbours that are to be, where that has changed.
    pub(super) fn watch(&mut self, now: Duration) {
        if !std::mem::take(&mut self.watch.outdated) {
            return;
        }
        let wanted = self.peers.values().filter_map(|peer| Some((key(peer), peer.neighbour.bfd?.intervals)));
        self.watch.set(&self.poll, wanted.collect());
        // One that waits no longer.
        let watch = &self.watch;
        let waits = |peer: &Peer| peer.too_many.is_none() && watch.allows(peer);
        let free = self.peers.iter().filter(|(_, peer)| waits(peer)).map(|(number, _)| *number);
        for number in free.collect::<Vec<u32>>() {
            self.start(number, now);
        }
    }

    /// BFD has something to tell.
    pub(super) fn watched(&mut self, now: Duration) {
        while let Some((of, change)) = self.watch.next() {
            let watched =
                self.peers.iter().filter(|(_, peer)| peer.neighbour.bfd.is_some() && key(peer) == of);
            for number in watched.map(|(number, _)| *number).collect::<Vec<u32>>() {
                match change {
                    Change::Up | Change::AdminDown => self.start(number, now),
                    Change::Down(why) => self.lost(number, why, now),
                }
            }
        }
    }

    fn start(&mut self, number: u32, now: Duration) {
        let Some(peer) = self.peers.get_mut(&number) else { return };
        if peer.too_many.is_none() {
            peer.session.start(now);
            self.pump(number, now);
        }
    }

    fn lost(&mut self, number: u32, why: bfd::Diagnostic, now: Duration) {
        let Some(peer) = self.peers.get_mut(&number) else { return };
        let (down, was_up) = (Reason::BFD_DOWN.into(), peer.up.is_some());
        if self.watch.allows(peer) {
            peer.session.reset(&down, now);
        } else {
            peer.session.stop(&down, now);
        }
        self.pump(number, now);
        if let Some(peer) = self.peers.get_mut(&number) {
            let text = format!("BFD: {why}");
            if was_up {
                peer.last_fall = Some(text.clone());
            }
            peer.last_error = Some(text);
        }
    }
}
