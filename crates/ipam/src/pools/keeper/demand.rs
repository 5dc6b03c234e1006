//! What the pods of a node need.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use weft_model::pools::{Labels, Namespace};
use weft_model::{Pod, PodKey, PodPhase};

use super::Input;
use crate::pools::{Catalogue, room};

/// The most free addresses that a node keeps ready.
const READY: usize = 8;

/// What the pods of a node need.
#[derive(Clone, Debug, Default)]
pub(super) struct Demands {
    /// How many pods have their addresses of which pools, all of one family.
    pub(super) pools: BTreeMap<Vec<Arc<str>>, usize>,
    /// Addresses that pods ask for, and who does.
    pub(super) wished: BTreeMap<IpAddr, PodKey>,
    /// Addresses of the pools that pods have by the API, and who.
    pub(super) kept: BTreeMap<IpAddr, PodKey>,
    pub(super) problems: Vec<String>,
}

impl Demands {
    pub(super) fn of(input: &Input<'_>, catalogue: &Catalogue, labels: &Labels) -> Demands {
        let mut demands = Demands::default();
        // The first block is there before the first pod.
        let usual = catalogue.choice(&Namespace::default(), labels);
        demands.add(catalogue, &usual.automatic, 0);
        for pod in input.pods.iter().filter(|pod| needs_address(pod)) {
            for ip in pod.ips.iter().filter(|ip| catalogue.around(&IpNet::from(**ip)).is_some()) {
                demands.kept.insert(*ip, pod.key());
            }
            let Some(namespace) = input.cluster.namespaces.get(&pod.namespace) else { continue };
            let choice = catalogue.choice(namespace, labels);
            let wish = pod.wish.as_deref();
            for ip in wish.iter().flat_map(|wish| &wish.ips) {
                demands.wish(catalogue, *ip, &choice.allowed, pod);
            }
            let mut pools = choice.for_wish(wish);
            pools.retain(|name| {
                let v4 = catalogue.get(name).is_some_and(|pool| pool.cidr.addr().is_ipv4());
                !wish.iter().flat_map(|wish| &wish.ips).any(|ip| ip.is_ipv4() == v4)
            });
            demands.add(catalogue, &pools, 1);
        }
        demands
    }

    fn add(&mut self, catalogue: &Catalogue, pools: &[Arc<str>], pods: usize) {
        for v4 in [true, false] {
            let of_family =
                |name: &&Arc<str>| catalogue.get(name).is_some_and(|pool| pool.cidr.addr().is_ipv4() == v4);
            let pools: Vec<Arc<str>> = pools.iter().filter(of_family).cloned().collect();
            if !pools.is_empty() {
                *self.pools.entry(pools).or_default() += pods;
            }
        }
    }

    fn wish(&mut self, catalogue: &Catalogue, ip: IpAddr, allowed: &[Arc<str>], pod: &Pod) {
        let key = pod.key();
        match catalogue.around(&ip.into()) {
            Some(pool) if allowed.contains(&pool.name) => _ = self.wished.entry(ip).or_insert(key),
            Some(pool) => self.problems.push(format!(
                "pod {key} asks for {ip} of pool {}, which it may not use: correct its annotation or the pool",
                pool.name
            )),
            None => self.problems.push(format!("pod {key} asks for {ip}, which is in no pool: correct its annotation")),
        }
    }
}

/// How many of the pods that need one have no address yet.
pub(super) fn waiting(
    catalogue: &Catalogue,
    pools: &[Arc<str>],
    pods: usize,
    taken: &BTreeSet<IpAddr>,
) -> usize {
    let nets: Vec<_> = pools.iter().filter_map(|name| catalogue.get(name)).map(|pool| pool.cidr).collect();
    pods.saturating_sub(taken.iter().filter(|ip| nets.iter().any(|net| net.contains(*ip))).count())
}

/// How many free addresses of these pools a node keeps ready: an eighth of a block, no more than [`READY`].
pub(super) fn ready(catalogue: &Catalogue, pools: &[Arc<str>]) -> usize {
    let sizes = pools.iter().filter_map(|name| catalogue.get(name));
    let sizes = sizes.map(|pool| room::size(pool.block_size, pool.cidr.addr().is_ipv4()));
    (sizes.max().unwrap_or_default() / 8).clamp(1, READY)
}

/// Whether the pod lives and has an address of its own.
pub(super) fn needs_address(pod: &Pod) -> bool {
    !pod.host_network && !matches!(pod.phase, PodPhase::Succeeded | PodPhase::Failed)
}
