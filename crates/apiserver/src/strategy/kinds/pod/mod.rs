//! Pods, and the templates that pods are made from.

mod admit;
mod containers;
mod defaults;
mod env;
mod parts;
mod probes;
mod scheduling;
mod security;
mod status;
mod update;
mod volumes;

use serde_json::{Value, json};

use crate::strategy::field::{Errors, Path};
use crate::strategy::value::{int, list, numbered, text, unset};
use crate::strategy::{format, meta};

pub(super) use admit::{admit, admit_update};
pub(super) use defaults::{defaults, spec_defaults};
pub(super) use parts::check as check_part;
pub(in crate::strategy) use parts::take as take_part;
pub(super) use status::{check_status, status_defaults};
pub(super) use update::check_update;

const DNS_POLICIES: &[&str] = &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];

/// Checks a pod; `new` says that it is being created.
pub(super) fn check(pod: &Value, new: bool, errors: &mut Errors) {
    let (spec, at) = (&pod["spec"], Path::new("spec"));
    check_spec(spec, true, &at, errors);
    for field in ["containers", "initContainers"] {
        for (index, container) in numbered(&spec[field]) {
            let image = text(&container["image"]);
            if image.trim() != image {
                let at = at.field(field).at(index).field("image");
                errors.invalid(&at, &json!(image), "must not have leading or trailing whitespace");
            }
        }
    }
    if !new {
        return;
    }
    if !unset(&spec["ephemeralContainers"]) {
        errors.forbidden(&at.field("ephemeralContainers"), "cannot be set on create");
    }
    if !unset(&spec["nodeName"]) && !unset(&spec["schedulingGates"]) {
        let rule = "cannot be set until all schedulingGates have been cleared";
        errors.forbidden(&at.field("nodeName"), rule);
    }
}

/// Checks a template of pods.
pub(super) fn check_template(template: &Value, at: &Path, errors: &mut Errors) {
    meta::labels(&template["metadata"]["labels"], &at.field("labels"), errors);
    meta::annotations(&template["metadata"]["annotations"], &at.field("annotations"), errors);
    check_spec(&template["spec"], false, &at.field("spec"), errors);
    if !unset(&template["spec"]["ephemeralContainers"]) {
        let rule = "ephemeral containers not allowed in pod template";
        errors.forbidden(&at.field("spec").field("ephemeralContainers"), rule);
    }
}

fn check_spec(spec: &Value, is_pod: bool, at: &Path, errors: &mut Errors) {
    let volumes = volumes::check(&spec["volumes"], &at.field("volumes"), errors);
    containers::check(spec, &volumes, at, errors);
    host_network(spec, is_pod, at, errors);
    errors.one_of(&at.field("restartPolicy"), &spec["restartPolicy"], &["Always", "OnFailure", "Never"]);
    errors.one_of(&at.field("dnsPolicy"), &spec["dnsPolicy"], DNS_POLICIES);
    meta::labels(&spec["nodeSelector"], &at.field("nodeSelector"), errors);
    security::pod(spec, at, errors);
    scheduling::affinity(&spec["affinity"], &at.field("affinity"), errors);
    dns(spec, &at.field("dnsConfig"), errors);
    scheduling::gates(spec, at, errors);
    scheduling::spread(&spec["topologySpreadConstraints"], &at.field("topologySpreadConstraints"), errors);
    names(spec, at, errors);
    let deadline = &spec["activeDeadlineSeconds"];
    if !deadline.is_null() {
        errors.in_range(&at.field("activeDeadlineSeconds"), deadline, 1, i32::MAX.into());
    }
    scheduling::tolerations(&spec["tolerations"], &at.field("tolerations"), errors);
    for (index, alias) in numbered(&spec["hostAliases"]) {
        let at = at.field("hostAliases").at(index);
        errors.all(&at.field("ip"), &json!(text(&alias["ip"])), format::ip(text(&alias["ip"])));
        for (index, name) in numbered(&alias["hostnames"]) {
            errors.all(&at.field("hostnames").at(index), name, format::dns_subdomain(text(name)));
        }
    }
    errors.maybe_one_of(
        &at.field("preemptionPolicy"),
        &spec["preemptionPolicy"],
        &["PreemptLowerPriority", "Never"],
    );
    let system = &spec["os"]["name"];
    if !spec["os"].is_null() {
        errors.one_of(&at.field("os"), system, &["linux", "windows"]);
    }
}

/// The names in a pod that have the form of names.
fn names(spec: &Value, at: &Path, errors: &mut Errors) {
    let names: [(&str, format::Rules); 6] = [
        ("serviceAccountName", format::dns_subdomain),
        ("nodeName", format::dns_subdomain),
        ("hostname", format::dns_label),
        ("subdomain", format::dns_label),
        ("priorityClassName", format::dns_subdomain),
        ("runtimeClassName", format::dns_subdomain),
    ];
    for (field, rules) in names {
        let name = text(&spec[field]);
        if !name.is_empty() {
            errors.all(&at.field(field), &spec[field], rules(name));
        }
    }
}

/// On the node's network a container's port is the node's.
fn host_network(spec: &Value, is_pod: bool, at: &Path, errors: &mut Errors) {
    if spec["hostNetwork"] != true {
        return;
    }
    for (c, container) in numbered(&spec["containers"]) {
        for (p, port) in numbered(&container["ports"]) {
            let (host, own) = (int(&port["hostPort"]), int(&port["containerPort"]));
            if (is_pod || host != 0) && host != own {
                let at = at.field("containers").at(c).field("ports").at(p).field("hostPort");
                let rule = "must match `containerPort` when `hostNetwork` is true";
                errors.invalid(&at, &json!(host), rule);
            }
        }
    }
}

fn dns(spec: &Value, at: &Path, errors: &mut Errors) {
    let config = &spec["dnsConfig"];
    let (servers, searches) = (list(&config["nameservers"]), list(&config["searches"]));
    if spec["dnsPolicy"] == "None" {
        if config.is_null() {
            return errors.required(at, "must provide `dnsConfig` when `dnsPolicy` is None");
        }
        if servers.is_empty() {
            let rule = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            return errors.required(&at.field("nameservers"), rule);
        }
    }
    if servers.len() > 3 {
        let rule = "must not have more than 3 nameservers";
        errors.invalid(&at.field("nameservers"), &config["nameservers"], rule);
    }
    for (index, server) in servers.iter().enumerate() {
        errors.all(&at.field("nameservers").at(index), server, format::ip(text(server)));
    }
    if searches.len() > 32 {
        let rule = "must not have more than 32 search paths";
        errors.invalid(&at.field("searches"), &config["searches"], rule);
    }
    if searches.iter().map(|s| text(s).len() + 1).sum::<usize>() > 2049 {
        let rule = "must not have more than 2048 characters (including spaces) in the search list";
        errors.invalid(&at.field("searches"), &config["searches"], rule);
    }
    for (index, search) in searches.iter().enumerate().filter(|(_, s)| *s != ".") {
        let name = text(search).strip_suffix('.').unwrap_or(text(search));
        errors.all(&at.field("searches").at(index), &json!(name), format::search_path(name));
    }
    for (index, option) in numbered(&config["options"]) {
        if unset(&option["name"]) {
            errors.required(&at.field("options").at(index), "must not be empty");
        }
    }
}
