//! What moves between sockets, sessions and the RIB.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::epoll::{self, EventData, EventFlags};

use super::link::Link;
use super::listeners::Arrival;
use super::peer::{Peer, session};
use super::settings::{Neighbour, Remote};
use super::token::Token;
use super::worker::Worker;
use crate::message::{Negotiated, Notification, Reason};
use crate::rib::TooMany;
use crate::session::{Event, Fall, Side};

/// Connections taken from one listener before others have their turn.
const ACCEPTS: usize = 16;
/// Reads of one connection before others have their turn.
const READS: usize = 4;
/// Bytes written to one neighbour before others have their turn.
const WRITTEN: usize = 1 << 20;

impl Worker {
    /// Somebody dials.
    pub(super) fn accept(&mut self, listener: u32, now: Duration) {
        for _ in 0..ACCEPTS {
            let Some(arrival) = self.listeners.accept(listener) else { return };
            let Some(number) = self.whose(&arrival, now) else {
                // Who is nobody's neighbour is told nothing.
                self.strangers += 1;
                continue;
            };
            let Some(peer) = self.peers.get_mut(&number) else { continue };
            let Arrival { socket, local, remote } = arrival;
            let Ok(link) = Link::accept(socket, local, remote, &peer.neighbour) else { continue };
            if peer.session.handle_connected(Side::Accepted, now) {
                // One whose place it takes goes first.
                self.pump(number, now);
                self.place(number, link, now);
            }
            self.pump(number, now);
        }
    }

    /// Which neighbour somebody is, who may be a new one of a network.
    fn whose(&mut self, arrival: &Arrival, now: Duration) -> Option<u32> {
        let at = |neighbour: &Neighbour| neighbour.local_address.is_none_or(|local| local == arrival.local);
        let known = self.peers.iter().find(|(_, peer)| peer.address == arrival.remote && at(&peer.neighbour));
        if let Some((number, _)) = known {
            return Some(*number);
        }
        let mut networks = Vec::new();
        for (name, neighbour) in self.settings.neighbours.iter().filter(|(_, neighbour)| at(neighbour)) {
            if let Remote::Prefix { net, limit } = &neighbour.remote
                && net.contains(&arrival.remote)
            {
                networks.push((net.prefix_len(), name, *limit));
            }
        }
        let (_, name, limit) = networks.into_iter().max()?;
        let (name, neighbour) = (name.clone(), self.settings.neighbours.get(name)?.clone());
        self.room(&name, limit, now).then(|| self.one_of(name, arrival.remote, neighbour, now))
    }

    fn one_of(&mut self, of: Arc<str>, address: IpAddr, neighbour: Neighbour, now: Duration) -> u32 {
        let name = format!("{of}/{address}").into();
        self.add(name, of, address, neighbour, now)
    }

    /// Whether a network has room for one more, if by forgetting one.
    fn room(&mut self, name: &Arc<str>, limit: usize, now: Duration) -> bool {
        let of = |peer: &&Peer| peer.of == *name;
        if self.peers.values().filter(of).count() < limit {
            return true;
        }
        let idle = self.peers.iter().filter(|(_, peer)| of(peer) && peer.gives_way(now));
        let Some(oldest) = idle.min_by_key(|(_, peer)| peer.idle).map(|(number, _)| *number) else {
            return false;
        };
        self.remove(oldest, &Reason::RESOURCES.into(), now);
        true
    }

    /// Puts a connection that was taken into its place.
    fn place(&mut self, number: u32, link: Link, now: Duration) {
        let Some(peer) = self.peers.get_mut(&number) else { return };
        let token = EventData::new_u64(Token::Link(number, Side::Accepted).write());
        peer.idle = now;
        if epoll::add(&self.poll, &link, token, EventFlags::IN).is_ok() {
            *peer.links.slot(Side::Accepted) = Some(link);
        } else {
            peer.session.handle_closed(Side::Accepted, now);
        }
    }

    /// Something has happened to a connection.
    pub(super) fn link(&mut self, number: u32, side: Side, flags: EventFlags, now: Duration) {
        let Some(peer) = self.peers.get_mut(&number) else { return };
        let Some(link) = peer.links.slot(side) else { return };
        if link.connected {
            if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                self.read(number, side, now);
            }
            return self.transmit(number, now);
        }
        match link.finish() {
            Ok(false) => return,
            Ok(true) => {
                let token = EventData::new_u64(Token::Link(number, side).write());
                let watched = epoll::modify(&self.poll, &*link, token, EventFlags::IN).is_ok();
                if !watched || !peer.session.handle_connected(side, now) {
                    *peer.links.slot(side) = None;
                    peer.session.handle_unreachable(now);
                }
            }
            Err(error) => {
                *peer.links.slot(side) = None;
                peer.last_error = Some(format!("cannot connect: {error}"));
                peer.session.handle_unreachable(now);
            }
        }
        self.pump(number, now);
    }

    fn read(&mut self, number: u32, side: Side, now: Duration) {
        let mut buffer = std::mem::take(&mut self.buffer);
        for _ in 0..READS {
            let Some(peer) = self.peers.get_mut(&number) else { break };
            let Some(link) = peer.links.slot(side) else { break };
            match link.read(&mut buffer) {
                Ok(None) => break,
                Ok(Some(read)) if read > 0 => {
                    self.take(number, side, buffer.get(..read).unwrap_or_default(), now);
                    if read < buffer.len() {
                        break;
                    }
                }
                Ok(_) | Err(_) => {
                    *peer.links.slot(side) = None;
                    peer.session.handle_closed(side, now);
                    self.pump(number, now);
                    break;
                }
            }
        }
        self.buffer = buffer;
    }

    /// Gives a session what has come, as fast as it takes it.
    fn take(&mut self, number: u32, side: Side, mut bytes: &[u8], now: Duration) {
        while let Some(peer) = self.peers.get_mut(&number).filter(|_| !bytes.is_empty()) {
            let taken = peer.session.handle_bytes(side, bytes);
            bytes = bytes.get(taken..).unwrap_or_default();
            self.pump(number, now);
        }
    }

    /// A peer's timer has run out.
    pub(super) fn due(&mut self, number: u32, now: Duration) {
        let Some(peer) = self.peers.get_mut(&number) else { return };
        peer.session.handle_timeout(now);
        if peer.forgotten_at().is_some_and(|at| at <= now) {
            return self.remove(number, &Reason::DECONFIGURED.into(), now);
        }
        self.pump(number, now);
        self.transmit(number, now);
    }

    /// Does what a session says.
    pub(super) fn pump(&mut self, number: u32, now: Duration) {
        let Some(peer) = self.peers.get_mut(&number) else { return };
        loop {
            let mut then = Then::Nothing;
            match peer.session.poll(now) {
                None => break,
                Some(Event::Update(update)) => {
                    peer.updates += 1;
                    for malformed in &update.malformed {
                        *peer.malformed.entry(malformed.attribute).or_default() += 1;
                    }
                    if let (Some(family), Some(hold)) = (update.end_of_rib, &mut self.hold) {
                        hold.end_of_rib(number, family);
                    }
                    if let Err(too_many) = self.rib.handle_update(peer.rib, update) {
                        then = Then::Stop(too_many);
                    }
                }
                Some(Event::Dial) => then = Then::Dial,
                Some(Event::Close { side, last }) => {
                    if let Some(link) = peer.links.slot(side).take() {
                        self.closing.end(&self.poll, link, last, now);
                    }
                }
                Some(Event::Up { side, terms }) => then = Then::Up(side, terms),
                Some(Event::Down { fall, kept }) => {
                    peer.up = None;
                    peer.since = now;
                    peer.stale = kept;
                    self.rib.down(peer.rib, kept);
                    then = Then::Fell(fall, true);
                }
                Some(Event::Failed(fall)) => then = Then::Fell(fall, false),
                Some(Event::LongLived(family)) => self.rib.long_lived(peer.rib, family),
                Some(Event::Sweep(family)) => {
                    peer.stale[family] = false;
                    self.rib.sweep(peer.rib, family);
                }
                Some(Event::Refresh(family, kind)) => {
                    self.rib.handle_refresh(peer.rib, family, kind);
                    self.hungry = true;
                }
                // What comes next says it again.
                Some(Event::Fatal(_)) => {}
            }
            match then {
                Then::Nothing => {}
                Then::Stop(too_many) => {
                    peer.too_many = Some(too_many);
                    peer.session.stop(&exceeded(too_many), now);
                }
                Then::Fell(fall, was_up) => peer.fell(&fall, was_up),
                Then::Dial => peer.dial(&self.poll, number, now),
                Then::Up(side, terms) => {
                    (peer.up, peer.since) = (Some(side), now);
                    peer.established += 1;
                    if let Some(hold) = &mut self.hold {
                        hold.up(number, &terms);
                    }
                    // Should it fall, packets go on.
                    let offer = session(&self.settings, &peer.neighbour, self.hold.is_some(), true);
                    peer.session.set_capabilities(offer.capabilities);
                    self.rib.configure(peer.rib, peer.rib_peer(&self.settings, peer.terms()));
                    self.rib.up(peer.rib, &terms);
                    self.hungry = true;
                }
            }
        }
        if peer.up.is_some() {
            peer.idle = now;
        }
        self.write(number, now);
        self.schedule(number);
    }

    /// Sends a peer what there is for it.
    pub(super) fn transmit(&mut self, number: u32, now: Duration) {
        let mut written = 0;
        while let Some(peer) = self.peers.get_mut(&number) {
            let mut more = false;
            while peer.session.room() > 0
                && let Some(bytes) = self.rib.poll_transmit(peer.rib)
            {
                more |= peer.session.send(bytes, now);
            }
            written += self.write(number, now);
            if !more {
                break;
            }
            if written >= WRITTEN {
                self.hungry = true;
                break;
            }
        }
        self.schedule(number);
    }

    /// Writes what a session has, as far as that can be done at once. Says how many bytes.
    fn write(&mut self, number: u32, now: Duration) -> usize {
        let Some(peer) = self.peers.get_mut(&number) else { return 0 };
        let mut written = 0;
        for side in [Side::Dialled, Side::Accepted] {
            let Some(link) = peer.links.slot(side).as_mut().filter(|link| link.connected) else { continue };
            let before = link.blocked;
            // That it has ended is said by reading.
            written += link.write(|| peer.session.poll_transmit(side, now)).unwrap_or_default();
            if link.blocked != before {
                let flags = if link.blocked { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
                let token = EventData::new_u64(Token::Link(number, side).write());
                // It is there, and changing it takes nothing.
                let _ = epoll::modify(&self.poll, &*link, token, flags);
            }
        }
        written
    }

    /// Says when the peer is to be looked at again.
    fn schedule(&mut self, number: u32) {
        let Some(peer) = self.peers.get_mut(&number) else { return };
        let timer = [peer.session.wakes(), peer.forgotten_at()].into_iter().flatten().min();
        if timer != peer.timer {
            if let Some(old) = std::mem::replace(&mut peer.timer, timer) {
                self.timers.remove(&(old, number));
            }
            if let Some(new) = timer {
                self.timers.insert((new, number));
            }
        }
    }
}

/// What is to be done after an event.
enum Then {
    Nothing,
    Stop(TooMany),
    Fell(Fall, bool),
    Dial,
    Up(Side, Box<Negotiated>),
}

/// Says which family has too many, and how many would not be (RFC 4486).
fn exceeded(too_many: TooMany) -> Notification {
    let (afi, safi) = too_many.family.wire();
    let limit = u32::try_from(too_many.limit).unwrap_or(u32::MAX);
    let data = [&afi.to_be_bytes()[..], &[safi], &limit.to_be_bytes()].concat();
    Notification::new(Reason::MAX_PREFIXES, &data)
}
