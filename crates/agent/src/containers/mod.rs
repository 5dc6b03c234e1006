//! Containers that no API object declares (podman, nerdctl, ctr): registered as Pods while they
//! run, so that Services and policies can select them; and the node's allocations, freed when
//! nothing uses them any more, since not every runtime calls GC.
//!
//! `weft-cni` leaves a record of each attachment in a folder; nothing here is on a pod's way.

mod allocations;
mod cri;
mod folder;
mod labels;
mod plan;
mod pod;
mod podman;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::sleep;
use weft_cni::protocol::record::Record;
use weft_store::{Api, Error};

use crate::conditions::jittered;
use crate::sources::Watch;
use crate::status::Repairs;
use crate::{AgentConfig, files};
use allocations::Allocations;
use cri::Cri;
use folder::Folder;
use plan::Action;

/// How often everything is looked at, in case a notification was missed or a sandbox went.
const AUDIT: Duration = Duration::from_secs(30);
const FIRST_RETRY: Duration = Duration::from_millis(500);
/// How long a runtime may not know a sandbox whose network it asked for.
const UNKNOWN: Duration = Duration::from_secs(30);

/// The folder of records below the agent's state folder.
pub(crate) fn records(state_dir: &Path) -> PathBuf {
    state_dir.join("attachments")
}

/// What `containers.json` says.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    /// Containers that are registered as Pods.
    registered: Vec<String>,
    /// Addresses that were given back because nothing used them.
    freed: Repairs,
    /// What is wrong now, each in one sentence.
    problems: Vec<String>,
}

/// A record, and the same with what its runtime says of the container.
struct Asked {
    of: Record,
    since: Instant,
    answer: Option<Record>,
}

struct Keeper {
    api: Api,
    node: String,
    folder: Folder,
    allocations: Allocations,
    cri: Cri,
    podman: PathBuf,
    /// What was asked of the containers' runtimes, by container and interface.
    asked: HashMap<(String, String), Asked>,
    status: Status,
    file: PathBuf,
    /// Whether the API may have Pods of ours: not known before the first look.
    may_have_pods: bool,
}

/// Keeps registrations and allocations true, for good.
pub(crate) async fn keep(api: Api, cfg: AgentConfig) {
    let dir = records(&cfg.state_dir);
    let mut keeper = Keeper {
        api,
        folder: Folder::new(dir.clone()),
        file: cfg.state_dir.join("containers.json"),
        allocations: Allocations::new(cfg.cni_data_dir),
        cri: Cri::new(cfg.cri_sockets),
        podman: cfg.podman_socket,
        asked: HashMap::new(),
        node: cfg.node_name,
        status: Status::default(),
        may_have_pods: true,
    };
    let mut watch = Watch::open(&dir).inspect_err(|error| tracing::warn!("{error:#}")).ok();
    let mut pause = FIRST_RETRY;
    let mut audit = Instant::now();
    loop {
        let done = keeper.look(Instant::now() >= audit).await;
        if Instant::now() >= audit {
            audit = Instant::now() + AUDIT;
        }
        pause = if done { FIRST_RETRY } else { (pause * 2).min(AUDIT) };
        let wait = if done { audit.saturating_duration_since(Instant::now()) } else { jittered(pause) };
        match &mut watch {
            Some(watch) => tokio::select! {
                () = watch.changed() => {}
                () = sleep(wait) => {}
            },
            None => sleep(wait.min(Duration::from_secs(1))).await,
        }
    }
}

impl Keeper {
    /// One look; whether all is as it should be.
    async fn look(&mut self, audit: bool) -> bool {
        let records = self.folder.read(Instant::now());
        let mut problems = Vec::new();
        let (registrable, complete) = self.complete(&records, &mut problems).await;
        let done = match self.register(&registrable, &mut problems).await {
            Ok(()) => complete,
            Err(error) => {
                problems.push(format!("containers cannot be registered: {error}"));
                false
            }
        };
        if audit {
            match self.allocations.reconcile(&mut self.cri, &records, Instant::now()).await {
                Ok(freed) => self.status.freed.add(freed),
                Err(error) => {
                    problems.push(format!("allocations cannot be compared with sandboxes: {error:#}"))
                }
            }
        } else {
            problems.extend(self.status.problems.iter().filter(|p| p.starts_with("allocations")).cloned());
        }
        for problem in problems.iter().filter(|problem| !self.status.problems.contains(problem)) {
            tracing::warn!("{problem}");
        }
        self.status.problems = problems;
        self.tell();
        done
    }

    /// The records as they are registered: with what the runtime says of the container, which is
    /// asked once. False when a runtime does not know one yet, which is not registered before.
    async fn complete(&mut self, records: &[Record], problems: &mut Vec<String>) -> (Vec<Record>, bool) {
        let (mut asked, mut complete) = (HashMap::new(), Vec::new());
        let now = Instant::now();
        for record in records {
            let id = &record.container_id;
            if !labels::is_label(&record.namespace) {
                let namespace: String = record.namespace.chars().take(64).collect();
                problems
                    .push(format!("container {id} is not registered: {namespace:?} is no namespace's name"));
                continue;
            }
            let key = (id.clone(), record.ifname.clone());
            let known = self.asked.remove(&key).filter(|asked| asked.of == *record);
            let mut known = known.unwrap_or_else(|| Asked { of: record.clone(), since: now, answer: None });
            if known.answer.is_none() {
                known.answer = self.ask(record, now.duration_since(known.since)).await;
            }
            complete.extend(known.answer.clone());
            asked.insert(key, known);
        }
        self.asked = asked;
        let all = self.asked.values().all(|asked| asked.answer.is_some());
        (complete, all)
    }

    async fn ask(&self, record: &Record, waited: Duration) -> Option<Record> {
        let id = &record.container_id;
        let told = match self.cri.labels(id).await {
            // It lists a sandbox after its network is there.
            Ok(None) if record.by_cri && waited < UNKNOWN => return None,
            Ok(None) => podman::labels(&self.podman, id).await,
            other => other,
        };
        let told = told.unwrap_or_else(|error| {
            tracing::warn!("container {id} is registered without its runtime's labels: {error:#}");
            None
        });
        let (complete, bad) = labels::complete(record, &told.unwrap_or_default());
        if !bad.is_empty() {
            tracing::warn!("container {id}: left out what is no label in Kubernetes: {}", bad.join(", "));
        }
        Some(complete)
    }

    async fn register(&mut self, records: &[Record], problems: &mut Vec<String>) -> Result<(), Error> {
        if records.is_empty() && !self.may_have_pods {
            return Ok(());
        }
        let path = format!("/api/v1/pods?fieldSelector=spec.nodeName={}", self.node);
        let list = self.api.list(&path).await?;
        let pods = list["items"].as_array().map_or(&[][..], Vec::as_slice);
        let (actions, conflicts) = plan::plan(records, pods);
        problems.extend(conflicts);
        self.may_have_pods = true;
        let mut failed = Ok(());
        for action in &actions {
            match self.act(action).await {
                Err(error) if error.conflict() => problems.push(format!("{error}")),
                Err(error) => failed = Err(error),
                Ok(()) => {}
            }
        }
        self.may_have_pods = !records.is_empty() || failed.is_err();
        self.status.registered =
            records.iter().map(|record| format!("{}/{}", record.namespace, pod::name(record))).collect();
        self.status.registered.dedup();
        failed
    }

    async fn act(&self, action: &Action) -> Result<(), Error> {
        match action {
            Action::Create(record) => {
                let object = pod::object(record, &self.node);
                let pods = format!("/api/v1/namespaces/{}/pods", record.namespace);
                let made = self.api.create(&pods, &object).await?;
                tracing::info!(
                    "container {} is registered as pod {}/{}",
                    record.container_id,
                    record.namespace,
                    pod::name(record)
                );
                self.tell_status(record, made["metadata"]["uid"].as_str().unwrap_or_default()).await
            }
            Action::Status { record, uid } => self.tell_status(record, uid).await,
            Action::Delete { path, uid } => {
                let options = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": uid}});
                match self.api.delete_with(path, &options).await {
                    Err(error) if !error.not_found() => Err(error),
                    _ => Ok(()),
                }
            }
        }
    }

    async fn tell_status(&self, record: &Record, uid: &str) -> Result<(), Error> {
        let now = Timestamp::now();
        let now = now.round(jiff::Unit::Second).unwrap_or(now).to_string();
        let patch: Value = pod::status(record, uid, &now);
        self.api.patch_status(&plan::path(&record.namespace, &pod::name(record)), &patch).await?;
        Ok(())
    }

    fn tell(&self) {
        let text = serde_json::to_vec_pretty(&self.status).unwrap_or_default();
        if let Err(error) = files::ensure(&self.file, &text) {
            tracing::warn!("{error:#}");
        }
    }
}
