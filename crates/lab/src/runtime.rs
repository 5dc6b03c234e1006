//! The kubelet and the container runtime of every node: watches pods, and gives each its
//! namespace, its network by CNI, its responder and its status, until it is deleted.
//!
//! One watch serves all nodes. Each pod has a task of its own ([`life`]); at most [`AT_ONCE`]
//! of them change networks at a time.

mod attach;
mod call;
mod capabilities;
mod life;
mod object;
mod status;

pub(crate) use attach::Attachment;
pub(crate) use object::Protocol;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::time::sleep;
use weft_kernel::Netns;
use weft_store::{Api, EventKind};

use crate::conflist::{Network, Networks};
use crate::state::LabState;
use crate::underlay::Node;
use life::End;
use object::PodObject;

/// How many pods' networks are changed at a time.
const AT_ONCE: usize = 8;
const PODS: &str = "/api/v1/pods";
const PAUSE: Duration = Duration::from_millis(250);

/// What the pods of one node need of it.
struct Host {
    name: String,
    netns: Netns,
    ips: Vec<IpAddr>,
    network: watch::Receiver<Network>,
}

/// What every pod's task shares.
struct Shared {
    state: LabState,
    api: Api,
    permits: Semaphore,
}

/// How a pod's task is spoken to.
struct Life {
    end: watch::Sender<Option<End>>,
    /// Tells it to report its status again.
    report: Arc<Notify>,
}

/// The pods of all nodes.
pub(crate) struct Runtime {
    shared: Arc<Shared>,
    hosts: HashMap<String, Arc<Host>>,
    /// The pods that have a task, by UID.
    pods: HashMap<String, Life>,
    ended: (mpsc::UnboundedSender<String>, mpsc::UnboundedReceiver<String>),
}

impl Runtime {
    pub(crate) fn new(state: &LabState, api: Api, nodes: &[Node], networks: &Networks) -> Runtime {
        let host = |node: &Node| {
            let network = networks.of(&node.spec.name);
            let (name, netns, ips) = (node.spec.name.clone(), node.netns.clone(), node.spec.ips());
            (name.clone(), Arc::new(Host { name, netns, ips, network }))
        };
        let shared = Shared { state: state.clone(), api, permits: Semaphore::new(AT_ONCE) };
        Runtime {
            shared: Arc::new(shared),
            hosts: nodes.iter().map(host).collect(),
            pods: HashMap::new(),
            ended: mpsc::unbounded_channel(),
        }
    }

    /// Follows the pods for good. While the API is away, running pods stay as they are.
    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        loop {
            let error = match self.list_and_watch().await {
                Ok(()) => continue,
                Err(error) => error,
            };
            tracing::warn!("pods cannot be watched: {error:#}");
            let _ = self.shared.api.reload().await;
            sleep(PAUSE).await;
        }
    }

    async fn list_and_watch(&mut self) -> anyhow::Result<()> {
        let list = self.shared.api.list(PODS).await?;
        let version = list.pointer("/metadata/resourceVersion").and_then(Value::as_str);
        let mut version = version.context("the list of pods has no resourceVersion")?.to_owned();
        self.take_list(list);
        loop {
            let mut events = self.shared.api.watch(PODS, &version).await?;
            loop {
                let event = tokio::select! {
                    event = events.next() => event?,
                    Some(uid) = self.ended.1.recv() => {
                        self.pods.remove(&uid);
                        continue;
                    }
                };
                let Some(event) = event else { break };
                if event.kind == EventKind::Error {
                    anyhow::bail!("the watch failed: {}", event.object);
                }
                if let Some(newer) = self.take_event(event.kind, event.value()) {
                    version = newer;
                }
            }
        }
    }

    /// Takes a whole list: who is not in it is gone.
    fn take_list(&mut self, mut list: Value) {
        let items = list.get_mut("items").and_then(Value::as_array_mut).map(std::mem::take);
        let pods = items.unwrap_or_default().into_iter().filter_map(PodObject::parse);
        let mut seen = HashSet::new();
        for pod in pods {
            seen.insert(pod.metadata.uid.clone());
            self.observe(pod);
        }
        for (uid, life) in &self.pods {
            if !seen.contains(uid) {
                life.end.send_replace(Some(End::Gone));
            }
        }
    }

    /// Takes one event; the version it brings the watch to.
    fn take_event(&mut self, kind: EventKind, object: Value) -> Option<String> {
        let version = object.pointer("/metadata/resourceVersion").and_then(Value::as_str).map(str::to_owned);
        match (kind, PodObject::parse(object)) {
            (EventKind::Added | EventKind::Modified, Some(pod)) => self.observe(pod),
            (EventKind::Deleted, Some(pod)) => {
                if let Some(life) = self.pods.get(&pod.metadata.uid) {
                    life.end.send_replace(Some(End::Gone));
                }
            }
            _ => {}
        }
        version
    }

    fn observe(&mut self, pod: PodObject) {
        let leaving = pod.metadata.deletion_timestamp.is_some();
        let given = Duration::from_secs(pod.metadata.deletion_grace_period_seconds.unwrap_or_default());
        if let Some(life) = self.pods.get(&pod.metadata.uid) {
            if pod.was_taken_for_dead() {
                life.report.notify_one();
            }
            life.end.send_if_modified(|end| {
                let first = leaving && end.is_none();
                if first {
                    *end = Some(End::Deleted(given));
                }
                first
            });
            return;
        }
        let Some(host) = pod.spec.node_name.as_ref().and_then(|node| self.hosts.get(node)) else { return };
        if pod.is_mirror() || pod.has_finished() && !leaving {
            return;
        }
        let end = watch::Sender::new(leaving.then_some(End::Deleted(given)));
        let (uid, ended) = (pod.metadata.uid.clone(), self.ended.0.clone());
        let report = Arc::new(Notify::new());
        let live = life::live(self.shared.clone(), host.clone(), pod, end.subscribe(), report.clone());
        self.pods.insert(uid.clone(), Life { end, report });
        tokio::spawn(async move {
            live.await;
            // Nobody listens when the lab ends.
            let _ = ended.send(uid);
        });
    }
}
