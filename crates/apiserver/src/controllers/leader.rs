//! Of several servers over one store one runs the controllers: who holds the Lease
//! `kube-system/weft-controllers`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::error::ApiError;
use crate::kinds;
use crate::registry::{Part, Registry};

const NAMESPACE: &str = "kube-system";
const NAME: &str = "weft-controllers";

/// How long a Lease is kept; as Kubernetes' own controllers have it.
#[derive(Debug, Clone, Copy)]
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
        Self { duration: seconds(15), deadline: seconds(10), retry: seconds(2) }
    }
}

/// The right to write, for as long as the Lease was renewed in time.
#[derive(Clone)]
pub(super) struct Term {
    /// None is for ever.
    until: Arc<Mutex<Option<Instant>>>,
}

impl Term {
    /// Whether it still lasts. A process that stood still finds that it does not.
    pub(super) fn lasts(&self) -> bool {
        let until = *self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_none_or(|until| Instant::now() < until)
    }

    fn set(&self, until: Option<Instant>) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }
}

/// One that wants to lead.
pub(super) struct Candidate {
    registry: Registry,
    identity: String,
    /// No other server has the store: nobody is waited for, and nothing needs renewal.
    exclusive: bool,
    times: LeaseTimes,
    /// The Lease as it was last seen, and since when by our own clock.
    seen: Option<(Value, Instant)>,
}

impl Candidate {
    pub(super) fn new(registry: Registry, exclusive: bool, times: LeaseTimes) -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let identity = format!("{}_{}", host.trim(), crate::strategy::random_uid());
        Self { registry, identity, exclusive, times, seen: None }
    }

    /// The name that stands in the Lease.
    pub(super) fn identity(&self) -> &str {
        &self.identity
    }

    /// Waits until this one leads.
    pub(super) async fn win(&mut self) -> Term {
        loop {
            let asked = Instant::now();
            match self.take().await {
                Ok(()) => {
                    tracing::info!(identity = self.identity, "the controllers run here");
                    let until = (!self.exclusive).then(|| asked + self.times.deadline);
                    return Term { until: Arc::new(Mutex::new(until)) };
                }
                Err(error) => tracing::debug!("the controllers run elsewhere: {error}"),
            }
            tokio::time::sleep(self.times.retry).await;
        }
    }

    /// Renews the Lease; returns when it is lost.
    pub(super) async fn keep(&self, term: &Term) {
        if self.exclusive {
            std::future::pending::<()>().await;
        }
        while term.lasts() {
            tokio::time::sleep(self.times.retry).await;
            let asked = Instant::now();
            let renewal = tokio::time::timeout(
                self.times.deadline,
                write(&self.registry, &self.identity, &self.identity),
            );
            match renewal.await {
                Ok(Ok(())) => term.set(Some(asked + self.times.deadline)),
                Ok(Err(error)) if error.code == 409 => break,
                Ok(Err(error)) => tracing::warn!("the controllers' Lease is not renewed: {error}"),
                Err(_) => tracing::warn!("the controllers' Lease is not renewed in time"),
            }
        }
        term.set(Some(Instant::now()));
        tracing::warn!("the controllers stop: their Lease is lost");
    }

    async fn take(&mut self) -> Result<(), ApiError> {
        let lease = match self.registry.get(&kinds::LEASES, Some(NAMESPACE), NAME).await {
            Ok(lease) => lease,
            Err(error) if error.code == 404 => return self.make().await,
            Err(error) => return Err(error),
        };
        let spec = lease["spec"].clone();
        if self.seen.as_ref().is_none_or(|(before, _)| *before != spec) {
            self.seen = Some((spec.clone(), Instant::now()));
        }
        let silent = self.seen.as_ref().is_some_and(|(_, since)| since.elapsed() >= self.times.duration);
        let holder = spec["holderIdentity"].as_str().unwrap_or_default();
        if !(self.exclusive || silent || holder.is_empty() || holder == self.identity) {
            return Err(ApiError::conflict(&kinds::LEASES, NAME, &format!("{holder} holds it")));
        }
        let identity = self.identity.clone();
        let duration = self.times.duration.as_secs().max(1);
        let change = move |object: &mut Value| {
            if object["spec"] != spec {
                return Err(ApiError::conflict(&kinds::LEASES, NAME, "somebody was faster"));
            }
            let transitions = spec["leaseTransitions"].as_i64().unwrap_or(0);
            let transitions = transitions.saturating_add(1).clamp(1, i64::from(i32::MAX));
            object["spec"] = json!({"holderIdentity": identity, "leaseDurationSeconds": duration,
                "acquireTime": now(), "renewTime": now(), "leaseTransitions": transitions});
            Ok(())
        };
        self.registry.modify(&kinds::LEASES, Some(NAMESPACE), NAME, Part::Whole, change).await.map(drop)
    }

    async fn make(&self) -> Result<(), ApiError> {
        let spec = json!({"holderIdentity": self.identity, "leaseTransitions": 0, "acquireTime": now(),
            "renewTime": now(), "leaseDurationSeconds": self.times.duration.as_secs().max(1)});
        let lease = json!({"metadata": {"name": NAME}, "spec": spec});
        self.registry.create(&kinds::LEASES, Some(NAMESPACE), lease).await.map(drop)
    }
}

/// Lets others take the Lease at once, if `identity` holds it.
pub(super) async fn release(registry: &Registry, identity: &str) {
    if let Err(error) = write(registry, identity, "").await {
        tracing::debug!("the controllers' Lease is not released: {error}");
    }
}

/// Writes the Lease that `own` holds; 409 when another holds it.
async fn write(registry: &Registry, own: &str, holder: &str) -> Result<(), ApiError> {
    let (own, holder) = (own.to_owned(), holder.to_owned());
    let change = move |object: &mut Value| {
        if object["spec"]["holderIdentity"] != own {
            return Err(ApiError::conflict(&kinds::LEASES, NAME, "another holds it"));
        }
        object["spec"]["holderIdentity"] = json!(holder);
        object["spec"]["renewTime"] = json!(now());
        Ok(())
    };
    registry.modify(&kinds::LEASES, Some(NAMESPACE), NAME, Part::Whole, change).await.map(drop)
}

/// The time in Kubernetes' MicroTime.
fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::RegistryConfig;

    async fn registry() -> (Registry, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        (Registry::open(folder.path(), RegistryConfig::default()).await.unwrap(), folder)
    }

    fn candidate(registry: &Registry, exclusive: bool, duration: Duration) -> Candidate {
        let retry = Duration::from_millis(10);
        Candidate::new(registry.clone(), exclusive, LeaseTimes { duration, deadline: duration / 2, retry })
    }

    async fn holder(registry: &Registry) -> Value {
        let lease = registry.get(&kinds::LEASES, Some(NAMESPACE), NAME).await.unwrap();
        lease["spec"]["holderIdentity"].clone()
    }

    #[tokio::test]
    async fn one_leads_until_it_lets_go() {
        let (registry, _folder) = registry().await;
        let long = Duration::from_secs(3600);
        let (mut first, mut second) = (candidate(&registry, false, long), candidate(&registry, false, long));
        let term = first.win().await;
        assert!(term.lasts());
        assert_eq!(second.take().await.unwrap_err().code, 409);
        release(&registry, &second.identity).await;
        assert_eq!(holder(&registry).await, first.identity, "only its holder lets it go");
        release(&registry, &first.identity).await;
        second.win().await;
        assert_eq!(holder(&registry).await, second.identity);
        first.keep(&term).await;
        assert!(!term.lasts(), "the first finds that another leads");
    }

    #[tokio::test]
    async fn a_silent_holder_is_followed_and_its_own_term_ended_before() {
        let (registry, _folder) = registry().await;
        let short = Duration::from_millis(200);
        let (mut first, mut second) =
            (candidate(&registry, false, short), candidate(&registry, false, short));
        let term = first.win().await;
        second.win().await;
        assert!(!term.lasts());
        assert_eq!(holder(&registry).await, second.identity);
    }

    #[tokio::test]
    async fn a_lease_that_has_gone_round_as_often_as_can_be_counted_is_taken() {
        let (registry, _folder) = registry().await;
        let spec = json!({"holderIdentity": "", "leaseTransitions": i32::MAX});
        let lease = json!({"metadata": {"name": NAME}, "spec": spec});
        registry.create(&kinds::LEASES, Some(NAMESPACE), lease).await.unwrap();
        candidate(&registry, false, Duration::from_secs(3600)).take().await.unwrap();
    }

    #[tokio::test]
    async fn where_nobody_else_can_be_nobody_is_waited_for() {
        let (registry, _folder) = registry().await;
        let long = Duration::from_secs(3600);
        candidate(&registry, false, long).win().await;
        let mut next = candidate(&registry, true, long);
        assert!(next.win().await.lasts());
        assert_eq!(holder(&registry).await, next.identity);
    }
}
