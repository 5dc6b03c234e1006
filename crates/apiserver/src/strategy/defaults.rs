//! What a new or changed object gets where its author said nothing; as Kubernetes has it for the
//! kinds that Weft acts on.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::resource::Resource;

/// Sets a field that is missing or null.
fn default(object: &mut Value, field: &str, value: Value) {
    if let Some(map) = object.as_object_mut() {
        let slot = map.entry(field).or_insert(Value::Null);
        if slot.is_null() {
            *slot = value;
        }
    }
}

/// The items of a list in a field; none when it is something else.
fn items<'a>(object: &'a mut Value, field: &str) -> impl Iterator<Item = &'a mut Value> {
    object.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten()
}

/// Fills in a kind's defaults.
pub(super) fn apply(r: &Resource, object: &mut Value) {
    if (&*r.group, &*r.kind) == ("", "Secret") {
        return secret(object);
    }
    let Some(spec) = object.get_mut("spec") else { return };
    match (&*r.group, &*r.kind) {
        ("", "Pod") => pod(spec),
        ("", "ReplicationController") | ("apps", "ReplicaSet") => {
            default(spec, "replicas", json!(1));
            template(spec);
        }
        ("apps", "Deployment") => deployment(spec),
        ("apps", "StatefulSet") => {
            default(spec, "replicas", json!(1));
            default(spec, "podManagementPolicy", json!("OrderedReady"));
            default(spec, "revisionHistoryLimit", json!(10));
            default(
                spec,
                "updateStrategy",
                json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}),
            );
            template(spec);
        }
        ("apps", "DaemonSet") => {
            default(spec, "revisionHistoryLimit", json!(10));
            let rolling = json!({"maxSurge": 0, "maxUnavailable": 1});
            default(spec, "updateStrategy", json!({"type": "RollingUpdate", "rollingUpdate": rolling}));
            template(spec);
        }
        ("batch", "Job") => job(spec),
        ("batch", "CronJob") => {
            default(spec, "concurrencyPolicy", json!("Allow"));
            default(spec, "suspend", json!(false));
            spec.pointer_mut("/jobTemplate/spec").into_iter().for_each(job);
        }
        ("networking.k8s.io", "NetworkPolicy") => policy(spec),
        _ => {}
    }
}

fn template(spec: &mut Value) {
    spec.pointer_mut("/template/spec").into_iter().for_each(pod);
}

fn deployment(spec: &mut Value) {
    default(spec, "replicas", json!(1));
    default(spec, "revisionHistoryLimit", json!(10));
    default(spec, "progressDeadlineSeconds", json!(600));
    let rolling = json!({"maxSurge": "25%", "maxUnavailable": "25%"});
    default(spec, "strategy", json!({"type": "RollingUpdate", "rollingUpdate": rolling}));
    spec.get_mut("strategy").into_iter().for_each(|s| default(s, "type", json!("RollingUpdate")));
    template(spec);
}

fn job(spec: &mut Value) {
    default(spec, "parallelism", json!(1));
    if spec["parallelism"] == 1 {
        default(spec, "completions", json!(1));
    }
    default(spec, "backoffLimit", json!(6));
    default(spec, "completionMode", json!("NonIndexed"));
    default(spec, "suspend", json!(false));
    template(spec);
}

/// A pod's spec, alone or in a template.
fn pod(spec: &mut Value) {
    if !spec.is_object() {
        return;
    }
    default(spec, "restartPolicy", json!("Always"));
    default(spec, "dnsPolicy", json!("ClusterFirst"));
    default(spec, "schedulerName", json!("default-scheduler"));
    default(spec, "terminationGracePeriodSeconds", json!(30));
    default(spec, "securityContext", json!({}));
    let host = spec["hostNetwork"] == true;
    for field in ["containers", "initContainers"] {
        items(spec, field).for_each(|c| container(c, host));
    }
}

fn container(container: &mut Value, host_network: bool) {
    if !container.is_object() {
        return;
    }
    let image = container["image"].as_str().unwrap_or_default();
    let tag = image.rsplit('/').next().unwrap_or_default();
    let latest = !tag.contains('@') && (!tag.contains(':') || tag.ends_with(":latest"));
    default(container, "imagePullPolicy", json!(if latest { "Always" } else { "IfNotPresent" }));
    default(container, "terminationMessagePath", json!("/dev/termination-log"));
    default(container, "terminationMessagePolicy", json!("File"));
    default(container, "resources", json!({}));
    for port in items(container, "ports").filter(|p| p.is_object()) {
        default(port, "protocol", json!("TCP"));
        if host_network {
            let number = port["containerPort"].clone();
            default(port, "hostPort", number);
        }
    }
}

/// `stringData` is for writing only: it goes into `data`.
fn secret(object: &mut Value) {
    default(object, "type", json!("Opaque"));
    let Some(map) = object.as_object_mut() else { return };
    let Some(Value::Object(plain)) = map.remove("stringData") else { return };
    let data = map.entry("data").or_insert_with(|| json!({}));
    for (key, text) in plain {
        if let (Some(data), Some(text)) = (data.as_object_mut(), text.as_str()) {
            data.insert(key, json!(STANDARD.encode(text)));
        }
    }
}

fn policy(spec: &mut Value) {
    if !spec.is_object() {
        return;
    }
    default(spec, "podSelector", json!({}));
    let egress = spec.get("egress").is_some();
    default(spec, "policyTypes", if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) });
    for direction in ["ingress", "egress"] {
        for rule in items(spec, direction) {
            items(rule, "ports").for_each(|port| default(port, "protocol", json!("TCP")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds;

    #[test]
    fn a_deployment_is_completed_and_nothing_given_is_changed() {
        let mut object = json!({"spec": {"replicas": 3, "template": {"spec": {
            "containers": [{"name": "a", "image": "r:5000/x", "ports": [{"containerPort": 80}]}]}}}});
        apply(&kinds::DEPLOYMENTS, &mut object);
        let container = &object["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(
            (&object["spec"]["replicas"], &container["imagePullPolicy"]),
            (&json!(3), &json!("Always"))
        );
        assert_eq!(container["ports"][0]["protocol"], "TCP");
        let before = object.clone();
        apply(&kinds::DEPLOYMENTS, &mut object);
        assert_eq!(object, before, "defaults are settled after one time");
    }

    #[test]
    fn odd_shapes_do_not_panic() {
        for r in kinds::BUILT_IN {
            for odd in [json!(1), json!([1, "x"]), json!("x"), json!({"template": 3, "containers": "x"})] {
                let mut object = json!({"spec": odd, "data": 1, "stringData": {"a": 1}});
                apply(r, &mut object);
            }
        }
    }
}
