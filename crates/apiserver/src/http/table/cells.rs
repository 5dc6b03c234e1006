//! The columns of each kind, as kubectl users know them.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Column;
use crate::resource::Resource;

type Cell = fn(&Value, Timestamp) -> Value;

/// Name, type, only wide, value.
type Spec = (&'static str, &'static str, bool, Cell);

const NAME: Spec = ("Name", "string", false, |o, _| o["metadata"]["name"].clone());
const AGE: Spec = ("Age", "string", false, |o, now| age(&o["metadata"]["creationTimestamp"], now));

const PODS: &[Spec] = &[
    NAME,
    ("Ready", "string", false, |o, _| pod_ready(o)),
    ("Status", "string", false, |o, _| json!(pod_status(o))),
    ("Restarts", "string", false, |o, _| {
        let each = list(&o["status"]["containerStatuses"]);
        json!(each.iter().filter_map(|c| c["restartCount"].as_i64()).sum::<i64>().to_string())
    }),
    AGE,
    ("IP", "string", true, |o, _| or(&o["status"]["podIP"], "<none>")),
    ("Node", "string", true, |o, _| or(&o["spec"]["nodeName"], "<none>")),
    ("Nominated Node", "string", true, |o, _| or(&o["status"]["nominatedNodeName"], "<none>")),
    ("Readiness Gates", "string", true, |_, _| json!("<none>")),
];
const NODES: &[Spec] = &[
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
const SERVICES: &[Spec] = &[
    NAME,
    ("Type", "string", false, |o, _| or(&o["spec"]["type"], "ClusterIP")),
    ("Cluster-IP", "string", false, |o, _| or(&o["spec"]["clusterIP"], "<none>")),
    ("External-IP", "string", false, |o, _| json!(external_ip(o))),
    ("Port(s)", "string", false, |o, _| json!(ports(o))),
    AGE,
    ("Selector", "string", true, |o, _| json!(labels(&o["spec"]["selector"]))),
];
const DEPLOYMENTS: &[Spec] = &[
    NAME,
    ("Ready", "string", false, |o, _| ratio(&o["status"]["readyReplicas"], &o["spec"]["replicas"])),
    ("Up-to-date", "string", false, |o, _| number(&o["status"]["updatedReplicas"])),
    ("Available", "string", false, |o, _| number(&o["status"]["availableReplicas"])),
    AGE,
    ("Containers", "string", true, |o, _| json!(containers(o, "name"))),
    ("Images", "string", true, |o, _| json!(containers(o, "image"))),
    ("Selector", "string", true, |o, _| json!(labels(&o["spec"]["selector"]["matchLabels"]))),
];
const REPLICA_SETS: &[Spec] = &[
    NAME,
    ("Desired", "integer", false, |o, _| number(&o["spec"]["replicas"])),
    ("Current", "integer", false, |o, _| number(&o["status"]["replicas"])),
    ("Ready", "integer", false, |o, _| number(&o["status"]["readyReplicas"])),
    AGE,
    ("Containers", "string", true, |o, _| json!(containers(o, "name"))),
    ("Images", "string", true, |o, _| json!(containers(o, "image"))),
    ("Selector", "string", true, |o, _| json!(labels(&o["spec"]["selector"]["matchLabels"]))),
];
const STATEFUL_SETS: &[Spec] = &[
    NAME,
    ("Ready", "string", false, |o, _| ratio(&o["status"]["readyReplicas"], &o["spec"]["replicas"])),
    AGE,
    ("Containers", "string", true, |o, _| json!(containers(o, "name"))),
    ("Images", "string", true, |o, _| json!(containers(o, "image"))),
];
const DAEMON_SETS: &[Spec] = &[
    NAME,
    ("Desired", "integer", false, |o, _| number(&o["status"]["desiredNumberScheduled"])),
    ("Current", "integer", false, |o, _| number(&o["status"]["currentNumberScheduled"])),
    ("Ready", "integer", false, |o, _| number(&o["status"]["numberReady"])),
    ("Up-to-date", "integer", false, |o, _| number(&o["status"]["updatedNumberScheduled"])),
    ("Available", "integer", false, |o, _| number(&o["status"]["numberAvailable"])),
    ("Node Selector", "string", false, |o, _| json!(labels(&o["spec"]["template"]["spec"]["nodeSelector"]))),
    AGE,
];
const JOBS: &[Spec] = &[
    NAME,
    ("Completions", "string", false, |o, _| ratio(&o["status"]["succeeded"], &o["spec"]["completions"])),
    AGE,
];
const NAMESPACES: &[Spec] =
    &[NAME, ("Status", "string", false, |o, _| or(&o["status"]["phase"], "Active")), AGE];
const CONFIG_MAPS: &[Spec] = &[NAME, ("Data", "integer", false, |o, _| count(&o["data"])), AGE];
const SECRETS: &[Spec] = &[
    NAME,
    ("Type", "string", false, |o, _| or(&o["type"], "Opaque")),
    ("Data", "integer", false, |o, _| count(&o["data"])),
    AGE,
];
const DEFINITIONS: &[Spec] =
    &[NAME, ("Created At", "string", false, |o, _| o["metadata"]["creationTimestamp"].clone())];
const PLAIN: &[Spec] = &[NAME, AGE];

fn specs(r: &Resource) -> &'static [Spec] {
    match (&*r.group, &*r.plural) {
        ("", "pods") => PODS,
        ("", "nodes") => NODES,
        ("", "services") => SERVICES,
        ("", "namespaces") => NAMESPACES,
        ("", "configmaps") => CONFIG_MAPS,
        ("", "secrets") => SECRETS,
        ("", "replicationcontrollers") | ("apps", "replicasets") => REPLICA_SETS,
        ("apps", "deployments") => DEPLOYMENTS,
        ("apps", "statefulsets") => STATEFUL_SETS,
        ("apps", "daemonsets") => DAEMON_SETS,
        ("batch", "jobs") => JOBS,
        ("apiextensions.k8s.io", "customresourcedefinitions") => DEFINITIONS,
        _ => PLAIN,
    }
}

/// A custom kind's own columns, if its definition has some.
fn custom(r: &Resource) -> Option<&Vec<Value>> {
    r.columns.as_ref()?.as_array().filter(|columns| !columns.is_empty())
}

/// The columns of a kind.
pub(super) fn columns(r: &Resource) -> Vec<Column> {
    if let Some(own) = custom(r) {
        let text = |v: &Value| v.as_str().unwrap_or("string").to_owned();
        let name = Column { name: "Name".into(), kind: "string".into(), wide: false };
        let rest = own.iter().map(|c| Column {
            name: text(&c["name"]),
            kind: text(&c["type"]),
            wide: c["priority"].as_i64().unwrap_or(0) > 0,
        });
        return std::iter::once(name).chain(rest).collect();
    }
    specs(r).iter().map(|s| Column { name: s.0.into(), kind: s.1.into(), wide: s.2 }).collect()
}

/// The cells of one object.
pub(super) fn row(r: &Resource, object: &Value, now: Timestamp) -> Vec<Value> {
    if let Some(own) = custom(r) {
        let cell = |c: &Value| {
            let value = json_path(object, c["jsonPath"].as_str().unwrap_or_default());
            if c["type"] == "date" { age(value, now) } else { value.clone() }
        };
        return std::iter::once(object["metadata"]["name"].clone()).chain(own.iter().map(cell)).collect();
    }
    specs(r).iter().map(|spec| spec.3(object, now)).collect()
}

/// Follows a JSON path of plain names and the filter `[?(@.type=="X")]`.
fn json_path<'a>(object: &'a Value, path: &str) -> &'a Value {
    let mut at = object;
    for part in path.replace("\\.", "\u{1}").split('.').filter(|p| !p.is_empty()) {
        let part = part.replace('\u{1}', ".");
        let name = part.split('[').next().unwrap_or_default();
        at = &at[name];
        if let Some(index) = part.strip_prefix(name).and_then(|i| i.strip_prefix('[')) {
            let index = index.trim_end_matches(']');
            at = match index.parse::<usize>() {
                Ok(n) => &at[n],
                Err(_) => &Value::Null,
            };
        }
    }
    at
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn or(value: &Value, instead: &str) -> Value {
    if value.as_str().is_none_or(str::is_empty) { json!(instead) } else { value.clone() }
}

fn number(value: &Value) -> Value {
    json!(value.as_i64().unwrap_or(0))
}

fn ratio(part: &Value, whole: &Value) -> Value {
    json!(format!("{}/{}", part.as_i64().unwrap_or(0), whole.as_i64().unwrap_or(0)))
}

fn count(value: &Value) -> Value {
    json!(value.as_object().map_or(0, serde_json::Map::len))
}

fn labels(value: &Value) -> String {
    let pairs = value.as_object().into_iter().flatten();
    let text: Vec<_> = pairs.map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
    if text.is_empty() { "<none>".into() } else { text.join(",") }
}

fn containers(object: &Value, field: &str) -> String {
    let each = list(&object["spec"]["template"]["spec"]["containers"]);
    each.iter().filter_map(|c| c[field].as_str()).collect::<Vec<_>>().join(",")
}

fn pod_ready(pod: &Value) -> Value {
    let all = list(&pod["spec"]["containers"]).len();
    let ready = list(&pod["status"]["containerStatuses"]).iter().filter(|c| c["ready"] == true).count();
    json!(format!("{ready}/{all}"))
}

fn pod_status(pod: &Value) -> String {
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        return "Terminating".into();
    }
    let waiting = list(&pod["status"]["containerStatuses"])
        .iter()
        .find_map(|c| c["state"]["waiting"]["reason"].as_str());
    let status = &pod["status"];
    let own = status["reason"].as_str().or(waiting).or(status["phase"].as_str()).unwrap_or("Unknown");
    if own == "Succeeded" { "Completed".into() } else { own.to_owned() }
}

fn node_status(node: &Value) -> String {
    let ready = list(&node["status"]["conditions"]).iter().find(|c| c["type"] == "Ready");
    let status = match ready.map(|c| c["status"] == "True") {
        Some(true) => "Ready",
        Some(false) => "NotReady",
        None => "Unknown",
    };
    let closed = node["spec"]["unschedulable"] == true;
    if closed { format!("{status},SchedulingDisabled") } else { status.into() }
}

fn node_roles(node: &Value) -> String {
    let labels = node["metadata"]["labels"].as_object().into_iter().flatten();
    let roles: Vec<_> = labels.filter_map(|(k, _)| k.strip_prefix("node-role.kubernetes.io/")).collect();
    if roles.is_empty() { "<none>".into() } else { roles.join(",") }
}

fn node_address(node: &Value, kind: &str) -> Value {
    let found = list(&node["status"]["addresses"]).iter().find(|a| a["type"] == kind);
    found.map_or_else(|| json!("<none>"), |a| a["address"].clone())
}

fn external_ip(service: &Value) -> String {
    let spec = &service["spec"];
    if spec["type"] == "ExternalName" {
        return spec["externalName"].as_str().unwrap_or("<none>").to_owned();
    }
    let given = list(&spec["externalIPs"]).iter().filter_map(Value::as_str);
    let balanced = list(&service["status"]["loadBalancer"]["ingress"]).iter();
    let all: Vec<_> =
        balanced.filter_map(|i| i["ip"].as_str().or(i["hostname"].as_str())).chain(given).collect();
    match all.is_empty() {
        false => all.join(","),
        true if spec["type"] == "LoadBalancer" => "<pending>".into(),
        true => "<none>".into(),
    }
}

fn ports(service: &Value) -> String {
    let one = |p: &Value| {
        let protocol = p["protocol"].as_str().unwrap_or("TCP");
        match p["nodePort"].as_i64() {
            Some(node) if node > 0 => format!("{}:{node}/{protocol}", p["port"]),
            _ => format!("{}/{protocol}", p["port"]),
        }
    };
    let all: Vec<_> = list(&service["spec"]["ports"]).iter().map(one).collect();
    if all.is_empty() { "<none>".into() } else { all.join(",") }
}

/// The time since, as short as kubectl writes it.
fn age(since: &Value, now: Timestamp) -> Value {
    let Some(since) = since.as_str().and_then(|s| s.parse::<Timestamp>().ok()) else {
        return json!("<unknown>");
    };
    json!(short(now.duration_since(since).as_secs().max(0)))
}

fn short(s: i64) -> String {
    let (m, h, d) = (s / 60, s / 3600, s / 86_400);
    let two = |big: i64, unit: char, small: i64, less: char| {
        if small == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{small}{less}") }
    };
    match s {
        0..120 => format!("{s}s"),
        120..600 => two(m, 'm', s % 60, 's'),
        600..10_800 => format!("{m}m"),
        10_800..28_800 => two(h, 'h', m % 60, 'm'),
        28_800..172_800 => format!("{h}h"),
        172_800..691_200 => two(d, 'd', h % 24, 'h'),
        691_200..63_072_000 => format!("{d}d"),
        _ => two(d / 365, 'y', d % 365, 'd'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short() {
        let cases = [
            (5, "5s"),
            (119, "119s"),
            (125, "2m5s"),
            (900, "15m"),
            (11_000, "3h3m"),
            (90_000, "25h"),
            (200_000, "2d7h"),
        ];
        for (seconds, text) in cases {
            assert_eq!(short(seconds), text);
        }
    }

    #[test]
    fn a_path_of_a_custom_column() {
        let object = json!({"spec": {"a": [{"b": 1}]}, "metadata": {"annotations": {"x.y/z": "v"}}});
        assert_eq!(json_path(&object, ".spec.a[0].b"), &json!(1));
        assert_eq!(json_path(&object, ".metadata.annotations.x\\.y/z"), &json!("v"));
        assert_eq!(json_path(&object, ".nothing.there"), &Value::Null);
    }
}
