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
        errors.invalid(&at_spec.field("shareProcessNamespace"), &json!(true), rule);
    }
    sysctls(list(&context["sysctls"]), &at.field("sysctls"), errors);
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

fn sysctls(all: &[Value], at: &Path, errors: &mut Errors) {
    const RULE: &str = "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
    let edge = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let part = |p: &str| {
        let bytes = p.as_bytes();
        bytes.first().is_some_and(|b| edge(*b))
            && bytes.last().is_some_and(|b| edge(*b))
            && bytes.iter().all(|b| edge(*b) || matches!(b, b'-' | b'_'))
    };
    for (index, sysctl) in all.iter().enumerate() {
        let (at, name) = (at.at(index).field("name"), text(&sysctl["name"]));
        if name.is_empty() {
            errors.required(&at, "");
        } else if name.len() > 253 || !name.split(['.', '/']).all(part) {
            errors.invalid(&at, &json!(name), RULE);
        } else if all[..index].iter().any(|s| s["name"] == name) {
            errors.duplicate(&at, &json!(name));
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
