//! The loop: read etcd and the Node objects, plan, write.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::Notify;
use tokio::time::Instant;
use tonic::Status;

use super::super::object;
use super::FlannelEtcd;
use super::host::{Host, Patch};
use super::plan::{Lease, Scene, Step, owned, plan};
use super::settings::{Settings, read_settings};
use super::text::{Attributes, Subnet, read_attributes};
use crate::error::ApiError;
use crate::kinds::NODES;
use crate::options::DeleteOptions;
use crate::patch;
use crate::registry::Registry;
use crate::resource::Resource;
use crate::storage::{Leased, Pair};

/// How long a host has its subnet without renewal, as with flannel.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// The longest pause between two looks; and the first after a failure.
const TICK: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_secs(1);
/// How long changes are gathered at least; and how many times as long as the last look took.
const GATHER: Duration = Duration::from_millis(50);
const SHARE: u32 = 4;
/// So long a lease's remaining time is reckoned and not asked.
const TRUST: Duration = Duration::from_secs(600);

/// A failure is tried again.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("etcd: {}", .0.message())]
    Etcd(#[from] Status),
    #[error("{0}")]
    Api(#[from] ApiError),
}

/// Keeps both sides alike, for ever.
pub(in super::super) async fn keep(registry: Registry, config: FlannelEtcd, cluster_cidrs: Vec<IpNet>) {
    let etcd = match Leased::new(&config.etcd) {
        Ok(etcd) => etcd,
        Err(error) => return tracing::error!("flannel's subnets are not kept: {error}"),
    };
    let prefix = format!("/{}", config.prefix.trim_matches('/'));
    let changed = Notify::new();
    let mut keeper = Keeper {
        registry: &registry,
        etcd: &etcd,
        prefix: prefix.clone(),
        cluster_cidrs,
        leases: HashMap::new(),
        told: BTreeSet::new(),
    };
    let nodes = follow(&registry, || Some(Resource::clone(&NODES)), &changed);
    let networks = follow(&registry, || networks(&registry), &changed);
    let place = format!("{prefix}/");
    tokio::select! {
        () = etcd.follow(&place, &changed) => {}
        () = nodes => {}
        () = networks => {}
        () = async { keeper.run(&changed).await } => {}
    }
}

fn networks(registry: &Registry) -> Option<Resource> {
    registry.kind("weft.dev", "v1", "networks").map(|kind| Resource::clone(&kind))
}

/// Tells `changed` after every change of a kind's objects, and whenever some may have been missed.
async fn follow(registry: &Registry, kind: impl Fn() -> Option<Resource>, changed: &Notify) {
    loop {
        if let Some(kind) = kind()
            && let Ok(mut watch) = registry.watch(&kind, None, registry.seen())
        {
            changed.notify_one();
            while watch.next().await.is_ok() {
                changed.notify_one();
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

struct Keeper<'a> {
    registry: &'a Registry,
    etcd: &'a Leased,
    /// Of flannel's keys, without a slash at its end.
    prefix: String,
    cluster_cidrs: Vec<IpNet>,
    /// When etcd's leases end, and when that was asked.
    leases: HashMap<i64, (Instant, Instant)>,
    /// What is wrong and was logged.
    told: BTreeSet<String>,
}

impl Keeper<'_> {
    async fn run(&mut self, changed: &Notify) {
        loop {
            let began = Instant::now();
            let pause = match self.look().await {
                Ok(()) => TICK,
                Err(failure) => {
                    // Of two that write one Node the second looks again.
                    if !matches!(&failure, Failure::Api(error) if error.code == 409) {
                        tracing::warn!("flannel's subnets are not kept now: {failure}");
                    }
                    tokio::time::sleep(RETRY).await;
                    RETRY
                }
            };
            tokio::time::sleep(GATHER.max(began.elapsed() * SHARE)).await;
            // At its end it is time to look, too.
            let _ = tokio::time::timeout(pause, changed.notified()).await;
        }
    }

    /// Brings both sides in line once.
    async fn look(&mut self) -> Result<(), Failure> {
        // Who led before may have written what this server does not know yet.
        self.registry.current().await?;
        let mut wrong = BTreeSet::new();
        let settings = self.settings().await?;
        if let Err(why) = &settings {
            wrong.insert(why.clone());
        }
        let hosts: Vec<Host> = self.registry.list(&NODES, None).0.iter().map(|node| Host::of(node)).collect();
        let mut leases = Vec::new();
        let mut ids = HashMap::new();
        for pair in self.etcd.list(&format!("{}/subnets/", self.prefix)).await? {
            match self.lease(&pair) {
                Ok(lease) => {
                    if let Err(why) = &lease.attributes {
                        wrong.insert(format!("{}/subnets/{}: {why}", self.prefix, lease.subnet));
                    }
                    ids.insert(lease.subnet, pair.lease);
                    leases.push(lease);
                }
                Err(why) => drop(wrong.insert(why)),
            }
        }
        self.ask(&hosts, &mut leases, &ids).await?;
        self.tell(wrong);
        let scene = Scene { settings: &settings, hosts: &hosts, leases: &leases };
        let mut failed = None;
        for step in plan(&scene, &crate::strategy::now()) {
            if let Err(failure) = self.perform(step).await {
                failed = Some(failure);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Flannel's configuration where the cluster's own fits; makes the Network object where there is none.
    async fn settings(&self) -> Result<Result<Settings, String>, Failure> {
        let key = format!("{}/config", self.prefix);
        let found = self.etcd.list(&key).await?.into_iter().find(|pair| pair.key == key.as_bytes());
        let refused =
            |why: String| Ok(Err(format!("flannel's configuration in etcd at {key} is refused: {why}")));
        let Some(pair) = found else {
            return refused("there is none; write it as flannel needs it".to_owned());
        };
        let settings = match read_settings(&pair.value) {
            Ok(settings) => settings,
            Err(why) => return refused(why),
        };
        let Some(kind) = networks(self.registry) else { return Ok(Ok(settings)) };
        let network = match self.registry.get(&kind, None, "default").await {
            Ok(network) => Some(network),
            Err(error) if error.code == 404 => None,
            Err(error) => return Err(error.into()),
        };
        if let Err(why) = settings.agree(&self.cluster_cidrs, network.as_deref()) {
            return refused(why);
        }
        if network.is_none() {
            tracing::info!("the Network object default is made, as flannel's configuration says");
            self.registry.create(&kind, None, settings.network()).await?;
        }
        Ok(Ok(settings))
    }

    fn lease(&self, pair: &Pair) -> Result<Lease, String> {
        let key = String::from_utf8_lossy(&pair.key);
        let name = key.strip_prefix(&self.prefix).and_then(|rest| rest.strip_prefix("/subnets/"));
        let subnet: Subnet =
            name.unwrap_or_default().parse().map_err(|error| format!("{key:?} is left out: {error}"))?;
        Ok(Lease { subnet, attributes: read_attributes(&pair.value), revision: pair.revision, left: None })
    }

    /// Finds out how long the keys of our hosts last.
    async fn ask(
        &mut self,
        hosts: &[Host],
        leases: &mut [Lease],
        ids: &HashMap<Subnet, i64>,
    ) -> Result<(), Status> {
        let ours: BTreeSet<Subnet> =
            owned(hosts, leases).into_iter().flatten().map(|lease| lease.subnet).collect();
        let held: BTreeSet<i64> = ours.iter().filter_map(|subnet| ids.get(subnet).copied()).collect();
        self.leases.retain(|id, (_, asked)| held.contains(id) && asked.elapsed() < TRUST);
        for lease in leases.iter_mut().filter(|lease| ours.contains(&lease.subnet)) {
            // One without a lease is a reservation, and stays.
            let Some(id) = ids.get(&lease.subnet).copied().filter(|id| *id != 0) else { continue };
            let end = match self.leases.get(&id) {
                Some((end, _)) => *end,
                None => {
                    let now = Instant::now();
                    let end = now + self.etcd.left(id).await?.unwrap_or_default();
                    self.leases.insert(id, (end, now));
                    end
                }
            };
            lease.left = Some(end.saturating_duration_since(Instant::now()));
        }
        Ok(())
    }

    /// Logs what is wrong, once.
    fn tell(&mut self, wrong: BTreeSet<String>) {
        for why in wrong.difference(&self.told) {
            tracing::warn!("{why}");
        }
        self.told = wrong;
    }

    async fn perform(&self, step: Step) -> Result<(), Failure> {
        match step {
            Step::Put { subnet, attributes, revision } => self.put(subnet, &attributes, revision).await,
            Step::Delete { subnet, revision } => {
                tracing::info!("the subnet {subnet} in flannel's etcd is given back");
                self.etcd.delete(self.key(subnet), revision).await?;
                Ok(())
            }
            Step::Patch(Patch { name, part, patch }) => {
                let patch = patch::Patch::Merge(patch);
                self.registry.patch(&NODES, None, &name, part, patch).await?;
                Ok(())
            }
            Step::Mirror(node) => {
                tracing::info!("the host of {} runs flannel", object::name(&node));
                self.registry.create(&NODES, None, node).await?;
                Ok(())
            }
            Step::Retire { name, uid } => {
                tracing::info!("{name} is no more");
                let only = DeleteOptions { uid: Some(uid), ..DeleteOptions::default() };
                match self.registry.delete(&NODES, None, &name, only).await {
                    Err(error) if error.code != 404 => Err(error.into()),
                    _ => Ok(()),
                }
            }
        }
    }

    /// A key that somebody else has written in between is looked at again: that is told by the watch.
    async fn put(&self, subnet: Subnet, attributes: &Attributes, revision: i64) -> Result<(), Failure> {
        let written = self.etcd.put(self.key(subnet), attributes.text(), revision, DAY).await?;
        if written && revision == 0 {
            tracing::info!("the subnet {subnet} is leased in flannel's etcd for {}", attributes.public_ip);
        }
        Ok(())
    }

    fn key(&self, subnet: Subnet) -> Vec<u8> {
        format!("{}/subnets/{subnet}", self.prefix).into_bytes()
    }
}
