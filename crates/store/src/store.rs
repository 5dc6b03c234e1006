use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Notify;
use tokio::task::JoinSet;
use weft_model::bgp::{BgpConfiguration, BgpFilter, BgpPeer};
use weft_model::load_balancer::{Claim, LoadBalancerPool};
use weft_model::network::Network;
use weft_model::pools::{IpBlock, IpPool, Namespace};
use weft_model::service::{EndpointSlice, Service};
use weft_model::{Changes, Cluster, Node, Pod};

use crate::api::Api;
use crate::driver::{self, Link, Links};
use crate::pace::Pace;
use crate::{Error, cache};

/// How a [`Store`] works.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Where the last snapshot is kept for a start without the API; nowhere when `None`.
    pub cache: Option<PathBuf>,
    /// The shortest time between two writes of the snapshot.
    pub cache_every: Duration,
    /// How long a start waits for the API before it serves the snapshot from disk.
    pub cache_after: Duration,
    /// Whether Services and their endpoints are watched as well.
    pub services: bool,
    /// Only what addresses of load balancers are planned from: claims, their pools, nodes, namespaces, IPPools.
    pub balancing: bool,
}

impl Default for StoreConfig {
    fn default() -> Self {
        StoreConfig {
            cache: None,
            cache_every: Duration::from_secs(5),
            cache_after: Duration::from_secs(3),
            services: false,
            balancing: false,
        }
    }
}

/// Whether what the store serves is in step with the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// It is.
    Fresh,
    /// The API is away; this is the last known state.
    Stale {
        /// When it was last in step.
        since: SystemTime,
        /// What the last attempt failed with.
        reason: String,
    },
}

/// What is new since the last update.
#[derive(Clone, Debug)]
pub struct Update {
    /// The cluster as it is now.
    pub cluster: Cluster,
    /// The keys that may differ from the cluster of the update before; in the first, every key.
    pub changes: Changes,
    /// Whether `cluster` is in step with the API.
    pub freshness: Freshness,
}

/// The cluster's objects, kept up to date. Dropping it ends its tasks.
pub struct Store {
    shared: Arc<Shared>,
    pace: Pace,
    _tasks: JoinSet<()>,
}

/// What the store's tasks write and its owner reads.
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Wakes the owner.
    changed: Notify,
    /// Wakes the cache's writer.
    dirty: Notify,
}

pub(crate) struct State {
    pub(crate) cluster: Cluster,
    pending: Changes,
    pub(crate) links: Links,
    /// When the snapshot from disk was taken, until it is superseded by whole lists.
    cached: Option<SystemTime>,
    /// Whether the cluster may be served: whole lists of all kinds, or the snapshot from disk.
    open: bool,
    told: Option<Freshness>,
}

impl Store {
    /// Starts to list and watch. Must be called within a Tokio runtime.
    pub fn start(api: Api, config: StoreConfig) -> Self {
        let found = config.cache.as_deref().and_then(cache::read);
        let cached = found.as_ref().map(|(_, at)| *at);
        let mut cluster = found.map(|(cluster, _)| cluster).unwrap_or_default();
        if !config.services {
            (cluster.services, cluster.slices) = Default::default();
        }
        let pending = Changes {
            nodes: cluster.nodes.keys().cloned().collect(),
            pods: cluster.pods.keys().cloned().collect(),
            namespaces: cluster.namespaces.keys().cloned().collect(),
            pools: cluster.pools.keys().cloned().collect(),
            blocks: cluster.blocks.keys().cloned().collect(),
            networks: cluster.networks.keys().cloned().collect(),
            services: cluster.services.keys().cloned().collect(),
            slices: cluster.slices.keys().cloned().collect(),
            bgp_configurations: cluster.bgp_configurations.keys().cloned().collect(),
            bgp_peers: cluster.bgp_peers.keys().cloned().collect(),
            bgp_filters: cluster.bgp_filters.keys().cloned().collect(),
            claims: Default::default(),
            balancers: Default::default(),
        };
        let known = cluster.clone();
        let links = Links::of(&config);
        let state = State { cluster, pending, links, cached, open: false, told: None };
        let shared =
            Arc::new(Shared { state: Mutex::new(state), changed: Notify::new(), dirty: Notify::new() });
        let mut tasks = JoinSet::new();
        tasks.spawn(driver::run::<Node>(api.clone(), known.nodes, shared.clone()));
        tasks.spawn(driver::run::<Namespace>(api.clone(), known.namespaces, shared.clone()));
        tasks.spawn(driver::run::<IpPool>(api.clone(), known.pools, shared.clone()));
        if config.balancing {
            tasks.spawn(driver::run::<Claim>(api.clone(), known.claims, shared.clone()));
            tasks.spawn(driver::run::<LoadBalancerPool>(api, known.balancers, shared.clone()));
            return Store { shared, pace: Pace::default(), _tasks: tasks };
        }
        tasks.spawn(driver::run::<Pod>(api.clone(), known.pods, shared.clone()));
        tasks.spawn(driver::run::<IpBlock>(api.clone(), known.blocks, shared.clone()));
        if config.services {
            tasks.spawn(driver::run::<Service>(api.clone(), known.services, shared.clone()));
            tasks.spawn(driver::run::<EndpointSlice>(api.clone(), known.slices, shared.clone()));
        }
        let bgp = (known.bgp_configurations, known.bgp_peers, known.bgp_filters);
        tasks.spawn(driver::run::<BgpConfiguration>(api.clone(), bgp.0, shared.clone()));
        tasks.spawn(driver::run::<BgpPeer>(api.clone(), bgp.1, shared.clone()));
        tasks.spawn(driver::run::<BgpFilter>(api.clone(), bgp.2, shared.clone()));
        tasks.spawn(driver::run::<Network>(api, known.networks, shared.clone()));
        if cached.is_some() {
            tasks.spawn(serve_the_snapshot(shared.clone(), config.cache_after));
        }
        if let Some(path) = config.cache {
            tasks.spawn(keep_the_snapshot(shared.clone(), path, config.cache_every));
        }
        Store { shared, pace: Pace::default(), _tasks: tasks }
    }

    /// Waits for something new and takes it; what came meanwhile is coalesced by key. The first
    /// update comes when all kinds are known whole, or from disk when the API is away. In a cluster that never
    /// rests an update comes after a moment, with what came in it. Cancel safe.
    pub async fn changed(&mut self) -> Update {
        loop {
            tokio::time::sleep_until(self.pace.next().into()).await;
            if let Some(update) = self.shared.lock().take() {
                self.pace.took(Instant::now());
                return update;
            }
            self.shared.changed.notified().await;
        }
    }

    /// The cluster as it is now, or `None` before the first update could be served.
    pub fn cluster(&self) -> Option<Cluster> {
        let state = self.shared.lock();
        state.open.then(|| state.cluster.clone())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Changes the state, and wakes whom it concerns.
    pub(crate) fn update(&self, change: impl FnOnce(&mut State, &mut Changes)) {
        let mut state = self.lock();
        let mut changes = Changes::default();
        change(&mut state, &mut changes);
        let changed = !changes.is_empty();
        state.pending.merge(changes);
        let dirty = state.settle() || changed;
        let news = state.news();
        drop(state);
        if news {
            self.changed.notify_one();
        }
        if dirty {
            self.dirty.notify_one();
        }
    }
}

impl State {
    /// Opens the cluster when it may be served. True when it became known whole by that.
    fn settle(&mut self) -> bool {
        if self.links.all().iter().all(|link| link.synced) {
            let first = !self.open || self.cached.is_some();
            self.cached = None;
            self.open = true;
            return first;
        }
        if self.cached.is_some() && self.links.all().iter().any(|link| link.error.is_some()) {
            self.open = true;
        }
        false
    }

    fn news(&self) -> bool {
        self.open && (!self.pending.is_empty() || self.told.as_ref() != Some(&self.freshness()))
    }

    fn take(&mut self) -> Option<Update> {
        if !self.news() {
            return None;
        }
        let freshness = self.freshness();
        self.told = Some(freshness.clone());
        let changes = std::mem::take(&mut self.pending);
        Some(Update { cluster: self.cluster.clone(), changes, freshness })
    }

    fn freshness(&self) -> Freshness {
        let links = self.links.all();
        if let Some(since) = self.cached {
            let reason = links.into_iter().find_map(|link| link.error.clone());
            let reason = reason.unwrap_or_else(|| "the API server has not answered yet".to_owned());
            return Freshness::Stale { since, reason };
        }
        let away = links.into_iter().filter(|link| link.away).min_by_key(|link| link.contact);
        match away {
            Some(Link { contact, error, .. }) => Freshness::Stale {
                since: contact.unwrap_or(SystemTime::UNIX_EPOCH),
                reason: error.clone().unwrap_or_default(),
            },
            None => Freshness::Fresh,
        }
    }
}

/// Serves the snapshot when the API neither answered nor failed for a while.
async fn serve_the_snapshot(shared: Arc<Shared>, after: Duration) {
    tokio::time::sleep(after).await;
    shared.update(|state, _| state.open |= state.cached.is_some());
}

/// Writes the snapshot after changes, once the cluster is known whole.
async fn keep_the_snapshot(shared: Arc<Shared>, path: PathBuf, every: Duration) {
    let mut warned = false;
    loop {
        shared.dirty.notified().await;
        let cluster = {
            let state = shared.lock();
            (state.open && state.cached.is_none()).then(|| state.cluster.clone())
        };
        let Some(cluster) = cluster else { continue };
        let (to, began) = (path.clone(), Instant::now());
        let write = tokio::task::spawn_blocking(move || cache::write(&to, &cluster, SystemTime::now()));
        match write.await {
            Ok(Ok(())) => warned = false,
            Ok(Err(error)) if !warned => {
                tracing::warn!("cannot keep the snapshot {}: {error}", path.display());
                warned = true;
            }
            _ => {}
        }
        // A large cluster under churn must not keep disk and processor busy: 1 % of the time at most.
        tokio::time::sleep(every.max(began.elapsed() * 100)).await;
    }
}

impl Link {
    /// The API answered.
    pub(crate) fn answered(&mut self) {
        *self = Link { contact: Some(SystemTime::now()), error: None, away: false, ..*self };
    }

    /// An attempt failed, the `failures`th in a row. One torn watch is no absence.
    pub(crate) fn failed(&mut self, error: &Error, failures: u32) {
        self.error = Some(error.to_string());
        self.away = failures > 1 || !self.synced;
    }
}
