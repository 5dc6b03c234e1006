//! The few controllers that a bare cluster needs: node CIDRs, workloads to pods, a scheduler,
//! garbage collection and the end of namespaces.
//!
//! One loop: watches feed the [`world::World`], which marks what a change concerns; for each marked object
//! a planner (a pure function) says what to write; the writes go out together, and their answers are known
//! to the world before it plans again. So nothing is created twice, and nothing is planned before every
//! kind is known whole.

mod action;
mod feed;
mod gc;
mod matching;
mod node_cidr;
mod object;
mod scheduler;
mod workloads;
mod world;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use ipnet::IpNet;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::registry::Registry;
use action::{Action, Outcome};
use feed::{Feeds, News};
use world::{Key, World};

/// Writes under way at once; the store commits them together.
const WRITES: usize = 256;
/// How long news is gathered before it is acted on.
const GATHER: Duration = Duration::from_millis(3);

/// What the controllers are told once.
#[derive(Debug, Clone)]
pub struct ControllersConfig {
    /// The cluster's pod CIDRs, at most one a family. Nodes get no CIDRs when empty.
    pub cluster_cidrs: Vec<IpNet>,
    /// Prefix length of a node's IPv4 CIDR.
    pub node_cidr_mask: u8,
    /// Prefix length of a node's IPv6 CIDR.
    pub node_cidr_mask_v6: u8,
}

impl Default for ControllersConfig {
    /// Kubernetes' masks, /24 and /64, and no cluster CIDR.
    fn default() -> Self {
        Self { cluster_cidrs: Vec::new(), node_cidr_mask: 24, node_cidr_mask_v6: 64 }
    }
}

impl ControllersConfig {
    /// For these cluster CIDRs; `mask` is a node's prefix length, in the one family there is or
    /// in IPv4 where there are both.
    pub fn new(cluster_cidrs: Vec<IpNet>, mask: Option<u8>) -> Self {
        let defaults = Self::default();
        let v6_only =
            !cluster_cidrs.is_empty() && cluster_cidrs.iter().all(|cidr| matches!(cidr, IpNet::V6(_)));
        let (node_cidr_mask, node_cidr_mask_v6) = match mask {
            Some(mask) if v6_only => (defaults.node_cidr_mask, mask),
            Some(mask) => (mask, defaults.node_cidr_mask_v6),
            None => (defaults.node_cidr_mask, defaults.node_cidr_mask_v6),
        };
        Self { cluster_cidrs, node_cidr_mask, node_cidr_mask_v6 }
    }
}

/// The running controllers. Dropping it ends them; what they were writing is written or not.
pub struct Controllers {
    _task: JoinSet<()>,
}

/// Starts the controllers over a registry. Must be called within a Tokio runtime.
pub fn spawn(registry: Registry, config: ControllersConfig) -> Controllers {
    let mut task = JoinSet::new();
    task.spawn(async move {
        let (mut feeds, news) = Feeds::new(registry.clone());
        feeds.refresh();
        let runner = Runner { registry, config, feeds, world: World::default(), retries: HashMap::new() };
        runner.run(news).await;
    });
    Controllers { _task: task }
}

struct Runner {
    registry: Registry,
    config: ControllersConfig,
    feeds: Feeds,
    world: World,
    /// What failed: how often, and when to try again.
    retries: HashMap<Key, (u32, Instant)>,
}

impl Runner {
    async fn run(mut self, mut news: mpsc::Receiver<News>) {
        loop {
            let next = self.retries.values().map(|(_, at)| *at).min();
            let patience = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                first = news.recv() => match first {
                    Some(first) => self.learn(first),
                    None => return,
                },
                () = patience => {}
            }
            tokio::time::sleep(GATHER).await;
            while let Ok(more) = news.try_recv() {
                self.learn(more);
            }
            if self.world.kinds.len() < self.feeds.refresh() {
                continue;
            }
            self.wake_retries();
            while !self.world.dirty.is_empty() {
                self.act().await;
            }
        }
    }

    fn learn(&mut self, news: News) {
        match news {
            News::All(kind, objects, version) => self.world.replace(&kind, &objects, version),
            News::Put(kind, object) => self.world.put(&kind, object),
            News::Gone(kind, object) => self.world.remove(&kind, &object),
        }
    }

    fn wake_retries(&mut self) {
        let now = Instant::now();
        let due = self.retries.iter().filter(|(_, (_, at))| *at <= now).map(|(key, _)| key.clone());
        self.world.dirty.extend(due);
    }

    /// Plans for all that is marked, writes, and learns what was written.
    async fn act(&mut self) {
        let dirty = std::mem::take(&mut self.world.dirty);
        let planned = self.plan(&dirty.into_iter().collect::<Vec<_>>());
        let (registry, feeds) = (&self.registry, &self.feeds);
        let find = |name: &str| feeds.kind(name);
        let writes = planned.into_iter().map(|(key, action)| {
            let find = &find;
            async move {
                let kind = find(action.kind());
                (key, kind, action.perform(registry, find).await)
            }
        });
        let written: Vec<_> = stream::iter(writes).buffer_unordered(WRITES).collect().await;
        let mut failed = HashMap::new();
        for (key, kind, result) in written {
            match (result, kind) {
                (Ok(Outcome::Put(object)), Some(kind)) if kind.kind != "Event" => {
                    self.world.put(&kind, object)
                }
                (Ok(Outcome::Gone(object)), Some(kind)) => self.world.remove_early(&kind, &object),
                (Ok(_), _) => {}
                (Err(error), _) => {
                    failed.insert(key, error);
                    continue;
                }
            }
            self.retries.remove(&key);
        }
        for (key, error) in failed {
            self.retry_later(key, &error);
        }
    }

    /// What to write for these objects.
    fn plan(&mut self, dirty: &[Key]) -> Vec<(Key, Action)> {
        let now = crate::strategy::now();
        let mut planned = Vec::new();
        for key in dirty {
            let Some(object) = self.world.get(key) else { continue };
            let mut actions = gc::plan(&self.world, key, object);
            if actions.is_empty() {
                actions = workloads::plan(&self.world, key, object, &now);
            }
            // One at a time for what failed before, so that a bad template does not fail a thousand times.
            let limit = if self.retries.contains_key(key) { 1 } else { usize::MAX };
            planned.extend(actions.into_iter().take(limit).map(|action| (key.clone(), action)));
        }
        planned.extend(node_cidr::plan(&self.world, dirty, &self.config, &now));
        planned.extend(scheduler::plan(&self.world, dirty, &now));
        let busy: HashSet<&Key> = planned.iter().map(|(key, _)| key).collect();
        for key in dirty.iter().filter(|key| !busy.contains(key)) {
            self.retries.remove(key);
        }
        planned
    }

    fn retry_later(&mut self, key: Key, error: &crate::ApiError) {
        let attempts = self.retries.get(&key).map_or(0, |(attempts, _)| *attempts);
        let wait = Duration::from_millis(100 << attempts.min(8));
        if attempts == 0 || error.code == 500 {
            tracing::debug!("{key}: {error}");
        } else {
            tracing::warn!("{key}, attempt {}: {error}", attempts + 1);
        }
        self.retries.insert(key, (attempts + 1, Instant::now() + wait));
    }
}

#[cfg(test)]
mod load_tests;
#[cfg(test)]
mod tests;
