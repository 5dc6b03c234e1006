//! When to sweep, and what counts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weft_ipam::pools::sweep::{Finding, sweep, sweep_node};
use weft_model::Cluster;

use crate::conditions::jittered;

/// How often to look.
const EVERY: Duration = Duration::from_secs(30);
/// How long a node must have been gone before what it had is free.
const GONE: Duration = Duration::from_secs(300);

/// What was seen before.
#[derive(Default)]
pub(super) struct Sweeper {
    due: Option<Instant>,
    /// Since when the nodes are gone that blocks name.
    gone: BTreeMap<Arc<str>, Instant>,
    /// What the look before found between pods and allocations.
    seen: Vec<Finding>,
}

impl Sweeper {
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due.is_none_or(|due| now >= due)
    }

    /// What is wrong: of the objects at once, of pods and allocations what was so the last time too.
    pub(super) fn look(
        &mut self,
        cluster: &Cluster,
        node: &str,
        allocated: &BTreeSet<IpAddr>,
        now: Instant,
    ) -> Vec<Finding> {
        // All agents look: not all at once.
        self.due = Some(now + jittered(EVERY));
        self.note_gone(cluster, now);
        let gone = &self.gone;
        let is_gone = |name: &str| gone.get(name).is_some_and(|since| now.duration_since(*since) >= GONE);
        let mut found = sweep(cluster, &is_gone);
        let between = sweep_node(cluster, node, allocated);
        found.extend(between.iter().filter(|finding| self.seen.contains(finding)).cloned());
        self.seen = between;
        found
    }

    fn note_gone(&mut self, cluster: &Cluster, now: Instant) {
        let named =
            cluster.blocks.values().flat_map(|block| block.node.iter().chain(block.borrowed.values()));
        let gone: BTreeSet<Arc<str>> =
            named.filter(|name| !cluster.nodes.contains_key(*name)).cloned().collect();
        self.gone.retain(|name, _| gone.contains(name));
        for name in gone {
            self.gone.entry(name).or_insert(now);
        }
    }
}
