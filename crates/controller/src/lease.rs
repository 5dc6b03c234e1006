//! Of several controllers one acts: who holds the Lease `kube-system/weft-controller`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};
use weft_store::{Api, Error};

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
const NAME: &str = "weft-controller";

/// How long the Lease is kept; as Kubernetes' own controllers have it.
#[derive(Clone, Copy, Debug)]
pub struct LeaseTimes {
    /// After this time without renewal others may take the Lease.
    pub duration: Duration,
    /// After this time without renewal its holder stops.
    pub deadline: Duration,
    /// Between two renewals, or two tries to get it.
    pub retry: Duration,
}

impl Default for LeaseTimes {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        LeaseTimes { duration: seconds(15), deadline: seconds(10), retry: seconds(2) }
    }
}

/// The right to write, for as long as the Lease was renewed in time.
#[derive(Clone)]
pub(crate) struct Term {
    until: Arc<Mutex<Instant>>,
}

impl Term {
    /// Whether it still lasts. A process that stood still finds that it does not.
    pub(crate) fn lasts(&self) -> bool {
        Instant::now() < *self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, until: Instant) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }
}

/// One that wants to act.
pub(crate) struct Candidate {
    api: Api,
    identity: String,
    times: LeaseTimes,
}

impl Candidate {
    pub(crate) fn new(api: Api, times: LeaseTimes) -> Candidate {
        let read =
            |name: &str| std::fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap_or_default();
        let identity = format!("{}_{}", read("hostname").trim(), read("random/uuid").trim());
        Candidate { api, identity, times }
    }

    /// Waits until this one has the Lease.
    pub(crate) async fn win(&self) -> Term {
        // The Lease as it was last seen, and since when by our own clock: whose clock is wrong loses nothing.
        let mut seen: Option<(Value, Instant)> = None;
        let mut told = false;
        loop {
            let asked = Instant::now();
            match self.take(&mut seen).await {
                Ok(true) => {
                    tracing::info!(identity = self.identity, "this controller acts");
                    return Term { until: Arc::new(Mutex::new(asked + self.times.deadline)) };
                }
                Ok(false) if !told => {
                    told = true;
                    tracing::info!("another controller acts; this one waits");
                }
                Ok(false) => {}
                Err(error) => tracing::warn!("the Lease {NAME} cannot be had: {error}"),
            }
            sleep(self.times.retry).await;
        }
    }

    /// Renews the Lease; returns when it is lost.
    pub(crate) async fn keep(&self, term: &Term) {
        while term.lasts() {
            sleep(self.times.retry).await;
            let asked = Instant::now();
            match timeout(self.times.deadline, self.renew(&self.identity)).await {
                Ok(Ok(true)) => term.set(asked + self.times.deadline),
                Ok(Ok(false)) => break,
                Ok(Err(error)) => tracing::warn!("the Lease {NAME} is not renewed: {error}"),
                Err(_) => tracing::warn!("the Lease {NAME} is not renewed in time"),
            }
        }
        term.set(Instant::now());
        tracing::warn!("this controller stops: its Lease is lost");
    }

    /// Lets another take the Lease at once, if it is ours.
    pub(crate) async fn release(&self) {
        match timeout(self.times.retry, self.renew("")).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!("the Lease {NAME} is not released: {error}"),
            Err(_) => tracing::debug!("the Lease {NAME} is not released in time"),
        }
    }

    /// Takes the Lease if nobody has it, or who has it was silent for too long.
    async fn take(&self, seen: &mut Option<(Value, Instant)>) -> Result<bool, Error> {
        let mut lease = match self.api.get(&format!("{LEASES}/{NAME}")).await {
            Ok(lease) => lease,
            Err(error) if error.not_found() => return self.make().await,
            Err(error) => return Err(error),
        };
        let spec = lease["spec"].clone();
        if seen.as_ref().is_none_or(|(before, _)| *before != spec) {
            *seen = Some((spec.clone(), Instant::now()));
        }
        let silent = seen.as_ref().is_some_and(|(_, since)| since.elapsed() >= self.times.duration);
        let holder = spec["holderIdentity"].as_str().unwrap_or_default();
        if !(silent || holder.is_empty() || holder == self.identity) {
            return Ok(false);
        }
        let transitions = spec["leaseTransitions"].as_i64().unwrap_or(0).saturating_add(1);
        lease["spec"] = self.spec(transitions.clamp(1, i64::from(i32::MAX)));
        won(self.api.replace(&format!("{LEASES}/{NAME}"), &lease).await)
    }

    async fn make(&self) -> Result<bool, Error> {
        let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": NAME, "namespace": "kube-system"}, "spec": self.spec(0)});
        won(self.api.create(LEASES, &lease).await)
    }

    /// Writes the Lease that is ours; false when it is another's.
    async fn renew(&self, holder: &str) -> Result<bool, Error> {
        let mut lease = self.api.get(&format!("{LEASES}/{NAME}")).await?;
        if lease["spec"]["holderIdentity"] != self.identity.as_str() {
            return Ok(false);
        }
        lease["spec"]["holderIdentity"] = json!(holder);
        lease["spec"]["renewTime"] = json!(now());
        won(self.api.replace(&format!("{LEASES}/{NAME}"), &lease).await)
    }

    fn spec(&self, transitions: i64) -> Value {
        json!({"holderIdentity": self.identity, "leaseDurationSeconds": self.times.duration.as_secs().max(1),
            "acquireTime": now(), "renewTime": now(), "leaseTransitions": transitions})
    }
}

/// Whether a write was in time: who is second is told so by a conflict.
fn won(written: Result<Value, Error>) -> Result<bool, Error> {
    match written {
        Ok(_) => Ok(true),
        Err(error) if error.conflict() || error.already_exists() => Ok(false),
        Err(error) => Err(error),
    }
}

/// The time in Kubernetes' MicroTime.
fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}
