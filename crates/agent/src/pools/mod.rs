//! This node's part in sharing the cluster's pools: claims blocks, borrows, lends and gives back
//! ([`weft_ipam::pools`]), tells `weft-cni` what it may give, and sweeps.
//!
//! Nothing here is on a pod's way as long as the node has a free address.

mod release;
mod sweep;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures_util::future::join_all;
use serde::Serialize;
use serde_json::json;
use tokio::time::timeout;
use weft_ipam::host_local::Store;
use weft_ipam::pools::{Change, Input, Keeper, Plan, Write, keeper, object};
use weft_model::{Changes, Cluster, Pod, PodKey, mark};
use weft_store::{Api, Error};

use crate::views::Views;
use crate::{AgentConfig, files};
use sweep::Sweeper;

/// How soon to look again when nothing is told: what is unused counts in time, not in events.
const TICK: Duration = Duration::from_secs(2);
/// After a refusal the view may be behind; this long it is given.
const AGAIN: Duration = Duration::from_millis(20);
const BLOCKS: &str = "/apis/weft.dev/v1/ipblocks";

/// What `pools.json` says.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    /// The blocks of this node.
    blocks: Vec<String>,
    /// Addresses of other nodes' blocks that it has borrowed, and their owners.
    borrowed: BTreeMap<String, String>,
    /// What is wrong now, each in one sentence.
    problems: Vec<String>,
    /// What the last sweep found.
    findings: Vec<String>,
}

struct Room {
    api: Api,
    cfg: AgentConfig,
    node: Arc<str>,
    keeper: Option<Keeper>,
    pods: BTreeMap<PodKey, Arc<Pod>>,
    /// The blocks that concern this node, as of the last view.
    blocks: BTreeSet<Arc<str>>,
    /// Whether it lacks something that the end of any block may bring.
    waits: bool,
    sweeper: Sweeper,
    status: Status,
    file: PathBuf,
}

/// Keeps the node's blocks, for good. Without pools it does nothing.
pub async fn keep(api: Api, cfg: AgentConfig, views: Arc<Views>) {
    let node: Arc<str> = cfg.node_name.as_str().into();
    let mut room = Room {
        api,
        file: cfg.state_dir.join("pools.json"),
        keeper: None,
        pods: BTreeMap::new(),
        blocks: BTreeSet::new(),
        waits: false,
        sweeper: Sweeper::default(),
        status: Status::default(),
        node,
        cfg,
    };
    let mut due = Instant::now() + TICK;
    loop {
        _ = timeout(due.saturating_duration_since(Instant::now()), views.changed()).await;
        let (view, now) = (views.take_live(), Instant::now());
        let concerned = view.as_ref().is_some_and(|(cluster, changes)| room.follow(cluster, changes));
        if !concerned && now < due {
            continue;
        }
        due = now + TICK;
        let Some((cluster, _)) = view else { continue };
        // Without its Node object it is gone to the others, which may take what it has.
        if !cluster.nodes.contains_key(&room.node) || !room.cfg.uses_pools(&cluster) {
            continue;
        }
        match room.step(&cluster).await {
            Ok(again) => due = again.map_or(due, |after| Instant::now() + after),
            Err(error) => room.complain(vec![format!("{error:#}")]),
        }
        room.sweep(&cluster).await;
        room.tell(&cluster);
    }
}

impl Room {
    /// Takes in what changed; whether a plan may follow from it.
    fn follow(&mut self, cluster: &Cluster, changes: &Changes) -> bool {
        let mut concerned =
            !changes.pools.is_empty() || !changes.namespaces.is_empty() || !changes.networks.is_empty();
        for key in &changes.pods {
            let here = cluster.pods.get(key).filter(|pod| pod.node.as_ref() == Some(&self.node));
            let before = match here {
                Some(pod) => self.pods.insert(key.clone(), pod.clone()),
                None => self.pods.remove(key),
            };
            concerned |= here.is_some() || before.is_some();
        }
        concerned |= changes.nodes.contains(&self.node);
        for name in &changes.blocks {
            let block = cluster.blocks.get(name);
            let here = block.is_some_and(|block| {
                block.node.as_ref() == Some(&self.node)
                    || block.borrowed.values().any(|node| *node == self.node)
                    || block.asked.contains_key(&self.node)
                    || !block.release.is_empty()
            });
            let before = if here { !self.blocks.insert(name.clone()) } else { self.blocks.remove(name) };
            concerned |= here || before || (self.waits && block.is_none());
        }
        concerned
    }

    /// Plans and does what follows; when to do so again, if somebody else was quicker.
    async fn step(&mut self, cluster: &Cluster) -> Result<Option<Duration>> {
        let mut plan = self.plan(cluster)?;
        let store = Store::open(&self.cfg.cni_data_dir, mark::CNI_NETWORK)?;
        let (released, refused) = release::release(cluster, &self.node, &store)?;
        plan.writes.extend(released);
        plan.problems.extend(refused);
        let sent = join_all(plan.writes.iter().map(|write| send(&self.api, write))).await;
        let mut again = None;
        for (write, sent) in plan.writes.iter().zip(sent) {
            let (refused, failed) = match sent {
                Ok(done) => (!done, false),
                Err(error) => {
                    tracing::warn!("could not {}: {error}", write.why);
                    (false, true)
                }
            };
            match (refused, failed) {
                (false, false) => tracing::info!("{}", write.why),
                (true, _) => tracing::debug!("somebody was quicker: {}", write.why),
                _ => {}
            }
            if refused {
                // A claim that was lost is known to be; the rest waits for the view.
                let after = if write.change == Change::Create { Duration::ZERO } else { AGAIN };
                again = again.max(Some(after));
            }
            if let Some(keeper) = &mut self.keeper {
                keeper.handle_sent(write, refused, failed, Instant::now());
            }
        }
        self.complain(plan.problems);
        Ok(again)
    }

    /// The plan, and before anything else the file that follows from it.
    fn plan(&mut self, cluster: &Cluster) -> Result<Plan> {
        let store = Store::open(&self.cfg.cni_data_dir, mark::CNI_NETWORK)?;
        if self.keeper.is_none() {
            let file = store.pools().unwrap_or_else(|error| {
                tracing::warn!("{error}: it is written anew");
                None
            });
            self.keeper = Some(Keeper::resume(&self.node, keeper::GRACE, &file.unwrap_or_default()));
        }
        let keeper = self.keeper.as_mut().context("there is a keeper")?;
        let pods: Vec<Arc<Pod>> = self.pods.values().cloned().collect();
        let plan = store.update_pools(|allocated| {
            let plan = keeper.plan(Input { cluster, pods: &pods, allocated, now: Instant::now() });
            (plan.file.clone(), plan)
        })?;
        self.waits = plan.waits;
        Ok(plan)
    }

    fn complain(&mut self, problems: Vec<String>) {
        for problem in problems.iter().filter(|problem| !self.status.problems.contains(problem)) {
            tracing::warn!("{problem}");
        }
        self.status.problems = problems;
    }

    /// Looks for what is wrong now and then, and puts right what can be.
    async fn sweep(&mut self, cluster: &Cluster) {
        if !self.sweeper.is_due(Instant::now()) {
            return;
        }
        let allocated = Store::open_existing(&self.cfg.cni_data_dir, mark::CNI_NETWORK);
        let allocated =
            allocated.and_then(|store| store.map_or(Ok(BTreeSet::new()), |store| store.allocated()));
        let allocated = allocated.unwrap_or_else(|error| {
            tracing::warn!("{error}");
            BTreeSet::new()
        });
        let found = self.sweeper.look(cluster, &self.node, &allocated, Instant::now());
        for finding in &found {
            let text = format!("{}: {}", finding.object, finding.message);
            if !self.status.findings.contains(&text) {
                tracing::warn!("{text}");
            }
            let Some(write) = &finding.repair else { continue };
            match send(&self.api, write).await {
                Ok(true) => tracing::info!("repaired: {}", write.why),
                Ok(false) => {}
                Err(error) => tracing::warn!("could not repair: {}: {error}", write.why),
            }
        }
        self.status.findings =
            found.iter().map(|finding| format!("{}: {}", finding.object, finding.message)).collect();
    }

    fn tell(&mut self, cluster: &Cluster) {
        let (mut blocks, mut borrowed) = (Vec::new(), BTreeMap::new());
        for block in cluster.blocks.values() {
            if block.node.as_ref() == Some(&self.node) {
                blocks.push(block.cidr.to_string());
            }
            for (ip, _) in block.borrowed.iter().filter(|(_, node)| **node == self.node) {
                borrowed.insert(ip.to_string(), block.node.as_deref().unwrap_or_default().to_owned());
            }
        }
        self.status = Status { blocks, borrowed, ..std::mem::take(&mut self.status) };
        let text = serde_json::to_vec_pretty(&self.status).unwrap_or_default();
        if let Err(error) = files::ensure(&self.file, &text) {
            tracing::warn!("{error:#}");
        }
    }
}

/// Sends a write; whether it was accepted: false when somebody was quicker.
async fn send(api: &Api, write: &Write) -> Result<bool, Error> {
    let block = &write.block;
    let path = format!("{BLOCKS}/{}", block.name);
    let done = match write.change {
        Change::Create => api.create(BLOCKS, &object(block)).await,
        Change::Replace => api.replace(&path, &object(block)).await,
        Change::Delete => {
            let conditions = json!({"uid": &*block.uid, "resourceVersion": &*block.version});
            api.delete_with(&path, &json!({"preconditions": conditions})).await
        }
    };
    match done {
        Ok(_) => Ok(true),
        Err(error) if error.code() == Some(409) => Ok(false),
        Err(error) if error.not_found() && write.change != Change::Create => Ok(false),
        Err(error) => Err(error),
    }
}
