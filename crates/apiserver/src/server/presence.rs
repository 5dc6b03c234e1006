//! What each of several servers over one store tells of itself: a Lease with its addresses.
//!
//! Of these the endpoints of the Service `kubernetes` are made. A server that is gone is noticed by the
//! others: they count their own rounds in which its Lease was not renewed, so that neither a clock that
//! jumps nor a store that is away makes anybody seem gone.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::controllers::servers;
use crate::error::ApiError;
use crate::kinds;
use crate::registry::{DeleteOptions, Part, Registry};

/// Between two renewals.
const RENEWAL: Duration = Duration::from_secs(5);
/// Rounds without renewal after which another server is gone.
const SILENT: u32 = 4;

const NAMESPACE: Option<&str> = Some(servers::NAMESPACE);

/// One server's presence.
#[derive(Clone)]
pub(super) struct Presence {
    registry: Registry,
    name: String,
    addresses: String,
    /// The others' Leases: the resourceVersion that was seen last, and for how many rounds.
    others: HashMap<String, (String, u32)>,
}

impl Presence {
    pub(super) fn new(registry: Registry, advertised: &[SocketAddr]) -> Self {
        let name = format!("{}{}", servers::PREFIX, crate::strategy::random_uid());
        let addresses: Vec<String> = advertised.iter().map(ToString::to_string).collect();
        Self { registry, name, addresses: addresses.join(","), others: HashMap::new() }
    }

    /// Tells it again and again.
    pub(super) async fn run(mut self) {
        loop {
            if let Err(error) = self.round().await {
                tracing::debug!("this server's Lease is not renewed: {error}");
            }
            tokio::time::sleep(RENEWAL).await;
        }
    }

    /// Tells the others that this server ends.
    pub(super) async fn end(&self) {
        let gone = self.registry.delete(&kinds::LEASES, NAMESPACE, &self.name, DeleteOptions::default());
        if let Err(error) = gone.await {
            tracing::debug!("this server's Lease stays: {error}");
        }
    }

    async fn round(&mut self) -> Result<(), ApiError> {
        self.renew().await?;
        let mut silent = Vec::new();
        let mut others = HashMap::new();
        for lease in self.registry.list(&kinds::LEASES, NAMESPACE).0 {
            let text = |field: &str| lease["metadata"][field].as_str().unwrap_or_default().to_owned();
            let (name, version) = (text("name"), text("resourceVersion"));
            if !name.starts_with(servers::PREFIX) || name == self.name {
                continue;
            }
            let rounds = match self.others.get(&name) {
                Some((before, rounds)) if *before == version => rounds + 1,
                _ => 0,
            };
            if rounds >= SILENT {
                silent.push((name.clone(), version.clone()));
            }
            others.insert(name, (version, rounds));
        }
        self.others = others;
        for (name, version) in silent {
            let unchanged = DeleteOptions { resource_version: Some(version), ..DeleteOptions::default() };
            match self.registry.delete(&kinds::LEASES, NAMESPACE, &name, unchanged).await {
                Ok(_) => tracing::warn!(server = name, "a server over the same store is gone"),
                // Another was faster, or it is back.
                Err(error) if matches!(error.code, 404 | 409) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn renew(&self) -> Result<(), ApiError> {
        let now = || jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
        let renew = move |lease: &mut Value| {
            lease["spec"]["renewTime"] = json!(now());
            Ok(())
        };
        match self.registry.modify(&kinds::LEASES, NAMESPACE, &self.name, Part::Whole, renew).await {
            Err(error) if error.code == 404 => {}
            other => return other.map(drop),
        }
        let lease = json!({
            "metadata": {"name": self.name, "annotations": {servers::ADDRESSES: self.addresses}},
            "spec": {"holderIdentity": self.name, "renewTime": now(),
                "leaseDurationSeconds": (RENEWAL * SILENT).as_secs()},
        });
        self.registry.create(&kinds::LEASES, NAMESPACE, lease).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::RegistryConfig;

    #[tokio::test]
    async fn who_renews_is_there_and_who_does_not_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::open(folder.path(), RegistryConfig::default()).await.unwrap();
        let presence =
            |address: &str| Presence::new(registry.clone(), &[address.parse::<SocketAddr>().unwrap()]);
        let told = || -> Vec<Value> {
            let leases = registry.list(&kinds::LEASES, NAMESPACE).0;
            let addresses = leases.iter().map(|l| l["metadata"]["annotations"][servers::ADDRESSES].clone());
            let mut addresses: Vec<Value> = addresses.collect();
            // Text before null.
            addresses.sort_by_key(ToString::to_string);
            addresses
        };
        let (mut one, mut other) = (presence("192.0.2.1:6443"), presence("192.0.2.2:6443"));
        // Others' Leases are not counted.
        let foreign = json!({"metadata": {"name": "another"}, "spec": {"holderIdentity": "x"}});
        registry.create(&kinds::LEASES, NAMESPACE, foreign).await.unwrap();
        let first = [json!("192.0.2.1:6443"), Value::Null];
        let both = [json!("192.0.2.1:6443"), json!("192.0.2.2:6443"), Value::Null];
        for _ in 0..2 * SILENT {
            one.round().await.unwrap();
            other.round().await.unwrap();
            assert_eq!(told(), both);
        }
        // The first of these sees its last renewal.
        for _ in 0..=SILENT {
            assert_eq!(told(), both);
            one.round().await.unwrap();
        }
        assert_eq!(told(), first);
        other.round().await.unwrap();
        assert_eq!(told(), both, "it is back");
        other.end().await;
        assert_eq!(told(), first);
    }
}
