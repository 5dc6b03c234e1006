//! A peer that restarts: how long its routes are kept (RFC 4724, RFC 9494).

use std::time::Duration;

use super::config::Fall;
use crate::message::{Negotiated, Reason};
use crate::{Family, PerFamily};

/// What stale routes of a family wait for, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// For the peer, and after that for so long as long-lived ones.
    Peer(Duration, Option<Duration>),
    /// For the peer, as long-lived ones.
    LongLived(Duration),
    /// For the End-of-RIB of the peer that is back.
    EndOfRib(Duration),
}

impl Wait {
    fn until(self) -> Duration {
        match self {
            Wait::Peer(until, _) | Wait::LongLived(until) | Wait::EndOfRib(until) => until,
        }
    }
}

/// What has become of stale routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stale {
    LongLived(Family),
    Gone(Family),
}

/// The families of a peer that have stale routes.
#[derive(Debug, Default)]
pub(super) struct Helper {
    waits: PerFamily<Option<Wait>>,
}

impl Helper {
    /// The session fell. Says which families' routes are kept.
    pub(super) fn fall(
        &mut self,
        terms: &Negotiated,
        both_notify: bool,
        fall: &Fall,
        now: Duration,
    ) -> PerFamily<bool> {
        let graceful = terms.graceful_restart.filter(|_| survives(fall, both_notify));
        self.waits = PerFamily::from_fn(|family| {
            let graceful = graceful.filter(|graceful| graceful.families[family].is_some())?;
            let long = terms.long_lived[family].filter(|long| long.time > 0);
            let long = long.map(|long| Duration::from_secs(long.time.into()));
            Some(Wait::Peer(now + Duration::from_secs(graceful.time.into()), long))
        });
        PerFamily::from_fn(|family| self.waits[family].is_some())
    }

    /// The peer is back, and has `limit` to tell its routes again.
    pub(super) fn back(&mut self, terms: &Negotiated, limit: Duration, now: Duration) -> Vec<Stale> {
        let mut gone = Vec::new();
        for family in Family::ALL {
            let Some(wait) = self.waits[family] else { continue };
            let kept = match wait {
                Wait::LongLived(_) => terms.long_lived[family].is_some_and(|long| long.kept),
                _ => terms.graceful_restart.is_some_and(|graceful| graceful.families[family] == Some(true)),
            };
            self.waits[family] = kept.then_some(Wait::EndOfRib(now + limit));
            if !kept {
                gone.push(Stale::Gone(family));
            }
        }
        gone
    }

    pub(super) fn end_of_rib(&mut self, family: Family) -> Option<Stale> {
        match self.waits[family] {
            Some(Wait::EndOfRib(_)) => {
                self.waits[family] = None;
                Some(Stale::Gone(family))
            }
            _ => None,
        }
    }

    pub(super) fn timeout(&mut self, now: Duration) -> Vec<Stale> {
        let mut stale = Vec::new();
        for family in Family::ALL {
            let Some(wait) = self.waits[family].filter(|wait| wait.until() <= now) else { continue };
            match wait {
                Wait::Peer(_, Some(long)) => {
                    self.waits[family] = Some(Wait::LongLived(now + long));
                    stale.push(Stale::LongLived(family));
                }
                _ => {
                    self.waits[family] = None;
                    stale.push(Stale::Gone(family));
                }
            }
        }
        stale
    }

    /// Nothing is waited for any more.
    pub(super) fn give_up(&mut self) -> Vec<Stale> {
        let waits = std::mem::take(&mut self.waits);
        Family::ALL.into_iter().filter(|family| waits[*family].is_some()).map(Stale::Gone).collect()
    }

    pub(super) fn wakes(&self) -> Option<Duration> {
        Family::ALL.into_iter().filter_map(|family| self.waits[family]).map(Wait::until).min()
    }
}

/// Whether routes outlive such a fall: where both said so a NOTIFICATION too, but for a hard reset (RFC 8538).
fn survives(fall: &Fall, both_notify: bool) -> bool {
    match fall {
        Fall::Closed | Fall::Replaced => true,
        Fall::Sent(why) | Fall::Received(why) => both_notify && why.reason != Reason::HARD_RESET,
    }
}
