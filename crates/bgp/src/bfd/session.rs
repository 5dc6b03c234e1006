//! One session (RFC 5880 6.8).

use std::time::Duration;

use super::packet::{Diagnostic, LENGTH, Packet, State, micros};
use super::{Change, Intervals};
use crate::random::Random;

/// While a session is not up, it sends no faster (RFC 5880 6.8.3).
pub(super) const SLOW: Duration = Duration::from_secs(1);
/// So many packets at least tell the peer that a session ends.
const FAREWELLS: u32 = 3;

/// What the peer said last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Remote {
    /// Its number of the session; 0 while none is known.
    pub discriminator: u32,
    pub state: State,
    pub diagnostic: Diagnostic,
    pub transmit: Duration,
    pub receive: Duration,
    pub multiplier: u8,
    demand: bool,
}

impl Remote {
    const UNKNOWN: Remote = Remote {
        discriminator: 0,
        state: State::Down,
        diagnostic: Diagnostic::None,
        transmit: Duration::ZERO,
        receive: Duration::from_micros(1),
        multiplier: 0,
        demand: false,
    };
}

/// Whether an answer to changed intervals is waited for (RFC 5880 6.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Poll {
    Idle,
    Waits,
    /// They changed once more since.
    Outdated,
}

#[derive(Clone, Debug)]
pub(super) struct Session {
    wanted: Intervals,
    pub local: u32,
    pub state: State,
    pub diagnostic: Diagnostic,
    pub remote: Remote,
    /// The intervals in force, which may not be the wanted ones before the peer has answered.
    transmit: Duration,
    receive: Duration,
    poll: Poll,
    /// The peer wants an answer.
    answers: bool,
    /// Something has changed that the peer is told at once.
    news: bool,
    heard: Option<Duration>,
    sent: Option<Duration>,
    /// The part of the interval that the next packet comes early, of 2^16.
    early: u32,
    /// It ends when it has said so often enough, and not before then.
    ends: Option<(u32, Duration)>,
}

impl Session {
    pub(super) fn new(local: u32, wanted: Intervals, random: &mut Random) -> Session {
        let mut session = Session {
            wanted,
            local,
            state: State::Down,
            diagnostic: Diagnostic::None,
            remote: Remote::UNKNOWN,
            transmit: wanted.transmit.max(SLOW),
            receive: wanted.receive,
            poll: Poll::Idle,
            answers: false,
            news: false,
            heard: None,
            sent: None,
            early: 0,
            ends: None,
        };
        session.draw(random);
        session
    }

    /// Other intervals, from now on or from when the peer has answered.
    pub(super) fn set(&mut self, wanted: Intervals) {
        if self.wanted == wanted {
            return;
        }
        self.wanted = wanted;
        if self.state != State::Up {
            return self.settle();
        }
        // Sending less often and expecting more often wait for the peer, who is not to take either for a failure.
        self.transmit = self.transmit.min(wanted.transmit);
        self.receive = self.receive.max(wanted.receive);
        self.poll();
    }

    /// The session begins to end: its peer is told for some time.
    pub(super) fn end(&mut self, now: Duration) {
        if self.ends.is_none() {
            self.ends = Some((FAREWELLS, now));
            self.diagnostic = Diagnostic::Administrative;
            self.turn(State::AdminDown);
        }
    }

    /// It is wanted after all.
    pub(super) fn resume(&mut self) {
        if self.ends.take().is_some() {
            self.turn(State::Down);
        }
    }

    pub(super) fn wanted(&self) -> Intervals {
        self.wanted
    }

    pub(super) fn ended(&self) -> bool {
        self.ends.is_some_and(|(left, _)| left == 0)
    }

    /// A packet that is for this session.
    pub(super) fn handle(&mut self, packet: &Packet, now: Duration) -> Option<Change> {
        let before = self.remote.state;
        self.remote = Remote {
            discriminator: packet.mine,
            state: packet.state,
            diagnostic: packet.diagnostic,
            transmit: Duration::from_micros(packet.transmit.into()),
            receive: Duration::from_micros(packet.receive.into()),
            multiplier: packet.multiplier,
            demand: packet.demand,
        };
        if self.state == State::AdminDown {
            return None;
        }
        self.heard = Some(now);
        if packet.last && self.poll != Poll::Idle {
            self.answered();
        }
        self.answers |= packet.poll;
        let (next, change) = match (self.state, packet.state) {
            (State::Up, State::AdminDown) => (State::Down, Some(Change::AdminDown)),
            (_, State::AdminDown) => (State::Down, (before != State::AdminDown).then_some(Change::AdminDown)),
            (State::Down, State::Down) => (State::Init, None),
            (State::Down, State::Init) | (State::Init, State::Init | State::Up) => {
                (State::Up, Some(Change::Up))
            }
            (State::Up, State::Down) => (State::Down, Some(Change::Down(Diagnostic::Signalled))),
            (same, _) => (same, None),
        };
        if next == State::Down && self.state != State::Down {
            self.diagnostic = Diagnostic::Signalled;
        }
        self.turn(next);
        change
    }

    /// The path is known to be broken.
    pub(super) fn break_path(&mut self) -> Option<Change> {
        self.fall(Diagnostic::PathDown)
    }

    /// Whether nothing has come for too long, and what comes of that.
    pub(super) fn timeout(&mut self, now: Duration) -> Option<Change> {
        self.expires().filter(|at| *at <= now)?;
        self.heard = None;
        self.remote = Remote::UNKNOWN;
        self.fall(Diagnostic::Expired)
    }

    fn fall(&mut self, why: Diagnostic) -> Option<Change> {
        if !matches!(self.state, State::Init | State::Up) {
            return None;
        }
        let was_up = self.state == State::Up;
        self.diagnostic = why;
        self.turn(State::Down);
        was_up.then_some(Change::Down(why))
    }

    /// When nothing will have come for too long (RFC 5880 6.8.4).
    fn expires(&self) -> Option<Duration> {
        Some(self.heard? + self.detection())
    }

    /// So long nothing may come; 0 while the peer is not known.
    pub(super) fn detection(&self) -> Duration {
        self.receive.max(self.remote.transmit) * self.remote.multiplier.into()
    }

    /// How often packets go (RFC 5880 6.8.7), before jitter.
    pub(super) fn interval(&self) -> Duration {
        self.transmit.max(self.remote.receive)
    }

    /// What is to be sent now, if anything; to be asked until there is nothing.
    pub(super) fn transmit(&mut self, now: Duration, random: &mut Random) -> Option<[u8; LENGTH]> {
        let mut packet = self.packet();
        if self.answers {
            self.answers = false;
            packet.last = true;
            return Some(packet.encode());
        }
        self.due().filter(|at| *at <= now)?;
        packet.poll = self.poll != Poll::Idle;
        self.news = false;
        self.sent = Some(now);
        self.draw(random);
        if let Some((left, _)) = &mut self.ends {
            *left = left.saturating_sub(1);
        }
        Some(packet.encode())
    }

    /// When something is to be done next. `ZERO`: at once.
    pub(super) fn wakes(&self) -> Option<Duration> {
        if self.answers {
            return Some(Duration::ZERO);
        }
        self.due().into_iter().chain(self.expires()).min()
    }

    /// When the next packet goes that is no answer.
    fn due(&self) -> Option<Duration> {
        if self.ended() {
            return None;
        }
        // A peer that is up may ask to be left alone (6.6); what is polled goes nevertheless.
        let left_alone = self.remote.demand
            && (self.state, self.remote.state, self.poll) == (State::Up, State::Up, Poll::Idle);
        if self.remote.receive.is_zero() || left_alone && !self.news {
            // One that ends is not held up by a peer that takes nothing.
            return self.ends.map(|(_, since)| since);
        }
        let Some(sent) = self.sent.filter(|_| !self.news) else { return Some(Duration::ZERO) };
        Some(sent + self.interval() - self.interval() / (1 << 16) * self.early)
    }

    /// Says how early the next packet comes: up to a quarter, and with a multiplier of 1, where the first loss
    /// counts, at least a tenth.
    fn draw(&mut self, random: &mut Random) {
        let part = random.number() >> 16;
        let (least, span) = if self.wanted.multiplier == 1 { (6_554, 9_830) } else { (0, 16_384) };
        self.early = least + ((part * span) >> 16);
    }

    fn packet(&self) -> Packet {
        let up = self.state == State::Up;
        Packet {
            diagnostic: self.diagnostic,
            state: self.state,
            poll: false,
            last: false,
            independent: false,
            demand: false,
            multiplier: self.wanted.multiplier,
            mine: self.local,
            yours: self.remote.discriminator,
            transmit: micros(if up { self.wanted.transmit } else { self.wanted.transmit.max(SLOW) }),
            receive: micros(self.wanted.receive),
            echo: 0,
        }
    }

    fn turn(&mut self, state: State) {
        if self.state == state {
            return;
        }
        self.state = state;
        self.news = true;
        self.settle();
        if state == State::Up {
            self.poll();
        }
        if matches!(state, State::AdminDown) {
            self.heard = None;
            self.answers = false;
        }
    }

    /// What is wanted is in force.
    fn settle(&mut self) {
        let slow = if self.state == State::Up { Duration::ZERO } else { SLOW };
        self.transmit = self.wanted.transmit.max(slow);
        self.receive = self.wanted.receive;
        self.poll = Poll::Idle;
    }

    fn poll(&mut self) {
        self.news = true;
        self.poll = if self.poll == Poll::Idle { Poll::Waits } else { Poll::Outdated };
    }

    /// The peer has answered: what it was told is in force, unless it was told something else since.
    fn answered(&mut self) {
        let outdated = self.poll == Poll::Outdated;
        if outdated {
            self.poll = Poll::Idle;
            self.poll();
        } else {
            self.settle();
        }
    }
}
