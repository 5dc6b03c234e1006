//! Fields that Kubernetes does not know, found as kubectl's strict validation finds them.

use k8s_openapi::api::{apps, autoscaling, batch, core, networking, policy};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Manifest, ManifestError};

/// Refuses a field that the object's kind does not have, for the kinds that Weft acts on or will.
/// A value of the wrong type is the API server's to refuse.
pub(super) fn check(manifest: &Manifest) -> Result<(), ManifestError> {
    let known = match (manifest.api_version(), manifest.kind()) {
        ("v1", "Pod") => known::<core::v1::Pod>(&manifest.value),
        ("v1", "Service") => known::<core::v1::Service>(&manifest.value),
        ("apps/v1", "Deployment") => known::<apps::v1::Deployment>(&manifest.value),
        ("apps/v1", "ReplicaSet") => known::<apps::v1::ReplicaSet>(&manifest.value),
        ("apps/v1", "StatefulSet") => known::<apps::v1::StatefulSet>(&manifest.value),
        ("apps/v1", "DaemonSet") => known::<apps::v1::DaemonSet>(&manifest.value),
        ("batch/v1", "Job") => known::<batch::v1::Job>(&manifest.value),
        ("networking.k8s.io/v1", "Ingress") => known::<networking::v1::Ingress>(&manifest.value),
        ("networking.k8s.io/v1", "NetworkPolicy") => known::<networking::v1::NetworkPolicy>(&manifest.value),
        ("policy/v1", "PodDisruptionBudget") => known::<policy::v1::PodDisruptionBudget>(&manifest.value),
        ("autoscaling/v2", "HorizontalPodAutoscaler") => {
            known::<autoscaling::v2::HorizontalPodAutoscaler>(&manifest.value)
        }
        _ => None,
    };
    let Some(field) = known.and_then(|known| unknown(&manifest.value, &known, "")) else { return Ok(()) };
    Err(ManifestError::Invalid {
        file: manifest.file.clone(),
        document: manifest.document,
        field,
        reason: format!("{} has no such field: correct its name or remove it", manifest.kind()),
    })
}

/// The object with the fields that its type has; None where it is not of that type at all.
fn known<T: DeserializeOwned + Serialize>(value: &Value) -> Option<Value> {
    serde_json::to_value(T::deserialize(value).ok()?).ok()
}

/// The path of the first field of `given` that `known` lost.
fn unknown(given: &Value, known: &Value, path: &str) -> Option<String> {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => given.iter().find_map(|(name, value)| {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            match known.get(name) {
                Some(known) => unknown(value, known, &path),
                // An empty value may stand for nothing, and says nothing.
                None => (!empty(value)).then_some(path),
            }
        }),
        (Value::Array(given), Value::Array(known)) => {
            let pairs = given.iter().zip(known).enumerate();
            pairs.into_iter().find_map(|(i, (given, known))| unknown(given, known, &format!("{path}[{i}]")))
        }
        _ => None,
    }
}

fn empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}
