//! What the threads and the proxy's owner share.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::balance::{Attempt, Balancer};
use super::limits::{Counts, Held, Limits};

/// Where the clients of one frontend go.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Target {
    /// The endpoints.
    pub all: Vec<SocketAddr>,
    /// The endpoints of clients that are not in `inside`, where those have their own (a traffic
    /// policy Local).
    pub outside: Option<Vec<SocketAddr>>,
    /// Pods, and this node's own addresses.
    pub inside: Arc<[IpNet]>,
    /// How long a client keeps its endpoint (session affinity ClientIP).
    pub affinity: Option<Duration>,
    /// Which sources are taken; all where there is no list.
    pub sources: Option<Arc<[IpNet]>>,
}

/// One frontend as the threads use it. It outlives its listener with the connections that came by it.
#[derive(Debug)]
pub(super) struct Frontend {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    target: Target,
    all: Balancer,
    outside: Balancer,
}

/// Why a client goes nowhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refusal {
    Source,
    NoEndpoint,
}

impl Frontend {
    pub(super) fn new(target: &Target, clients: usize) -> Frontend {
        let balancer = || Balancer::new(target.affinity, clients);
        let state = State { target: Target::default(), all: balancer(), outside: balancer() };
        let frontend = Frontend { state: Mutex::new(state) };
        frontend.set(target, clients);
        frontend
    }

    pub(super) fn set(&self, target: &Target, clients: usize) {
        let mut state = self.state();
        state.all.set_affinity(target.affinity, clients);
        state.outside.set_affinity(target.affinity, clients);
        state.all.set_endpoints(target.all.clone());
        state.outside.set_endpoints(target.outside.clone().unwrap_or_default());
        state.target = target.clone();
    }

    /// Where `client` goes.
    pub(super) fn begin(&self, client: IpAddr, now: Instant) -> Result<Attempt, Refusal> {
        let mut state = self.state();
        let among = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&client));
        if state.target.sources.as_ref().is_some_and(|sources| !among(sources)) {
            return Err(Refusal::Source);
        }
        state.of(client).begin(client, now).ok_or(Refusal::NoEndpoint)
    }

    pub(super) fn settle(&self, client: IpAddr, endpoint: SocketAddr, now: Instant) {
        self.state().of(client).settle(client, endpoint, now);
    }

    pub(super) fn forget(&self, client: IpAddr, endpoint: SocketAddr) {
        self.state().of(client).forget(client, endpoint);
    }

    /// Whether a flow of `client` to `endpoint` may go on.
    pub(super) fn keeps(&self, client: IpAddr, endpoint: SocketAddr) -> bool {
        self.state().of(client).has(endpoint)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn of(&mut self, client: IpAddr) -> &mut Balancer {
        let elsewhere =
            self.target.outside.is_some() && !self.target.inside.iter().any(|net| net.contains(&client));
        if elsewhere { &mut self.outside } else { &mut self.all }
    }
}

/// A socket that clients come to.
#[derive(Debug)]
pub(super) struct Listener {
    pub id: u64,
    pub socket: OwnedFd,
    pub tcp: bool,
    pub frontend: Arc<Frontend>,
}

/// The state of the whole proxy.
#[derive(Debug)]
pub(super) struct Shared {
    pub limits: Limits,
    pub udp_idle: Duration,
    /// Whether connections of TCP end with their endpoint.
    pub resets: AtomicBool,
    pub held: Held,
    pub counts: Counts,
    pub listeners: RwLock<HashMap<u64, Arc<Listener>>>,
    pub stop: AtomicBool,
}

impl Shared {
    pub(super) fn listener(&self, id: u64) -> Option<Arc<Listener>> {
        self.listeners.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }
}
