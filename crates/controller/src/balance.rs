//! Addresses of Services of type LoadBalancer: watches in, statuses out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use ipnet::IpNet;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};
use weft_ipam::load_balancer::{Input, Patch, plan, pool_patch, service_patch};
use weft_model::Cluster;
use weft_model::load_balancer::{Claim, LoadBalancerPool, Verdict};
use weft_model::pools::Labels;
use weft_model::service::ServiceKey;
use weft_store::{Api, Error, Freshness, Store, StoreConfig};

use crate::ControllerConfig;
use crate::lease::Term;

/// How long news is gathered before it is acted on.
const GATHER: Duration = Duration::from_millis(5);
/// How long after a write that failed it is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// Writes under way at once.
const WRITES: usize = 16;
const POOLS: &str = "/apis/weft.dev/v1/loadbalancerpools";

/// Plans and writes as long as its term lasts.
pub(crate) struct Balancer {
    api: Api,
    config: ControllerConfig,
    term: Term,
    /// Services as our writes left them, until the watch has told so: what was given is not given again.
    written: BTreeMap<ServiceKey, Arc<Claim>>,
}

/// How a round of writes ended.
enum Done {
    Well,
    /// Something was refused: what was planned is tried again.
    Refused,
    /// Something may have been done nevertheless: everything is read anew before anything is planned.
    Unknown,
}

/// What is written to.
enum Target<'a> {
    Service(&'a Claim),
    Pool(&'a LoadBalancerPool),
}

impl Balancer {
    pub(crate) fn new(api: Api, config: ControllerConfig, term: Term) -> Balancer {
        Balancer { api, config, term, written: BTreeMap::new() }
    }

    pub(crate) async fn run(mut self) {
        loop {
            self.watch().await;
            self.written.clear();
            sleep(AGAIN).await;
        }
    }

    /// Acts until it is not known what is there.
    async fn watch(&mut self) {
        let mut store =
            Store::start(self.api.clone(), StoreConfig { balancing: true, ..StoreConfig::default() });
        let mut again: Option<Instant> = None;
        loop {
            let due = async {
                match again {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! { update = store.changed() => {
                if update.freshness != Freshness::Fresh {
                    continue;
                }
                sleep(GATHER).await;
            }, () = due => {} }
            let Some(cluster) = store.cluster() else { continue };
            again = match self.act(&cluster).await {
                Done::Well => None,
                Done::Refused => Some(Instant::now() + AGAIN),
                Done::Unknown => return,
            };
        }
    }

    /// Plans, and writes what differs.
    async fn act(&mut self, cluster: &Cluster) -> Done {
        let claims = self.claims(cluster);
        let pools: Vec<Arc<LoadBalancerPool>> = cluster.balancers.values().cloned().collect();
        let planned = plan(Input {
            claims: &claims,
            pools: &pools,
            namespaces: &namespaces(cluster),
            others: &self.others(cluster),
            nodes: &nodes(cluster),
        });
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let services = claims.values().filter_map(|claim| {
            let patch = service_patch(claim, planned.services.get(&claim.key)?, &now)?;
            Some((Target::Service(claim), patch))
        });
        let stands = pools.iter().filter_map(|pool| {
            let patch = pool_patch(pool, planned.pools.get(&pool.name)?, &now)?;
            Some((Target::Pool(pool), patch))
        });
        let writes: Vec<(Target<'_>, Patch)> = services.chain(stands).collect();
        let now = now.as_str();
        let done = stream::iter(writes).map(|(target, patch)| self.write(target, patch, now));
        let done: Vec<_> = done.buffer_unordered(WRITES).collect().await;
        let mut end = Done::Well;
        for result in done {
            match result {
                Ok(Some(claim)) => drop(self.written.insert(claim.key.clone(), Arc::new(claim))),
                Ok(None) => {}
                Err(error) if error.code().is_some_and(|code| code < 500) => {
                    // Who was overtaken sees what is there now by the watch.
                    if !(error.conflict() || error.not_found()) {
                        tracing::warn!("{error}");
                    }
                    end = if matches!(end, Done::Unknown) { end } else { Done::Refused };
                }
                Err(error) => {
                    tracing::warn!("{error}");
                    end = Done::Unknown;
                }
            }
        }
        end
    }

    /// Writes a status; what a Service is now.
    async fn write(&self, target: Target<'_>, patch: Patch, now: &str) -> Result<Option<Claim>, Error> {
        if !self.term.lasts() {
            return Ok(None);
        }
        match target {
            Target::Pool(pool) => {
                self.api.patch_status(&format!("{POOLS}/{}", pool.name), &patch.patch).await?;
                if let Some(told) = patch.told.filter(|told| !told.good) {
                    tracing::warn!("LoadBalancerPool {} gives no addresses: {}", pool.name, told.message);
                }
                Ok(None)
            }
            Target::Service(claim) => {
                let (namespace, name) = (&claim.key.namespace, &claim.key.name);
                let path = format!("/api/v1/namespaces/{namespace}/services/{name}");
                let answer = self.api.patch_status(&path, &patch.patch).await?;
                if let Some(told) = &patch.told {
                    let event = event(claim, told, now);
                    let path = format!("/api/v1/namespaces/{namespace}/events");
                    if let Err(error) = self.api.create(&path, &event).await {
                        tracing::debug!("{error}");
                    }
                }
                Ok(Claim::read(&answer).ok())
            }
        }
    }

    /// The Services that addresses have to do with, each as it was last heard of.
    fn claims(&mut self, cluster: &Cluster) -> BTreeMap<ServiceKey, Arc<Claim>> {
        let version = |claim: &Claim| claim.version.parse::<u64>().unwrap_or_default();
        self.written
            .retain(|key, own| cluster.claims.get(key).is_some_and(|seen| version(seen) < version(own)));
        let newest = |(key, seen): (&ServiceKey, &Arc<Claim>)| {
            (key.clone(), self.written.get(key).unwrap_or(seen).clone())
        };
        cluster.claims.iter().map(newest).filter(|(_, claim)| claim.matters()).collect()
    }

    /// Networks that are something else.
    fn others(&self, cluster: &Cluster) -> Vec<(IpNet, &'static str)> {
        let pods = self.config.cluster_cidrs.iter().map(|cidr| (*cidr, "where pods have their addresses"));
        let services = self.config.service_cidrs.iter().map(|cidr| (*cidr, "where cluster IPs come from"));
        let pools = cluster.pools.values().map(|pool| (pool.cidr, "an IPPool, whose addresses pods have"));
        let nodes = cluster.nodes.values().flat_map(|node| &node.pod_cidrs);
        let nodes = nodes.map(|cidr| (*cidr, "the addresses of a node's pods"));
        pods.chain(services).chain(pools).chain(nodes).collect()
    }
}

fn namespaces(cluster: &Cluster) -> BTreeMap<Arc<str>, Labels> {
    cluster.namespaces.iter().map(|(name, namespace)| (name.clone(), namespace.labels.clone())).collect()
}

fn nodes(cluster: &Cluster) -> BTreeSet<IpAddr> {
    cluster.nodes.values().flat_map(|node| &node.addresses).copied().collect()
}

fn event(claim: &Claim, told: &Verdict, now: &str) -> Value {
    let (namespace, name) = (&claim.key.namespace, &claim.key.name);
    json!({"apiVersion": "v1", "kind": "Event",
        "metadata": {"generateName": format!("{name}-"), "namespace": namespace},
        "involvedObject": {"kind": "Service", "apiVersion": "v1", "namespace": namespace, "name": name,
            "uid": claim.uid},
        "reason": told.reason, "message": told.message, "type": told.severity(), "count": 1,
        "source": {"component": "weft-controller"}, "firstTimestamp": now, "lastTimestamp": now})
}
