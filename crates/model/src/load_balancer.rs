//! Services of type LoadBalancer without a cloud: the pools that their addresses come from, and what they ask
//! for. What is read is an object of the API, as JSON text or as a tree.

mod claim;
mod range;

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

pub use claim::{Claim, Held, Request, Share};
pub use range::{Range, is_buggy};

use crate::pools::LabelSelector;
pub use crate::service::{ADDRESSES_CONDITION as CONDITION, LOAD_BALANCER_CLASS as CLASS};

/// The condition of a pool that says whether addresses are given out of it.
pub const POOL_READY: &str = "Ready";
/// The most entries of `spec.addresses` that are read.
const ENTRIES: usize = 256;

/// Addresses that Services of type LoadBalancer can have (weft.dev/v1 LoadBalancerPool).
#[derive(Clone, Debug, PartialEq)]
pub struct LoadBalancerPool {
    /// `metadata.name`.
    pub name: Arc<str>,
    /// `metadata.uid`.
    pub uid: Arc<str>,
    /// `metadata.resourceVersion`: what is written back compares it.
    pub version: Arc<str>,
    /// `metadata.creationTimestamp`: of two pools that overlap the older one counts.
    pub created: Arc<str>,
    /// `spec.addresses`, or what is wrong with them in one sentence.
    pub addresses: Result<Vec<Range>, String>,
    /// `spec.autoAssign`: also for Services that do not ask for it.
    pub auto_assign: bool,
    /// `spec.avoidBuggyIPs`: not the IPv4 addresses that end in .0 and .255.
    pub avoid_buggy: bool,
    /// `spec.namespaceSelector`: the Services of which namespaces use it.
    pub namespaces: LabelSelector,
    /// `spec.serviceSelector`: which Services use it.
    pub services: LabelSelector,
    /// `spec.priority`: the lowest gives first, those without come after all others.
    pub priority: Option<u32>,
    /// `status`, as it is.
    pub status: Value,
}

#[derive(Deserialize)]
struct PoolWire {
    metadata: Metadata,
    spec: PoolSpec,
    #[serde(default)]
    status: Value,
}

/// What is read of any object's metadata.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    name: Arc<str>,
    uid: Arc<str>,
    resource_version: Arc<str>,
    creation_timestamp: Option<Arc<str>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PoolSpec {
    addresses: Vec<String>,
    auto_assign: Option<bool>,
    #[serde(rename = "avoidBuggyIPs")]
    avoid_buggy: Option<bool>,
    namespace_selector: Option<LabelSelector>,
    service_selector: Option<LabelSelector>,
    priority: Option<u32>,
}

impl LoadBalancerPool {
    /// Reads the object; the error says what makes no sense of it.
    pub fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let PoolWire { metadata, spec, status } = PoolWire::deserialize(from)?;
        Ok(LoadBalancerPool {
            name: metadata.name,
            uid: metadata.uid,
            version: metadata.resource_version,
            created: metadata.creation_timestamp.unwrap_or_default(),
            addresses: ranges(&spec.addresses),
            auto_assign: spec.auto_assign.unwrap_or(true),
            avoid_buggy: spec.avoid_buggy.unwrap_or_default(),
            namespaces: spec.namespace_selector.unwrap_or_default(),
            services: spec.service_selector.unwrap_or_default(),
            priority: spec.priority,
            status,
        })
    }
}

/// The ranges of a pool, which have no address in common.
fn ranges(texts: &[String]) -> Result<Vec<Range>, String> {
    if texts.is_empty() || texts.len() > ENTRIES {
        return Err(format!("spec.addresses has {} entries; give 1 to {ENTRIES}", texts.len()));
    }
    let mut ranges: Vec<Range> = Vec::new();
    for text in texts {
        let range: Range = text.parse()?;
        if let Some(other) = ranges.iter().find(|other| other.overlaps(&range)) {
            return Err(format!("{range} and {other} overlap; leave one of them out"));
        }
        ranges.push(range);
    }
    Ok(ranges)
}

/// A condition (meta/v1), without its time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Verdict {
    /// `status` is True.
    #[serde(skip)]
    pub good: bool,
    /// `reason`, one word.
    pub reason: Arc<str>,
    /// `message`, for people.
    pub message: Arc<str>,
}

impl Verdict {
    /// The `type` of an event that tells of it.
    pub fn severity(&self) -> &'static str {
        if self.good && &*self.reason == "Assigned" { "Normal" } else { "Warning" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pool_has_what_its_object_says() {
        let object = json!({"metadata": {"name": "public", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"addresses": ["192.0.2.0/28", "2001:db8::1-2001:db8::9"], "priority": 5}});
        let pool = LoadBalancerPool::read(&object).unwrap();
        assert!(pool.auto_assign && !pool.avoid_buggy && pool.namespaces.is_all());
        assert_eq!((pool.addresses.unwrap().len(), pool.priority), (2, Some(5)));
        let text = object.to_string();
        assert!(LoadBalancerPool::read(&mut serde_json::Deserializer::from_str(&text)).is_ok());
    }

    #[test]
    fn bad_addresses_are_told() {
        for (addresses, word) in [
            (json!([]), "1 to 256"),
            (json!(["192.0.2.9-192.0.2.1"]), "begins after its end"),
            (json!(["192.0.2.0/28", "192.0.2.8-192.0.2.20"]), "overlap"),
            (json!(["192.0.2.1-2001:db8::1"]), "two families"),
            (json!(["192.0.2.1/24"]), "192.0.2.0/24"),
            (json!(["::/0"]), "addresses"),
            (json!(["127.0.0.0/8"]), "loopback"),
            (json!(["239.0.0.0/24"]), "multicast"),
        ] {
            let object = json!({"metadata": {"name": "p"}, "spec": {"addresses": addresses}});
            let error = LoadBalancerPool::read(&object).unwrap().addresses.unwrap_err();
            assert!(error.contains(word), "{addresses}: {error}");
        }
    }
}
