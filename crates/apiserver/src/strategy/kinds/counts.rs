//! The counts in the status of what makes pods.

use serde_json::{Value, json};

use crate::resource::Resource;
use crate::strategy::field::{Errors, Path};
use crate::strategy::value::int;

/// Counts of a kind: those that are not below zero, and those that are no more than `status.replicas`.
struct Counts {
    least: &'static [&'static str],
    within: &'static [&'static str],
    /// How messages name the ready replicas, which those that are available are among.
    ready: &'static str,
}

fn counts(r: &Resource) -> Option<Counts> {
    let (least, within, ready): (&[_], &[_], _) = match (&*r.group, &*r.kind) {
        ("apps", "Deployment") => (
            &[
                "observedGeneration",
                "replicas",
                "updatedReplicas",
                "readyReplicas",
                "availableReplicas",
                "terminatingReplicas",
                "collisionCount",
            ],
            &["updatedReplicas", "readyReplicas", "availableReplicas"],
            "readyReplicas",
        ),
        ("apps", "ReplicaSet") | ("", "ReplicationController") => (
            &["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration"],
            &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"],
            "readyReplicas",
        ),
        ("apps", "StatefulSet") => (
            &[
                "replicas",
                "readyReplicas",
                "currentReplicas",
                "updatedReplicas",
                "availableReplicas",
                "observedGeneration",
                "collisionCount",
            ],
            &["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"],
            "status.readyReplicas",
        ),
        ("apps", "DaemonSet") => (
            &[
                "currentNumberScheduled",
                "numberMisscheduled",
                "desiredNumberScheduled",
                "numberReady",
                "observedGeneration",
                "updatedNumberScheduled",
                "numberAvailable",
                "numberUnavailable",
                "collisionCount",
            ],
            &[],
            "",
        ),
        ("policy", "PodDisruptionBudget") => {
            (&["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"], &[], "")
        }
        ("autoscaling", _) => (&["currentReplicas", "desiredReplicas"], &[], ""),
        _ => return None,
    };
    Some(Counts { least, within, ready })
}

/// Checks a status that was written alone.
pub(super) fn check(r: &Resource, object: &Value, errors: &mut Errors) {
    let (status, at) = (&object["status"], Path::new("status"));
    let Some(Counts { least, within, ready }) = counts(r) else { return };
    for field in least {
        errors.not_negative(&at.field(field), &status[*field]);
    }
    let count = |field: &str| int(&status[field]);
    for field in within.iter().filter(|field| count(field) > count("replicas")) {
        let rule = "cannot be greater than status.replicas";
        errors.invalid(&at.field(field), &json!(count(field)), rule);
    }
    let available = count("availableReplicas");
    if !ready.is_empty() && available > count("readyReplicas") {
        let rule = format!("cannot be greater than {ready}");
        errors.invalid(&at.field("availableReplicas"), &json!(available), &rule);
    }
}
