//! The client's states and when it says what.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::event::{Config, Event, Loss, Transmit};
use super::lease::Lease;
use super::message::{Message, kind, option};
use crate::dhcp::random::Random;

/// How often a REQUEST goes unanswered before the client begins anew.
const REQUESTS: u32 = 4;
/// Between messages of RENEWING and REBINDING at least (RFC 2131 §4.4.5).
const EXTENDING: Duration = Duration::from_secs(60);
const JITTER: Duration = Duration::from_secs(1);
/// Two questions whether the address is taken, and how long each waits: less than the seconds of
/// RFC 5227, because a pod waits. On a link that is up an answer takes well under a millisecond.
const PROBES: u32 = 2;
const PROBE_WAIT: Duration = Duration::from_millis(100);
/// After the second conflict or refusal in a row (RFC 2131 §3.1, point 5).
const AFTER_CONFLICT: Duration = Duration::from_secs(10);
const LARGEST_MESSAGE: u16 = 1500;

/// An exchange: what was said, and when it is said again.
#[derive(Clone, Debug)]
struct Exchange {
    xid: u32,
    began: Duration,
    sent: u32,
    /// When the message that may be answered now was sent.
    last: Duration,
    next: Duration,
}

#[derive(Clone, Debug)]
enum State {
    Idle,
    /// Nothing until this time.
    Waiting(Duration),
    Selecting(Exchange),
    Requesting(Exchange, Ipv4Addr, Ipv4Addr),
    /// INIT-REBOOT and REBOOTING.
    Rebooting(Exchange, Box<Lease>),
    Probing {
        lease: Box<Lease>,
        sent: u32,
        next: Duration,
    },
    Bound(Box<Lease>),
    /// RENEWING, and from T2 on REBINDING.
    Extending(Exchange, Box<Lease>),
}

/// A client for one interface. [`crate::dhcp`] says in which order it is called.
#[derive(Debug)]
pub struct Client {
    config: Config,
    random: Random,
    state: State,
    conflicts: u32,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
}

impl Client {
    /// One that does nothing yet.
    pub fn new(config: Config, seed: u64) -> Client {
        Client {
            config,
            random: Random::new(seed),
            state: State::Idle,
            conflicts: 0,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Looks for a lease (INIT).
    pub fn start(&mut self, now: Duration) {
        self.state = State::Selecting(self.begin(now));
        self.send_again(now);
    }

    /// Goes on with a lease from before a restart (INIT-REBOOT).
    pub fn resume(&mut self, lease: Lease, now: Duration) {
        self.transmits.clear();
        if lease.expiry.is_some_and(|expiry| expiry <= now) {
            self.lose(lease.address.addr(), Loss::Expired, now);
            return;
        }
        self.state = State::Rebooting(self.begin(now), Box::new(lease));
        self.send_again(now);
    }

    /// Takes in a message, whoever sent it.
    pub fn handle_message(&mut self, bytes: &[u8], now: Duration) {
        let Ok(message) = Message::decode(bytes) else { return };
        let expected = match &self.state {
            State::Selecting(exchange)
            | State::Requesting(exchange, ..)
            | State::Rebooting(exchange, _)
            | State::Extending(exchange, _) => exchange.clone(),
            _ => return,
        };
        // RFC 6842: a server that names a client names the one that it means.
        let other = message.options.get(option::CLIENT_ID);
        let for_us = other.is_none_or(|id| Some(id) == self.config.provided.get(option::CLIENT_ID));
        if message.reply && message.xid == expected.xid && message.mac == self.config.mac && for_us {
            match message.kind() {
                Some(kind::OFFER) => self.take_offer(message, now),
                Some(kind::ACK) => self.take_ack(message, expected.last, now),
                Some(kind::NAK) => self.take_nak(&message, now),
                _ => {}
            }
        }
    }

    fn take_offer(&mut self, message: Message, now: Duration) {
        let State::Selecting(exchange) = &self.state else { return };
        let mut exchange = exchange.clone();
        match Lease::new(message.yours, message.options, now) {
            Ok(lease) => {
                exchange.sent = 0;
                self.state = State::Requesting(exchange, lease.address.addr(), lease.server);
                self.send_again(now);
            }
            Err(fault) => self.events.push_back(Event::PassedOver(fault)),
        }
    }

    fn take_ack(&mut self, message: Message, asked: Duration, now: Duration) {
        let lease = match Lease::new(message.yours, message.options, asked) {
            Ok(lease) => lease,
            Err(fault) => return self.events.push_back(Event::PassedOver(fault)),
        };
        match &self.state {
            State::Requesting(_, _, server) if *server == lease.server => {
                self.state = State::Probing { lease: Box::new(lease), sent: 0, next: now };
                self.send_again(now);
            }
            State::Rebooting(_, old) | State::Extending(_, old) => {
                if old.address.addr() != lease.address.addr() {
                    self.events.push_back(Event::Lost(old.address.addr(), Loss::Changed));
                }
                self.bind(lease);
            }
            _ => {}
        }
    }

    fn take_nak(&mut self, message: &Message, now: Duration) {
        let from = message.options.address(option::SERVER_ID);
        match &self.state {
            State::Requesting(_, _, server) if from == Some(*server) => {
                self.start(now);
                self.pause_after_conflict(now);
            }
            State::Rebooting(_, lease) | State::Extending(_, lease) => {
                self.lose(lease.address.addr(), Loss::Refused, now);
            }
            _ => {}
        }
    }

    /// Somebody else answers for the address that is being probed.
    pub fn handle_conflict(&mut self, now: Duration) {
        let State::Probing { lease, .. } = &self.state else { return };
        let lease = lease.clone();
        let mut message = self.message(kind::DECLINE, None, now);
        message.options.set(option::REQUESTED_ADDRESS, lease.address.addr().octets());
        message.options.set(option::SERVER_ID, lease.server.octets());
        self.broadcast(&message);
        self.lose(lease.address.addr(), Loss::Taken, now);
        self.pause_after_conflict(now);
    }

    /// From the second time in a row on the new beginning has to wait, lest it go round and round.
    fn pause_after_conflict(&mut self, now: Duration) {
        self.conflicts += 1;
        if self.conflicts > 1 {
            self.transmits.pop_back();
            self.state = State::Waiting(now + AFTER_CONFLICT);
        }
    }

    /// The time of [`Client::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Duration) {
        if self.poll_timeout().is_none_or(|at| at > now) {
            return;
        }
        match &self.state {
            State::Idle => {}
            State::Waiting(_) => self.start(now),
            State::Selecting(_) => self.send_again(now),
            State::Requesting(exchange, ..) if exchange.sent >= REQUESTS => self.start(now),
            State::Requesting(..) => self.send_again(now),
            State::Rebooting(exchange, lease) if exchange.sent >= REQUESTS => {
                // RFC 2131 §3.2: no server is there, so the lease is used as long as it lasts.
                let lease = lease.clone();
                self.bind(*lease);
            }
            State::Rebooting(..) => self.send_again(now),
            State::Probing { lease, sent, .. } if *sent >= PROBES => {
                let lease = lease.clone();
                self.bind(*lease);
            }
            State::Probing { .. } => self.send_again(now),
            State::Bound(lease) => {
                let lease = lease.clone();
                self.state = State::Extending(self.begin(now), lease);
                self.extend(now);
            }
            State::Extending(..) => self.extend(now),
        }
    }

    /// When [`Client::handle_timeout`] is to be called.
    pub fn poll_timeout(&self) -> Option<Duration> {
        match &self.state {
            State::Idle => None,
            State::Waiting(until) => Some(*until),
            State::Selecting(exchange)
            | State::Requesting(exchange, ..)
            | State::Rebooting(exchange, _)
            | State::Extending(exchange, _) => Some(exchange.next),
            State::Probing { next, .. } => Some(*next),
            State::Bound(lease) => lease.renewal,
        }
    }

    /// What is to be sent.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// What has happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Gives the lease back, if there is one, and ends.
    pub fn release(&mut self, now: Duration) {
        if let Some(lease) = self.lease().cloned() {
            let mut message = self.message(kind::RELEASE, None, now);
            message.client = lease.address.addr();
            message.options.set(option::SERVER_ID, lease.server.octets());
            let message = message.encode();
            self.transmits.push_back(Transmit::Unicast {
                from: lease.address.addr(),
                to: lease.server,
                message,
            });
        }
        self.state = State::Idle;
    }

    /// The lease that it has.
    pub fn lease(&self) -> Option<&Lease> {
        match &self.state {
            State::Bound(lease)
            | State::Extending(_, lease)
            | State::Rebooting(_, lease)
            | State::Probing { lease, .. } => Some(lease),
            _ => None,
        }
    }

    /// Whether the lease may be used: it is there, and nobody else was found to have its address.
    pub fn is_bound(&self) -> bool {
        matches!(self.state, State::Bound(_) | State::Extending(..) | State::Rebooting(..))
    }

    /// Whether answers are waited for, so that sockets must be open.
    pub fn listens(&self) -> bool {
        !matches!(self.state, State::Idle | State::Waiting(_) | State::Bound(_))
    }

    fn bind(&mut self, lease: Lease) {
        self.conflicts = 0;
        self.events.push_back(Event::Bound(lease.clone()));
        self.state = State::Bound(Box::new(lease));
    }

    fn lose(&mut self, address: Ipv4Addr, why: Loss, now: Duration) {
        self.events.push_back(Event::Lost(address, why));
        self.start(now);
    }

    fn begin(&mut self, now: Duration) -> Exchange {
        let xid = u32::try_from(self.random.next() >> 32).unwrap_or_default();
        Exchange { xid, began: now, sent: 0, last: now, next: now }
    }

    /// One more message of RENEWING or REBINDING, or the end of the lease.
    fn extend(&mut self, now: Duration) {
        let State::Extending(exchange, lease) = &self.state else { return };
        let (mut exchange, lease) = (exchange.clone(), lease.clone());
        let ends = |time: Option<Duration>| time.unwrap_or(Duration::MAX);
        let (rebinding, expiry) = (ends(lease.rebinding), ends(lease.expiry));
        if now >= expiry {
            return self.lose(lease.address.addr(), Loss::Expired, now);
        }
        let until = if now < rebinding { rebinding } else { expiry };
        let wait = ((until - now) / 2).max(EXTENDING);
        exchange.next = (now + wait).min(until);
        exchange.last = now;
        let mut message = self.message(kind::REQUEST, Some(&exchange), now);
        message.client = lease.address.addr();
        let (from, message) = (lease.address.addr(), message.encode());
        self.transmits.push_back(match now < rebinding {
            true => Transmit::Unicast { from, to: lease.server, message },
            false => Transmit::Broadcast { from, message },
        });
        self.state = State::Extending(exchange, lease);
    }

    /// The message of the present state once more.
    fn send_again(&mut self, now: Duration) {
        let mut state = std::mem::replace(&mut self.state, State::Idle);
        match &mut state {
            State::Selecting(exchange) => {
                self.advance(exchange, now);
                let message = self.message(kind::DISCOVER, Some(exchange), now);
                self.broadcast(&message);
            }
            State::Requesting(exchange, address, server) => {
                self.advance(exchange, now);
                let mut message = self.message(kind::REQUEST, Some(exchange), now);
                message.options.set(option::REQUESTED_ADDRESS, address.octets());
                message.options.set(option::SERVER_ID, server.octets());
                self.broadcast(&message);
            }
            State::Rebooting(exchange, lease) => {
                self.advance(exchange, now);
                let mut message = self.message(kind::REQUEST, Some(exchange), now);
                message.options.set(option::REQUESTED_ADDRESS, lease.address.addr().octets());
                self.broadcast(&message);
            }
            State::Probing { lease, sent, next } => {
                *sent += 1;
                *next = now + PROBE_WAIT;
                self.transmits.push_back(Transmit::Probe(lease.address.addr()));
            }
            _ => {}
        }
        self.state = state;
    }

    fn broadcast(&mut self, message: &Message) {
        self.transmits.push_back(Transmit::Broadcast { from: message.client, message: message.encode() });
    }

    /// Notes that a message goes out now, and when the next one would: RFC 2131 §4.1.
    fn advance(&mut self, exchange: &mut Exchange, now: Duration) {
        let doubled = self.config.first_wait.saturating_mul(1 << exchange.sent.min(16));
        let wait = doubled.min(self.config.longest_wait);
        exchange.sent += 1;
        exchange.last = now;
        exchange.next = now + self.random.around(wait, JITTER.min(wait / 4));
    }

    fn message(&mut self, kind: u8, exchange: Option<&Exchange>, now: Duration) -> Message {
        let xid = exchange.map_or_else(|| self.begin(now).xid, |exchange| exchange.xid);
        let mut message = Message::request(kind, xid, self.config.mac);
        let elapsed = exchange.map_or(0, |exchange| now.saturating_sub(exchange.began).as_secs());
        message.secs = u16::try_from(elapsed).unwrap_or(u16::MAX);
        let asks = matches!(kind, kind::DISCOVER | kind::REQUEST);
        message.broadcast = self.config.broadcast && asks;
        for (code, value) in self.config.provided.iter() {
            // RFC 2131 table 5: DECLINE and RELEASE carry nothing of it but the identifier.
            if asks || code == option::CLIENT_ID {
                message.options.set(code, value);
            }
        }
        if asks {
            message.options.set(option::LARGEST_MESSAGE, LARGEST_MESSAGE.to_be_bytes());
            if !self.config.requested.is_empty() {
                message.options.set(option::PARAMETERS, &self.config.requested[..]);
            }
        }
        message
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
