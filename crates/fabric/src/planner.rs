use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use weft_model::network::{Backend, Ipam, Network, Tunnel};
use weft_model::{Cluster, Node, mark};

use crate::claims::Claims;
use crate::flannel::{Announced, Problem};
use crate::masquerade;
use crate::plan::{Facts, local_plan};
use crate::prefixes::Prefixes;
use crate::{
    FabricConfig, FabricPlan, Masquerade, Path, PeerPlan, Refusal, Underlay, Via, Waiting, checks, flannel,
    vxlan,
};

/// The whole plan of `node` from a snapshot alone.
///
/// `underlay` is the link that carries the node's InternalIP ([`internal_ip`]); without it the
/// plan waits.
pub fn plan(cluster: &Cluster, node: &str, cfg: &FabricConfig, underlay: Option<&Underlay>) -> FabricPlan {
    let mut planner = Planner::new(node, cfg.clone());
    let all = cluster.nodes.keys().cloned().collect();
    planner.update(cluster, &all, underlay);
    planner.plan
}

/// The address by which the underlay link of `node` is found: its first InternalIP.
pub fn internal_ip(cluster: &Cluster, node: &str) -> Option<IpAddr> {
    cluster.nodes.get(node)?.addresses.first().copied()
}

/// Keeps a [`FabricPlan`] in step with the cluster; the cost of an update follows the change.
///
/// Pure: it holds no more than what it was told. After any sequence of updates its plan equals
/// [`plan`] of the last snapshot.
#[derive(Clone, Debug)]
pub struct Planner {
    node: Arc<str>,
    cfg: FabricConfig,
    /// What is in force: the cluster's `Network` object, or the configuration's.
    network: Network,
    /// What leaves under the node's own address.
    masquerade: Masquerade,
    underlay: Option<Underlay>,
    nodes: BTreeMap<Arc<str>, Arc<Node>>,
    claims: Claims,
    /// Whether pods' addresses come from pools, and those pools' CIDRs.
    routed: bool,
    pools: Vec<IpNet>,
    /// What the other nodes that run flannel say.
    flannel: BTreeMap<Arc<str>, Result<Announced, Problem>>,
    plan: FabricPlan,
}

impl Planner {
    /// A planner for `node` that has seen nothing.
    pub fn new(node: &str, cfg: FabricConfig) -> Self {
        let node: Arc<str> = node.into();
        let plan = FabricPlan { local: Err(Waiting::NodeMissing(node.clone())), peers: BTreeMap::new() };
        let network = cfg.network.clone();
        let masquerade = Masquerade::of(&cfg.cluster_cidrs, None, &network.no_masquerade);
        Planner {
            node,
            cfg,
            network,
            masquerade,
            underlay: None,
            nodes: BTreeMap::new(),
            claims: Claims::default(),
            routed: false,
            pools: Vec::new(),
            flannel: BTreeMap::new(),
            plan,
        }
    }

    /// The plan as of the last update.
    pub fn plan(&self) -> &FabricPlan {
        &self.plan
    }

    /// What is in force for the whole cluster as of the last update.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Takes in what changed; `changed` may name more nodes than did. Returns the names of the
    /// peers whose plan differs from before, gone ones included.
    pub fn update(
        &mut self,
        cluster: &Cluster,
        changed: &BTreeSet<Arc<str>>,
        underlay: Option<&Underlay>,
    ) -> BTreeSet<Arc<str>> {
        let mut touched = BTreeSet::new();
        let next_door = !self.flannel.is_empty();
        let everyone = self.follow_ipam(cluster);
        let changed = everyone.as_ref().unwrap_or(changed);
        let prefixes = (self.routed && !changed.is_empty()).then(|| Prefixes::of(cluster));
        for name in changed {
            let node = cluster.nodes.get(name);
            let with_blocks = prefixes.as_ref().zip(node).map(|(prefixes, node)| prefixes.on(node));
            self.exchange(name, with_blocks.as_ref().or(node), &mut touched);
        }
        let pools = self.routed.then(|| masquerade::pools(cluster));
        let cidrs: Vec<IpNet> = pools.iter().flat_map(|pools| pools.keys()).copied().collect();
        let moved = self.pools != cidrs;
        self.pools = cidrs;
        let network = cluster.network().unwrap_or(&self.cfg.network);
        let masquerade = Masquerade::of(&self.cfg.cluster_cidrs, pools.as_ref(), &network.no_masquerade);
        let all = moved
            || self.underlay.as_ref() != underlay
            || *network != self.network
            || masquerade != self.masquerade
            || next_door == self.flannel.is_empty()
            || touched.contains(&self.node);
        if all {
            self.underlay = underlay.cloned();
            self.network = network.clone();
            self.masquerade = masquerade;
        }
        if all { self.replan_all() } else { self.replan(touched) }
    }

    /// Where pods' addresses come from now; when that is new, all nodes have other prefixes.
    fn follow_ipam(&mut self, cluster: &Cluster) -> Option<BTreeSet<Arc<str>>> {
        let routed = cluster.ipam(self.cfg.network.ipam.unwrap_or_default()) == Ipam::Pools;
        if std::mem::replace(&mut self.routed, routed) == routed {
            return None;
        }
        Some(self.nodes.keys().chain(cluster.nodes.keys()).cloned().collect())
    }

    fn exchange(&mut self, name: &Arc<str>, new: Option<&Arc<Node>>, touched: &mut BTreeSet<Arc<str>>) {
        if self.nodes.get(name) == new {
            return;
        }
        if let Some(old) = self.nodes.remove(name) {
            touched.extend(self.claims.touching(&old));
            self.claims.remove(&old);
            self.flannel.remove(name);
        }
        if let Some(new) = new {
            if let Some(announced) = flannel::neighbour(new).filter(|_| *name != self.node) {
                self.flannel.insert(name.clone(), announced);
            }
            self.claims.insert(new);
            touched.extend(self.claims.touching(new));
            self.nodes.insert(name.clone(), new.clone());
        }
        touched.insert(name.clone());
    }

    fn replan_all(&mut self) -> BTreeSet<Arc<str>> {
        self.plan.local = self.plan_local();
        let mut names: BTreeSet<Arc<str>> = self.plan.peers.keys().cloned().collect();
        names.extend(self.nodes.keys().cloned());
        self.replan(names)
    }

    fn replan(&mut self, mut names: BTreeSet<Arc<str>>) -> BTreeSet<Arc<str>> {
        names.remove(&self.node);
        names.retain(|name| {
            let new = self.plan_peer(name);
            let same = self.plan.peers.get(name) == new.as_ref();
            match new {
                Some(new) => self.plan.peers.insert(name.clone(), new),
                None => self.plan.peers.remove(name),
            };
            !same
        });
        names
    }

    fn plan_local(&self) -> Result<crate::LocalPlan, Waiting> {
        let node = self.nodes.get(&self.node).ok_or_else(|| Waiting::NodeMissing(self.node.clone()))?;
        let no_address = || Refusal::NoAddress { node: node.name.clone(), family: "IPv4 or IPv6" };
        let local = *node.addresses.first().ok_or_else(no_address)?;
        checks::address(node, local)?;
        let no_underlay = || Waiting::NoUnderlay { node: node.name.clone(), address: local };
        let underlay = self.underlay.as_ref().filter(|u| u.carries(local)).ok_or_else(no_underlay)?;
        if node.pod_cidrs.is_empty() && !self.routed {
            return Err(Refusal::NoPodCidr { node: node.name.clone() }.into());
        }
        for cidr in &node.pod_cidrs {
            checks::cidr(node, cidr, underlay)?;
        }
        let problems = checks::own_conflicts(node, &self.claims);
        let cidrs: Vec<IpNet> = self.cfg.cluster_cidrs.iter().chain(&self.pools).copied().collect();
        let plan = local_plan(Facts {
            node,
            local,
            network: &self.network,
            cluster_cidrs: &cidrs,
            masquerade: self.masquerade.clone(),
            underlay,
            flannel_next_door: !self.flannel.is_empty(),
            problems,
        });
        let plan = crate::LocalPlan { pools: self.routed, ..plan };
        Ok(if plan.pools || plan.learns { plan.routed() } else { plan })
    }

    /// The plan for one peer; none while this node itself waits or the peer does not exist.
    fn plan_peer(&self, name: &Arc<str>) -> Option<PeerPlan> {
        let local = self.plan.local.as_ref().ok()?;
        let underlay = self.underlay.as_ref()?;
        let peer = self.nodes.get(name)?;
        let mut plan = PeerPlan::default();
        if let Err(refusal) = checks::peer(peer, &local.node, &self.claims, self.routed) {
            plan.refused.push(refusal);
            return Some(plan);
        }
        let blocks = peer.pod_cidrs.iter().enumerate().map(|(i, cidr)| {
            let cidr = cidr.trunc();
            checks::own_overlap(peer, &cidr, &peer.pod_cidrs[..i])?;
            self.path(peer, &cidr, underlay)
        });
        // Parts of other nodes' blocks, before whose routes theirs go.
        let loans = peer.loans.iter().map(|loan| self.by_backends(peer, loan, underlay));
        for planned in blocks.chain(loans) {
            match planned {
                Ok((path, fallback)) => {
                    plan.paths.push(path);
                    plan.fallback.extend(fallback);
                }
                Err(refusal) => plan.refused.push(refusal),
            }
        }
        Some(plan)
    }

    /// The path to one pod CIDR, and why it is not the one that comes first.
    fn path(
        &self,
        peer: &Node,
        cidr: &IpNet,
        underlay: &Underlay,
    ) -> Result<(Path, Option<Refusal>), Refusal> {
        checks::cidr(peer, cidr, underlay)?;
        checks::cidr_conflict(peer, cidr, &self.node, &self.claims)?;
        if let (Some(announced), Ok(local)) = (self.flannel.get(&peer.name), &self.plan.local) {
            let announced = announced.as_ref().map_err(Clone::clone)?;
            let path = flannel::path(peer, announced, cidr, local, &self.network, underlay, &self.claims)?;
            return Ok((path, None));
        }
        self.by_backends(peer, cidr, underlay)
    }

    fn by_backends(
        &self,
        peer: &Node,
        cidr: &IpNet,
        underlay: &Underlay,
    ) -> Result<(Path, Option<Refusal>), Refusal> {
        let mut refused = None;
        for backend in self.network.backends(&self.node) {
            match self.via(backend, peer, cidr, underlay) {
                Ok(via) => return Ok((Path { cidr: *cidr, via }, refused)),
                Err(refusal) => _ = refused.get_or_insert(refusal),
            }
        }
        Err(refused.unwrap_or_else(|| Refusal::NoPodCidr { node: peer.name.clone() }))
    }

    /// By a plain route where the backend has them and the peer is a neighbour, else by its tunnel.
    fn via(&self, backend: Backend, peer: &Node, cidr: &IpNet, underlay: &Underlay) -> Result<Via, Refusal> {
        let direct = || {
            let gateway = address_like(peer, cidr.addr())?;
            checks::on_segment(peer, gateway, underlay)?;
            Ok(Via::Direct { gateway, link: underlay.index })
        };
        if backend == Backend::BGP {
            return Ok(Via::Learnt);
        }
        let Some(tunnel) = backend.tunnel else { return direct() };
        match direct() {
            Ok(via) if backend.direct => Ok(via),
            _ => self.through(tunnel, peer, cidr),
        }
    }

    fn through(&self, tunnel: Tunnel, peer: &Node, cidr: &IpNet) -> Result<Via, Refusal> {
        let local = self.nodes.get(&self.node).and_then(|me| me.addresses.first().copied());
        let endpoint = || address_like(peer, local.unwrap_or(cidr.addr()));
        Ok(match tunnel {
            Tunnel::Vxlan => {
                let mac = mark::vtep_mac(&peer.name);
                Via::Vxlan { gateway: vxlan::gateway(cidr, mac), mac, endpoint: endpoint()? }
            }
            Tunnel::Udp => Via::Udp { endpoint: endpoint()? },
            Tunnel::Ipip => Via::Ipip { endpoint: address_like(peer, cidr.addr())? },
        })
    }
}

fn address_like(peer: &Node, like: IpAddr) -> Result<IpAddr, Refusal> {
    let family = if like.is_ipv4() { "IPv4" } else { "IPv6" };
    peer.address_like(like).ok_or_else(|| Refusal::NoAddress { node: peer.name.clone(), family })
}
