//! What may change in a pod that is there.

use serde_json::{Value, json};

use crate::strategy::field::{Errors, Path};
use crate::strategy::value::{drop_fields, int, list, same, text};

const FREE: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Checks an update; `binds` allows it to give the pod a node.
pub(in super::super) fn check_update(old: &Value, pod: &Value, binds: bool, errors: &mut Errors) {
    let (before, spec, at) = (&old["spec"], &pod["spec"], Path::new("spec"));
    for field in ["containers", "initContainers"] {
        if list(&before[field]).len() != list(&spec[field]).len() {
            return errors.forbidden(&at.field(field), "pod updates may not add or remove containers");
        }
    }
    if !deadline(before, spec, &at, errors) {
        return;
    }
    tolerations(before, spec, &at, errors);
    let gates = list(&before["schedulingGates"]);
    for (index, gate) in list(&spec["schedulingGates"]).iter().enumerate() {
        if !gates.iter().any(|g| g["name"] == gate["name"]) {
            let name = text(&gate["name"]);
            let rule = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            errors.forbidden(&at.field("schedulingGates").at(index).field("name"), &rule);
        }
    }
    let gated = !gates.is_empty();
    let binds = binds && text(&before["nodeName"]).is_empty();
    if !same(&frozen(before, gated, binds), &frozen(spec, gated, binds)) {
        errors.forbidden(&at, FREE);
    }
}

/// The deadline may come nearer, and not go away.
fn deadline(before: &Value, spec: &Value, at: &Path, errors: &mut Errors) -> bool {
    let (had, has) = (&before["activeDeadlineSeconds"], &spec["activeDeadlineSeconds"]);
    let at = at.field("activeDeadlineSeconds");
    if has.is_null() && !had.is_null() {
        errors.invalid(&at, &Value::Null, "must not update from a positive integer to nil value");
    } else if !had.is_null() && int(had) < int(has) {
        errors.invalid(&at, has, "must be less than or equal to previous value");
        return false;
    }
    true
}

fn tolerations(before: &Value, spec: &Value, at: &Path, errors: &mut Errors) {
    let plain = |t: &Value| {
        let mut t = t.clone();
        drop_fields(&mut t, &["tolerationSeconds"]);
        t
    };
    let now: Vec<Value> = list(&spec["tolerations"]).iter().map(plain).collect();
    if !list(&before["tolerations"]).iter().all(|t| now.contains(&plain(t))) {
        let rule = "existing toleration can not be modified except its tolerationSeconds";
        errors.forbidden(&at.field("tolerations"), rule);
    }
}

/// A pod's spec without what may change.
fn frozen(spec: &Value, gated: bool, binds: bool) -> Value {
    let mut spec = spec.clone();
    drop_fields(&mut spec, &["activeDeadlineSeconds", "tolerations", "schedulingGates"]);
    if gated {
        drop_fields(&mut spec, &["nodeSelector"]);
        spec.get_mut("affinity").into_iter().for_each(|a| drop_fields(a, &["nodeAffinity"]));
    }
    if binds {
        drop_fields(&mut spec, &["nodeName"]);
    }
    if int(&spec["terminationGracePeriodSeconds"]) < 0 {
        spec["terminationGracePeriodSeconds"] = json!(1);
    }
    for field in ["containers", "initContainers"] {
        let containers = spec.get_mut(field).and_then(Value::as_array_mut);
        containers.into_iter().flatten().for_each(|c| drop_fields(c, &["image"]));
    }
    spec
}
