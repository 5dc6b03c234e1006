//! What the proxy may hold, what it holds, and what it counted.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors for all that is neither connection, flow, pipe nor listener, the rest of the
/// process's among them.
const OTHERS: usize = 512;

/// What the proxy may hold at once, over all of its threads.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Threads that forward.
    pub threads: usize,
    /// TCP connections of clients.
    pub connections: usize,
    /// UDP flows: a client's address and port at a frontend.
    pub flows: usize,
    /// Frontends listened for.
    pub listeners: usize,
    /// Pipes for streams that go without being copied; who finds none is copied.
    pub pipes: usize,
    /// Bytes taken from a sender that the receiver has not taken yet, beside those in pipes.
    pub held: usize,
    /// Clients remembered for each frontend with affinity.
    pub clients: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            threads: std::thread::available_parallelism().map_or(1, usize::from).min(8),
            connections: 32_768,
            flows: 16_384,
            listeners: 32_768,
            pipes: 512,
            held: 64 << 20,
            clients: 16_384,
        }
    }
}

impl Limits {
    fn descriptors(&self) -> usize {
        [self.connections * 2, self.flows, self.listeners, self.pipes * 2, OTHERS].iter().sum()
    }

    /// Raises the process's limit of open files to what these need. Where it cannot be raised so
    /// far they shrink to it, the largest first.
    pub(super) fn fit(&mut self) {
        let wanted = self.descriptors() as u64;
        let now = getrlimit(Resource::Nofile);
        let enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= wanted);
        if enough(now.current) {
            return;
        }
        let more = Rlimit { current: Some(wanted), maximum: now.maximum.map(|most| most.max(wanted)) };
        // Beyond the hard limit only root may go; up to it everybody.
        if setrlimit(Resource::Nofile, more).is_err() {
            let _ = setrlimit(Resource::Nofile, Rlimit { current: now.maximum, maximum: now.maximum });
        }
        if let Some(got) = getrlimit(Resource::Nofile).current {
            self.shrink(usize::try_from(got).unwrap_or(usize::MAX));
        }
    }

    fn shrink(&mut self, descriptors: usize) {
        let capped = |cap: usize| Limits {
            connections: self.connections.min(cap),
            flows: self.flows.min(cap),
            listeners: self.listeners.min(cap),
            pipes: self.pipes.min(cap),
            ..self.clone()
        };
        let (mut fits, mut too_much) = (1, descriptors.max(2));
        while too_much - fits > 1 {
            let middle = fits + (too_much - fits) / 2;
            if capped(middle).descriptors() <= descriptors { fits = middle } else { too_much = middle }
        }
        *self = capped(fits);
    }
}

/// How many of something there are.
#[derive(Debug, Default)]
pub(super) struct Gauge(AtomicUsize);

impl Gauge {
    /// Takes `count` more, unless they would be more than `most`.
    pub(super) fn take(&self, count: usize, most: usize) -> bool {
        let more = |now: usize| now.checked_add(count).filter(|more| *more <= most);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    pub(super) fn give(&self, count: usize) {
        self.0.fetch_sub(count, Ordering::Relaxed);
    }

    pub(super) fn now(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// What the threads hold.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub connections: Gauge,
    pub flows: Gauge,
    pub pipes: Gauge,
    pub bytes: Gauge,
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What the proxy did since its start, and what it holds.
        #[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
        pub struct Counters {
            /// TCP connections open now.
            pub connections: usize,
            /// UDP flows open now.
            pub flows: usize,
            /// Pipes in use or kept for use.
            pub pipes: usize,
            /// Bytes taken from senders that receivers have not taken yet.
            pub held: usize,
            $($(#[$doc])* pub $name: u64,)*
        }

        /// The counters as the threads write them.
        #[derive(Debug, Default)]
        pub(super) struct Counts {
            $(pub $name: AtomicU64,)*
        }

        impl Counts {
            pub(super) fn read(&self, held: &Held) -> Counters {
                Counters {
                    connections: held.connections.now(),
                    flows: held.flows.now(),
                    pipes: held.pipes.now(),
                    held: held.bytes.now(),
                    $($name: self.$name.load(Ordering::Relaxed),)*
                }
            }
        }
    };
}

counters! {
    /// Connections taken.
    accepted,
    /// Connections closed since the table was full.
    full,
    /// Connections and datagrams refused since the Service does not want their source.
    source,
    /// Connections and datagrams that found no endpoint at all.
    no_endpoint,
    /// Endpoints that refused a connection.
    refused,
    /// Endpoints that did not answer in time.
    silent,
    /// Connections closed since no endpoint took them.
    failed,
    /// Connections that one end reset, which the other was told.
    reset,
    /// UDP flows made.
    flows_made,
    /// Times that the table of UDP flows was full for a new one.
    flows_full,
    /// UDP flows closed since their endpoint was not there (ICMP unreachable).
    flows_refused,
}

/// Counts one more.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_small_stays_where_open_files_are_few() {
        let mut limits =
            Limits { connections: 30_000, flows: 10_000, listeners: 3, pipes: 100, ..Limits::default() };
        limits.shrink(20_000);
        assert_eq!((limits.listeners, limits.pipes), (3, 100));
        assert_eq!(limits.connections, limits.flows);
        assert!((19_990..=20_000).contains(&limits.descriptors()), "{limits:?}");
        let same = limits.clone();
        limits.shrink(20_000);
        assert_eq!(limits.descriptors(), same.descriptors());
        limits.shrink(0);
        assert_eq!(limits.connections, 1);
    }
}
