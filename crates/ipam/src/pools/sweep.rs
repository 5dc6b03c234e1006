//! What is not as it should be, and what puts it right.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::Serialize;
use weft_model::network::overlaps;
use weft_model::pools::{IpBlock, block_name};
use weft_model::{Cluster, Pod, PodPhase};

use crate::pools::room::is_block_of;
use crate::pools::{Catalogue, Change, Write};

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// A pool that makes no sense.
    PoolUnusable,
    /// A block that is part of no pool, or not one of its blocks.
    BlockOutsidePool,
    /// Two blocks that share addresses.
    BlocksOverlap,
    /// A block whose node is gone.
    BlockOfGoneNode,
    /// An address that is lent to a node that is gone.
    LoanToGoneNode,
    /// An address that two pods have.
    AddressTwice,
    /// A pod whose address is not one of its node's.
    AddressElsewhere,
    /// A pod that has an address which its node has not allocated.
    PodWithoutAllocation,
    /// An allocation of the node that no pod has.
    AllocationWithoutPod,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What kind of fault.
    pub fault: Fault,
    /// Of what.
    pub object: String,
    /// What is wrong with it and what puts it right.
    pub message: String,
    /// The write that does, where one does.
    #[serde(skip)]
    pub repair: Option<Write>,
}

/// Everything in the objects that is wrong. `is_gone` says of a node that is not in the cluster whether
/// that has been so for long enough to count.
pub fn sweep(cluster: &Cluster, is_gone: &dyn Fn(&str) -> bool) -> Vec<Finding> {
    let catalogue = Catalogue::of(cluster);
    let mut found: Vec<Finding> = catalogue.problems.iter().map(|problem| unusable(problem)).collect();
    let pods = by_address(cluster);
    for block in cluster.blocks.values() {
        found.extend(outside(&catalogue, block));
        found.extend(overlapping(cluster, block));
        found.extend(abandoned(cluster, block, &pods, is_gone));
    }
    for (ip, pods) in &pods {
        if catalogue.around(&IpNet::from(*ip)).is_some() {
            found.extend(twice(ip, pods));
            found.extend(pods.iter().filter_map(|pod| elsewhere(cluster, &catalogue, ip, pod)));
        }
    }
    found.sort_by(|a, b| (a.fault, &a.object).cmp(&(b.fault, &b.object)));
    found
}

/// What is wrong between the pods of a node and its allocations. What two calls in a row tell is so:
/// between an ADD and the pod's status, and between a pod's end and its DEL, there is a moment.
pub fn sweep_node(cluster: &Cluster, node: &str, allocated: &BTreeSet<IpAddr>) -> Vec<Finding> {
    let catalogue = Catalogue::of(cluster);
    let mut found = Vec::new();
    let pods = by_address(cluster);
    for (ip, pods) in &pods {
        let here = pods.iter().filter(|pod| pod.node.as_deref() == Some(node));
        for pod in here.filter(|_| !allocated.contains(ip) && catalogue.around(&IpNet::from(*ip)).is_some()) {
            found.push(finding(
                Fault::PodWithoutAllocation,
                &format!("pod {}", pod.key()),
                format!("it has {ip}, which node {node} has not allocated: nobody else gets it while the pod is there"),
                None,
            ));
        }
    }
    for ip in allocated {
        let in_pool = catalogue.around(&IpNet::from(*ip)).is_some();
        let used = pods.get(ip).is_some_and(|pods| pods.iter().any(|pod| pod.node.as_deref() == Some(node)));
        if in_pool && !used {
            let message = format!(
                "node {node} has allocated it and no pod has it: freed once its sandbox is known to be gone"
            );
            found.push(finding(Fault::AllocationWithoutPod, &ip.to_string(), message, None));
        }
    }
    found
}

fn finding(fault: Fault, object: &str, message: String, repair: Option<Write>) -> Finding {
    Finding { fault, object: object.to_owned(), message, repair }
}

fn unusable(problem: &str) -> Finding {
    let (object, message) = problem.split_once(": ").unwrap_or(("", problem));
    finding(Fault::PoolUnusable, object, message.to_owned(), None)
}

/// Live pods by the addresses that are their own.
fn by_address(cluster: &Cluster) -> BTreeMap<IpAddr, Vec<&Pod>> {
    let mut pods: BTreeMap<IpAddr, Vec<&Pod>> = BTreeMap::new();
    let live =
        |pod: &&Arc<Pod>| !pod.host_network && !matches!(pod.phase, PodPhase::Succeeded | PodPhase::Failed);
    for pod in cluster.pods.values().filter(live) {
        for ip in &pod.ips {
            pods.entry(*ip).or_default().push(pod);
        }
    }
    pods
}

fn outside(catalogue: &Catalogue, block: &IpBlock) -> Option<Finding> {
    let pool = catalogue.get(&block.pool).filter(|pool| is_block_of(&block.cidr, pool));
    if pool.is_some() {
        return None;
    }
    let message = format!(
        "{} is no block of pool {}, which is gone or another one now: no new pod gets its addresses, and its node gives it back when it is empty",
        block.cidr, block.pool
    );
    Some(finding(Fault::BlockOutsidePool, &named(block), message, None))
}

fn overlapping(cluster: &Cluster, block: &IpBlock) -> Option<Finding> {
    let mut wider = std::iter::successors(block.cidr.supernet(), IpNet::supernet).take(12);
    let other = wider.find_map(|net| cluster.blocks.get(block_name(&net).as_str()))?;
    if !overlaps(&other.cidr, &block.cidr) {
        return None;
    }
    let message = format!("{} is part of block {}: no new pod gets its addresses", block.cidr, other.name);
    Some(finding(Fault::BlocksOverlap, &named(block), message, None))
}

/// A block without a node, or loans of it to nodes that are gone.
fn abandoned(
    cluster: &Cluster,
    block: &IpBlock,
    pods: &BTreeMap<IpAddr, Vec<&Pod>>,
    is_gone: &dyn Fn(&str) -> bool,
) -> Vec<Finding> {
    let is_gone = |node: &str| !cluster.nodes.contains_key(node) && is_gone(node);
    let mut new = block.clone();
    let mut found = Vec::new();
    for (ip, node) in block.borrowed.iter().filter(|(ip, node)| is_gone(node) && !pods.contains_key(ip)) {
        new.borrowed.remove(ip);
        let message = format!("it is lent to node {node}, which is gone: it goes back to the block");
        found.push((Fault::LoanToGoneNode, ip.to_string(), message));
    }
    let used = pods.range(block.cidr.network()..=block.cidr.broadcast()).next().is_some();
    match block.node.as_deref() {
        Some(node) if is_gone(node) && used => {
            let message =
                format!("node {node} is gone, and pods still have addresses of {}: delete them", block.cidr);
            found.push((Fault::BlockOfGoneNode, named(block), message));
        }
        Some(node) if is_gone(node) => {
            new.node = None;
            found.push((
                Fault::BlockOfGoneNode,
                named(block),
                format!("node {node} is gone: it is free again"),
            ));
        }
        _ => {}
    }
    let free = new.node.is_none() && new.borrowed.is_empty() && !used;
    let change = if free { Change::Delete } else { Change::Replace };
    if found.is_empty() && free {
        found.push((Fault::BlockOfGoneNode, named(block), "it has no node: it is free again".to_owned()));
    }
    let write = (new != *block || free).then(|| {
        let why = found.iter().map(|(_, object, message)| format!("{object}: {message}")).collect::<Vec<_>>();
        Write { change, block: new, why: why.join("; ") }
    });
    found
        .into_iter()
        .map(|(fault, object, message)| finding(fault, &object, message, write.clone()))
        .collect()
}

fn twice(ip: &IpAddr, pods: &[&Pod]) -> Option<Finding> {
    if pods.len() < 2 {
        return None;
    }
    let names: Vec<String> = pods.iter().map(|pod| pod.key().to_string()).collect();
    let message = format!("pods {} have it: delete all but one of them", names.join(" and "));
    Some(finding(Fault::AddressTwice, &ip.to_string(), message, None))
}

fn elsewhere(cluster: &Cluster, catalogue: &Catalogue, ip: &IpAddr, pod: &Pod) -> Option<Finding> {
    let (pool, node) = (catalogue.around(&IpNet::from(*ip))?, pod.node.as_deref()?);
    let net = IpNet::new(*ip, pool.block_size).ok()?.trunc();
    let block = cluster.blocks.get(block_name(&net).as_str());
    let holder = block.map(|block| block.borrowed.get(ip).or(block.node.as_ref()).map(|holder| &**holder));
    let why = match holder {
        Some(Some(holder)) if holder == node => return None,
        Some(Some(holder)) => format!("node {holder} may give it too: delete the pod"),
        Some(None) => "its block has no node: the pod's node claims it".to_owned(),
        None => "its block is gone: the pod's node claims it again".to_owned(),
    };
    let message = format!("it has {ip} on node {node}, and {why}");
    Some(finding(Fault::AddressElsewhere, &format!("pod {}", pod.key()), message, None))
}

fn named(block: &IpBlock) -> String {
    format!("block {}", block.name)
}

#[cfg(test)]
#[path = "sweep_tests.rs"]
mod tests;
