//! A session with one peer: RFC 4271's state machine, over at most two connections at a time.
//!
//! Who holds a [`Session`] calls, with the time since any fixed moment:
//!
//! 1. [`Session::start`], and the `handle_*` for what happens: connections that come, end or fail, bytes, and
//!    [`Session::handle_timeout`] at [`Session::wakes`];
//! 2. after each of these [`Session::poll`] until there is nothing more, and does what the events say;
//! 3. [`Session::poll_transmit`] whenever a connection takes more bytes.
//!
//! [`Session::handle_bytes`] takes what there is room for; the rest stays in the socket, which holds the peer back.
//! Routes are sent by [`Session::send`] while [`Session::room`] says that there is some. So a peer that never reads,
//! or that sends without end, costs a bounded amount of memory, and falls when its time is over.

mod collision;
mod config;
mod connection;
mod machine;
mod restart;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

pub use config::{Config, Event, Fall, PeerAs, Side, State};
pub use connection::{INPUT, OUTPUT};

use crate::Family;
use crate::message::{self, Capabilities, Kind, Message, Negotiated, Notification, Reason, RefreshKind};
use crate::random::Random;
use connection::{Connection, Expired, Phase};
use restart::{Helper, Stale};

/// How long a dialled connection may take.
const CONNECT: Duration = Duration::from_secs(30);
/// Two connections that were dialled at once are there within this time.
const SETTLED: Duration = Duration::from_secs(3);

/// Connections by who dialled.
#[derive(Debug, Default)]
struct Connections {
    dialled: Option<Connection>,
    accepted: Option<Connection>,
}

impl Connections {
    fn get(&self, side: Side) -> Option<&Connection> {
        match side {
            Side::Dialled => self.dialled.as_ref(),
            Side::Accepted => self.accepted.as_ref(),
        }
    }

    fn slot(&mut self, side: Side) -> &mut Option<Connection> {
        match side {
            Side::Dialled => &mut self.dialled,
            Side::Accepted => &mut self.accepted,
        }
    }

    fn both(&self) -> impl Iterator<Item = &Connection> {
        [&self.dialled, &self.accepted].into_iter().flatten()
    }
}

/// A session.
#[derive(Debug)]
pub struct Session {
    config: Config,
    random: Random,
    running: bool,
    connections: Connections,
    events: VecDeque<Event<'static>>,
    /// What the last UPDATE was refused for.
    fatal: Option<(Side, Notification)>,
    /// When to dial, or to give up dialling.
    dial_at: Option<Duration>,
    dialling: bool,
    /// Until then no connection is taken.
    rests_until: Duration,
    failures: u32,
    /// The connection by which routes go, and since when.
    established: Option<(Side, Duration)>,
    helper: Helper,
}

impl Session {
    /// A session that is not started. `seed`: anything that other sessions and speakers do not have.
    pub fn new(config: Config, seed: u64) -> Session {
        Session {
            config,
            random: Random::new(seed),
            running: false,
            connections: Connections::default(),
            events: VecDeque::new(),
            fatal: None,
            dial_at: None,
            dialling: false,
            rests_until: Duration::ZERO,
            failures: 0,
            established: None,
            helper: Helper::default(),
        }
    }

    /// Where it stands; of two connections the one that is further.
    pub fn state(&self) -> State {
        let phase = |connection: &Connection| match connection.phase {
            Phase::Waits => State::Connect,
            Phase::OpenSent => State::OpenSent,
            Phase::OpenConfirm => State::OpenConfirm,
            Phase::Established => State::Established,
        };
        let without = match (self.running, self.dialling) {
            (false, _) => State::Idle,
            (true, true) => State::Connect,
            (true, false) => State::Active,
        };
        self.connections.both().map(phase).max().unwrap_or(without)
    }

    /// The terms while routes go.
    pub fn terms(&self) -> Option<&Negotiated> {
        let (side, _) = self.established?;
        self.connections.get(side)?.terms.as_ref()
    }

    /// When [`Session::handle_timeout`] is to be called; never, where nothing is waited for.
    pub fn wakes(&self) -> Option<Duration> {
        let connections = self.connections.both().filter_map(Connection::wakes);
        connections.chain(self.dial_at).chain(self.helper.wakes()).min()
    }

    /// How many bytes [`Session::send`] may take now; 0 while no routes go.
    pub fn room(&self) -> usize {
        let connection = self.established.and_then(|(side, _)| self.connections.get(side));
        connection.map_or(0, Connection::room)
    }

    /// What to offer from the next OPEN on.
    pub fn set_capabilities(&mut self, capabilities: Capabilities) {
        self.config.capabilities = capabilities;
    }

    /// Begins: dials, and takes connections.
    pub fn start(&mut self, now: Duration) {
        if !self.running {
            self.running = true;
            self.failures = 0;
            self.rests_until = now;
            self.dial_at = (!self.config.passive).then_some(now);
            self.handle_timeout(now);
        }
    }

    /// Ends it until it is started again. `why` is told to the peer, as a hard reset where it must not keep the
    /// routes; text for people: [`Notification::with_text`].
    pub fn stop(&mut self, why: &Notification, now: Duration) {
        self.running = false;
        self.dial_at = None;
        self.dialling = false;
        for side in [Side::Dialled, Side::Accepted] {
            self.end(side, why.clone(), now);
        }
        self.give_up();
    }

    /// Ends it for this time; it comes up again after a rest.
    pub fn reset(&mut self, why: &Notification, now: Duration) {
        for side in [Side::Dialled, Side::Accepted] {
            self.end(side, why.clone(), now);
        }
    }

    /// A connection is there. False where it is not wanted and to be closed.
    pub fn handle_connected(&mut self, side: Side, now: Duration) -> bool {
        if side == Side::Dialled {
            self.dialling = false;
            self.dial_at = None;
        }
        let rests = side == Side::Accepted && now < self.rests_until;
        // A second connection where the first has come so far would only be in its way.
        let late = side == Side::Dialled
            && self.connections.accepted.as_ref().is_some_and(|other| other.phase > Phase::OpenSent);
        if !self.running || rests || late || !self.makes_way(side, now) {
            return false;
        }
        let mut connection = Connection::new(self.config.send_hold, now);
        // One OPEN at a time: of two, a slow peer might let one connection stand while the other one is kept here.
        if self.connections.get(side.other()).is_none() {
            connection.open(&self.config.open(), now);
        }
        *self.connections.slot(side) = Some(connection);
        true
    }

    /// Whether a connection can be taken, if in the place of one of the same side: who dials again has lost that.
    fn makes_way(&mut self, side: Side, now: Duration) -> bool {
        let Some(connection) = self.connections.get(side) else { return true };
        if side == Side::Dialled || connection.phase == Phase::Established && !self.outlives_connection(now) {
            return false;
        }
        self.drop(side, Fall::Replaced, now);
        true
    }

    /// Whether the peer may have lost the connection by which routes go, and keeps them (RFC 4724 5). Of two that
    /// were dialled at once neither is lost.
    fn outlives_connection(&self, now: Duration) -> bool {
        self.terms().is_some_and(|terms| terms.graceful_restart.is_some())
            && self.established.is_some_and(|(_, since)| now >= since + SETTLED)
    }

    /// Nobody took the connection that was dialled.
    pub fn handle_unreachable(&mut self, now: Duration) {
        if self.dialling {
            self.dialling = false;
            self.dial_later(now);
        }
    }

    /// A connection has ended.
    pub fn handle_closed(&mut self, side: Side, now: Duration) {
        if let Some(connection) = self.connections.slot(side).take() {
            self.fallen(side, connection, Fall::Closed, now);
        }
    }

    /// Bytes have come. Says how many of them were taken; the rest is to be offered again after [`Session::poll`].
    pub fn handle_bytes(&mut self, side: Side, bytes: &[u8]) -> usize {
        match self.connections.slot(side) {
            Some(connection) => connection.receive(bytes),
            // What comes after the end is nobody's.
            None => bytes.len(),
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Duration) {
        for side in [Side::Dialled, Side::Accepted] {
            let Some(connection) = self.connections.slot(side) else { continue };
            match connection.timeout(&mut self.random, now) {
                Some(Expired::Hold) if connection.phase == Phase::Waits => self.waited(side, now),
                Some(Expired::Hold) => self.end(side, Reason::HOLD_TIMER.into(), now),
                Some(Expired::SendHold) => self.end(side, Reason::SEND_HOLD.into(), now),
                None => {}
            }
        }
        for stale in self.helper.timeout(now) {
            self.tell(stale);
        }
        if self.dial_at.is_some_and(|at| at <= now) {
            if self.dialling {
                // Whoever dials may still come; he is not waited for.
                self.dialling = false;
                self.dial_later(now);
            } else if self.connections.both().next().is_none() {
                self.dialling = true;
                self.dial_at = Some(now + CONNECT);
                self.events.push_back(Event::Dial);
            } else {
                self.dial_at = None;
            }
        }
    }

    /// What is to be sent next by this connection, whole messages.
    pub fn poll_transmit(&mut self, side: Side, now: Duration) -> Option<Arc<[u8]>> {
        self.connections.slot(side).as_mut()?.transmit(now)
    }

    /// Sends whole UPDATEs. False where there is no room, or no routes go.
    pub fn send(&mut self, bytes: Arc<[u8]>, now: Duration) -> bool {
        let Some((side, _)) = self.established.filter(|_| self.room() > 0) else { return false };
        if let Some(connection) = self.connections.slot(side) {
            connection.send(bytes, now);
        }
        true
    }

    /// Asks the peer for its routes of a family again. False where it cannot do that.
    pub fn refresh(&mut self, family: Family, now: Duration) -> bool {
        self.mark(family, RefreshKind::Request, now)
    }

    /// Marks beginning or end of routes that are sent again (RFC 7313), where both do that.
    pub fn mark(&mut self, family: Family, kind: RefreshKind, now: Duration) -> bool {
        let can = self.terms().is_some_and(|terms| match kind {
            RefreshKind::Request => terms.route_refresh && terms.families[family],
            _ => terms.enhanced_refresh && terms.families[family],
        });
        let mut bytes = Vec::new();
        message::refresh(&mut bytes, family, kind);
        can && self.send(bytes.into(), now)
    }

    /// What is to be done next, if anything.
    pub fn poll(&mut self, now: Duration) -> Option<Event<'_>> {
        if let Some((side, why)) = self.fatal.take() {
            self.end(side, why, now);
        }
        let mut update = None;
        while self.events.is_empty() && update.is_none() {
            update = self.read(now)?;
        }
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        let (side, body) = update?;
        let connection = self.connections.get(side)?;
        let frame = connection.frame(Kind::Update, body);
        match Message::decode(&frame, connection.terms.as_ref()) {
            Ok(Message::Update(update)) => {
                if let Some(family) = update.end_of_rib
                    && let Some(Stale::Gone(family)) = self.helper.end_of_rib(family)
                {
                    self.events.push_back(Event::Sweep(family));
                }
                Some(Event::Update(update))
            }
            Ok(_) => None,
            Err(why) => {
                self.fatal = Some((side, why.clone()));
                Some(Event::Fatal(why))
            }
        }
    }
}
