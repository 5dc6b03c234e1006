use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use weft_fabric::flannel::subnet_env;
use weft_fabric::{Fabric, FabricConfig, LocalPlan, Planner, Underlay, Waiting, internal_ip, masquerade};
use weft_kernel::nft::{Nft, NftEvent};
use weft_kernel::{Event, Netlink};
use weft_model::network::Network;
use weft_model::{Cluster, Node, mark};
use weft_store::{Freshness, Update};

use crate::bgp::Learnt;
use crate::flannel::Leftovers;
use crate::forward_filter::Found;
use crate::host::{self, Standing};
use crate::offload::Offload;
use crate::status::{self, Repairs, Status, UdpTraffic};
use crate::{AgentConfig, conflist, containers, files, flannel, forward_filter, forwarding, underlay};

/// What it means that nf_tables fails.
const NOT_MASQUERADED: &str =
    "nothing that leaves the cluster is masqueraded (modprobe nf_tables where it is missing)";

/// One node's agent without its event loop: inputs come in by `handle_*`, which change nothing
/// in the kernel, and [`apply`](Agent::apply) then does what is due.
///
/// Call order: take in everything that waits (kernel events first), then apply. Nothing is
/// changed before the first update. The monitors must have been opened before that.
pub struct Agent {
    cfg: AgentConfig,
    netlink: Netlink,
    /// None where the kernel has no nf_tables, as far as it was asked.
    nft: Option<Nft>,
    cluster: Option<Cluster>,
    stale: Option<(std::time::SystemTime, String)>,
    underlay: Option<Underlay>,
    /// This host's number, the underlay link that was last found, and the addresses that are to be the
    /// node's.
    host: Arc<str>,
    link: Option<Arc<str>>,
    moved: Vec<IpAddr>,
    /// What the tunnel in user space had carried at the last audit: read at each look, it would make
    /// every status a new one.
    traffic: Option<UdpTraffic>,
    planner: Planner,
    fabric: Fabric,
    /// What BGP brings.
    learnt: Arc<Learnt>,
    offload: Offload,
    /// What flannel left on this host: while there is any, nothing is changed.
    leftovers: Leftovers,
    /// What to look at in the next apply.
    due: Due,
    /// Whether the next apply follows a change of the plan; else what it writes is a repair.
    replanned: bool,
    /// What was last logged that the plan waits for.
    waiting: Option<Waiting>,
    errors: Vec<String>,
    /// Others' filters that drop pods' packets.
    filtered: Vec<String>,
    repairs: Repairs,
}

#[derive(Clone, Copy, Debug, Default)]
struct Due {
    underlay: bool,
    forwarding: bool,
    masquerade: bool,
    filter: bool,
    conflist: bool,
}

impl Due {
    const ALL: Due = Due { underlay: true, forwarding: true, masquerade: true, filter: true, conflist: true };

    fn any(self) -> bool {
        self.underlay || self.forwarding || self.masquerade || self.filter || self.conflist
    }
}

impl Agent {
    /// An agent for the network namespace that the calling thread is in. Changes nothing yet.
    pub fn new(cfg: AgentConfig) -> Result<Agent> {
        let netlink = Netlink::open().context("open the routing socket")?;
        let network = Network { backend: cfg.backend, ipam: Some(cfg.ipam), ..Network::default() };
        let fabric = FabricConfig { network, cluster_cidrs: cfg.cluster_cidrs.clone() };
        Ok(Agent {
            netlink,
            nft: None,
            cluster: None,
            stale: None,
            underlay: None,
            host: host::id(&cfg.state_dir),
            link: None,
            moved: Vec::new(),
            traffic: None,
            planner: Planner::new(&cfg.node_name, fabric),
            fabric: Fabric::new(cfg.cluster_cidrs.clone()),
            learnt: Arc::default(),
            offload: Offload::default(),
            leftovers: Leftovers::default(),
            due: Due::ALL,
            replanned: true,
            waiting: None,
            errors: Vec::new(),
            filtered: Vec::new(),
            repairs: Repairs::default(),
            cfg,
        })
    }

    /// Takes in a new view of the cluster.
    pub fn handle_update(&mut self, update: Update) {
        let before = self.addresses();
        self.stale = match update.freshness {
            Freshness::Fresh => None,
            Freshness::Stale { since, reason } => Some((since, reason)),
        };
        let mut nodes = update.changes.nodes;
        for cluster in self.cluster.iter().chain([&update.cluster]) {
            nodes.extend(cluster.nodes_of_blocks(&update.changes.blocks).cloned());
        }
        self.cluster = Some(update.cluster);
        self.due.underlay |= self.addresses() != before;
        self.replan(&nodes);
    }

    /// Takes in what the kernel says of links, addresses, routes, neighbours and sysctls.
    pub fn handle_kernel_event(&mut self, event: &Event) {
        self.due.underlay |= underlay::concerns(event, self.internal_ip(), self.underlay.as_ref());
        self.due.underlay |= self.underlay.is_none() && host::concerns(event);
        self.due.underlay |= self.leftovers.concerns(event);
        self.due.forwarding |= forwarding::concerns(event);
        self.fabric.handle_event(event);
    }

    /// Takes in what nftables says; own changes are known by their port.
    pub fn handle_nft_event(&mut self, event: &NftEvent) {
        self.due.filter |= forward_filter::concerns(event);
        self.due.masquerade |= event.is_anothers(mark::TABLE, self.nft.as_ref().map(Nft::port));
    }

    /// Where BGP tells where prefixes lead.
    pub fn learnt(&self) -> Arc<Learnt> {
        self.learnt.clone()
    }

    /// Takes in what BGP has brought; whether there was anything.
    pub fn handle_learnt(&mut self) -> bool {
        let Some(news) = self.learnt.take() else { return false };
        if news.over {
            self.fabric.unlearn();
        }
        self.replanned = true;
        self.fabric.learn(news.routes, news.settled);
        true
    }

    /// Something changed in the runtime's configuration folder.
    pub fn handle_conf_dir_event(&mut self) {
        self.due.conflist = true;
        self.due.underlay = true;
    }

    /// Trusts nothing that is known of the kernel: the next apply looks at all of it.
    pub fn audit(&mut self) {
        self.traffic = self.fabric.udp_counters().as_ref().map(UdpTraffic::of);
        self.due = Due::ALL;
        self.fabric.distrust();
    }

    /// Whether an apply has something to do.
    pub fn pending(&self) -> bool {
        self.cluster.is_some() && (self.due.any() || self.fabric.pending())
    }

    /// Does what is due, in this order: devices, addresses, neighbours, forwarding entries and
    /// routes; forwarding; masquerade; and only then the configuration that lets pods come.
    /// Returns whether it all succeeded; what did not is in the status and due again.
    pub fn apply(&mut self) -> bool {
        if !self.pending() {
            return self.errors.is_empty();
        }
        let mut errors = Vec::new();
        if self.due.underlay {
            self.find_underlay(&mut errors);
        }
        self.tell_waiting();
        let mut written = 0;
        errors.extend(self.leftovers.error());
        if let Ok(local) = self.planner.plan().local.clone()
            && self.leftovers.is_empty()
        {
            let applied = self.fabric.apply(&mut self.netlink, self.planner.plan());
            written += applied.writes;
            errors.extend(applied.errors.iter().map(ToString::to_string));
            let masked = self.apply_local(&local, &mut errors);
            written += masked;
        }
        self.offload.watch(self.fabric.vxlan(), self.planner.plan());
        if !std::mem::take(&mut self.replanned) && written > 0 {
            tracing::info!(objects = written, "repaired what something else changed");
            self.repairs.add(written);
        }
        for error in errors.iter().filter(|error| !self.errors.contains(error)) {
            tracing::warn!("{error}");
        }
        self.errors = errors;
        self.errors.is_empty()
    }

    /// What an operator should know now.
    pub fn status(&self) -> Status {
        let plan = self.planner.plan();
        let mut errors = self.errors.clone();
        let standing = self.standing();
        match &plan.local {
            Ok(local) => errors.extend(local.problems.iter().map(ToString::to_string)),
            Err(_) if self.cluster.is_none() => {
                errors.push("waiting for the first view of the cluster".into())
            }
            Err(_) if standing.elsewhere => errors.push(self.elsewhere()),
            Err(waiting) => errors.push(waiting.to_string()),
        }
        if let Some((_, reason)) = &self.stale {
            errors.push(format!("the API is away, the last known state serves: {reason}"));
        }
        errors.extend(self.offload.told());
        errors.extend(self.filtered.iter().cloned());
        errors.extend(self.fabric.unused().cloned());
        // What leaves the cluster is no matter of pods among themselves, and what others filter not ours.
        let due = Due { masquerade: false, filter: false, ..self.due };
        let ready =
            plan.local.is_ok() && self.leftovers.is_empty() && self.fabric.bridge().is_some() && !due.any();
        let settled = ready && self.errors.is_empty() && !self.fabric.pending();
        Status {
            network: status::participation(plan, &self.fabric, self.planner.network(), settled),
            node: self.cfg.node_name.as_str().into(),
            ready,
            stale_since: self.stale.as_ref().map(|(since, _)| status::timestamp(*since)),
            peers: status::peers(plan, &self.fabric),
            repairs: self.repairs.clone(),
            udp: self.traffic.clone(),
            standing,
            flannel_here: !self.leftovers.is_empty(),
            flannel: self.flannel_changes(),
            errors,
        }
    }

    /// Whether there was a first view of the cluster.
    pub fn served(&self) -> bool {
        self.cluster.is_some()
    }

    /// This host's number, which tells it from another of the same node name.
    pub fn host(&self) -> Arc<str> {
        self.host.clone()
    }

    /// How the agent was configured.
    pub fn config(&self) -> &AgentConfig {
        &self.cfg
    }

    /// What of this node's annotations flannel on other nodes has to be told by: empty while the
    /// kernel is not as planned.
    fn flannel_changes(&self) -> serde_json::Map<String, serde_json::Value> {
        let node = self.node();
        let done = self.stale.is_none() && self.leftovers.is_empty() && !self.pending();
        match (&self.planner.plan().local, node.filter(|_| done)) {
            (Ok(local), Some(node)) => flannel::changes(&local.flannel, &node.flannel),
            _ => serde_json::Map::new(),
        }
    }

    fn node(&self) -> Option<&Node> {
        self.cluster.as_ref()?.nodes.get(self.cfg.node_name.as_str()).map(|node| &**node)
    }

    fn addresses(&self) -> Vec<IpAddr> {
        self.node().map(|node| node.addresses.clone()).unwrap_or_default()
    }

    fn standing(&self) -> Standing {
        Standing::of(&self.host, self.node(), self.underlay.is_some(), self.moved.clone())
    }

    fn elsewhere(&self) -> String {
        let node = &self.cfg.node_name;
        format!(
            "node {node} is another host's: give this one another name (--node-name), or where that host is gone delete the Node object and make it anew"
        )
    }

    fn internal_ip(&self) -> Option<IpAddr> {
        internal_ip(self.cluster.as_ref()?, &self.cfg.node_name)
    }

    fn replan(&mut self, changed: &BTreeSet<Arc<str>>) {
        let Some(cluster) = &self.cluster else { return };
        let local = self.planner.plan().local.clone();
        let peers = self.planner.update(cluster, changed, self.underlay.as_ref());
        let plan = self.planner.plan();
        let moved = plan.local != local;
        if moved {
            self.due = Due { underlay: self.due.underlay, ..Due::ALL };
        }
        self.replanned |= moved || !peers.is_empty();
        for refusal in peers.iter().filter_map(|name| plan.peers.get(name)).flat_map(|peer| &peer.refused) {
            tracing::warn!("{refusal}");
        }
        self.fabric.desire(plan, &peers);
    }

    /// Logs what the plan waits for, once, and not before the links were looked at.
    fn tell_waiting(&mut self) {
        if self.due.underlay {
            return;
        }
        let waiting = self.planner.plan().local.as_ref().err().cloned();
        if let Some(waiting) = waiting.as_ref().filter(|now| self.waiting.as_ref() != Some(*now)) {
            match self.standing().elsewhere {
                true => tracing::warn!("{}", self.elsewhere()),
                false => tracing::warn!("{waiting}"),
            }
        }
        self.waiting = waiting;
    }

    fn find_underlay(&mut self, errors: &mut Vec<String>) {
        let found = match self.internal_ip() {
            Some(address) => underlay::find(&mut self.netlink, address),
            None => Ok(None),
        };
        match found {
            Ok(found) => {
                self.find_leftovers(errors);
                self.due.underlay = false;
                self.underlay = found;
                self.link = self.underlay.as_ref().map(|underlay| underlay.link.clone()).or(self.link.take());
                self.find_moved(errors);
                self.replan(&BTreeSet::new());
            }
            Err(error) => errors.push(format!("find the underlay link: {error}")),
        }
    }

    fn find_moved(&mut self, errors: &mut Vec<String>) {
        let pods = self.node().map(|node| node.pod_cidrs.clone()).unwrap_or_default();
        let pods: Vec<_> = self.cfg.cluster_cidrs.iter().copied().chain(pods).collect();
        let node = self.addresses();
        match host::addresses(&mut self.netlink, &node, self.link.as_deref(), &pods) {
            Ok(moved) => self.moved = moved,
            Err(error) => errors.push(format!("look for this host's addresses: {error}")),
        }
    }

    fn find_leftovers(&mut self, errors: &mut Vec<String>) {
        let pod_cidrs = self.node().map(|node| node.pod_cidrs.clone()).unwrap_or_default();
        match Leftovers::find(&mut self.netlink, &self.cfg.cni_conf_dir, &pod_cidrs) {
            Ok(found) => self.leftovers = found,
            Err(error) => errors.push(format!("look for what flannel left: {error}")),
        }
    }

    fn apply_local(&mut self, local: &LocalPlan, errors: &mut Vec<String>) -> usize {
        let mut written = 0;
        let mut step = |due: &mut bool, work: &mut dyn FnMut() -> Result<usize>| {
            if *due {
                match work() {
                    Ok(done) => (written, *due) = (written + done, false),
                    Err(error) => errors.push(format!("{error:#}")),
                }
            }
        };
        if let Some(underlay) = &self.underlay {
            let state_dir = &self.cfg.state_dir;
            step(&mut self.due.forwarding, &mut || forwarding::ensure(local, underlay, state_dir));
        }
        let nft = &mut self.nft;
        step(&mut self.due.masquerade, &mut || {
            let nft = match &mut *nft {
                Some(nft) => nft,
                none => none.insert(Nft::open().context(NOT_MASQUERADED)?),
            };
            masquerade::ensure(nft, &local.masquerade).context(NOT_MASQUERADED)
        });
        let filtered = &mut self.filtered;
        step(&mut self.due.filter, &mut || {
            let Some(nft) = &mut *nft else { return Ok(0) };
            let found = forward_filter::ensure(nft, &self.cfg.cluster_cidrs);
            // Pods may pass all the same: told, and looked at again by the next audit.
            let found =
                found.unwrap_or_else(|error| Found { problems: vec![format!("{error:#}")], written: 0 });
            *filtered = found.problems;
            Ok(found.written)
        });
        // Without the bridge a pod would get a network that leads nowhere.
        if self.fabric.bridge().is_some() {
            let text =
                conflist::render(local, &self.cfg.cni_data_dir, &containers::records(&self.cfg.state_dir));
            let path = conflist::path(&self.cfg.cni_conf_dir);
            let next_door = !local.flannel.is_empty();
            let subnet_env = next_door.then(|| subnet_env(local, &self.cfg.cluster_cidrs));
            step(&mut self.due.conflist, &mut || {
                let mut done = usize::from(files::ensure(&path, text.as_bytes())?);
                if let Some(text) = &subnet_env {
                    done += usize::from(files::ensure(&self.cfg.subnet_file, text.as_bytes())?);
                }
                Ok(done)
            });
        }
        written
    }
}
