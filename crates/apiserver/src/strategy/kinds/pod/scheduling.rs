//! Where a pod may run.

use serde_json::{Value, json};

use crate::strategy::field::{Errors, Path};
use crate::strategy::value::{int, list, numbered, same, text, unset};
use crate::strategy::{format, meta};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
const WEIGHT: &str = "must be in the range 1-100";
const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// Checks the affinity to nodes and pods.
pub(super) fn affinity(affinity: &Value, at: &Path, errors: &mut Errors) {
    node_affinity(&affinity["nodeAffinity"], &at.field("nodeAffinity"), errors);
    for field in ["podAffinity", "podAntiAffinity"] {
        let (terms, at) = (&affinity[field], at.field(field));
        for (index, term) in numbered(&terms[REQUIRED]) {
            pod_term(term, &at.field(REQUIRED).at(index), errors);
        }
        for (index, term) in numbered(&terms[PREFERRED]) {
            let at = at.field(PREFERRED).at(index);
            weight(term, &at, errors);
            pod_term(&term["podAffinityTerm"], &at.field("podAffinityTerm"), errors);
        }
    }
}

fn weight(term: &Value, at: &Path, errors: &mut Errors) {
    let weight = int(&term["weight"]);
    if !(1..=100).contains(&weight) {
        errors.invalid(&at.field("weight"), &json!(weight), WEIGHT);
    }
}

fn node_affinity(affinity: &Value, at: &Path, errors: &mut Errors) {
    let (required, at_required) = (&affinity[REQUIRED], at.field(REQUIRED).field("nodeSelectorTerms"));
    if !required.is_null() && unset(&required["nodeSelectorTerms"]) {
        errors.required(&at_required, "must have at least one node selector term");
    }
    for (index, term) in numbered(&required["nodeSelectorTerms"]) {
        node_term(term, true, &at_required.at(index), errors);
    }
    for (index, term) in numbered(&affinity[PREFERRED]) {
        let at = at.field(PREFERRED).at(index);
        weight(term, &at, errors);
        node_term(&term["preference"], false, &at.field("preference"), errors);
    }
}

fn node_term(term: &Value, strict: bool, at: &Path, errors: &mut Errors) {
    for (index, wanted) in numbered(&term["matchExpressions"]) {
        node_expression(wanted, strict, &at.field("matchExpressions").at(index), errors);
    }
    for (index, wanted) in numbered(&term["matchFields"]) {
        node_field(wanted, &at.field("matchFields").at(index), errors);
    }
}

fn node_expression(wanted: &Value, strict: bool, at: &Path, errors: &mut Errors) {
    let (operator, values, at_values) =
        (text(&wanted["operator"]), list(&wanted["values"]), at.field("values"));
    match operator {
        "In" | "NotIn" if values.is_empty() => {
            errors.required(&at_values, "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let rule = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.forbidden(&at_values, rule);
        }
        "Gt" | "Lt" if values.len() != 1 => {
            errors.required(&at_values, "must be specified single value when `operator` is 'Lt' or 'Gt'");
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        _ => errors.invalid(&at.field("operator"), &json!(operator), "not a valid selector operator"),
    }
    let key = text(&wanted["key"]);
    errors.all(&at.field("key"), &json!(key), format::label_key(key));
    for (index, value) in values.iter().enumerate().filter(|_| strict) {
        errors.all(&at_values.at(index), value, format::label_value(text(value)));
    }
}

fn node_field(wanted: &Value, at: &Path, errors: &mut Errors) {
    let (operator, values) = (text(&wanted["operator"]), list(&wanted["values"]));
    match operator {
        "In" | "NotIn" if values.len() != 1 => {
            let rule = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            errors.required(&at.field("values"), rule);
        }
        "In" | "NotIn" => {}
        _ => errors.invalid(&at.field("operator"), &json!(operator), "not a valid selector operator"),
    }
    let key = text(&wanted["key"]);
    if key != "metadata.name" {
        return errors.invalid(&at.field("key"), &json!(key), "not a valid field selector key");
    }
    for (index, value) in values.iter().enumerate() {
        errors.all(&at.field("values").at(index), value, format::dns_subdomain(text(value)));
    }
}

fn pod_term(term: &Value, at: &Path, errors: &mut Errors) {
    for field in ["labelSelector", "namespaceSelector"] {
        meta::selector(&term[field], &at.field(field), errors);
    }
    for (_, name) in numbered(&term["namespaces"]) {
        errors.all(&at.field("namespace"), name, format::dns_label(text(name)));
    }
    let (key, at) = (text(&term["topologyKey"]), at.field("topologyKey"));
    if key.is_empty() {
        errors.required(&at, "can not be empty");
    }
    errors.all(&at, &json!(key), format::label_key(key));
}

/// Checks which taints a pod bears.
pub(super) fn tolerations(tolerations: &Value, at: &Path, errors: &mut Errors) {
    for (index, toleration) in numbered(tolerations) {
        let at = at.at(index);
        let (key, operator) = (text(&toleration["key"]), json!(text(&toleration["operator"])));
        let (value, effect) = (json!(text(&toleration["value"])), json!(text(&toleration["effect"])));
        let at_operator = at.field("operator");
        if !key.is_empty() {
            errors.all(&at.field("key"), &json!(key), format::label_key(key));
        } else if operator != "Exists" {
            let rule =
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.invalid(&at_operator, &operator, rule);
        }
        if !toleration["tolerationSeconds"].is_null() && effect != "NoExecute" {
            let rule = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.invalid(&at.field("effect"), &effect, rule);
        }
        match text(&operator) {
            "Equal" | "" => {
                let broken = format::label_value(text(&value));
                if !broken.is_empty() {
                    errors.invalid(&at_operator, &value, &broken.join(";"));
                }
            }
            "Exists" if value != "" => {
                errors.invalid(&at_operator, &value, "value must be empty when `operator` is 'Exists'");
            }
            "Exists" => {}
            "Lt" | "Gt" => {
                errors.not_supported(&at_operator, &operator, &["Equal", "Exists", "Lt", "Gt"]);
            }
            _ => errors.not_supported(&at_operator, &operator, &["Equal", "Exists"]),
        }
        errors.maybe_one_of(&at.field("effect"), &effect, EFFECTS);
    }
}

/// Checks what a pod waits for before it is scheduled or ready.
pub(super) fn gates(spec: &Value, at: &Path, errors: &mut Errors) {
    for (index, gate) in numbered(&spec["readinessGates"]) {
        let kind = text(&gate["conditionType"]);
        let at = at.field("readinessGates").at(index).field("conditionType");
        errors.all(&at, &json!(kind), format::label_key(kind));
    }
    let gates = list(&spec["schedulingGates"]);
    for (index, gate) in gates.iter().enumerate() {
        let (at, name) = (at.field("schedulingGates").at(index), text(&gate["name"]));
        errors.all(&at, &json!(name), format::label_key(name));
        if gates[..index].iter().any(|g| same(&g["name"], &gate["name"])) {
            errors.duplicate(&at, &json!(name));
        }
    }
}

/// Checks how pods are spread.
pub(super) fn spread(constraints: &Value, at: &Path, errors: &mut Errors) {
    let all = list(constraints);
    for (index, constraint) in all.iter().enumerate() {
        let at = at.at(index);
        let skew = int(&constraint["maxSkew"]);
        if skew <= 0 {
            errors.invalid(&at.field("maxSkew"), &json!(skew), "must be greater than zero");
        }
        if unset(&constraint["topologyKey"]) {
            errors.required(&at.field("topologyKey"), "can not be empty");
        }
        let action = &constraint["whenUnsatisfiable"];
        if !matches!(text(action), "DoNotSchedule" | "ScheduleAnyway") {
            let actions = ["DoNotSchedule", "ScheduleAnyway"];
            errors.not_supported(&at.field("whenUnsatisfiable"), &json!(text(action)), &actions);
        }
        let twice = |c: &Value| {
            same(&c["topologyKey"], &constraint["topologyKey"]) && same(&c["whenUnsatisfiable"], action)
        };
        if all[index + 1..].iter().any(twice) {
            let pair = json!(format!("{{{}, {}}}", text(&constraint["topologyKey"]), text(action)));
            errors.duplicate(&at.field("{topologyKey, whenUnsatisfiable}"), &pair);
        }
        let domains = &constraint["minDomains"];
        if !domains.is_null() && int(domains) <= 0 {
            errors.invalid(&at.field("minDomains"), domains, "must be greater than zero");
        }
        if !domains.is_null() && action != "DoNotSchedule" {
            let rule =
                format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {}", text(action));
            errors.invalid(&at.field("minDomains"), domains, &rule);
        }
        meta::selector(&constraint["labelSelector"], &at.field("labelSelector"), errors);
    }
}
