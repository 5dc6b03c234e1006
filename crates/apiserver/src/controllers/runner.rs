//! The loop: learn what the watches tell, plan for what it concerns, write, learn what was written.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::action::{Action, Outcome};
use super::alarms::Alarms;
use super::feed::{Feeds, News};
use super::guard::{self, Panicked};
use super::leader::Term;
use super::world::{Key, World};
use super::{
    ControllersConfig, basics, disruption, endpoints, gc, load_balancer, nodes, scheduler, workloads,
};
use crate::ApiError;
use crate::kinds;
use crate::registry::{Part, Registry};

/// Writes under way at once; the store commits them together.
pub(super) const WRITES: usize = 256;
/// How long news is gathered before it is acted on.
const GATHER: Duration = Duration::from_millis(3);
/// How long after a write whose end is unknown the store is asked again.
const DOUBT: Duration = Duration::from_millis(100);
/// The longest pause between two looks at the clock.
const TICK: Duration = Duration::from_secs(5);

pub(super) struct Runner {
    registry: Registry,
    config: ControllersConfig,
    feeds: Feeds,
    world: World,
    /// What failed: how often, and when to try again.
    retries: HashMap<Key, (u32, Instant)>,
    /// What to look at again and when.
    alarms: Alarms,
    /// The time when the loop began, by the wall's clock and by one that never jumps.
    began: (Timestamp, Instant),
    /// As long as it lasts, nobody else writes.
    term: Term,
    /// Whether a write failed that may have been done nevertheless.
    in_doubt: bool,
}

impl Runner {
    pub(super) fn new(registry: Registry, config: ControllersConfig, term: Term) -> Self {
        let feeds = Feeds::new(registry.clone());
        let began = (Timestamp::now(), Instant::now());
        let (world, retries, alarms) = (World::default(), HashMap::new(), Alarms::default());
        Runner { registry, config, feeds, world, retries, alarms, began, term, in_doubt: false }
    }

    /// Runs as long as the term lasts.
    pub(super) async fn run(mut self) {
        // Who led before may have written what this server does not know yet.
        while let Err(error) = self.registry.current().await {
            tracing::debug!("the controllers wait for the store: {error}");
            tokio::time::sleep(DOUBT).await;
        }
        self.feeds.refresh();
        loop {
            self.wait().await;
            tokio::time::sleep(GATHER).await;
            self.learn_all();
            if self.world.kinds.len() < self.feeds.refresh() {
                continue;
            }
            self.wake_retries();
            self.world.dirty.extend(self.alarms.take(self.world.now));
            while !self.world.dirty.is_empty() && !self.in_doubt {
                if !self.term.lasts() {
                    return;
                }
                self.act().await;
                if self.world.is_behind() {
                    // The watches must not wait until all of a large cluster is planned.
                    self.learn_all();
                }
            }
            if self.in_doubt {
                self.look_anew().await;
            }
        }
    }

    fn now(&self) -> Timestamp {
        let passed = SignedDuration::try_from(self.began.1.elapsed()).unwrap_or(SignedDuration::MAX);
        self.began.0.saturating_add(passed).unwrap_or(Timestamp::MAX)
    }

    /// Returns when there is news, or something to look at again.
    async fn wait(&mut self) {
        let retry = self.retries.values().map(|(_, at)| at.saturating_duration_since(Instant::now()));
        let alarm = self.alarms.next().map(|at| at.duration_since(self.now()));
        let alarm = alarm.map(|left| Duration::try_from(left).unwrap_or_default());
        let patience = retry.chain(alarm).chain([TICK]).min().unwrap_or(TICK);
        if let Ok(first) = tokio::time::timeout(patience, self.feeds.next()).await {
            self.world.advance(self.now());
            self.learn(first);
        }
    }

    fn learn_all(&mut self) {
        self.world.advance(self.now());
        while let Some(more) = self.feeds.try_next() {
            self.learn(more);
        }
    }

    fn learn(&mut self, news: News) {
        match news {
            News::All(kind, objects, version) => self.world.replace(&kind, objects, version),
            News::Put(key, object) => self.world.put(key, object),
            News::Gone(key, last) => self.world.end(&key, &last),
        }
    }

    /// After a write whose end is unknown: waits until the store takes writes, and lists everything again
    /// before anything is planned, so that nothing is made twice.
    async fn look_anew(&mut self) {
        loop {
            tokio::time::sleep(DOUBT).await;
            let probe =
                self.registry.modify(&kinds::NAMESPACES, None, "default", Part::Whole, |_| Ok(())).await;
            let seen = self.registry.current().await;
            if !probe.is_err_and(|error| unknown(&error)) && seen.is_ok() {
                break;
            }
        }
        self.feeds = Feeds::new(self.registry.clone());
        self.feeds.refresh();
        self.world.kinds.clear();
        self.in_doubt = false;
    }

    fn wake_retries(&mut self) {
        let now = Instant::now();
        let due = self.retries.iter().filter(|(_, (_, at))| *at <= now).map(|(key, _)| key.clone());
        self.world.dirty.extend(due);
    }

    /// Plans for all that is marked, writes, and learns what was written.
    async fn act(&mut self) {
        let dirty = self.world.take_dirty();
        let (planned, panicked) = self.plan(&dirty);
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
                    self.world.learn(&kind, object)
                }
                (Ok(Outcome::Gone(object)), Some(kind)) => self.world.end_early(&kind, &object),
                (Ok(_), _) => {}
                (Err(error), _) => {
                    failed.insert(key, error);
                    continue;
                }
            }
            self.retries.remove(&key);
        }
        for (key, error) in failed {
            self.in_doubt |= unknown(&error);
            self.retry_later(key, &error);
        }
        for Panicked { controller, key, reason } in panicked {
            tracing::error!("the controller {controller} panicked on {key}: {reason}");
            self.postpone(key);
        }
    }

    /// What to write for these objects, and for which it is not known.
    fn plan(&mut self, dirty: &[Key]) -> (Vec<(Key, Action)>, Vec<Panicked>) {
        let now = crate::strategy::now();
        // What is written for it makes it stale again.
        let stale = std::mem::take(&mut self.world.claims.stale);
        let (mut planned, mut panicked) = (Vec::new(), Vec::new());
        for key in dirty {
            self.world.rest();
            let actions = self.plan_one(key, &now, &mut panicked);
            // One at a time for what failed before, so that a bad template does not fail a thousand times.
            let limit = if self.retries.contains_key(key) { 1 } else { usize::MAX };
            planned.extend(actions.into_iter().take(limit).map(|action| (key.clone(), action)));
        }
        let (world, alarms, config) = (&self.world, &mut self.alarms, &self.config);
        let bad = &mut panicked;
        planned.extend(guard::together("nodes", dirty, bad, |dirty| nodes::plan(world, dirty, alarms)));
        planned.extend(guard::together("node-cidrs", dirty, bad, |dirty| {
            nodes::cidr::plan(world, dirty, config, &now)
        }));
        planned.extend(guard::together("scheduler", dirty, bad, |dirty| scheduler::plan(world, dirty, &now)));
        let again = |key: &Key| {
            matches!(&*key.kind, "services" | load_balancer::POOLS) && self.retries.contains_key(key)
        };
        if stale || dirty.iter().any(again) {
            planned.extend(guard::together("load-balancers", dirty, bad, |_| {
                load_balancer::plan(world, config, &now)
            }));
        }
        let mut busy: HashSet<&Key> = planned.iter().map(|(key, _)| key).collect();
        busy.extend(panicked.iter().map(|panicked| &panicked.key));
        for key in dirty.iter().filter(|key| !busy.contains(key)) {
            self.retries.remove(key);
        }
        (planned, panicked)
    }

    /// What to write for one object: what the first controller with something to say wants.
    fn plan_one(&mut self, key: &Key, now: &str, panicked: &mut Vec<Panicked>) -> Vec<Action> {
        let (world, alarms, config) = (&self.world, &mut self.alarms, &self.config);
        let object = world.get(key);
        let before = panicked.len();
        let actions = guard::one("garbage-collector", key, panicked, || {
            object.map_or_else(Vec::new, |object| gc::plan(world, key, object))
        });
        let mut actions = actions.unwrap_or_default();
        if actions.is_empty() {
            let slices = guard::one("endpoints", key, panicked, || endpoints::plan(world, key));
            actions = slices.unwrap_or_default();
        }
        // What is to be deleted must not be made whole first.
        let collectable =
            panicked[before..].iter().all(|panicked| panicked.controller != "garbage-collector");
        if let Some(object) = object
            && actions.is_empty()
            && collectable
        {
            let work = || workloads::plan(world, key, object, now);
            actions.extend(guard::one("workloads", key, panicked, work).unwrap_or_default());
            let cron = || workloads::plan_cron_job(world, key, object, alarms);
            actions.extend(guard::one("cron-jobs", key, panicked, cron).into_iter().flatten());
            let budgets = || disruption::plan(world, key, object, now);
            actions.extend(guard::one("disruption", key, panicked, budgets).into_iter().flatten());
            let basics = || basics::plan(world, key, object, config);
            actions.extend(guard::one("basics", key, panicked, basics).into_iter().flatten());
        }
        actions
    }

    fn retry_later(&mut self, key: Key, error: &ApiError) {
        let attempts = self.retries.get(&key).map_or(0, |(attempts, _)| *attempts);
        if attempts == 0 || error.code == 500 {
            tracing::debug!("{key}: {error}");
        } else {
            tracing::warn!("{key}, attempt {}: {error}", attempts + 1);
        }
        self.postpone(key);
    }

    /// Looks at the object again, later each time.
    fn postpone(&mut self, key: Key) {
        let attempts = self.retries.get(&key).map_or(0, |(attempts, _)| *attempts);
        let wait = Duration::from_millis(100 << attempts.min(8));
        self.retries.insert(key, (attempts + 1, Instant::now() + wait));
    }
}

/// Whether what failed may have been done nevertheless.
fn unknown(error: &ApiError) -> bool {
    error.code >= 500
}
