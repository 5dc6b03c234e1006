//! All sessions: whom a packet is for, and whose turn is when.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use super::packet::{LENGTH, Malformed, Packet};
use super::session::Session;
use super::{Change, Discarded, HOPS, Intervals, Key, SessionStatus, Status};
use crate::random::Random;

/// There are at most so many sessions.
pub const MAX_SESSIONS: usize = 4096;

/// How a packet came.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// Who sent it.
    pub from: IpAddr,
    /// To which address.
    pub to: IpAddr,
    /// By which interface, if its name is known.
    pub interface: Option<&'a Arc<str>>,
    /// With which TTL or hop limit.
    pub hops: u8,
}

/// A packet to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// One's own discriminator ([`Sessions::key`]). The last packet of a session goes when it is there no more.
    pub session: u32,
    /// To whom.
    pub peer: IpAddr,
    /// The payload of a datagram to [`super::PORT`].
    pub packet: [u8; LENGTH],
}

/// A session, and what is only for looking at.
#[derive(Debug)]
struct Entry {
    key: Key,
    session: Session,
    /// By which packets came last.
    interface: Option<Arc<str>>,
    since: Duration,
    wakes: Option<Duration>,
    counts: Counts,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    ups: u64,
    downs: u64,
    sent: u64,
    received: u64,
}

/// Sessions, without sockets and clock.
#[derive(Debug)]
pub struct Sessions {
    random: Random,
    keys: BTreeMap<Key, u32>,
    /// By one's own discriminator.
    entries: BTreeMap<u32, Entry>,
    due: BTreeSet<(Duration, u32)>,
    packets: VecDeque<Outgoing>,
    changes: VecDeque<(Key, Change)>,
    discarded: Discarded,
    refused: usize,
}

impl Sessions {
    /// None yet. `seed`: anything that cannot be guessed.
    pub fn new(seed: u64) -> Sessions {
        Sessions {
            random: Random::new(seed),
            keys: BTreeMap::new(),
            entries: BTreeMap::new(),
            due: BTreeSet::new(),
            packets: VecDeque::new(),
            changes: VecDeque::new(),
            discarded: Discarded::default(),
            refused: 0,
        }
    }

    /// Has these sessions and no others. What is there stays as it is; its intervals are negotiated anew where they
    /// differ. Of one that is no longer wanted the peer is told, which takes some seconds.
    pub fn set(&mut self, wanted: &BTreeMap<Key, Intervals>, now: Duration) {
        let gone: Vec<u32> =
            self.keys.iter().filter(|(key, _)| !wanted.contains_key(*key)).map(|(_, local)| *local).collect();
        for local in gone {
            self.with(local, now, |session| {
                session.end(now);
                None
            });
        }
        self.refused = 0;
        for (key, intervals) in wanted {
            let intervals = intervals.bounded();
            if let Some(local) = self.keys.get(key).copied() {
                self.with(local, now, |session| {
                    session.resume();
                    session.set(intervals);
                    None
                });
            } else if self.entries.len() < MAX_SESSIONS {
                self.add(key.clone(), intervals, now);
            } else {
                self.refused += 1;
            }
        }
    }

    fn add(&mut self, key: Key, intervals: Intervals, now: Duration) {
        let local = loop {
            let number = self.random.number();
            if number != 0 && !self.entries.contains_key(&number) {
                break number;
            }
        };
        let session = Session::new(local, intervals, &mut self.random);
        self.keys.insert(key.clone(), local);
        let counts = Counts::default();
        let entry = Entry { key, session, interface: None, since: now, wakes: None, counts };
        self.entries.insert(local, entry);
        self.with(local, now, |_| None);
    }

    /// A datagram has come.
    pub fn handle_packet(&mut self, bytes: &[u8], arrival: &Arrival<'_>, now: Duration) {
        let count = &mut self.discarded;
        if arrival.hops != HOPS {
            return count.far += 1;
        }
        let packet = match Packet::decode(bytes) {
            Ok(packet) => packet,
            Err(Malformed::Authenticated) => return count.authenticated += 1,
            Err(_) => return count.malformed += 1,
        };
        let Some(local) = self.receiver(&packet, arrival) else { return self.discarded.unknown += 1 };
        if let Some(entry) = self.entries.get_mut(&local) {
            entry.counts.received += 1;
            if entry.interface.as_ref() != arrival.interface {
                entry.interface = arrival.interface.cloned();
            }
        }
        self.with(local, now, |session| session.handle(&packet, now));
    }

    /// The session that a packet is for: the one that it names, or that its sender may belong to (RFC 5880 6.3).
    fn receiver(&self, packet: &Packet, arrival: &Arrival<'_>) -> Option<u32> {
        let by_interface = |key: &Key| key.interface.is_none() || key.interface.as_ref() == arrival.interface;
        if packet.yours != 0 {
            let entry = self.entries.get(&packet.yours)?;
            let same_family = entry.key.peer.is_ipv4() == arrival.from.is_ipv4();
            return (same_family && by_interface(&entry.key)).then_some(packet.yours);
        }
        let first = Key { peer: arrival.from, local: None, interface: None };
        let of_peer = self.keys.range((Bound::Included(first), Bound::Unbounded));
        let mut of_peer = of_peer.take_while(|(key, _)| key.peer == arrival.from);
        let for_it = |key: &Key| by_interface(key) && key.local.is_none_or(|local| local == arrival.to);
        of_peer.find(|(key, _)| for_it(key)).map(|(_, local)| *local)
    }

    /// An interface carries nothing any more: sessions by it fall at once.
    pub fn handle_link_down(&mut self, interface: &str, now: Duration) {
        let by_it = |entry: &&Entry| {
            entry.key.interface.as_ref().or(entry.interface.as_ref()).is_some_and(|name| **name == *interface)
        };
        let locals: Vec<u32> = self.entries.values().filter(by_it).map(|entry| entry.session.local).collect();
        for local in locals {
            self.with(local, now, Session::break_path);
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Duration) {
        while let Some((_, local)) = self.due.first().filter(|(at, _)| *at <= now).copied() {
            self.with(local, now, |session| session.timeout(now));
        }
    }

    /// When [`Sessions::handle_timeout`] is to be called; never, where there are no sessions.
    pub fn wakes(&self) -> Option<Duration> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The next packet to be sent.
    pub fn poll_transmit(&mut self) -> Option<Outgoing> {
        self.packets.pop_front()
    }

    /// What has become of a session.
    pub fn poll(&mut self) -> Option<(Key, Change)> {
        self.changes.pop_front()
    }

    /// The session of this discriminator, if there is one.
    pub fn key(&self, discriminator: u32) -> Option<&Key> {
        self.entries.get(&discriminator).map(|entry| &entry.key)
    }

    /// How many there are, with those that end.
    #[expect(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// What they are.
    pub fn status(&self, now: Duration) -> Status {
        let sessions = self.entries.values().map(|entry| {
            let Entry { key, session, counts, .. } = entry;
            SessionStatus {
                peer: key.peer,
                local: key.local,
                interface: key.interface.clone().or(entry.interface.clone()),
                state: session.state,
                diagnostic: session.diagnostic,
                since: now.saturating_sub(entry.since),
                discriminator: session.local,
                remote_state: session.remote.state,
                remote_diagnostic: session.remote.diagnostic,
                remote_discriminator: session.remote.discriminator,
                wanted: session.wanted(),
                interval: session.interval(),
                detection: session.detection(),
                ups: counts.ups,
                downs: counts.downs,
                sent: counts.sent,
                received: counts.received,
            }
        });
        let (discarded, refused) = (self.discarded, self.refused);
        Status { sessions: sessions.collect(), discarded, refused, realtime: false }
    }

    /// Changes a session, and takes note of what comes of that.
    fn with(&mut self, local: u32, now: Duration, change: impl FnOnce(&mut Session) -> Option<Change>) {
        let Some(entry) = self.entries.get_mut(&local) else { return };
        let before = entry.session.state;
        // Shorter intervals may be over already.
        let change = change(&mut entry.session).or_else(|| entry.session.timeout(now));
        if entry.session.state != before {
            entry.since = now;
        }
        match change {
            Some(Change::Up) => entry.counts.ups += 1,
            Some(Change::Down(_)) => entry.counts.downs += 1,
            Some(Change::AdminDown) | None => {}
        }
        if let Some(change) = change {
            self.changes.push_back((entry.key.clone(), change));
        }
        while let Some(packet) = entry.session.transmit(now, &mut self.random) {
            entry.counts.sent += 1;
            self.packets.push_back(Outgoing { session: local, peer: entry.key.peer, packet });
        }
        if let Some(at) = entry.wakes.take() {
            self.due.remove(&(at, local));
        }
        if entry.session.ended() {
            let key = entry.key.clone();
            self.entries.remove(&local);
            self.keys.remove(&key);
            return;
        }
        entry.wakes = entry.session.wakes();
        if let Some(at) = entry.wakes {
            self.due.insert((at, local));
        }
    }
}
