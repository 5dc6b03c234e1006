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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use weft_ipam::pools::{Input, Keeper};
    use weft_model::Node;
    use weft_model::pools::{IpBlock, IpPool, LabelSelector, Namespace};

    fn lending(lent: &str, to: &str) -> Cluster {
        let pool = IpPool {
            name: "p".into(),
            uid: "p".into(),
            created: "".into(),
            cidr: "10.1.0.0/30".parse().unwrap(),
            block_size: 30,
            disabled: false,
            nat_outgoing: false,
            manual: false,
            disable_bgp_export: false,
            node_selector: LabelSelector::default(),
            namespace_selector: LabelSelector::default(),
        };
        let block = IpBlock {
            name: "10-1-0-0-30".into(),
            uid: "u".into(),
            version: "1".into(),
            cidr: pool.cidr,
            pool: "p".into(),
            node: Some("a".into()),
            nat_outgoing: false,
            borrowed: [(lent.parse().unwrap(), to.into())].into(),
            asked: BTreeMap::new(),
            release: BTreeSet::new(),
        };
        let node = Node { name: "a".into(), ..Node::default() };
        let namespace = Namespace { name: "default".into(), ..Namespace::default() };
        Cluster {
            nodes: [(node.name.clone(), Arc::new(node))].into_iter().collect(),
            namespaces: [(namespace.name.clone(), Arc::new(namespace))].into_iter().collect(),
            pools: [(pool.name.clone(), Arc::new(pool))].into_iter().collect(),
            blocks: [(block.name.clone(), Arc::new(block))].into_iter().collect(),
            ..Cluster::default()
        }
    }

    #[test]
    fn what_a_node_borrowed_that_is_gone_is_its_owner_s_again() {
        let (mut cluster, start, none) = (lending("10.1.0.2", "gone"), Instant::now(), BTreeSet::new());
        let mut sweeper = Sweeper::default();
        let mut at = |cluster: &Cluster, seconds| {
            let now = start + Duration::from_secs(seconds);
            (sweeper.look(cluster, "a", &none, now), now)
        };
        assert_eq!(at(&cluster, 0).0, []);
        assert_eq!(at(&cluster, 299).0, []);
        // It was there again: only from now on is it gone.
        let back = Node { name: "gone".into(), ..Node::default() };
        cluster.nodes.insert("gone".into(), Arc::new(back));
        assert_eq!(at(&cluster, 300).0, []);
        cluster.nodes.remove("gone");
        assert_eq!(at(&cluster, 310).0, []);
        let (found, now) = at(&cluster, 610);
        assert_eq!((found.len(), found[0].object.as_str()), (1, "10.1.0.2"));
        assert!(found[0].message.contains("lent to node gone, which is gone"), "{}", found[0].message);
        let write = found[0].repair.clone().unwrap();
        let gives = |cluster: &Cluster| {
            let input = Input { cluster, pods: &[], allocated: &none, now };
            let file = Keeper::new("a", GONE).plan(input).file;
            file.spans.iter().any(|span| span.holds(&"10.1.0.2".parse().unwrap()))
        };
        assert!(!gives(&cluster));
        cluster.blocks.insert(write.block.name.clone(), Arc::new(write.block));
        assert!(gives(&cluster));
        assert_eq!(at(&cluster, 640).0, []);
    }
}
