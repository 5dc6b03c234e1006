//! What messages do to a session, and how its connections end.

use std::ops::Range;
use std::time::Duration;

use super::connection::{Connection, Phase};
use super::restart::Stale;
use super::{Event, Fall, Session, Side, collision};
use crate::Family;
use crate::message::{Frame, Kind, Message, Negotiated, Notification, Open, Reason, Relation, notification};

/// How long a session rests after its first failure; after each further one twice as long ...
const REST: Duration = Duration::from_secs(1);
/// ... up to here.
const LONGEST_REST: Duration = Duration::from_secs(60);
/// A session that stood for so long had no failure.
const STABLE: Duration = Duration::from_secs(30);
/// So many connections in a row may end before the peer is made to rest.
const PATIENCE: u32 = 5;

impl Session {
    /// Reads a message. `None`: there is no whole one; otherwise the place of an UPDATE, if it is one.
    pub(super) fn read(&mut self, now: Duration) -> Option<Option<(Side, Range<usize>)>> {
        for side in [Side::Dialled, Side::Accepted] {
            let Some(connection) = self.connections.slot(side) else { continue };
            let phase = connection.phase;
            match connection.next() {
                Ok(None) => continue,
                Ok(Some((Kind::Update, body))) if phase == Phase::Established => {
                    connection.heard(now);
                    return Some(Some((side, body)));
                }
                Ok(Some((kind, body))) => {
                    connection.heard(now);
                    let body = connection.frame(kind, body).body.to_vec();
                    let frame = Frame { kind, body: &body };
                    match Message::decode(&frame, connection.terms.as_ref()) {
                        Ok(message) => self.message(side, phase, message, now),
                        Err(why) => self.end(side, why, now),
                    }
                }
                Err(why) => self.end(side, why, now),
            }
            return Some(None);
        }
        None
    }

    fn message(&mut self, side: Side, phase: Phase, message: Message<'_>, now: Duration) {
        match (phase, message) {
            (_, Message::Notification(why)) => self.drop(side, Fall::Received(why), now),
            (Phase::Waits | Phase::OpenSent, Message::Open(open)) => self.opened(side, &open, now),
            (Phase::OpenConfirm, Message::Keepalive) => self.establish(side, now),
            (Phase::Established, Message::Keepalive) => {}
            (Phase::Established, Message::Refresh(refresh)) => {
                if let Some((family, kind)) = refresh {
                    self.events.push_back(Event::Refresh(family, kind));
                }
            }
            (Phase::Waits | Phase::OpenSent, _) => self.end(side, Reason::IN_OPEN_SENT.into(), now),
            (Phase::OpenConfirm, _) => self.end(side, Reason::IN_OPEN_CONFIRM.into(), now),
            (Phase::Established, _) => self.end(side, Reason::IN_ESTABLISHED.into(), now),
        }
    }

    /// The peer's OPEN has come.
    fn opened(&mut self, side: Side, open: &Open, now: Duration) {
        let ours = self.config.open();
        let Some(relation) = self.config.relation(open.asn) else {
            return self.end(side, Reason::PEER_AS.into(), now);
        };
        // Inside, no two have the same (RFC 6286).
        if open.id == ours.id && relation == Relation::Internal {
            return self.end(side, Reason::IDENTIFIER.into(), now);
        }
        let terms = Negotiated::new(&ours, open, relation);
        if !Family::ALL.into_iter().any(|family| terms.families[family]) {
            return self.end(side, Reason::CAPABILITY.into(), now);
        }
        match self.connections.get(side.other()).map(|other| other.phase) {
            None => {}
            Some(Phase::Waits) => self.end(side.other(), Reason::COLLISION.into(), now),
            // The peer may have heard both OPENs by now, and goes by the same rule.
            Some(Phase::OpenSent) if collision::keep(&ours, open) == side => {
                self.end(side.other(), Reason::COLLISION.into(), now);
            }
            Some(Phase::Established) if self.outlives_connection(now) => {
                self.drop(side.other(), Fall::Replaced, now);
            }
            // It has our OPEN on the other one alone, and stays with that.
            Some(Phase::OpenSent | Phase::OpenConfirm | Phase::Established) => {
                return self.end(side, Reason::COLLISION.into(), now);
            }
        }
        if let Some(connection) = self.connections.slot(side) {
            connection.confirm(terms, &mut self.random, now);
        }
    }

    /// A connection has waited long enough for the other one.
    pub(super) fn waited(&mut self, side: Side, now: Duration) {
        match self.connections.get(side.other()).map(|other| other.phase) {
            Some(Phase::OpenSent) => self.end(side.other(), Reason::COLLISION.into(), now),
            _ => self.end(side, Reason::COLLISION.into(), now),
        }
    }

    fn establish(&mut self, side: Side, now: Duration) {
        self.end(side.other(), Reason::COLLISION.into(), now);
        let Some(connection) = self.connections.slot(side) else { return };
        connection.phase = Phase::Established;
        let Some(terms) = connection.terms.clone() else { return };
        self.established = Some((side, now));
        self.dial_at = None;
        self.dialling = false;
        let stale = self.helper.back(&terms, self.config.stale_routes, now);
        self.events.push_back(Event::Up { side, terms: terms.into() });
        for stale in stale {
            self.tell(stale);
        }
    }

    /// Ends a connection without a word.
    pub(super) fn drop(&mut self, side: Side, fall: Fall, now: Duration) {
        let Some(connection) = self.connections.slot(side).take() else { return };
        self.events.push_back(Event::Close { side, last: Vec::new() });
        self.fallen(side, connection, fall, now);
    }

    /// Ends a connection and tells the peer why.
    pub(super) fn end(&mut self, side: Side, why: Notification, now: Duration) {
        let Some(connection) = self.connections.slot(side).take() else { return };
        let notifies = connection.terms.as_ref().is_some_and(|terms| self.both_notify(terms));
        // Where routes would outlive it, they are not to outlive these.
        let hard = [Reason::SHUTDOWN, Reason::DECONFIGURED, Reason::MAX_PREFIXES, Reason::BFD_DOWN];
        let hard = hard.contains(&why.reason);
        let why = if notifies && hard { why.hard() } else { why };
        let mut last = Vec::new();
        notification(&mut last, &why);
        self.events.push_back(Event::Close { side, last });
        self.fallen(side, connection, Fall::Sent(why), now);
    }

    /// Whether both keep routes over NOTIFICATIONs.
    fn both_notify(&self, terms: &Negotiated) -> bool {
        let ours = self.config.capabilities.graceful_restart;
        ours.is_some_and(|ours| ours.notification)
            && terms.graceful_restart.is_some_and(|theirs| theirs.notification)
    }

    /// A connection is no more.
    pub(super) fn fallen(&mut self, side: Side, connection: Connection, fall: Fall, now: Duration) {
        let why = match &fall {
            Fall::Sent(why) | Fall::Received(why) => Some(why.reason),
            Fall::Closed | Fall::Replaced => None,
        };
        let collided = why == Some(Reason::COLLISION);
        let alone = self.connections.both().next().is_none();
        let open = self.config.open();
        let next = self.connections.slot(side.other()).as_mut();
        if let Some(next) = next.filter(|next| self.running && next.phase == Phase::Waits) {
            next.open(&open, now);
        }
        if let Some((_, since)) = self.established.filter(|(established, _)| *established == side) {
            self.established = None;
            if now.saturating_sub(since) >= STABLE {
                self.failures = 0;
            }
            let terms = connection.terms.as_ref();
            let kept = terms.map(|terms| self.helper.fall(terms, self.both_notify(terms), &fall, now));
            self.events.push_back(Event::Down { fall, kept: kept.unwrap_or_default() });
        } else if !collided {
            self.events.push_back(Event::Failed(fall));
        }
        if self.running && alone {
            let rest = self.dial_later(now);
            let erred = why.is_some() && !collided;
            if erred || self.failures > PATIENCE {
                self.rests_until = now + rest;
            }
        }
    }

    pub(super) fn tell(&mut self, stale: Stale) {
        self.events.push_back(match stale {
            Stale::LongLived(family) => Event::LongLived(family),
            Stale::Gone(family) => Event::Sweep(family),
        });
    }

    pub(super) fn give_up(&mut self) {
        for stale in self.helper.give_up() {
            self.tell(stale);
        }
    }

    /// Dials again after a rest, ever later.
    pub(super) fn dial_later(&mut self, now: Duration) -> Duration {
        let rest = self.random.jittered((REST * (1 << self.failures.min(6))).min(LONGEST_REST));
        self.failures = self.failures.saturating_add(1);
        if self.running && !self.config.passive {
            self.dial_at = Some(now + rest);
        }
        rest
    }
}
