//! Each kind's own rules: what it gets by default, and what makes it bad.

mod config;
mod counts;
mod endpoints;
mod event;
mod ingress;
mod metrics;
mod network_policy;
mod node;
mod pod;
mod rbac;
mod resources;
mod service;
mod small;
mod workload;

pub(super) use pod::take_part as pod_part;

use serde_json::{Value, json};

use super::Context;
use super::field::Errors;
use super::value::{default, drop_fields};
use crate::error::ApiError;
use crate::registry::Part;
use crate::resource::Resource;
use crate::storage::View;

/// Fills in what needs no look at the cluster.
pub(super) fn defaults(r: &Resource, object: &mut Value) {
    match (&*r.group, &*r.kind) {
        ("", "Pod") => pod::defaults(object),
        ("", "Service") => service::defaults(object),
        ("", "Node") => node::defaults(object),
        ("", "Namespace") => namespace_defaults(object),
        ("", "Endpoints") => endpoints::defaults(object),
        ("", "ConfigMap") => config::map_defaults(object),
        ("", "Secret") => config::secret_defaults(object),
        ("", "PersistentVolumeClaim") => small::claim_defaults(object),
        ("", "PersistentVolume") => small::volume_defaults(object),
        ("", "ResourceQuota") => small::quota_defaults(object),
        ("", "ReplicationController") => workload::replication_controller_defaults(object),
        ("apps", "ReplicaSet") => workload::replica_set_defaults(object),
        ("apps", "Deployment") => workload::deployment_defaults(object),
        ("apps", "StatefulSet") => workload::stateful_set_defaults(object),
        ("apps", "DaemonSet") => workload::daemon_set_defaults(object),
        ("batch", "Job") => workload::job_defaults(object),
        ("batch", "CronJob") => workload::cron_job_defaults(object),
        ("discovery.k8s.io", "EndpointSlice") => endpoints::slice_defaults(object),
        ("networking.k8s.io", "NetworkPolicy") => network_policy::defaults(object),
        ("networking.k8s.io", "Ingress") | ("coordination.k8s.io", "Lease") => {
            default(object, "spec", json!({}));
        }
        ("networking.k8s.io", "IngressClass") => ingress::class_defaults(object),
        ("rbac.authorization.k8s.io", "Role" | "ClusterRole") => rbac::role_defaults(object),
        ("rbac.authorization.k8s.io", _) => rbac::binding_defaults(object),
        ("scheduling.k8s.io", "PriorityClass") => small::priority_class_defaults(object),
        ("storage.k8s.io", "StorageClass") => small::storage_class_defaults(object),
        ("autoscaling", _) => small::autoscaler_defaults(object),
        _ => {}
    }
}

/// A namespace has its name as a label, so that selectors can mean it.
fn namespace_defaults(namespace: &mut Value) {
    let name = super::name_of(namespace).to_owned();
    let meta = &mut namespace["metadata"];
    default(meta, "labels", json!({}));
    if meta["labels"].is_object() && !name.is_empty() {
        meta["labels"]["kubernetes.io/metadata.name"] = json!(name);
    }
}

/// The status of a new object; what the author wrote there does not count, but a node tells its own.
pub(super) fn first_status(r: &Resource, object: &mut Value) {
    let status = match (&*r.group, &*r.kind) {
        ("", "Node") => return,
        ("", "Namespace") => {
            object["spec"] = json!({"finalizers": ["kubernetes"]});
            json!({"phase": "Active"})
        }
        ("", "Service") | ("networking.k8s.io", "Ingress") => json!({"loadBalancer": {}}),
        ("", "PersistentVolumeClaim" | "PersistentVolume") => json!({"phase": "Pending"}),
        ("", "ReplicationController") | ("apps", "ReplicaSet") => json!({"replicas": 0}),
        ("apps", "StatefulSet") => json!({"availableReplicas": 0, "replicas": 0}),
        ("apps", "DaemonSet") => json!({"currentNumberScheduled": 0, "numberMisscheduled": 0,
            "desiredNumberScheduled": 0, "numberReady": 0}),
        ("policy", "PodDisruptionBudget") => json!({"disruptionsAllowed": 0, "currentHealthy": 0,
            "desiredHealthy": 0, "expectedPods": 0}),
        ("autoscaling", _) if r.version == "v1" => json!({"currentReplicas": 0, "desiredReplicas": 0}),
        ("autoscaling", _) => json!({"desiredReplicas": 0}),
        _ if r.status && r.schema.is_none() => json!({}),
        _ => {
            if r.status {
                drop_fields(object, &["status"]);
            }
            return;
        }
    };
    object["status"] = status;
}

/// Gives an object what it must have for itself alone, or from others.
pub(super) fn allocate(
    r: &Resource,
    old: Option<&Value>,
    object: &mut Value,
    view: &View<'_>,
    context: &Context,
) -> Result<(), ApiError> {
    match (&*r.group, &*r.kind) {
        ("", "Service") => service::allocate(object, old, view, &context.service_cidrs)
            .map_err(|errors| ApiError::invalid(r, super::name_of(object), &errors)),
        ("", "Pod") if old.is_none() => pod::admit(object, view),
        ("", "Pod") => {
            pod::admit_update(object);
            Ok(())
        }
        ("", "Node") if old.is_none() => {
            node::admit(object);
            Ok(())
        }
        ("apps", "DaemonSet") => {
            workload::count_templates(object, old);
            Ok(())
        }
        ("batch", "Job") if old.is_none() => {
            workload::complete_job(object);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Checks an object that is complete; `old` is the object before, if this is an update.
pub(super) fn check(r: &Resource, old: Option<&Value>, object: &Value, part: Part, errors: &mut Errors) {
    match (&*r.group, &*r.kind) {
        ("", "Pod") => {
            pod::check(object, old.is_none(), errors);
            match old {
                None => {}
                Some(old) if matches!(part, Part::Ephemeral | Part::Resize) => {
                    pod::check_part(old, object, part, errors);
                }
                Some(old) => pod::check_update(old, object, part == Part::Both, errors),
            }
        }
        ("", "Service") => service::check(object, old, errors),
        ("", "Node") => node::check(object, old, errors),
        ("", "Endpoints") => endpoints::check(object, old, errors),
        ("", "Event") => event::check(object, old, errors),
        ("", "ConfigMap") => config::check_map(object, old, errors),
        ("", "Secret") => config::check_secret(object, old, errors),
        ("", "ReplicationController") => workload::check_replication_controller(object, errors),
        ("apps", "ReplicaSet") => workload::check_replica_set(object, old, errors),
        ("apps", "Deployment") => workload::check_deployment(object, old, errors),
        ("apps", "StatefulSet") => workload::check_stateful_set(object, old, errors),
        ("apps", "DaemonSet") => workload::check_daemon_set(object, old, errors),
        ("batch", "Job") => workload::check_job(object, old, errors),
        ("batch", "CronJob") => workload::check_cron_job(object, old, errors),
        ("discovery.k8s.io", "EndpointSlice") => endpoints::check_slice(object, old, errors),
        ("networking.k8s.io", "NetworkPolicy") => network_policy::check(object, old, errors),
        ("networking.k8s.io", "Ingress") => ingress::check(object, old, errors),
        ("networking.k8s.io", "IngressClass") => ingress::check_class(object, old, errors),
        ("coordination.k8s.io", "Lease") => small::check_lease(object, errors),
        ("policy", "PodDisruptionBudget") => small::check_budget(object, errors),
        ("rbac.authorization.k8s.io", "Role" | "ClusterRole") => {
            rbac::check_role(object, r.namespaced, errors);
        }
        ("rbac.authorization.k8s.io", _) => rbac::check_binding(object, old, r.namespaced, errors),
        ("scheduling.k8s.io", "PriorityClass") => small::check_priority_class(object, old, errors),
        ("autoscaling", _) => small::check_autoscaler(object, errors),
        _ => {}
    }
}

/// Checks a status that was written alone.
pub(super) fn check_status(r: &Resource, old: &Value, object: &Value, errors: &mut Errors) {
    match (&*r.group, &*r.kind) {
        ("", "Pod") => pod::check_status(object, old, errors),
        ("", "Service") => service::check_status(object, errors),
        ("", "Node") => node::check_status(object, errors),
        ("networking.k8s.io", "Ingress") => ingress::check_status(object, errors),
        _ => counts::check(r, object, errors),
    }
}

/// Completes a status that was written alone.
pub(super) fn status_defaults(r: &Resource, old: &Value, object: &mut Value) {
    match (&*r.group, &*r.kind) {
        ("", "Pod") => pod::status_defaults(object, old),
        ("", "Service" | "Node") => defaults(r, object),
        _ => {}
    }
}

/// The metadata that a write of the status changes too: only newer kinds keep all of it.
pub(super) fn metadata_of_status(r: &Resource) -> &'static [&'static str] {
    match (&*r.group, &*r.kind) {
        _ if r.schema.is_some() => &[],
        ("admissionregistration.k8s.io" | "apiextensions.k8s.io", _)
        | ("networking.k8s.io", "ServiceCIDR") => &[],
        ("", "Pod") => &["labels", "annotations", "finalizers"],
        ("apps", "Deployment") => &["annotations", "finalizers", "ownerReferences"],
        _ => &["labels", "annotations", "finalizers", "ownerReferences"],
    }
}

/// Whether objects of a kind count their changes in `metadata.generation`.
pub(super) fn has_generation(r: &Resource) -> bool {
    r.schema.is_some()
        || match &*r.group {
            "apps" => r.kind != "ControllerRevision",
            "batch" | "networking.k8s.io" | "policy" | "scheduling.k8s.io" => true,
            "discovery.k8s.io" | "admissionregistration.k8s.io" | "apiextensions.k8s.io" => true,
            "autoscaling" => true,
            "" => matches!(&*r.kind, "Pod" | "ReplicationController"),
            _ => false,
        }
}

/// Whether an update must say which version of the object it changes.
pub(super) fn needs_version(r: &Resource) -> bool {
    r.schema.is_some()
        || matches!(&*r.kind, "Lease" | "PodDisruptionBudget")
        || r.group == "admissionregistration.k8s.io"
}
