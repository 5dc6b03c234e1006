//! The thread: waits for sockets and timers, and moves what came.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};

use super::changes::{Changes, Queue};
use super::closing::Closing;
use super::hold::Hold;
use super::listeners::Listeners;
use super::orders::{Order, Orders};
use super::peer::{Peer, session};
use super::settings::{Remote, Settings};
use super::token::Token;
use super::watch::Watch;
use super::{End, Error};
use crate::message::{Notification, Reason};
use crate::rib::{self, Rib};

/// Read at once, in bytes.
const BUFFER: usize = 64 << 10;
/// Events taken at once.
const EVENTS: usize = 256;
/// Prefixes decided about before sockets have their turn again.
const FLUSH: usize = 16 << 10;

pub(super) struct Worker {
    pub(super) poll: OwnedFd,
    orders: Arc<Orders>,
    start: Instant,
    pub(super) seed: u64,
    pub(super) settings: Settings,
    pub(super) rib: Rib,
    pub(super) peers: BTreeMap<u32, Peer>,
    /// The number of the newest peer.
    pub(super) next: u32,
    pub(super) timers: BTreeSet<(Duration, u32)>,
    pub(super) listeners: Listeners,
    pub(super) closing: Closing,
    pub(super) watch: Watch,
    pub(super) strangers: u64,
    /// While routes are held back after a restart.
    pub(super) hold: Option<Hold>,
    changes: Option<Arc<Queue>>,
    /// There may be something to tell peers.
    pub(super) hungry: bool,
    pub(super) buffer: Box<[u8]>,
    end: Option<End>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.orders.end();
        if let Some(changes) = &self.changes {
            changes.end();
        }
    }
}

pub(super) fn rib(settings: &Settings) -> Rib {
    Rib::new(rib::Config {
        asn: settings.local_as,
        confederation: None,
        id: settings.id,
        cluster: settings.cluster_id,
        addresses: settings.addresses.clone(),
    })
}

impl Worker {
    pub(super) fn new(orders: Arc<Orders>, settings: Settings) -> Result<Worker, Error> {
        let failed = |error| Error::new("watch sockets", error);
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed)?;
        let waker = EventData::new_u64(Token::Waker.write());
        epoll::add(&poll, &orders.wake, waker, EventFlags::IN).map_err(failed)?;
        let mut worker = Worker {
            poll,
            orders,
            start: Instant::now(),
            seed: RandomState::new().hash_one(0),
            rib: rib(&settings),
            settings: Settings {
                neighbours: BTreeMap::new(),
                originated: BTreeMap::new(),
                ..settings.clone()
            },
            peers: BTreeMap::new(),
            next: 0,
            timers: BTreeSet::new(),
            listeners: Listeners::default(),
            closing: Closing::default(),
            watch: Watch::default(),
            strangers: 0,
            hold: None,
            changes: None,
            hungry: false,
            buffer: vec![0; BUFFER].into(),
            end: None,
        };
        if let Some(limit) = settings.restarted {
            worker.hold = Some(Hold::new(std::iter::empty(), false, limit));
            worker.rib.hold_back(true);
        }
        worker.set(settings, Duration::ZERO)?;
        if let Some(limit) = worker.settings.restarted {
            let numbers =
                worker.peers.iter().filter(|(_, peer)| !peer.is_dynamic()).map(|(number, _)| *number);
            let mut neighbours = worker.settings.neighbours.values();
            let networks = neighbours.any(|neighbour| matches!(neighbour.remote, Remote::Prefix { .. }));
            worker.hold = Some(Hold::new(numbers, networks, limit));
        }
        Ok(worker)
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Until it is told to end.
    pub(super) fn run(mut self) {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(EVENTS);
        let mut more = false;
        while self.end.is_none() {
            self.wait(&mut events, more);
            more = self.turn(&events);
        }
        if let Some(End::Cease(text)) = self.end.take() {
            let now = self.now();
            let why = Notification::with_text(Reason::SHUTDOWN, &text);
            let numbers: Vec<u32> = self.peers.keys().copied().collect();
            numbers.into_iter().for_each(|number| self.remove(number, &why, now));
            while self.closing.wakes().is_some() {
                self.wait(&mut events, false);
                self.turn(&events);
            }
        }
    }

    fn wait(&self, events: &mut Vec<epoll::Event>, more: bool) {
        events.clear();
        let wakes = [self.timers.first().map(|(at, _)| *at), self.closing.wakes()];
        let hold = self.hold.as_ref().map(Hold::wakes);
        let due = wakes.into_iter().chain([hold]).flatten().min();
        // Rounded up: the kernel's milliseconds would otherwise be waited for in circles.
        let wait = due.map(|due| due.saturating_sub(self.now()) + Duration::from_millis(1));
        let timeout = if more {
            Some(Timespec::default())
        } else {
            wait.and_then(|wait| Timespec::try_from(wait).ok())
        };
        // Interrupted: nothing has come.
        let _ = epoll::wait(&self.poll, spare_capacity(events), timeout.as_ref());
    }

    /// Does what is to be done. Says whether there is more at once.
    fn turn(&mut self, events: &[epoll::Event]) -> bool {
        let now = self.now();
        for event in events {
            match Token::read(event.data.u64()) {
                Token::Waker => {
                    let orders = self.orders.take();
                    orders.into_iter().for_each(|order| self.obey(order, now));
                }
                Token::Listener(number) => self.accept(number, now),
                Token::Link(number, side) => self.link(number, side, event.flags, now),
                Token::Closing(number) => self.closing.event(number),
                Token::Watch => self.watched(now),
            }
        }
        let due: Vec<u32> = self.timers.range(..=(now, u32::MAX)).map(|(_, number)| *number).collect();
        due.into_iter().for_each(|number| self.due(number, now));
        self.closing.expire(now);
        self.watch(now);
        if self.hold.as_ref().is_some_and(|hold| hold.wakes() <= now) {
            self.release();
        }
        let flushed = self.rib.flush(FLUSH);
        self.hungry |= !flushed.changed.is_empty();
        self.tell_changes(flushed.changed);
        self.settle(flushed.more);
        if std::mem::take(&mut self.hungry) {
            let numbers: Vec<u32> =
                self.peers.iter().filter(|(_, peer)| peer.up.is_some()).map(|(n, _)| *n).collect();
            numbers.into_iter().for_each(|number| self.transmit(number, now));
        }
        flushed.more || self.hungry
    }

    /// Neighbours have told their routes after a restart, or have had their time.
    fn release(&mut self) {
        self.hold = None;
        self.rib.hold_back(false);
        for peer in self.peers.values_mut() {
            let config = session(&self.settings, &peer.neighbour, false, true);
            peer.session.set_capabilities(config.capabilities);
        }
        // All of it: what peers are told must not end before.
        let flushed = self.rib.flush(usize::MAX);
        self.tell_changes(flushed.changed);
        self.hungry = true;
    }

    pub(super) fn tell_changes(&self, prefixes: Vec<IpNet>) {
        if let Some(changes) = self.changes.as_ref().filter(|_| !prefixes.is_empty()) {
            let next_hops = |prefix: &IpNet| {
                let mut next_hops = self.rib.next_hops(prefix);
                next_hops.truncate(self.settings.multipath.max(1));
                next_hops
            };
            changes.put(prefixes.into_iter().map(|prefix| (prefix, next_hops(&prefix))), false);
        }
    }

    /// Says whether the consumer is told all that is known.
    fn settle(&self, more: bool) {
        if let Some(changes) = &self.changes {
            changes.put(std::iter::empty(), !more && self.hold.is_none());
        }
    }

    fn obey(&mut self, order: Order, now: Duration) {
        // Who has asked may have gone.
        match order {
            Order::Set(settings, reply) => drop(reply.send(self.set(*settings, now))),
            Order::Changes(reply) => {
                let changes = Changes::default();
                if let Some(before) = self.changes.replace(changes.0.clone()) {
                    before.end();
                }
                if self.hold.is_none() {
                    self.tell_changes(self.rib.routes().map(|(prefix, _)| *prefix).collect());
                }
                drop(reply.send(changes));
            }
            Order::Status(reply) => drop(reply.send(self.status(now))),
            Order::Routes(filter, reply) => drop(reply.send(self.routes(&filter))),
            Order::Explain(prefix, reply) => drop(reply.send(self.explain(&prefix))),
            Order::Reset(name, text, reply) => {
                let why = Notification::with_text(Reason::ADMINISTRATIVE_RESET, &text);
                let _ = reply.send(self.reset(&why, now, |peer| *peer.name == *name));
            }
            Order::End(end) => self.end = Some(end),
        }
    }

    /// Ends these sessions for now; those that had ended for good begin again, too.
    fn reset(&mut self, why: &Notification, now: Duration, which: impl Fn(&Peer) -> bool) -> bool {
        let numbers = self.peers.iter().filter(|(_, peer)| which(peer)).map(|(number, _)| *number);
        let numbers: Vec<u32> = numbers.collect();
        for number in &numbers {
            if let Some(peer) = self.peers.get_mut(number) {
                peer.session.reset(why, now);
                peer.too_many = None;
                if self.watch.allows(peer) {
                    peer.session.start(now);
                }
            }
            self.pump(*number, now);
        }
        !numbers.is_empty()
    }
}
