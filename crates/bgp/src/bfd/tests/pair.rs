//! Two who watch one another, and a line between them, with a clock of its own.

use super::*;

/// What the line does to a packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    /// How long a packet takes, and how much longer another may; with more than the interval they overtake one
    /// another.
    pub(super) delay: Duration,
    pub(super) spread: Duration,
    /// Of 256 so many are lost.
    pub(super) loss: u8,
}

pub(super) struct Pair {
    pub(super) now: Duration,
    pub(super) ends: [Sessions; 2],
    /// What each told, and when.
    pub(super) told: [Vec<(Duration, Change)>; 2],
    /// What each sent, and when.
    pub(super) sent: [Vec<(Duration, Packet)>; 2],
    pub(super) line: Line,
    /// Nothing arrives at this end.
    pub(super) cut: [bool; 2],
    random: Random,
    /// When, at which end.
    under_way: Vec<(Duration, usize, [u8; LENGTH])>,
}

use crate::random::Random;

impl Pair {
    pub(super) fn new(intervals: [Intervals; 2], line: Line, seed: u64) -> Pair {
        let mut pair = Pair {
            now: Duration::ZERO,
            ends: [Sessions::new(seed * 2 + 1), Sessions::new(seed * 2 + 1001)],
            told: Default::default(),
            sent: Default::default(),
            line,
            cut: [false; 2],
            random: Random::new(seed),
            under_way: Vec::new(),
        };
        for (who, intervals) in intervals.into_iter().enumerate() {
            pair.set(who, intervals);
        }
        pair
    }

    pub(super) fn set(&mut self, who: usize, intervals: Intervals) {
        self.ends[who].set(&one(2 - who as u8, intervals), self.now);
        self.pump(who);
    }

    pub(super) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..1_000_000 {
            let wakes = self.ends.iter().filter_map(Sessions::wakes);
            let Some(next) = wakes.chain(self.under_way.iter().map(|(at, ..)| *at)).min() else { break };
            if next > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(next);
            let mut due = Vec::new();
            self.under_way.retain(|item| {
                if item.0 <= next {
                    due.push(*item);
                }
                item.0 > next
            });
            for (_, who, bytes) in due {
                if !self.cut[who] {
                    self.ends[who].handle_packet(&bytes, &arrival(2 - who as u8), self.now);
                    self.pump(who);
                }
            }
            for who in [0, 1] {
                self.ends[who].handle_timeout(self.now);
                self.pump(who);
            }
        }
        assert!(self.now >= end || self.under_way.is_empty(), "it does not come to rest");
        self.now = end;
    }

    /// One dies without a word, and another begins in its place.
    pub(super) fn replace(&mut self, who: usize, intervals: Intervals) {
        self.ends[who] = Sessions::new(self.random.number().into());
        self.set(who, intervals);
    }

    pub(super) fn pump(&mut self, who: usize) {
        while let Some((_, change)) = self.ends[who].poll() {
            self.told[who].push((self.now, change));
        }
        while let Some(out) = self.ends[who].poll_transmit() {
            self.sent[who].push((self.now, Packet::decode(&out.packet).unwrap()));
            if self.random.number() as u8 >= self.line.loss {
                let late = self.line.spread / 1024 * (self.random.number() % 1024);
                self.under_way.push((self.now + self.line.delay + late, 1 - who, out.packet));
            }
        }
    }

    pub(super) fn status(&self, who: usize) -> SessionStatus {
        self.ends[who].status(self.now).sessions.remove(0)
    }

    pub(super) fn both_are(&self, state: State) -> bool {
        [0, 1].into_iter().all(|who| self.status(who).state == state)
    }
}
