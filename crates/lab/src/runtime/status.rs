//! What a kubelet reports of a pod.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::object::{Container, PodObject};
use crate::nodes::now;
use crate::responder::Unserved;

/// The status of a pod that has no network yet, and why.
pub(super) fn waiting(pod: &PodObject, host_ips: &[IpAddr], message: &str) -> Value {
    let waiting = json!({"waiting": {"reason": "ContainerCreating", "message": message}});
    let containers = statuses(&pod.spec.containers, |one| {
        json!({"name": one.name, "image": one.image, "imageID": "", "ready": false, "started": false,
            "restartCount": 0, "state": waiting})
    });
    let not_ready = |kind| condition(kind, "False", "ContainersNotReady", message);
    json!({"status": {
        "phase": "Pending", "hostIP": host_ips.first(), "hostIPs": many(host_ips),
        "startTime": pod.status.start_time.clone().unwrap_or_else(now),
        "conditions": [
            condition("PodScheduled", "True", "", ""),
            condition("Initialized", "True", "", ""),
            not_ready("ContainersReady"), not_ready("Ready"),
        ],
        "containerStatuses": containers,
    }})
}

/// The status of a pod whose responder runs.
pub(super) fn running(pod: &PodObject, host_ips: &[IpAddr], ips: &[IpAddr], unserved: &Unserved) -> Value {
    let started = now();
    let answers = unserved.failed.is_empty();
    let message = [&unserved.failed[..], &unserved.ignored].concat().join("; ");
    let containers = statuses(&pod.spec.containers, |one| {
        json!({"name": one.name, "image": one.image, "imageID": "", "containerID": format!("weft-lab://{}", pod.metadata.uid),
            "ready": answers, "started": true, "restartCount": 0, "state": {"running": {"startedAt": started}}})
    });
    let finished = json!({"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": started, "finishedAt": started}});
    let init = statuses(&pod.spec.init_containers, |one| {
        let sidecar = one.restart_policy.as_deref() == Some("Always");
        let state = if sidecar { json!({"running": {"startedAt": started}}) } else { finished.clone() };
        json!({"name": one.name, "image": one.image, "imageID": "", "ready": true, "started": sidecar,
            "restartCount": 0, "state": state})
    });
    let ready = |kind| match answers {
        true => condition(kind, "True", "", ""),
        false => condition(kind, "False", "PortsNotAnswered", &message),
    };
    json!({"status": {
        "phase": "Running", "message": (!message.is_empty()).then_some(&message),
        "hostIP": host_ips.first(), "hostIPs": many(host_ips),
        "podIP": ips.first(), "podIPs": many(ips),
        "startTime": pod.status.start_time.clone().unwrap_or(started),
        "conditions": [
            condition("PodScheduled", "True", "", ""),
            condition("Initialized", "True", "", ""),
            ready("ContainersReady"), ready("Ready"),
        ],
        "containerStatuses": containers,
        "initContainerStatuses": (!init.is_empty()).then_some(init),
    }})
}

fn statuses(containers: &[Container], one: impl Fn(&Container) -> Value) -> Vec<Value> {
    containers.iter().map(one).collect()
}

fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    let mut condition = json!({"type": kind, "status": status, "lastTransitionTime": now()});
    for (key, text) in [("reason", reason), ("message", message)] {
        if !text.is_empty() {
            condition[key] = text.into();
        }
    }
    condition
}

fn many(ips: &[IpAddr]) -> Vec<Value> {
    ips.iter().map(|ip| json!({"ip": ip})).collect()
}
