//! What makes an object bad: the shapes that the server relies on, and the rules for the kinds
//! that Weft acts on.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::names::{LABEL, is_label, is_subdomain};
use crate::error::FieldError;
use crate::resource::Resource;

/// Checks an object that has its defaults.
pub(super) fn check(r: &Resource, object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    shapes(r, object, &mut errors);
    if !errors.is_empty() {
        return errors;
    }
    for field in ["labels", "annotations"] {
        metadata_map(object, field, &mut errors);
    }
    let spec = &object["spec"];
    match (&*r.group, &*r.kind) {
        ("", "Pod") => pod(spec, "spec", &mut errors),
        ("apps", "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet") => workload(spec, &mut errors),
        ("batch", "Job") => template(spec, &mut errors),
        ("", "Service") => service(spec, &mut errors),
        _ => {}
    }
    errors
}

/// Fields whose shape the server itself takes for granted.
fn shapes(r: &Resource, object: &Value, errors: &mut Vec<FieldError>) {
    let mut expect = |path: &str, what: &str, right: fn(&Value) -> bool| {
        let value = path.split('.').fold(object, |v, part| &v[part]);
        if !value.is_null() && !right(value) {
            errors.push(FieldError::invalid(path, value, &format!("must be {what}")));
        }
    };
    for path in ["metadata.labels", "metadata.annotations", "status"] {
        expect(path, "an object", Value::is_object);
    }
    for path in ["metadata.finalizers", "metadata.ownerReferences"] {
        expect(path, "a list", Value::is_array);
    }
    if r.schema.is_some() {
        return;
    }
    let template = ["spec.template", "spec.template.metadata", "spec.template.metadata.labels"];
    for path in ["spec", "data"].into_iter().chain(template) {
        expect(path, "an object", Value::is_object);
    }
    expect("status.conditions", "a list", Value::is_array);
}

fn metadata_map(object: &Value, field: &str, errors: &mut Vec<FieldError>) {
    let path = format!("metadata.{field}");
    for (key, value) in object["metadata"][field].as_object().into_iter().flatten() {
        if !is_qualified(key) {
            let rule = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc')";
            errors.push(FieldError::invalid(&path, &json!(key), rule));
        }
        let good = value.as_str().is_some_and(|v| field == "annotations" || is_label_value(v));
        if !good {
            let rule = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
            errors.push(FieldError::invalid(&path, value, rule));
        }
    }
}

fn is_label_value(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let edge = |b: Option<&u8>| b.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 63 && text.bytes().all(inner) && edge(bytes.first()) && edge(bytes.last())
}

fn is_qualified(key: &str) -> bool {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(p, n)| (Some(p), n));
    !name.is_empty() && is_label_value(name) && prefix.is_none_or(is_subdomain)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn pod(spec: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if list(&spec["containers"]).is_empty() {
        errors.push(FieldError::required(&format!("{path}.containers"), ""));
    }
    let mut names = HashSet::new();
    for field in ["initContainers", "containers"] {
        for (index, container) in list(&spec[field]).iter().enumerate() {
            let path = format!("{path}.{field}[{index}]");
            let name = container["name"].as_str().unwrap_or_default();
            if name.is_empty() {
                errors.push(FieldError::required(&format!("{path}.name"), ""));
            } else if !is_label(name) {
                errors.push(FieldError::invalid(&format!("{path}.name"), &json!(name), LABEL));
            } else if !names.insert(name) {
                let message = format!("Duplicate value: {name:?}");
                errors.push(FieldError {
                    field: format!("{path}.name"),
                    reason: "FieldValueDuplicate",
                    message,
                });
            }
            container_ports(container, &path, errors);
        }
    }
    one_of(
        &spec["restartPolicy"],
        &format!("{path}.restartPolicy"),
        &["Always", "OnFailure", "Never"],
        errors,
    );
}

fn container_ports(container: &Value, path: &str, errors: &mut Vec<FieldError>) {
    for (index, port) in list(&container["ports"]).iter().enumerate() {
        let path = format!("{path}.ports[{index}]");
        port_number(&port["containerPort"], &format!("{path}.containerPort"), errors);
        one_of(&port["protocol"], &format!("{path}.protocol"), &["TCP", "UDP", "SCTP"], errors);
    }
}

fn port_number(value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if value.is_null() {
        errors.push(FieldError::required(path, ""));
    } else if !value.as_i64().is_some_and(|n| (1..=65_535).contains(&n)) {
        errors.push(FieldError::invalid(path, value, "must be between 1 and 65535, inclusive"));
    }
}

fn one_of(value: &Value, path: &str, allowed: &[&str], errors: &mut Vec<FieldError>) {
    if !value.is_null() && !value.as_str().is_some_and(|v| allowed.contains(&v)) {
        let all = allowed.iter().map(|a| format!("{a:?}")).collect::<Vec<_>>().join(", ");
        let message = format!("Unsupported value: {value}: supported values: {all}");
        errors.push(FieldError { field: path.to_owned(), reason: "FieldValueNotSupported", message });
    }
}

fn workload(spec: &Value, errors: &mut Vec<FieldError>) {
    let replicas = &spec["replicas"];
    if !replicas.is_null() && !replicas.as_i64().is_some_and(|n| (0..=i64::from(i32::MAX)).contains(&n)) {
        errors.push(FieldError::invalid("spec.replicas", replicas, "must be greater than or equal to 0"));
    }
    let wanted = spec["selector"]["matchLabels"].as_object();
    let expressions = !list(&spec["selector"]["matchExpressions"]).is_empty();
    if wanted.is_none_or(serde_json::Map::is_empty) && !expressions {
        errors.push(FieldError::required("spec.selector", ""));
    }
    let labels = &spec["template"]["metadata"]["labels"];
    if wanted.into_iter().flatten().any(|(k, v)| &labels[k] != v) {
        let rule = "`selector` does not match template `labels`";
        errors.push(FieldError::invalid("spec.template.metadata.labels", labels, rule));
    }
    template(spec, errors);
}

fn template(spec: &Value, errors: &mut Vec<FieldError>) {
    pod(&spec["template"]["spec"], "spec.template.spec", errors);
}

fn service(spec: &Value, errors: &mut Vec<FieldError>) {
    one_of(&spec["type"], "spec.type", &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"], errors);
    let ports = list(&spec["ports"]);
    let headless = spec["clusterIP"] == "None";
    if ports.is_empty() && spec["type"] != "ExternalName" && !headless {
        errors.push(FieldError::required("spec.ports", ""));
    }
    for (index, port) in ports.iter().enumerate() {
        let path = format!("spec.ports[{index}]");
        port_number(&port["port"], &format!("{path}.port"), errors);
        one_of(&port["protocol"], &format!("{path}.protocol"), &["TCP", "UDP", "SCTP"], errors);
        if ports.len() > 1 && port["name"].as_str().is_none_or(str::is_empty) {
            errors.push(FieldError::required(&format!("{path}.name"), ""));
        }
    }
}

/// What an update may not change.
pub(super) fn immutable(r: &Resource, old: &Value, new: &Value, errors: &mut Vec<FieldError>) {
    let (before, after) = (&old["spec"], &new["spec"]);
    match (&*r.group, &*r.kind) {
        ("apps", _) if !before["selector"].is_null() && before["selector"] != after["selector"] => {
            errors.push(FieldError::invalid("spec.selector", &after["selector"], "field is immutable"));
        }
        ("", "Pod") if frozen(before) != frozen(after) => {
            let rule = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds`";
            errors.push(FieldError::forbidden("spec", rule));
        }
        ("", "Pod") if !before["nodeName"].is_null() && before["nodeName"] != after["nodeName"] => {
            errors.push(FieldError::forbidden("spec.nodeName", "a pod stays on its node"));
        }
        _ => {}
    }
}

/// A pod's spec without what may change.
fn frozen(spec: &Value) -> Value {
    let mut spec = spec.clone();
    if let Some(map) = spec.as_object_mut() {
        for field in ["activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds", "nodeName"] {
            map.remove(field);
        }
    }
    for field in ["containers", "initContainers"] {
        let containers = spec.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten();
        for container in containers.filter_map(Value::as_object_mut) {
            container.remove("image");
        }
    }
    spec
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds;

    fn fields(r: &Resource, object: Value) -> Vec<String> {
        check(r, &object).into_iter().map(|e| e.field).collect()
    }

    #[test]
    fn bad_pods() {
        let pod = |containers: Value| json!({"metadata": {}, "spec": {"containers": containers}});
        assert_eq!(fields(&kinds::PODS, pod(json!([]))), ["spec.containers"]);
        assert_eq!(fields(&kinds::PODS, pod(json!([{"name": "A"}]))), ["spec.containers[0].name"]);
        let twice = json!([{"name": "a"}, {"name": "a"}]);
        assert_eq!(fields(&kinds::PODS, pod(twice)), ["spec.containers[1].name"]);
        let port = json!([{"name": "a", "ports": [{"containerPort": 70_000, "protocol": "X"}]}]);
        assert_eq!(fields(&kinds::PODS, pod(port)).len(), 2);
    }

    #[test]
    fn labels() {
        let with = |labels: Value| fields(&kinds::CONFIG_MAPS, json!({"metadata": {"labels": labels}}));
        assert!(with(json!({"a.b/c-d": "x_1", "e": ""})).is_empty());
        for bad in
            [json!({"-a": "b"}), json!({"a": "b c"}), json!({"a": 1}), json!({"a/b/c": "d"}), json!(["a"])]
        {
            assert_eq!(with(bad.clone()), ["metadata.labels"], "{bad}");
        }
    }

    #[test]
    fn a_selector_matches_its_template() {
        let spec = json!({"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "c"}},
            "spec": {"containers": [{"name": "x"}]}}});
        let errors = fields(&kinds::DEPLOYMENTS, json!({"metadata": {}, "spec": spec}));
        assert_eq!(errors, ["spec.template.metadata.labels"]);
    }

    #[test]
    fn odd_shapes_do_not_panic() {
        for r in kinds::BUILT_IN {
            for odd in [json!(1), json!([1]), json!({"ports": [1], "containers": [1], "template": []})] {
                check(
                    r,
                    &json!({"metadata": {"labels": odd, "finalizers": odd}, "spec": odd, "status": odd}),
                );
                check(r, &json!({"metadata": {}, "spec": odd}));
            }
        }
    }
}
