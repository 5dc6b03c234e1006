//! Columns of nodes, events, leases, storage and of who may do what.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{AGE, NAME, Spec};
use super::network::default_class;
use super::values::{age, condition, list, number, or, plain};

pub(super) const NODES: &[Spec] = &[
    NAME,
    ("Status", "string", false, |o, _| json!(node_status(o))),
    ("Roles", "string", false, |o, _| json!(node_roles(o))),
    AGE,
    ("Version", "string", false, |o, _| or(&o["status"]["nodeInfo"]["kubeletVersion"], "")),
    ("Internal-IP", "string", true, |o, _| node_address(o, "InternalIP")),
    ("External-IP", "string", true, |o, _| node_address(o, "ExternalIP")),
    ("OS-Image", "string", true, |o, _| or(&o["status"]["nodeInfo"]["osImage"], "<unknown>")),
    ("Kernel-Version", "string", true, |o, _| or(&o["status"]["nodeInfo"]["kernelVersion"], "<unknown>")),
    ("Container-Runtime", "string", true, |o, _| {
        or(&o["status"]["nodeInfo"]["containerRuntimeVersion"], "<unknown>")
    }),
];
pub(super) const EVENTS: &[Spec] = &[
    ("Last Seen", "string", false, last_seen),
    ("Type", "string", false, |o, _| or(&o["type"], "")),
    ("Reason", "string", false, |o, _| or(&o["reason"], "")),
    ("Object", "string", false, |o, _| json!(about(o))),
    ("Subobject", "string", true, |o, _| or(&involved(o)["fieldPath"], "")),
    ("Source", "string", true, |o, _| json!(source(o))),
    ("Message", "string", false, |o, _| json!(plain(either(o, "message", "note"), "").trim())),
    ("First Seen", "string", true, first_seen),
    ("Count", "string", true, |o, _| {
        let series = o["series"]["count"].as_i64();
        json!(series.or(either(o, "count", "deprecatedCount").as_i64()).filter(|n| *n > 0).unwrap_or(1))
    }),
    ("Name", "string", true, |o, _| o["metadata"]["name"].clone()),
];
pub(super) const LEASES: &[Spec] =
    &[NAME, ("Holder", "string", false, |o, _| or(&o["spec"]["holderIdentity"], "")), AGE];
pub(super) const ROLE_BINDINGS: &[Spec] = &[
    NAME,
    ("Role", "string", false, |o, _| {
        json!(format!("{}/{}", plain(&o["roleRef"]["kind"], ""), plain(&o["roleRef"]["name"], "")))
    }),
    AGE,
    ("Users", "string", true, |o, _| json!(subjects(o, "User"))),
    ("Groups", "string", true, |o, _| json!(subjects(o, "Group"))),
    ("ServiceAccounts", "string", true, |o, _| json!(subjects(o, "ServiceAccount"))),
];
pub(super) const STORAGE_CLASSES: &[Spec] = &[
    ("Name", "string", false, |o, _| default_class(o, "storageclass.kubernetes.io/is-default-class")),
    ("Provisioner", "string", false, |o, _| or(&o["provisioner"], "")),
    ("ReclaimPolicy", "string", false, |o, _| or(&o["reclaimPolicy"], "Delete")),
    ("VolumeBindingMode", "string", false, |o, _| or(&o["volumeBindingMode"], "Immediate")),
    ("AllowVolumeExpansion", "string", false, |o, _| json!(o["allowVolumeExpansion"] == true)),
    AGE,
];
pub(super) const PRIORITY_CLASSES: &[Spec] = &[
    NAME,
    ("Value", "integer", false, |o, _| number(&o["value"])),
    ("Global-Default", "boolean", false, |o, _| json!(o["globalDefault"] == true)),
    AGE,
    ("PreemptionPolicy", "string", true, |o, _| or(&o["preemptionPolicy"], "")),
];
pub(super) const PERSISTENT_VOLUMES: &[Spec] = &[
    NAME,
    ("Capacity", "string", false, |o, _| json!(plain(&o["spec"]["capacity"]["storage"], "0"))),
    ("Access Modes", "string", false, |o, _| json!(access_modes(&o["spec"]))),
    ("Reclaim Policy", "string", false, |o, _| or(&o["spec"]["persistentVolumeReclaimPolicy"], "")),
    ("Status", "string", false, |o, _| phase(o)),
    ("Claim", "string", false, |o, _| {
        let claim = &o["spec"]["claimRef"];
        json!(if claim.is_null() {
            String::new()
        } else {
            format!("{}/{}", plain(&claim["namespace"], ""), plain(&claim["name"], ""))
        })
    }),
    ("StorageClass", "string", false, |o, _| or(&o["spec"]["storageClassName"], "")),
    ("VolumeAttributesClass", "string", false, |o, _| or(&o["spec"]["volumeAttributesClassName"], "<unset>")),
    ("Reason", "string", false, |o, _| or(&o["status"]["reason"], "")),
    AGE,
    ("VolumeMode", "string", true, |o, _| or(&o["spec"]["volumeMode"], "<unset>")),
];
pub(super) const PERSISTENT_VOLUME_CLAIMS: &[Spec] = &[
    NAME,
    ("Status", "string", false, |o, _| phase(o)),
    ("Volume", "string", false, |o, _| or(&o["spec"]["volumeName"], "")),
    ("Capacity", "string", false, |o, _| {
        json!(if bound(o) { plain(&o["status"]["capacity"]["storage"], "0") } else { String::new() })
    }),
    ("Access Modes", "string", false, |o, _| {
        json!(if bound(o) { access_modes(&o["status"]) } else { String::new() })
    }),
    ("StorageClass", "string", false, |o, _| or(&o["spec"]["storageClassName"], "")),
    ("VolumeAttributesClass", "string", false, |o, _| or(&o["spec"]["volumeAttributesClassName"], "<unset>")),
    AGE,
    ("VolumeMode", "string", true, |o, _| or(&o["spec"]["volumeMode"], "<unset>")),
];
pub(super) const RESOURCE_QUOTAS: &[Spec] = &[
    NAME,
    ("Request", "string", false, |o, _| json!(quota(o, false))),
    ("Limit", "string", false, |o, _| json!(quota(o, true))),
    AGE,
];
pub(super) const POLICIES: &[Spec] = &[
    NAME,
    ("Validations", "integer", false, |o, _| json!(list(&o["spec"]["validations"]).len())),
    ("ParamKind", "string", false, |o, _| {
        let kind = &o["spec"]["paramKind"];
        json!(if kind.is_null() {
            "<unset>".to_owned()
        } else {
            format!("{}/{}", plain(&kind["apiVersion"], ""), plain(&kind["kind"], ""))
        })
    }),
    AGE,
];
pub(super) const POLICY_BINDINGS: &[Spec] = &[
    NAME,
    ("PolicyName", "string", false, |o, _| or(&o["spec"]["policyName"], "")),
    ("ParamRef", "string", false, |o, _| {
        let parameters = &o["spec"]["paramRef"];
        json!(match parameters["name"].as_str() {
            Some(name) => format!("{}/{name}", plain(&parameters["namespace"], "*")),
            None => "<unset>".to_owned(),
        })
    }),
    AGE,
];

fn node_status(node: &Value) -> String {
    let status = match condition(node, "Ready") {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    let closed = node["spec"]["unschedulable"] == true;
    if closed { format!("{status},SchedulingDisabled") } else { status.into() }
}

fn node_roles(node: &Value) -> String {
    let labels = node["metadata"]["labels"].as_object().into_iter().flatten();
    let role = |(k, v): (&String, &Value)| match k.strip_prefix("node-role.kubernetes.io/") {
        Some(role) => Some(role.to_owned()),
        None if k == "kubernetes.io/role" => v.as_str().map(str::to_owned),
        None => None,
    };
    let mut roles: Vec<String> = labels.filter_map(role).filter(|r| !r.is_empty()).collect();
    roles.sort();
    roles.dedup();
    if roles.is_empty() { "<none>".into() } else { roles.join(",") }
}

fn node_address(node: &Value, kind: &str) -> Value {
    let found = list(&node["status"]["addresses"]).iter().find(|a| a["type"] == kind);
    found.map_or_else(|| json!("<none>"), |a| a["address"].clone())
}

/// A field by its name in the core group, or in events.k8s.io.
fn either<'a>(event: &'a Value, core: &str, newer: &str) -> &'a Value {
    if event[core].is_null() { &event[newer] } else { &event[core] }
}

fn involved(event: &Value) -> &Value {
    either(event, "involvedObject", "regarding")
}

fn about(event: &Value) -> String {
    let kind = plain(&involved(event)["kind"], "").to_lowercase();
    match involved(event)["name"].as_str().filter(|n| !n.is_empty()) {
        Some(name) => format!("{kind}/{name}"),
        None => kind,
    }
}

fn first_seen(event: &Value, now: Timestamp) -> Value {
    let first = either(event, "firstTimestamp", "deprecatedFirstTimestamp");
    age(if first.is_null() { &event["eventTime"] } else { first }, now)
}

fn last_seen(event: &Value, now: Timestamp) -> Value {
    let series = &event["series"]["lastObservedTime"];
    let last = either(event, "lastTimestamp", "deprecatedLastTimestamp");
    match (series.is_null(), last.is_null()) {
        (false, _) => age(series, now),
        (true, false) => age(last, now),
        (true, true) => first_seen(event, now),
    }
}

fn source(event: &Value) -> String {
    let old = either(event, "source", "deprecatedSource");
    let first = |a: &Value, b: &Value, c: &Value| {
        let texts = [a, b, c].map(|v| v.as_str().unwrap_or_default());
        texts.into_iter().find(|t| !t.is_empty()).unwrap_or_default().to_owned()
    };
    let component = first(&old["component"], &event["reportingComponent"], &event["reportingController"]);
    let instance = first(&old["host"], &event["reportingInstance"], &Value::Null);
    if instance.is_empty() { component } else { format!("{component}, {instance}") }
}

fn subjects(binding: &Value, kind: &str) -> String {
    let of = list(&binding["subjects"]).iter().filter(|s| s["kind"] == kind);
    let name = |s: &Value| match (kind, s["namespace"].as_str()) {
        ("ServiceAccount", Some(ns)) => format!("{ns}/{}", plain(&s["name"], "")),
        _ => plain(&s["name"], ""),
    };
    of.map(name).collect::<Vec<_>>().join(", ")
}

fn access_modes(holder: &Value) -> String {
    let modes = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let given = list(&holder["accessModes"]);
    let there = modes.iter().filter(|(name, _)| given.iter().any(|m| m == name));
    there.map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}

fn phase(object: &Value) -> Value {
    if object["metadata"]["deletionTimestamp"].is_null() {
        or(&object["status"]["phase"], "")
    } else {
        json!("Terminating")
    }
}

fn bound(claim: &Value) -> bool {
    claim["spec"]["volumeName"].as_str().is_some_and(|v| !v.is_empty())
}

fn quota(object: &Value, limits: bool) -> String {
    let hard = object["status"]["hard"].as_object().into_iter().flatten();
    let of = hard.filter(|(name, _)| name.starts_with("limits.") == limits);
    let one = |(name, hard): (&String, &Value)| {
        format!("{name}: {}/{}", plain(&object["status"]["used"][name], "0"), plain(hard, "0"))
    };
    of.map(one).collect::<Vec<_>>().join(", ")
}
