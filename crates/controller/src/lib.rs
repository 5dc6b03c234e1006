//! What needs one owner in a cluster: the addresses of Services of type LoadBalancer.
//!
//! Several processes may run; the one that holds the Lease `kube-system/weft-controller` acts ([`lease`]). It
//! reads everything anew when it gets the Lease, plans with `weft_ipam::load_balancer` as the controllers of
//! `weft apiserver` do, and writes statuses ([`mod@balance`]). It keeps nothing: the statuses are the record.
#![forbid(unsafe_code)]

mod balance;
mod lease;

use std::path::PathBuf;

use ipnet::IpNet;
use tokio::signal::unix::{SignalKind, signal};
use weft_store::Api;

use balance::Balancer;
use lease::Candidate;
pub use lease::LeaseTimes;

/// What the controller is told once.
#[derive(Clone, Debug, Default)]
pub struct ControllerConfig {
    /// Empty: by the ServiceAccount of the pod that this process is in.
    pub kubeconfig: PathBuf,
    /// Where pods have their addresses: no pool may overlap it.
    pub cluster_cidrs: Vec<IpNet>,
    /// Where cluster IPs come from: likewise.
    pub service_cidrs: Vec<IpNet>,
    /// How the Lease is kept.
    pub lease: LeaseTimes,
}

/// Why the controller could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no way to the API.
    #[error(transparent)]
    Api(#[from] weft_store::Error),
    /// Signals cannot be waited for.
    #[error("cannot wait for signals")]
    Signals(#[source] std::io::Error),
}

/// Runs until SIGTERM or SIGINT, and lets another take over at once then.
pub async fn run(config: ControllerConfig) -> Result<(), Error> {
    let mut term = signal(SignalKind::terminate()).map_err(Error::Signals)?;
    let mut int = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
    let api = Api::from_kubeconfig(&config.kubeconfig).await?;
    let candidate = Candidate::new(api.clone(), config.lease);
    tokio::select! {
        () = lead(&candidate, &api, &config) => {}
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    candidate.release().await;
    Ok(())
}

/// Acts whenever this process has the right to.
async fn lead(candidate: &Candidate, api: &Api, config: &ControllerConfig) {
    loop {
        let term = candidate.win().await;
        let balancer = Balancer::new(api.clone(), config.clone(), term.clone());
        tokio::select! { () = balancer.run() => {}, () = candidate.keep(&term) => {} }
    }
}
