//! Which endpoint is next, and what a connection tries after one that does not answer. Knows no
//! socket and reads no clock.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long an endpoint may take to answer: the first, and each after one that did not. As
/// kube-proxy's userspace mode waited.
pub(super) const CONNECT_TIMEOUTS: [Duration; 4] =
    [Duration::from_millis(250), Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];

/// What one connection tries at most, counting those that refuse it.
const MOST_FAILURES: u32 = 64;

/// From how many remembered clients on it is looked for those whose time is over.
const FIRST_SWEEP: usize = 256;

/// Endpoints in turn, and which client had which.
#[derive(Debug)]
pub(super) struct Balancer {
    /// Sorted, unique.
    endpoints: Arc<[SocketAddr]>,
    next: usize,
    affinity: Option<Affinity>,
}

/// The clients of one frontend that keep their endpoint.
#[derive(Debug)]
struct Affinity {
    timeout: Duration,
    clients: HashMap<IpAddr, (SocketAddr, Instant)>,
    most: usize,
    sweep_at: usize,
}

/// One connection on its way to an endpoint.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    endpoints: Arc<[SocketAddr]>,
    at: usize,
    failures: u32,
    /// Refusals since the last timeout or the beginning.
    refusals: usize,
    timeouts: usize,
}

/// Why an endpoint is given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Failure {
    /// It, or the way to it, said no.
    Refused,
    /// It said nothing.
    Silent,
}

impl Balancer {
    /// Without endpoints; at most `most` clients will be remembered.
    pub(super) fn new(affinity: Option<Duration>, most: usize) -> Balancer {
        let affinity = affinity.map(|timeout| Affinity {
            timeout,
            clients: HashMap::new(),
            most,
            sweep_at: FIRST_SWEEP,
        });
        Balancer { endpoints: Arc::new([]), next: 0, affinity }
    }

    /// Replaces the endpoints. Who had one that is still there keeps it.
    pub(super) fn set_endpoints(&mut self, mut endpoints: Vec<SocketAddr>) {
        endpoints.sort_unstable();
        endpoints.dedup();
        self.endpoints = endpoints.into();
    }

    /// Replaces the timeout of affinity. Who is remembered stays so.
    pub(super) fn set_affinity(&mut self, timeout: Option<Duration>, most: usize) {
        match (&mut self.affinity, timeout) {
            (Some(affinity), Some(timeout)) => affinity.timeout = timeout,
            (affinity, _) => *affinity = Balancer::new(timeout, most).affinity,
        }
    }

    /// Whether `endpoint` is one of those in force.
    pub(super) fn has(&self, endpoint: SocketAddr) -> bool {
        self.endpoints.binary_search(&endpoint).is_ok()
    }

    /// Where a new connection of `client` goes first; `None` without endpoints.
    pub(super) fn begin(&mut self, client: IpAddr, now: Instant) -> Option<Attempt> {
        let remembered = self.affinity.as_ref().and_then(|affinity| affinity.of(client, now));
        let known = remembered.and_then(|endpoint| self.endpoints.binary_search(&endpoint).ok());
        let at = match (known, self.endpoints.len()) {
            (_, 0) => return None,
            (Some(at), _) => at,
            (None, count) => {
                let at = self.next % count;
                self.next = at + 1;
                at
            }
        };
        Some(Attempt { endpoints: self.endpoints.clone(), at, failures: 0, refusals: 0, timeouts: 0 })
    }

    /// `endpoint` answered: `client` keeps it, if there is affinity and room to remember.
    pub(super) fn settle(&mut self, client: IpAddr, endpoint: SocketAddr, now: Instant) {
        if let Some(affinity) = &mut self.affinity {
            affinity.remember(client, endpoint, now);
        }
    }

    /// `client` is not to have `endpoint` again only because it had it.
    pub(super) fn forget(&mut self, client: IpAddr, endpoint: SocketAddr) {
        let Some(affinity) = &mut self.affinity else { return };
        if affinity.clients.get(&client).is_some_and(|(had, _)| *had == endpoint) {
            affinity.clients.remove(&client);
        }
    }
}

impl Affinity {
    fn of(&self, client: IpAddr, now: Instant) -> Option<SocketAddr> {
        let (endpoint, at) = self.clients.get(&client)?;
        (now.saturating_duration_since(*at) < self.timeout).then_some(*endpoint)
    }

    fn remember(&mut self, client: IpAddr, endpoint: SocketAddr, now: Instant) {
        if self.clients.len() >= self.sweep_at {
            let timeout = self.timeout;
            self.clients.retain(|_, (_, at)| now.saturating_duration_since(*at) < timeout);
            // A full table is not gone through for every client that finds no room.
            self.sweep_at = (self.clients.len() * 2).max(FIRST_SWEEP);
        }
        if self.clients.len() < self.most || self.clients.contains_key(&client) {
            self.clients.insert(client, (endpoint, now));
        } else {
            self.sweep_at = self.sweep_at.saturating_sub(1);
        }
    }
}

impl Attempt {
    /// The endpoint to try now.
    pub(super) fn endpoint(&self) -> SocketAddr {
        self.endpoints[self.at]
    }

    /// How long to wait for it.
    pub(super) fn timeout(&self) -> Duration {
        CONNECT_TIMEOUTS[self.timeouts.min(CONNECT_TIMEOUTS.len() - 1)]
    }

    /// Goes on to the next endpoint. False when nothing is left to try: all refuse, or as many
    /// were silent as there are timeouts.
    pub(super) fn failed(&mut self, failure: Failure) -> bool {
        self.failures += 1;
        self.at = (self.at + 1) % self.endpoints.len();
        match failure {
            Failure::Refused => self.refusals += 1,
            Failure::Silent => (self.timeouts, self.refusals) = (self.timeouts + 1, 0),
        }
        self.timeouts < CONNECT_TIMEOUTS.len()
            && self.refusals < self.endpoints.len()
            && self.failures < MOST_FAILURES
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn endpoint(number: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, number], 80))
    }

    fn client(number: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, number).into()
    }

    #[test]
    fn endpoints_take_turns() {
        let mut balancer = Balancer::new(None, 10);
        let now = Instant::now();
        assert!(balancer.begin(client(1), now).is_none());
        balancer.set_endpoints(vec![endpoint(3), endpoint(1), endpoint(2), endpoint(1)]);
        let mut turn = || balancer.begin(client(1), now).unwrap().endpoint();
        assert_eq!([turn(), turn(), turn(), turn()], [endpoint(1), endpoint(2), endpoint(3), endpoint(1)]);
    }

    #[test]
    fn what_refuses_costs_no_timeout_and_what_is_silent_a_longer_one_each() {
        let mut balancer = Balancer::new(None, 10);
        balancer.set_endpoints(vec![endpoint(1), endpoint(2)]);
        let mut attempt = balancer.begin(client(1), Instant::now()).unwrap();
        let mut waited = vec![];
        // The first refuses, the second is silent.
        loop {
            assert_eq!(attempt.endpoint(), endpoint(1));
            assert!(attempt.failed(Failure::Refused));
            waited.push(attempt.timeout());
            if !attempt.failed(Failure::Silent) {
                break;
            }
        }
        assert_eq!(waited, CONNECT_TIMEOUTS);
        let mut attempt = balancer.begin(client(1), Instant::now()).unwrap();
        assert!(attempt.failed(Failure::Refused));
        assert!(!attempt.failed(Failure::Refused), "both refuse");
    }

    proptest! {
        #[test]
        fn a_client_keeps_its_endpoint_exactly_while_it_is_there_and_remembered(
            steps in prop::collection::vec((0u8..6, 0u8..40, prop::collection::vec(1u8..5, 0..5)), 1..60)
        ) {
            let timeout = Duration::from_secs(20);
            let most = 4;
            let mut balancer = Balancer::new(Some(timeout), most);
            let mut now = Instant::now();
            let mut had: HashMap<IpAddr, (SocketAddr, Instant)> = HashMap::new();
            let mut there = vec![];
            for (who, seconds, endpoints) in steps {
                now += Duration::from_secs(u64::from(seconds));
                if seconds % 3 == 0 {
                    there = endpoints.iter().copied().map(endpoint).collect();
                    balancer.set_endpoints(there.clone());
                }
                let who = client(who);
                let Some(attempt) = balancer.begin(who, now) else {
                    prop_assert!(there.is_empty());
                    continue;
                };
                let got = attempt.endpoint();
                prop_assert!(there.contains(&got) && balancer.has(got));
                if let Some((before, at)) = had.get(&who)
                    && now - *at < timeout
                    && there.contains(before)
                {
                    prop_assert_eq!(*before, got);
                }
                balancer.settle(who, got, now);
                let affinity = balancer.affinity.as_ref().unwrap();
                prop_assert!(affinity.clients.len() <= most);
                if affinity.clients.contains_key(&who) {
                    had.insert(who, (got, now));
                } else {
                    had.remove(&who);
                }
            }
        }

        #[test]
        fn every_way_to_fail_ends_and_each_endpoint_has_its_turn(
            count in 1u8..20, outcomes in prop::collection::vec(any::<bool>(), 100)
        ) {
            let mut balancer = Balancer::new(None, 0);
            balancer.set_endpoints((0..count).map(endpoint).collect());
            let mut attempt = balancer.begin(client(1), Instant::now()).unwrap();
            let (mut seen, mut silent, mut ended) = (vec![], 0, false);
            for outcome in outcomes {
                seen.push(attempt.endpoint());
                silent += usize::from(outcome);
                let failure = if outcome { Failure::Silent } else { Failure::Refused };
                if !attempt.failed(failure) {
                    ended = true;
                    break;
                }
            }
            prop_assert!(ended && silent <= CONNECT_TIMEOUTS.len());
            seen.sort_unstable();
            seen.dedup();
            prop_assert!(seen.len() == usize::from(count) || silent == CONNECT_TIMEOUTS.len());
        }
    }
}
