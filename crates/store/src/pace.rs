//! How often what is new is taken. Reads no clock.

use std::time::{Duration, Instant};

/// Where something is new all the time, it is taken this often.
const GAP: Duration = Duration::from_millis(50);
/// So many are taken as they come before that, and again after as many gaps of rest.
const BURST: u32 = 100;

/// Takes what is rare at once, and what never ends in bundles: each time costs more than what is taken.
#[derive(Debug)]
pub(crate) struct Pace {
    next: Instant,
    /// When all that was taken would have been, a gap after another.
    even: Instant,
}

impl Default for Pace {
    fn default() -> Pace {
        let now = Instant::now();
        Pace { next: now, even: now }
    }
}

impl Pace {
    /// Nothing is taken before.
    pub(crate) fn next(&self) -> Instant {
        self.next
    }

    /// Something was taken.
    pub(crate) fn took(&mut self, now: Instant) {
        self.even = self.even.max(now) + GAP;
        self.next = self.even.checked_sub(GAP * BURST).unwrap_or(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When each of so many is taken, one of them new every `every`.
    fn taken(pace: &mut Pace, start: Instant, every: Duration, count: u32) -> Vec<Duration> {
        let times = (0..count).map(|i| {
            let at = pace.next().max(start + every * i);
            pace.took(at);
            at - start
        });
        times.collect()
    }

    #[test]
    fn what_is_rare_is_taken_at_once_and_what_never_ends_now_and_then() {
        let (mut pace, start, tick) = (Pace::default(), Instant::now(), Duration::from_millis(10));
        let often = taken(&mut pace, start, tick, 1000);
        assert!(often[..100].iter().zip(0..).all(|(at, i)| *at == tick * i), "the first hundred");
        assert!(often[200..].windows(2).all(|pair| pair[1] - pair[0] == GAP));
        let rested = start + often[999] + GAP * BURST;
        assert!(taken(&mut pace, rested, tick, 100).iter().zip(0..).all(|(at, i)| *at == tick * i));
        let later = rested + Duration::from_secs(60);
        let rare = taken(&mut pace, later, GAP, 1000);
        assert!(rare.iter().zip(0..).all(|(at, i)| *at == GAP * i));
    }
}
