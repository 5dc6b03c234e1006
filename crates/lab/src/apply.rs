//! Applying manifests through the Kubernetes API, as `kubectl apply` does.

mod discovery;
mod merge;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::StreamExt as _;
use futures_util::stream;
use serde::Serialize;
use serde_json::{Value, json};
use weft_store::{Api, Error};

use crate::manifest::Manifest;
use discovery::{Discovery, Served};

/// Objects written at the same time.
const PARALLEL: usize = 16;
/// How often a write is tried again when somebody else changed the object in between.
const CONFLICT_RETRIES: usize = 5;

/// What became of one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "outcome", content = "reason")]
pub enum Outcome {
    /// It was not there and is now.
    Created,
    /// It was there and differed.
    Configured,
    /// It was there as wanted.
    Unchanged,
    /// It could not be written.
    Failed(String),
}

/// One object and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Applied {
    /// As kubectl prints it: `deployment.apps/web`.
    pub object: String,
    /// Its namespace, where it has one.
    pub namespace: Option<String>,
    /// The file it is from; empty for what was made because manifests need it.
    pub file: String,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// What else a reader should know: why an object that nobody wrote was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.object)?;
        if let Some(namespace) = self.namespace.as_ref().filter(|n| *n != "default") {
            write!(f, " -n {namespace}")?;
        }
        match &self.outcome {
            Outcome::Created => f.write_str(" created"),
            Outcome::Configured => f.write_str(" configured"),
            Outcome::Unchanged => f.write_str(" unchanged"),
            Outcome::Failed(reason) if self.file.is_empty() => write!(f, " failed: {reason}"),
            Outcome::Failed(reason) => write!(f, " failed: {reason} ({})", self.file),
        }?;
        self.note.as_ref().map_or(Ok(()), |note| write!(f, " ({note})"))
    }
}

/// What became of all objects, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// One entry an object.
    pub objects: Vec<Applied>,
}

impl Report {
    /// How many could not be written.
    pub fn failed(&self) -> usize {
        self.objects.iter().filter(|o| matches!(o.outcome, Outcome::Failed(_))).count()
    }
}

/// Writes the objects: namespaces, then definitions, then the rest, several at once. Missing
/// namespaces are made, and kinds that the server does not know are defined, so that any
/// project's manifests are stored. `tell` hears of each object as it is done. An object that
/// fails does not keep the others from being written; a server that is gone does.
pub async fn apply(api: &Api, manifests: &[Manifest], tell: &mut dyn FnMut(&Applied)) -> Report {
    let mut run = Run { api, gone: AtomicBool::new(false), discovery: Discovery::new(api) };
    let mut report = Report::default();
    let rank = |m: &&Manifest| (m.group(), m.kind()) == ("", "Namespace");
    let definition = |m: &&Manifest| m.kind() == "CustomResourceDefinition";
    let namespaces: Vec<&Manifest> = manifests.iter().filter(rank).collect();
    let definitions: Vec<&Manifest> = manifests.iter().filter(|m| !rank(m) && definition(m)).collect();
    let rest: Vec<&Manifest> = manifests.iter().filter(|m| !rank(m) && !definition(m)).collect();

    run.wave(&namespaces, &mut report, tell).await;
    run.wave(&definitions, &mut report, tell).await;
    run.define_unknown(&rest, &mut report, tell).await;
    run.make_namespaces(&namespaces, &rest, &mut report, tell).await;
    run.wave(&rest, &mut report, tell).await;
    report
}

struct Run<'a> {
    api: &'a Api,
    /// The server does not answer: what is left is not tried.
    gone: AtomicBool,
    discovery: Discovery<'a>,
}

/// One object with the place it goes to.
struct Job<'a> {
    manifest: &'a Manifest,
    served: Result<Served, String>,
}

impl Run<'_> {
    async fn wave(&mut self, manifests: &[&Manifest], report: &mut Report, tell: &mut dyn FnMut(&Applied)) {
        let mut jobs: Vec<Vec<Job<'_>>> = Vec::new();
        let mut places: BTreeMap<(String, String, String), usize> = BTreeMap::new();
        for manifest in manifests {
            let served = self.discovery.find(manifest.api_version(), manifest.kind()).await;
            let job = Job { manifest, served };
            // The same object twice: the later document is applied after the earlier one.
            let key = (
                format!("{}/{}", manifest.group(), manifest.kind()),
                manifest.namespace().unwrap_or_default().to_owned(),
                manifest.name().to_owned(),
            );
            match places.get(&key).and_then(|at| jobs.get_mut(*at)) {
                Some(same) => same.push(job),
                None => {
                    places.insert(key, jobs.len());
                    jobs.push(vec![job]);
                }
            }
        }
        let this = &*self;
        let mut done = stream::iter(jobs)
            .map(|same| async move {
                let mut results = Vec::with_capacity(same.len());
                for job in &same {
                    results.push(this.write(job).await);
                }
                results
            })
            .buffered(PARALLEL);
        while let Some(results) = done.next().await {
            for applied in results {
                tell(&applied);
                report.objects.push(applied);
            }
        }
    }

    async fn write(&self, job: &Job<'_>) -> Applied {
        let manifest = job.manifest;
        let served = match &job.served {
            Ok(served) => served,
            Err(reason) => return applied(manifest, None, Outcome::Failed(reason.clone())),
        };
        let namespace = served.namespaced.then(|| manifest.namespace().unwrap_or("default").to_owned());
        if self.gone.load(Ordering::Relaxed) {
            let reason = "not tried: the API server is not reachable".to_owned();
            return applied(manifest, namespace, Outcome::Failed(reason));
        }
        let outcome = match self.create_or_change(manifest, served, namespace.as_deref()).await {
            Ok(outcome) => outcome,
            Err(error) => {
                self.gone.fetch_or(error.unreachable(), Ordering::Relaxed);
                Outcome::Failed(words(&error))
            }
        };
        applied(manifest, namespace, outcome)
    }

    async fn create_or_change(
        &self,
        manifest: &Manifest,
        served: &Served,
        namespace: Option<&str>,
    ) -> Result<Outcome, Error> {
        let collection = served.collection(namespace);
        let wanted = merge::with_last_applied(&manifest.value, namespace);
        let refused = match self.api.create(&collection, &wanted).await {
            Ok(_) => return Ok(Outcome::Created),
            Err(error) if error.already_exists() => None,
            // A Service that is there has its node ports already, and that is found first.
            Err(error) if error.code() == Some(422) => Some(error),
            Err(error) => return Err(error),
        };
        let path = format!("{collection}/{}", manifest.name());
        let mut retries = 0;
        loop {
            let present = match self.api.get(&path).await {
                Ok(present) => present,
                Err(error) => return Err(refused.filter(|_| error.not_found()).unwrap_or(error)),
            };
            let patch = merge::patch(&present, &wanted);
            if patch.as_object().is_none_or(|changes| changes.is_empty()) {
                return Ok(Outcome::Unchanged);
            }
            match self.api.merge_patch(&path, &patch).await {
                Ok(now) if version(&now) == version(&present) => return Ok(Outcome::Unchanged),
                Ok(_) => return Ok(Outcome::Configured),
                Err(error) if error.conflict() && retries < CONFLICT_RETRIES => retries += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Defines the kinds that the server does not know, with any fields allowed.
    async fn define_unknown(
        &mut self,
        manifests: &[&Manifest],
        report: &mut Report,
        tell: &mut dyn FnMut(&Applied),
    ) {
        let mut kinds: BTreeMap<(&str, &str), bool> = BTreeMap::new();
        for manifest in manifests {
            let namespaced = kinds.entry((manifest.api_version(), manifest.kind())).or_default();
            *namespaced |= manifest.namespace().is_some();
        }
        for ((api_version, kind), namespaced) in kinds {
            if self.discovery.find(api_version, kind).await.is_ok() || self.gone.load(Ordering::Relaxed) {
                continue;
            }
            let namespaced = namespaced || !kind.starts_with("Cluster");
            let Some(definition) = discovery::definition(api_version, kind, namespaced) else { continue };
            let name = definition.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
            let outcome = match self.api.create(discovery::DEFINITIONS, &definition).await {
                Ok(_) => Outcome::Created,
                Err(error) => Outcome::Failed(words(&error)),
            };
            self.discovery.await_kind(api_version, kind).await;
            let entry = Applied {
                object: format!("customresourcedefinition.apiextensions.k8s.io/{name}"),
                namespace: None,
                file: String::new(),
                outcome,
                note: Some(format!("{kind} of {api_version} has no definition here: stored with any fields")),
            };
            tell(&entry);
            report.objects.push(entry);
        }
    }

    /// Makes the namespaces that manifests name and nobody has made.
    async fn make_namespaces(
        &mut self,
        given: &[&Manifest],
        manifests: &[&Manifest],
        report: &mut Report,
        tell: &mut dyn FnMut(&Applied),
    ) {
        let mut wanted: BTreeSet<&str> = manifests.iter().filter_map(|m| m.namespace()).collect();
        for manifest in given {
            wanted.remove(manifest.name());
        }
        for name in wanted {
            let path = format!("/api/v1/namespaces/{name}");
            if self.api.get(&path).await.is_ok() {
                continue;
            }
            let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            let outcome = match self.api.create("/api/v1/namespaces", &object).await {
                Ok(_) => Outcome::Created,
                Err(error) if error.already_exists() => continue,
                Err(error) => {
                    self.gone.fetch_or(error.unreachable(), Ordering::Relaxed);
                    Outcome::Failed(words(&error))
                }
            };
            let note = Some("named by manifests, and was missing".to_owned());
            let object = format!("namespace/{name}");
            let entry = Applied { object, namespace: None, file: String::new(), outcome, note };
            tell(&entry);
            report.objects.push(entry);
        }
    }
}

fn applied(manifest: &Manifest, namespace: Option<String>, outcome: Outcome) -> Applied {
    let kind = manifest.kind().to_lowercase();
    let dot = if manifest.group().is_empty() { "" } else { "." };
    let object = format!("{kind}{dot}{}/{}", manifest.group(), manifest.name());
    Applied { object, namespace, file: manifest.file.clone(), outcome, note: None }
}

fn version(object: &Value) -> Option<&str> {
    object.pointer("/metadata/resourceVersion").and_then(Value::as_str)
}

/// A refusal's own words: which request it was, the reader can see.
fn words(error: &Error) -> String {
    error.api().map_or_else(|| error.to_string(), |refusal| refusal.message.clone())
}

#[cfg(test)]
mod tests;
