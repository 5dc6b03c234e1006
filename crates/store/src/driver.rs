//! The thin shell around a [`Reflector`]: it asks the API what the reflector says, and tells the
//! store what changed.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use imbl::OrdMap;
use tokio::time::Instant;
use weft_model::bgp::{BgpConfiguration, BgpFilter, BgpPeer};
use weft_model::load_balancer::{Claim, LoadBalancerPool};
use weft_model::network::Network;
use weft_model::pools::{IpBlock, IpPool, Namespace};
use weft_model::service::{EndpointSlice, Service};
use weft_model::{Changes, Node, Pod};

use crate::decode::Kind;
use crate::reflector::{Ask, Reflector};
use crate::store::{Shared, State, StoreConfig};
use crate::{Api, Error};

/// Objects in one page of a list.
const PAGE: usize = 500;
/// How soon a kind that the cluster does not have is asked for again.
const ABSENT: Duration = Duration::from_secs(20);

/// How one kind's connection to the API stands.
#[derive(Default)]
pub(crate) struct Link {
    /// A whole list has come.
    pub(crate) synced: bool,
    /// The API has failed to answer.
    pub(crate) away: bool,
    /// When it last answered.
    pub(crate) contact: Option<SystemTime>,
    /// What the last attempt failed with, until one succeeds.
    pub(crate) error: Option<String>,
}

/// A kind that has its place in the store.
pub(crate) trait Kept: Kind {
    fn link(state: &mut State) -> &mut Link;
    /// Puts `objects` in their place in the cluster.
    fn publish(state: &mut State, objects: OrdMap<Self::Key, Arc<Self>>);
    fn keys(changes: &mut Changes) -> &mut BTreeSet<Self::Key>;
}

macro_rules! kept {
    ($($kind:ty => $place:ident),+ $(,)?) => {$(
        impl Kept for $kind {
            fn link(state: &mut State) -> &mut Link {
                &mut state.links.$place
            }
            fn publish(state: &mut State, objects: OrdMap<Self::Key, Arc<Self>>) {
                state.cluster.$place = objects;
            }
            fn keys(changes: &mut Changes) -> &mut BTreeSet<Self::Key> {
                &mut changes.$place
            }
        }
    )+};
}

kept! {
    Node => nodes, Pod => pods, Namespace => namespaces, IpPool => pools, IpBlock => blocks, Network => networks,
    Service => services, EndpointSlice => slices, Claim => claims, LoadBalancerPool => balancers,
    BgpConfiguration => bgp_configurations, BgpPeer => bgp_peers, BgpFilter => bgp_filters,
}

/// How the connections of all kinds stand.
#[derive(Default)]
pub(crate) struct Links {
    nodes: Link,
    pods: Link,
    namespaces: Link,
    pools: Link,
    blocks: Link,
    networks: Link,
    services: Link,
    slices: Link,
    claims: Link,
    balancers: Link,
    bgp_configurations: Link,
    bgp_peers: Link,
    bgp_filters: Link,
}

impl Links {
    /// Those of what nobody asks for count as in step.
    pub(crate) fn of(config: &StoreConfig) -> Links {
        let unless = |asked: bool| Link { synced: !asked, ..Link::default() };
        let (services, balancing) = (config.services && !config.balancing, config.balancing);
        Links {
            pods: unless(!balancing),
            blocks: unless(!balancing),
            networks: unless(!balancing),
            services: unless(services),
            slices: unless(services),
            claims: unless(balancing),
            balancers: unless(balancing),
            bgp_configurations: unless(!balancing),
            bgp_peers: unless(!balancing),
            bgp_filters: unless(!balancing),
            ..Links::default()
        }
    }

    pub(crate) fn all(&self) -> [&Link; 13] {
        let cluster = [&self.nodes, &self.pods, &self.namespaces, &self.networks, &self.pools, &self.blocks];
        let services = [&self.services, &self.slices, &self.claims, &self.balancers];
        let bgp = [&self.bgp_configurations, &self.bgp_peers, &self.bgp_filters];
        let mut all = cluster.into_iter().chain(services).chain(bgp);
        std::array::from_fn(|_| all.next().unwrap_or(&self.nodes))
    }
}

/// Lists and watches one kind, for ever.
pub(crate) async fn run<K: Kept>(api: Api, known: OrdMap<K::Key, Arc<K>>, shared: Arc<Shared>) {
    let mut reflector = Reflector::<K>::new(known);
    loop {
        let done = match reflector.request() {
            Ask::Page { token, whole } => list(&api, &mut reflector, &shared, token, whole).await,
            Ask::Watch { version } => watch(&api, &mut reflector, &shared, &version).await,
        };
        let wait = match done {
            Ok(wait) => wait,
            Err(error) => fail(&api, &mut reflector, &shared, &error).await,
        };
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}

async fn list<K: Kept>(
    api: &Api,
    reflector: &mut Reflector<K>,
    shared: &Shared,
    token: Option<String>,
    whole: bool,
) -> Result<Duration, Error> {
    let page = match api.list_page(K::PATH, if whole { 0 } else { PAGE }, token.as_deref()).await {
        Err(error) if K::OPTIONAL && matches!(error.code(), Some(403 | 404)) => {
            return Ok(absent(reflector, shared, &error));
        }
        page => page?,
    };
    let changed = reflector.handle_page(page);
    let complete = matches!(reflector.request(), Ask::Watch { .. });
    shared.update(|state, changes| {
        if complete {
            K::link(state).synced = reflector.synced();
            K::publish(state, reflector.objects().clone());
        }
        K::link(state).answered();
        K::keys(changes).extend(changed);
    });
    Ok(Duration::ZERO)
}

/// The cluster has no such kind, or does not show it to us.
fn absent<K: Kept>(reflector: &mut Reflector<K>, shared: &Shared, error: &Error) -> Duration {
    if !reflector.synced() || !reflector.objects().is_empty() {
        tracing::info!("{error}: served without {}s", K::NAME);
    }
    let changed = reflector.handle_absence();
    shared.update(|state, changes| {
        K::link(state).synced = true;
        K::link(state).answered();
        K::publish(state, reflector.objects().clone());
        K::keys(changes).extend(changed);
    });
    ABSENT.mul_f64(0.75 + 0.5 * jitter())
}

async fn watch<K: Kept>(
    api: &Api,
    reflector: &mut Reflector<K>,
    shared: &Shared,
    version: &str,
) -> Result<Duration, Error> {
    let began = Instant::now();
    let mut watch = api.watch(K::PATH, version).await?;
    shared.update(|state, _| K::link(state).answered());
    let mut quiet = true;
    while let Some(event) = watch.next().await? {
        quiet = false;
        match reflector.handle_event(&event, jitter()) {
            Ok(key) => shared.update(|state, changes| {
                K::link(state).answered();
                if let Some(key) = key {
                    K::publish(state, reflector.objects().clone());
                    K::keys(changes).insert(key);
                }
            }),
            Err(wait) => return Ok(wait),
        }
    }
    Ok(reflector.handle_end(began.elapsed(), quiet, jitter()))
}

async fn fail<K: Kept>(api: &Api, reflector: &mut Reflector<K>, shared: &Shared, error: &Error) -> Duration {
    let wait = reflector.handle_error(error, jitter());
    let failures = reflector.failures();
    // The first is news, the rest are the same news.
    if failures == 1 {
        tracing::info!("{}s: {error}", K::NAME);
    } else {
        tracing::debug!("{}s, attempt {failures}: {error}", K::NAME);
    }
    shared.update(|state, _| K::link(state).failed(error, failures));
    // A new token, and new connections instead of those that fell silent.
    if (error.unauthorized() || error.unreachable())
        && let Err(error) = api.reload().await
    {
        tracing::warn!("{error}");
    }
    wait
}

/// A number in 0..1 that differs between processes and moments.
fn jitter() -> f64 {
    let random = RandomState::new().build_hasher().finish();
    (random >> 11) as f64 / (1u64 << 53) as f64
}
