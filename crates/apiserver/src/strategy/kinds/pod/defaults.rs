//! What a pod and a template of pods get by default.

use serde_json::{Value, json};

use super::super::resources;
use crate::strategy::value::{
    default, default_filled, drop_fields, drop_unset, inner, int, items, list, text, unset,
};

/// Fields that say nothing when they are false.
const FLAGS: &[&str] = &["hostNetwork", "hostPID", "hostIPC"];
const PROBES: &[&str] = &["livenessProbe", "readinessProbe", "startupProbe"];
/// The mode of files that come from the API.
const FILE_MODE: i64 = 0o644;

/// Completes a pod.
pub(in super::super) fn defaults(pod: &mut Value) {
    default(pod, "spec", json!({}));
    let Some(spec) = inner(pod, "spec") else { return };
    spec_defaults(spec);
    if int(&spec["terminationGracePeriodSeconds"]) < 0 {
        spec["terminationGracePeriodSeconds"] = json!(1);
    }
    default(spec, "enableServiceLinks", true);
    let host = spec["hostNetwork"] == true;
    for field in ["containers", "initContainers"] {
        for container in items(spec, field) {
            resources::defaults(container, true);
            for port in items(container, "ports").filter(|_| host) {
                let number = port["containerPort"].clone();
                default_filled(port, "hostPort", number);
            }
        }
    }
}

/// Completes the spec of a pod or a template.
pub(in super::super) fn spec_defaults(spec: &mut Value) {
    if !spec.is_object() {
        return;
    }
    default_filled(spec, "dnsPolicy", "ClusterFirst");
    default_filled(spec, "restartPolicy", "Always");
    default(spec, "securityContext", json!({}));
    default(spec, "terminationGracePeriodSeconds", 30);
    default_filled(spec, "schedulerName", "default-scheduler");
    let off: Vec<&str> = FLAGS.iter().copied().filter(|f| spec[*f] == false).collect();
    drop_fields(spec, &off);
    // The old name of the field goes with the new one.
    let account = if unset(&spec["serviceAccountName"]) { "serviceAccount" } else { "serviceAccountName" };
    if !unset(&spec[account]) {
        let account = spec[account].clone();
        spec["serviceAccountName"] = account.clone();
        spec["serviceAccount"] = account;
    }
    drop_unset(
        spec,
        &[
            "nodeName",
            "hostname",
            "subdomain",
            "priorityClassName",
            "serviceAccount",
            "serviceAccountName",
            "volumes",
            "initContainers",
            "tolerations",
            "nodeSelector",
            "imagePullSecrets",
            "hostAliases",
        ],
    );
    for field in ["containers", "initContainers", "ephemeralContainers"] {
        items(spec, field).for_each(container);
    }
    items(spec, "volumes").for_each(volume);
    for constraint in items(spec, "topologySpreadConstraints") {
        drop_unset(constraint, &["matchLabelKeys"]);
    }
}

fn container(container: &mut Value) {
    let image = text(&container["image"]);
    let name = image.rsplit('/').next().unwrap_or_default();
    let latest = !name.contains('@') && (!name.contains(':') || name.ends_with(":latest"));
    default_filled(container, "imagePullPolicy", if latest { "Always" } else { "IfNotPresent" });
    default_filled(container, "terminationMessagePath", "/dev/termination-log");
    default_filled(container, "terminationMessagePolicy", "File");
    resources::defaults(container, false);
    drop_unset(container, &["ports", "env", "envFrom", "volumeMounts", "args", "command", "workingDir"]);
    for port in items(container, "ports") {
        default_filled(port, "protocol", "TCP");
        drop_unset(port, &["name", "hostPort", "hostIP"]);
    }
    for source in items(container, "env").filter_map(|e| inner(e, "valueFrom")) {
        field_reference(source);
    }
    PROBES.iter().filter_map(|f| container.get_mut(*f).filter(|p| p.is_object()).map(probe)).for_each(drop);
    if let Some(hooks) = inner(container, "lifecycle") {
        ["postStart", "preStop"].iter().filter_map(|f| inner(hooks, f).map(http_get)).for_each(drop);
    }
}

/// A reference to a field of the pod, in an environment variable or a file.
fn field_reference(source: &mut Value) {
    if let Some(field) = inner(source, "fieldRef") {
        default_filled(field, "apiVersion", "v1");
    }
    if let Some(resource) = inner(source, "resourceFieldRef") {
        let divisor = resources::read(&resource["divisor"]).map_or_else(|| "0".into(), |q| q.to_string());
        resource["divisor"] = json!(divisor);
    }
}

fn probe(probe: &mut Value) {
    let numbers =
        [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)];
    numbers.into_iter().for_each(|(field, number)| default_filled(probe, field, number));
    drop_unset(probe, &["initialDelaySeconds"]);
    http_get(probe);
    inner(probe, "grpc").into_iter().for_each(|g| default(g, "service", ""));
}

fn http_get(handler: &mut Value) {
    if let Some(get) = inner(handler, "httpGet") {
        default_filled(get, "path", "/");
        default_filled(get, "scheme", "HTTP");
        drop_unset(get, &["host"]);
    }
}

fn volume(volume: &mut Value) {
    let typed = volume.as_object().is_some_and(|v| v.iter().any(|(k, v)| k != "name" && !v.is_null()));
    if !typed {
        volume["emptyDir"] = json!({});
    }
    for field in ["secret", "configMap", "downwardAPI", "projected"] {
        inner(volume, field).into_iter().for_each(|v| default(v, "defaultMode", FILE_MODE));
    }
    if let Some(files) = inner(volume, "downwardAPI") {
        items(files, "items").for_each(field_reference);
    }
    for source in inner(volume, "projected").into_iter().flat_map(|p| items(p, "sources")) {
        inner(source, "serviceAccountToken").into_iter().for_each(|t| default(t, "expirationSeconds", 3600));
        inner(source, "downwardAPI").into_iter().flat_map(|d| items(d, "items")).for_each(field_reference);
    }
    inner(volume, "hostPath").into_iter().for_each(|h| default(h, "type", ""));
    if let Some(empty) = inner(volume, "emptyDir")
        && let Some(size) = resources::read(&empty["sizeLimit"])
    {
        empty["sizeLimit"] = json!(size.to_string());
    }
    if let Some(claim) = volume.pointer_mut("/ephemeral/volumeClaimTemplate/spec") {
        default(claim, "volumeMode", "Filesystem");
    }
}

/// How sure a pod is of its room, as Kubernetes names it: by its containers' requests and limits.
pub(super) fn quality(spec: &Value) -> &'static str {
    let containers = || list(&spec["containers"]).iter().chain(list(&spec["initContainers"]));
    let amount = |c: &Value, field: &str, name: &str| {
        resources::read(&c["resources"][field][name]).map_or(0, |q| q.nanos())
    };
    let names = ["cpu", "memory"];
    let asks = |c: &Value| names.iter().any(|n| amount(c, "requests", n) > 0 || amount(c, "limits", n) > 0);
    if !containers().any(asks) {
        return "BestEffort";
    }
    let sure = |c: &Value| {
        names.iter().all(|n| amount(c, "limits", n) > 0 && amount(c, "limits", n) == amount(c, "requests", n))
    };
    if containers().all(sure) { "Guaranteed" } else { "Burstable" }
}
