//! Which prefixes are whose, where pods' addresses come from pools.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;
use weft_model::{Cluster, Node};

/// The blocks and the loans of each node.
#[derive(Debug, Default)]
pub(crate) struct Prefixes<'a>(BTreeMap<&'a str, (Vec<IpNet>, Vec<IpNet>)>);

impl<'a> Prefixes<'a> {
    pub(crate) fn of(cluster: &'a Cluster) -> Prefixes<'a> {
        let mut all: BTreeMap<&str, (Vec<IpNet>, Vec<IpNet>)> = BTreeMap::new();
        for block in cluster.blocks.values() {
            if let Some(node) = &block.node {
                all.entry(node).or_default().0.push(block.cidr);
            }
            for (ip, node) in &block.borrowed {
                all.entry(node).or_default().1.push((*ip).into());
            }
        }
        Prefixes(all)
    }

    /// The node with its blocks as its pod CIDRs, whatever its object says.
    pub(crate) fn on(&self, node: &Node) -> Arc<Node> {
        let (mut pod_cidrs, mut loans) = self.0.get(&*node.name).cloned().unwrap_or_default();
        // IPv4 goes first, so that the order says nothing of the blocks' names.
        pod_cidrs.sort();
        loans.sort();
        Arc::new(Node { pod_cidrs, loans, ..node.clone() })
    }
}
