//! The rights of pods and containers.

use serde_json::{Value, json};

use crate::strategy::field::{Errors, Path};
use crate::strategy::value::{list, numbered, text, unset};

const LARGEST_ID: i64 = i32::MAX as i64;

fn ids(context: &Value, fields: &[&str], at: &Path, errors: &mut Errors) {
    for field in fields.iter().filter(|f| !context[**f].is_null()) {
        errors.in_range(&at.field(field), &context[*field], 0, LARGEST_ID);
    }
}

/// Checks a pod's rights.
pub(super) fn pod(spec: &Value, at_spec: &Path, errors: &mut Errors) {
    let (context, at) = (&spec["securityContext"], at_spec.field("securityContext"));
    ids(context, &["fsGroup", "runAsUser", "runAsGroup"], &at, errors);
    for (index, group) in numbered(&context["supplementalGroups"]) {
        errors.in_range(&at.field("supplementalGroups").at(index), group, 0, LARGEST_ID);
    }
    if spec["hostPID"] == true && spec["shareProcessNamespace"] == true {
        let rule = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.invalid(&at.field("shareProcessNamespace"), &json!(true), rule);
    }
    errors.maybe_one_of(
        &at.field("fsGroupChangePolicy"),
        &context["fsGroupChangePolicy"],
        &["OnRootMismatch", "Always"],
    );
    seccomp(&context["seccompProfile"], &at.field("seccompProfile"), errors);
    if spec["hostUsers"] == false {
        for (field, shown) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")]
        {
            if spec[field] == true {
                errors.forbidden(&at_spec.field(shown), "when `hostUsers` is false");
            }
        }
    }
}

/// Checks a container's rights.
pub(super) fn container(context: &Value, at: &Path, errors: &mut Errors) {
    ids(context, &["runAsUser", "runAsGroup"], at, errors);
    seccomp(&context["seccompProfile"], &at.field("seccompProfile"), errors);
    if context["allowPrivilegeEscalation"] == false {
        if context["privileged"] == true {
            let rule = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.invalid(at, context, rule);
        }
        if list(&context["capabilities"]["add"]).iter().any(|c| c == "CAP_SYS_ADMIN") {
            let rule = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.invalid(at, context, rule);
        }
    }
}

fn seccomp(profile: &Value, at: &Path, errors: &mut Errors) {
    if profile.is_null() {
        return;
    }
    let (kind, local) = (text(&profile["type"]), &profile["localhostProfile"]);
    match kind {
        "" => errors.required(&at.field("type"), "type is required when seccompProfile is set"),
        "Localhost" if unset(local) => {
            let rule = "must be set when seccomp type is Localhost";
            errors.required(&at.field("localhostProfile"), rule);
        }
        "Localhost" => {}
        "RuntimeDefault" | "Unconfined" => {
            if !local.is_null() {
                let rule = "can only be set when seccomp type is Localhost";
                errors.invalid(&at.field("localhostProfile"), local, rule);
            }
        }
        _ => {
            let kinds = ["Localhost", "RuntimeDefault", "Unconfined"];
            errors.not_supported(&at.field("type"), &profile["type"], &kinds);
        }
    }
}
