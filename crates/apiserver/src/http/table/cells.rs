//! The columns of each kind, as kubectl users know them.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::values::{age, count, list, or};
use super::{Column, cluster, network, path, workloads};
use crate::resource::Resource;

type Cell = fn(&Value, Timestamp) -> Value;

/// Name, type, only wide, value.
pub(super) type Spec = (&'static str, &'static str, bool, Cell);

pub(super) const NAME: Spec = ("Name", "string", false, |o, _| o["metadata"]["name"].clone());
pub(super) const AGE: Spec = ("Age", "string", false, |o, now| age(&o["metadata"]["creationTimestamp"], now));

const NAMESPACES: &[Spec] = &[NAME, ("Status", "string", false, |o, _| or(&o["status"]["phase"], "")), AGE];
const CONFIG_MAPS: &[Spec] =
    &[NAME, ("Data", "string", false, |o, _| json!(count(&o["data"]) + count(&o["binaryData"]))), AGE];
const SECRETS: &[Spec] = &[
    NAME,
    ("Type", "string", false, |o, _| or(&o["type"], "")),
    ("Data", "string", false, |o, _| json!(count(&o["data"]))),
    AGE,
];
const WEBHOOKS: &[Spec] =
    &[NAME, ("Webhooks", "integer", false, |o, _| json!(list(&o["webhooks"]).len())), AGE];
const AGED: &[Spec] = &[NAME, AGE];
const PLAIN: &[Spec] =
    &[NAME, ("Created At", "date", false, |o, _| o["metadata"]["creationTimestamp"].clone())];

fn specs(r: &Resource) -> &'static [Spec] {
    match (&*r.group, &*r.plural) {
        ("", "pods") => workloads::PODS,
        ("", "nodes") => cluster::NODES,
        ("", "services") => network::SERVICES,
        ("", "endpoints") => network::ENDPOINTS,
        ("", "namespaces") => NAMESPACES,
        ("", "configmaps") => CONFIG_MAPS,
        ("", "secrets") => SECRETS,
        ("", "serviceaccounts") => AGED,
        ("" | "events.k8s.io", "events") => cluster::EVENTS,
        ("", "persistentvolumes") => cluster::PERSISTENT_VOLUMES,
        ("", "persistentvolumeclaims") => cluster::PERSISTENT_VOLUME_CLAIMS,
        ("", "resourcequotas") => cluster::RESOURCE_QUOTAS,
        ("", "replicationcontrollers") => workloads::REPLICATION_CONTROLLERS,
        ("apps", "replicasets") => workloads::REPLICA_SETS,
        ("apps", "deployments") => workloads::DEPLOYMENTS,
        ("apps", "statefulsets") => workloads::STATEFUL_SETS,
        ("apps", "daemonsets") => workloads::DAEMON_SETS,
        ("apps", "controllerrevisions") => workloads::CONTROLLER_REVISIONS,
        ("batch", "jobs") => workloads::JOBS,
        ("batch", "cronjobs") => workloads::CRON_JOBS,
        ("autoscaling", _) => workloads::AUTOSCALERS,
        ("policy", "poddisruptionbudgets") => workloads::DISRUPTION_BUDGETS,
        ("discovery.k8s.io", _) => network::ENDPOINT_SLICES,
        ("networking.k8s.io", "ingresses") => network::INGRESSES,
        ("networking.k8s.io", "ingressclasses") => network::INGRESS_CLASSES,
        ("networking.k8s.io", "networkpolicies") => network::NETWORK_POLICIES,
        ("coordination.k8s.io", _) => cluster::LEASES,
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => cluster::ROLE_BINDINGS,
        ("storage.k8s.io", "storageclasses") => cluster::STORAGE_CLASSES,
        ("scheduling.k8s.io", "priorityclasses") => cluster::PRIORITY_CLASSES,
        ("admissionregistration.k8s.io", "validatingadmissionpolicies") => cluster::POLICIES,
        ("admissionregistration.k8s.io", "validatingadmissionpolicybindings") => cluster::POLICY_BINDINGS,
        ("admissionregistration.k8s.io", _) => WEBHOOKS,
        _ => PLAIN,
    }
}

/// A custom kind's own columns, if its definition has some.
fn custom(r: &Resource) -> Option<&Vec<Value>> {
    r.columns.as_ref()?.as_array().filter(|columns| !columns.is_empty())
}

/// The columns of a kind.
pub(super) fn columns(r: &Resource) -> Vec<Column> {
    let column = |s: &Spec| Column { name: s.0.into(), kind: s.1.into(), wide: s.2, about: String::new() };
    if let Some(own) = custom(r) {
        let text = |v: &Value, instead: &str| v.as_str().unwrap_or(instead).to_owned();
        let rest = own.iter().map(|c| Column {
            name: text(&c["name"], ""),
            kind: text(&c["type"], "string"),
            wide: c["priority"].as_i64().unwrap_or(0) > 0,
            about: text(&c["description"], ""),
        });
        return std::iter::once(column(&NAME)).chain(rest).collect();
    }
    if r.schema.is_some() {
        // What a custom kind without columns of its own has is told as if its definition said it.
        return AGED
            .iter()
            .map(|s| Column { kind: if s.0 == AGE.0 { "date".into() } else { s.1.into() }, ..column(s) })
            .collect();
    }
    specs(r).iter().map(column).collect()
}

/// The cells of one object.
pub(super) fn row(r: &Resource, object: &Value, now: Timestamp) -> Vec<Value> {
    if let Some(own) = custom(r) {
        let cell = |c: &Value| {
            let found = path::first(object, c["jsonPath"].as_str().unwrap_or_default());
            custom_cell(found.unwrap_or(&Value::Null), c["type"].as_str().unwrap_or("string"), now)
        };
        return std::iter::once(object["metadata"]["name"].clone()).chain(own.iter().map(cell)).collect();
    }
    let specs = if r.schema.is_some() { AGED } else { specs(r) };
    specs.iter().map(|spec| spec.3(object, now)).collect()
}

/// A value in a column of a type; nothing where the value is of another.
fn custom_cell(value: &Value, kind: &str, now: Timestamp) -> Value {
    match (kind, value) {
        (_, Value::Null) => Value::Null,
        ("date", Value::String(_)) => age(value, now),
        ("integer" | "number", Value::Number(_))
        | ("boolean", Value::Bool(_))
        | ("string", Value::String(_)) => value.clone(),
        ("string", other) => json!(other.to_string()),
        _ => Value::Null,
    }
}
