//! The client's states and when it says what.

use std::collections::VecDeque;
use std::net::Ipv6Addr;
use std::time::Duration;

use super::lease::{Lease, Unusable};
use super::message::{Message, Options, kind, option, status};
use crate::dhcp::random::Random;

/// The timers of RFC 8415 §7.6: first wait, longest wait, how many messages; 0 is no limit.
#[derive(Clone, Copy, Debug)]
struct Timing(Duration, Duration, u32);

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const SOLICIT: Timing = Timing(s(1), s(3600), 0);
const REQUEST: Timing = Timing(s(1), s(30), 10);
const CONFIRM: Timing = Timing(s(1), s(4), 4);
const RENEW: Timing = Timing(s(10), s(600), 0);
const REBIND: Timing = Timing(s(10), s(600), 0);
const INFORM: Timing = Timing(s(1), s(3600), 0);
const RELEASE: Timing = Timing(s(1), s(1), 4);
const BEST: u8 = 255;

/// What a client is and asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Its DUID.
    pub duid: Vec<u8>,
    /// The number of its association.
    pub iaid: u32,
    /// The options that it asks for.
    pub requested: Vec<u16>,
    /// It takes an address in two messages, where the server does.
    pub rapid_commit: bool,
}

/// A message to [`super::SERVERS`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit(pub Vec<u8>);

/// What has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// There is a lease, a new one or an extended one.
    Bound(Lease),
    /// The address may not be used any longer; the client looks for another one.
    Lost(Ipv6Addr, Loss),
    /// What a server offered was passed over.
    PassedOver(Unusable),
    /// The answer to [`Client::inform`].
    Informed(Options),
    /// The server knows that the lease is given back, or does not answer.
    Released,
}

/// Why an address may not be used any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// A server said so.
    Refused,
    /// Nobody extended the lease.
    Expired,
    /// Another host has it.
    Taken,
    /// The server gave another one instead.
    Changed,
}

#[derive(Clone, Debug)]
enum State {
    Idle,
    /// With the best ADVERTISE so far and how much it wants to be chosen.
    Soliciting(Option<(u8, Lease)>),
    Requesting(Lease),
    Confirming(Lease),
    Bound(Lease),
    Renewing(Lease),
    Rebinding(Lease),
    Informing,
    Releasing,
}

/// An exchange: what was said, and when it is said again.
#[derive(Clone, Debug)]
struct Exchange {
    id: [u8; 3],
    began: Duration,
    sent: u32,
    last: Duration,
    wait: Duration,
    next: Duration,
}

/// A client for one address of one interface. [`crate::dhcp`] says in which order it is called.
#[derive(Debug)]
pub struct Client {
    config: Config,
    random: Random,
    state: State,
    exchange: Exchange,
    /// The lease that is being given back.
    released: Option<Lease>,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
}

impl Client {
    /// One that does nothing yet.
    pub fn new(config: Config, seed: u64) -> Client {
        let zero = Duration::ZERO;
        Client {
            config,
            random: Random::new(seed),
            state: State::Idle,
            exchange: Exchange { id: [0; 3], began: zero, sent: 0, last: zero, wait: zero, next: zero },
            released: None,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Looks for a lease (SOLICIT).
    pub fn start(&mut self, now: Duration) {
        self.enter(State::Soliciting(None), now);
    }

    /// Asks for settings alone (INFORMATION-REQUEST).
    pub fn inform(&mut self, now: Duration) {
        self.enter(State::Informing, now);
    }

    /// Goes on with a lease from before a restart (CONFIRM).
    pub fn resume(&mut self, lease: Lease, now: Duration) {
        self.transmits.clear();
        match lease.expiry {
            Some(expiry) if expiry <= now => self.lose(lease.address, Loss::Expired, now),
            _ => self.enter(State::Confirming(lease), now),
        }
    }

    /// Takes in a message, whoever sent it.
    pub fn handle_message(&mut self, bytes: &[u8], now: Duration) {
        let Ok(message) = Message::decode(bytes) else { return };
        let for_us = message.options.get(option::CLIENT_ID) == Some(&self.config.duid[..]);
        if message.id != self.exchange.id || !for_us || message.options.get(option::SERVER_ID).is_none() {
            return;
        }
        match message.kind {
            kind::ADVERTISE => self.take_advertise(message.options, now),
            kind::REPLY => self.take_reply(message.options, now),
            _ => {}
        }
    }

    fn take_advertise(&mut self, options: Options, now: Duration) {
        let State::Soliciting(best) = &mut self.state else { return };
        let preference =
            options.get(option::PREFERENCE).and_then(|value| value.first()).copied().unwrap_or(0);
        let lease = match Lease::new(options, self.config.iaid, now) {
            Ok(lease) => lease,
            Err(fault) => return self.events.push_back(Event::PassedOver(fault)),
        };
        if best.as_ref().is_none_or(|(other, _)| preference > *other) {
            *best = Some((preference, lease.clone()));
        }
        // The first wait is for all servers to be heard, unless one wants to be chosen at once.
        if preference == BEST || self.exchange.sent > 1 {
            self.enter(State::Requesting(lease), now);
        }
    }

    fn take_reply(&mut self, options: Options, now: Duration) {
        let rapid = options.get(option::RAPID_COMMIT).is_some();
        match &self.state {
            State::Soliciting(_) if self.config.rapid_commit && rapid => self.take_lease(options, None, now),
            State::Requesting(offered) if options.get(option::SERVER_ID) == Some(&offered.server) => {
                self.take_lease(options, None, now);
            }
            State::Renewing(lease) | State::Rebinding(lease) => {
                let old = lease.clone();
                self.take_lease(options, Some(&old), now);
            }
            State::Confirming(lease) => {
                let lease = lease.clone();
                match options.status() {
                    status::NOT_ON_LINK => self.lose(lease.address, Loss::Refused, now),
                    _ => self.bind(lease),
                }
            }
            State::Informing => {
                self.state = State::Idle;
                self.events.push_back(Event::Informed(options));
            }
            State::Releasing => self.end_release(),
            _ => {}
        }
    }

    fn take_lease(&mut self, options: Options, old: Option<&Lease>, now: Duration) {
        match (Lease::new(options, self.config.iaid, self.exchange.last), old) {
            (Ok(lease), old) => {
                if let Some(old) = old.filter(|old| old.address != lease.address) {
                    self.events.push_back(Event::Lost(old.address, Loss::Changed));
                }
                self.bind(lease);
            }
            // RFC 8415 §18.2.10.1: the server forgot it, but may give it again.
            (Err(Unusable::Status(status::NO_BINDING)), Some(old)) => {
                self.enter(State::Requesting(old.clone()), now);
            }
            (Err(Unusable::Status(status::NOT_ON_LINK) | Unusable::Short(0)), Some(old)) => {
                self.lose(old.address, Loss::Refused, now);
            }
            // Another server may answer yet, and if not it is asked again.
            (Err(fault), _) => self.events.push_back(Event::PassedOver(fault)),
        }
    }

    /// Somebody else has the address: the kernel's duplicate address detection says so.
    pub fn handle_conflict(&mut self, now: Duration) {
        let Some(lease) = self.lease().cloned() else { return };
        self.exchange = self.begin(now);
        let message = self.message(kind::DECLINE, Some(&lease), true, now);
        self.transmits.push_back(Transmit(message));
        self.lose(lease.address, Loss::Taken, now);
    }

    /// The time of [`Client::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Duration) {
        if self.poll_timeout().is_none_or(|at| at > now) {
            return;
        }
        let exhausted = |timing: Timing| timing.2 != 0 && self.exchange.sent >= timing.2;
        match self.state.clone() {
            State::Soliciting(Some((_, best))) => self.enter(State::Requesting(best), now),
            State::Requesting(_) if exhausted(REQUEST) => self.start(now),
            // RFC 8415 §18.2.3: without an answer it goes on as it was.
            State::Confirming(lease) if exhausted(CONFIRM) => self.bind(lease),
            State::Releasing if exhausted(RELEASE) => self.end_release(),
            State::Bound(lease) => self.enter(State::Renewing(lease), now),
            State::Renewing(lease) | State::Rebinding(lease) if past(lease.expiry, now) => {
                self.lose(lease.address, Loss::Expired, now);
            }
            State::Renewing(lease) if past(lease.rebinding, now) => {
                self.enter(State::Rebinding(lease), now);
            }
            State::Idle => {}
            _ => self.send(now),
        }
    }

    /// When [`Client::handle_timeout`] is to be called.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let next = self.exchange.next;
        match &self.state {
            State::Idle => None,
            State::Bound(lease) => lease.renewal,
            State::Renewing(lease) => Some(lease.rebinding.map_or(next, |at| at.min(next))),
            State::Rebinding(lease) => Some(lease.expiry.map_or(next, |at| at.min(next))),
            _ => Some(next),
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

    /// Gives the lease back; [`Event::Released`] tells the end.
    pub fn release(&mut self, now: Duration) {
        self.released = self.lease().cloned();
        match self.released {
            Some(_) => self.enter(State::Releasing, now),
            None => self.end_release(),
        }
    }

    /// The lease that it has.
    pub fn lease(&self) -> Option<&Lease> {
        match &self.state {
            State::Bound(lease)
            | State::Renewing(lease)
            | State::Rebinding(lease)
            | State::Confirming(lease) => Some(lease),
            _ => None,
        }
    }

    /// Whether answers are waited for, so that sockets must be open.
    pub fn listens(&self) -> bool {
        !matches!(self.state, State::Idle | State::Bound(_))
    }

    fn end_release(&mut self) {
        self.state = State::Idle;
        self.events.push_back(Event::Released);
    }

    fn bind(&mut self, lease: Lease) {
        self.events.push_back(Event::Bound(lease.clone()));
        self.state = State::Bound(lease);
    }

    fn lose(&mut self, address: Ipv6Addr, why: Loss, now: Duration) {
        self.events.push_back(Event::Lost(address, why));
        self.start(now);
    }

    fn begin(&mut self, now: Duration) -> Exchange {
        let [a, b, c, ..] = self.random.next().to_be_bytes();
        let wait = Duration::ZERO;
        Exchange { id: [a, b, c], began: now, sent: 0, last: now, wait, next: now }
    }

    fn enter(&mut self, state: State, now: Duration) {
        self.state = state;
        self.exchange = self.begin(now);
        self.send(now);
    }

    /// The message of the present state, and when it is sent again (RFC 8415 §15).
    fn send(&mut self, now: Duration) {
        let (timing, message) = match &self.state {
            State::Soliciting(_) => (SOLICIT, self.message(kind::SOLICIT, None, false, now)),
            State::Requesting(lease) => (REQUEST, self.message(kind::REQUEST, Some(lease), true, now)),
            State::Confirming(lease) => (CONFIRM, self.message(kind::CONFIRM, Some(lease), false, now)),
            State::Renewing(lease) => (RENEW, self.message(kind::RENEW, Some(lease), true, now)),
            State::Rebinding(lease) => (REBIND, self.message(kind::REBIND, Some(lease), false, now)),
            State::Informing => (INFORM, self.message(kind::INFORMATION_REQUEST, None, false, now)),
            State::Releasing => (RELEASE, self.message(kind::RELEASE, self.released.as_ref(), true, now)),
            State::Idle | State::Bound(_) => return,
        };
        self.transmits.push_back(Transmit(message));
        let exchange = &mut self.exchange;
        let middle = if exchange.sent == 0 { timing.0 } else { (exchange.wait * 2).min(timing.1) };
        exchange.wait = middle;
        exchange.sent += 1;
        exchange.last = now;
        let spread = middle / 10;
        // The first SOLICIT waits no less than a whole second for all servers.
        let middle = if exchange.sent == 1 { middle + spread } else { middle };
        exchange.next = now + self.random.around(middle, spread);
    }

    fn message(&self, kind: u8, lease: Option<&Lease>, to_server: bool, now: Duration) -> Vec<u8> {
        let mut options = Options::default();
        options.push(option::CLIENT_ID, &self.config.duid[..]);
        if let Some(lease) = lease.filter(|_| to_server) {
            options.push(option::SERVER_ID, &lease.server[..]);
        }
        if kind != kind::INFORMATION_REQUEST {
            let mut association = self.config.iaid.to_be_bytes().to_vec();
            association.extend([0; 8]);
            if let Some(lease) = lease {
                let mut inner = Options::default();
                inner.push(option::IA_ADDRESS, [&lease.address.octets()[..], &[0; 8]].concat());
                inner.encode(&mut association);
            }
            options.push(option::IA_NA, association);
        }
        let hundredths = now.saturating_sub(self.exchange.began).as_millis() / 10;
        options.push(option::ELAPSED, u16::try_from(hundredths).unwrap_or(u16::MAX).to_be_bytes());
        let asks = !matches!(kind, kind::CONFIRM | kind::RELEASE | kind::DECLINE);
        if asks {
            let mut codes = self.config.requested.clone();
            codes.extend([option::SOLICIT_MAX_RT].iter().filter(|_| kind == kind::SOLICIT));
            options.push(option::ASKED_FOR, codes.iter().flat_map(|c| c.to_be_bytes()).collect::<Vec<u8>>());
        }
        if kind == kind::SOLICIT && self.config.rapid_commit {
            options.push(option::RAPID_COMMIT, []);
        }
        Message { kind, id: self.exchange.id, options }.encode()
    }
}

fn past(time: Option<Duration>, now: Duration) -> bool {
    time.is_some_and(|time| time <= now)
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
