//! What the agent says of its Services, in `services.json`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::watch;
use weft_service::{HealthCheck, ServicePlan};

use super::ProxyMode;
use crate::files;

/// More Services than these are not named.
const NAMED: usize = 64;

/// How Services are served on this node.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProxyStatus {
    /// In which way.
    pub mode: ProxyMode,
    /// Whether the kernel is as planned, and a view of the cluster was there to plan by.
    pub programmed: bool,
    /// How many frontends there are.
    pub frontends: usize,
    /// When the kernel was last made as planned.
    pub last_sync: Option<Timestamp>,
    /// Since when it is not.
    pub behind_since: Option<Timestamp>,
    /// What of Services is not done, by Service, each in one sentence.
    pub refused: BTreeMap<String, Vec<String>>,
    /// Objects that were brought back after something else removed or changed them.
    pub repaired: u64,
    /// Packets of new connections that the kernel dropped because it had no room to track them.
    pub untracked: u64,
    /// What is wrong now, each in one sentence.
    pub errors: Vec<String>,
    /// The health checks of load balancers, by port.
    #[serde(skip)]
    pub checks: BTreeMap<u16, HealthCheck>,
    /// Whether load balancers may send here: not while the node is being removed.
    #[serde(skip)]
    pub eligible: bool,
}

impl ProxyStatus {
    pub(super) fn new(mode: ProxyMode) -> ProxyStatus {
        ProxyStatus { mode, eligible: true, ..ProxyStatus::default() }
    }

    /// Takes in a plan.
    pub(super) fn take(&mut self, plan: &ServicePlan) {
        self.frontends = plan.frontends.len();
        self.checks.clone_from(&plan.checks);
        let told = plan.refused.iter().take(NAMED);
        let told = told.map(|(key, list)| (key.to_string(), list.iter().map(ToString::to_string).collect()));
        self.refused = told.collect();
    }
}

/// Writes the file whenever something else is to be said.
pub(super) async fn keep(path: PathBuf, mut told: watch::Receiver<ProxyStatus>) {
    loop {
        let text = serde_json::to_vec_pretty(&*told.borrow_and_update()).unwrap_or_default();
        if let Err(error) = files::ensure(&path, &text) {
            tracing::warn!("{error:#}");
        }
        if told.changed().await.is_err() {
            return;
        }
        // A busy cluster is written down ten times a second.
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}
