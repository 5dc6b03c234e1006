//! Where packets are to go, for a consumer that may be slow: each prefix waits once, with what is current.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipnet::IpNet;

use crate::message::NextHop;

/// So many prefixes are given at once.
const BATCH: usize = 4096;

/// Prefixes and where packets to them are to go now: nowhere, by us, where there are no next hops.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// By prefix.
    pub routes: Vec<(IpNet, Vec<NextHop>)>,
    /// With this batch all is told, and nothing is held back after a restart: what the consumer has from before and
    /// was not told of may go.
    pub settled: bool,
}

#[derive(Debug, Default)]
struct Waiting {
    routes: BTreeMap<IpNet, Vec<NextHop>>,
    settled: bool,
    /// The consumer knows what `settled` is.
    told: bool,
    over: bool,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    ready: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn put(&self, routes: impl Iterator<Item = (IpNet, Vec<NextHop>)>, settled: bool) {
        let mut waiting = self.lock();
        waiting.routes.extend(routes);
        if waiting.settled != settled {
            waiting.settled = settled;
            waiting.told = false;
        }
        drop(waiting);
        self.ready.notify_one();
    }

    pub(super) fn end(&self) {
        self.lock().over = true;
        self.ready.notify_one();
    }
}

/// The consumer's end.
#[derive(Debug, Default)]
pub struct Changes(pub(super) Arc<Queue>);

impl Changes {
    /// What has changed, as soon as something has; `None` where nothing has for so long, or nothing will any more.
    pub fn next(&self, patience: Duration) -> Option<Batch> {
        let nothing = |waiting: &mut Waiting| {
            let news = !waiting.routes.is_empty() || waiting.settled && !waiting.told;
            !news && !waiting.over
        };
        let waited = self.0.ready.wait_timeout_while(self.0.lock(), patience, nothing);
        let (mut waiting, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if waiting.routes.is_empty() && (waiting.told || !waiting.settled) {
            return None;
        }
        let rest = waiting.routes.keys().nth(BATCH).copied();
        let rest = rest.map(|rest| waiting.routes.split_off(&rest)).unwrap_or_default();
        let routes = std::mem::replace(&mut waiting.routes, rest);
        let settled = waiting.settled && waiting.routes.is_empty();
        waiting.told |= settled;
        Some(Batch { routes: routes.into_iter().collect(), settled })
    }

    /// Whether the speaker has ended, or another consumer has taken the place.
    pub fn is_over(&self) -> bool {
        self.0.lock().over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(i: u32, hop: [u8; 4]) -> (IpNet, Vec<NextHop>) {
        let prefix = ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::from_bits((1 << 24) + (i << 8)), 24);
        (prefix.into(), vec![NextHop::V4(hop.into())])
    }

    #[test]
    fn a_prefix_waits_once_and_the_last_batch_says_so() {
        let changes = Changes::default();
        assert_eq!(changes.next(Duration::ZERO), None);
        let many = BATCH as u32 + 1;
        changes.0.put((0..many).map(|i| route(i, [10, 0, 0, 1])), false);
        changes.0.put([route(0, [10, 0, 0, 2])].into_iter(), true);
        let first = changes.next(Duration::ZERO).unwrap();
        assert_eq!((first.routes.len(), first.settled), (BATCH, false));
        assert_eq!(first.routes[0], route(0, [10, 0, 0, 2]));
        let last = changes.next(Duration::ZERO).unwrap();
        assert_eq!(last, Batch { routes: vec![route(many - 1, [10, 0, 0, 1])], settled: true });
        assert_eq!(changes.next(Duration::ZERO), None);
        changes.0.end();
        assert_eq!(changes.next(Duration::MAX), None);
        assert!(changes.is_over());
    }

    #[test]
    fn a_consumer_is_woken() {
        let changes = Changes::default();
        let queue = changes.0.clone();
        std::thread::scope(|scope| {
            let consumer = scope.spawn(|| changes.next(Duration::from_secs(60)));
            queue.put([].into_iter(), true);
            assert_eq!(consumer.join().unwrap(), Some(Batch { routes: vec![], settled: true }));
        });
    }
}
