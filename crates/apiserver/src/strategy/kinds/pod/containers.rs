//! Containers and their ports.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::super::resources;
use super::{env, probes, security, volumes};
use crate::strategy::field::{Errors, Path};
use crate::strategy::format;
use crate::strategy::value::{int, list, numbered, text, unset};

const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const RESTARTS: &[&str] = &["Always", "OnFailure", "Never"];
/// What nobody should rely on a debugging container for.
const NOT_EPHEMERAL: &[&str] = &[
    "ports",
    "resources",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
];
const NOT_FOR_INIT: &str = "may not be set for init containers without restartPolicy=Always";

/// Checks all containers of a spec; `volumes` are the names that they may mount.
pub(super) fn check(spec: &Value, volumes: &HashSet<String>, at: &Path, errors: &mut Errors) {
    let mut names = HashSet::new();
    let at_main = at.field("containers");
    if unset(&spec["containers"]) {
        errors.required(&at_main, "");
    }
    for (index, container) in numbered(&spec["containers"]) {
        let at = at_main.at(index);
        common(container, volumes, &at, errors);
        if !names.insert(text(&container["name"])) {
            errors.duplicate(&at.field("name"), &json!(text(&container["name"])));
        }
        probes::check(container, spec, &at, errors);
        errors.maybe_one_of(&at.field("restartPolicy"), &container["restartPolicy"], RESTARTS);
    }
    host_ports(list(&spec["containers"]), &at_main, errors);
    ephemeral(spec, volumes, at, errors);
    for (index, container) in numbered(&spec["initContainers"]) {
        let at = at.field("initContainers").at(index);
        common(container, volumes, &at, errors);
        errors.maybe_one_of(&at.field("restartPolicy"), &container["restartPolicy"], RESTARTS);
        let name = text(&container["name"]);
        if !names.insert(name) && !name.is_empty() {
            errors.duplicate(&at.field("name"), &json!(name));
        }
        if container["restartPolicy"] == "Always" {
            probes::check(container, spec, &at, errors);
        } else {
            let fields = ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"];
            let given = fields.iter().filter(|f| !container[**f].is_null());
            given.for_each(|f| errors.forbidden(&at.field(f), NOT_FOR_INIT));
        }
    }
}

/// Checks the containers that were put into a running pod.
fn ephemeral(spec: &Value, volumes: &HashSet<String>, at: &Path, errors: &mut Errors) {
    let others: Vec<&str> = ["containers", "initContainers"]
        .iter()
        .flat_map(|f| list(&spec[*f]))
        .map(|c| text(&c["name"]))
        .collect();
    let mut names: HashSet<&str> = others.iter().copied().collect();
    for (index, container) in numbered(&spec["ephemeralContainers"]) {
        let at = at.field("ephemeralContainers").at(index);
        common(container, volumes, &at, errors);
        if !names.insert(text(&container["name"])) {
            errors.duplicate(&at.field("name"), &container["name"]);
        }
        let target = &container["targetContainerName"];
        if !unset(target) && !others.contains(&text(target)) {
            errors.not_found(&at.field("targetContainerName"), target);
        }
        for field in NOT_EPHEMERAL.iter().filter(|f| !unset(&container[**f])) {
            errors.forbidden(&at.field(field), "cannot be set for an Ephemeral Container");
        }
        for (index, mount) in numbered(&container["volumeMounts"]) {
            for field in ["subPath", "subPathExpr"].iter().filter(|f| !unset(&mount[**f])) {
                let at = at.field("volumeMounts").at(index).field(field);
                errors.forbidden(&at, "cannot be set for an Ephemeral Container");
            }
        }
    }
}

fn resize_policy(policies: &Value, at: &Path, errors: &mut Errors) {
    let all = list(policies);
    for (index, policy) in all.iter().enumerate() {
        errors.one_of(at, &policy["resourceName"], &["cpu", "memory"]);
        errors.one_of(at, &policy["restartPolicy"], &["NotRequired", "RestartContainer"]);
        if all[..index].iter().any(|p| p["resourceName"] == policy["resourceName"]) {
            errors.duplicate(&at.at(index), &policy["resourceName"]);
        }
    }
}

fn common(container: &Value, volumes: &HashSet<String>, at: &Path, errors: &mut Errors) {
    match text(&container["name"]) {
        "" => errors.required(&at.field("name"), ""),
        name => errors.all(&at.field("name"), &json!(name), format::dns_label(name)),
    }
    if unset(&container["image"]) {
        errors.required(&at.field("image"), "");
    }
    errors.one_of(
        &at.field("terminationMessagePolicy"),
        &container["terminationMessagePolicy"],
        &["File", "FallbackToLogsOnError"],
    );
    ports(&container["ports"], &at.field("ports"), errors);
    env::check(container, at, errors);
    volumes::mounts(container, volumes, at, errors);
    errors.one_of(
        &at.field("imagePullPolicy"),
        &container["imagePullPolicy"],
        &["Always", "IfNotPresent", "Never"],
    );
    resources::check(&container["resources"], &at.field("resources"), errors);
    resize_policy(&container["resizePolicy"], &at.field("resizePolicy"), errors);
    security::container(&container["securityContext"], &at.field("securityContext"), errors);
}

fn ports(ports: &Value, at: &Path, errors: &mut Errors) {
    let mut names = HashSet::new();
    for (index, port) in numbered(ports) {
        let (at, name) = (at.at(index), text(&port["name"]));
        if !name.is_empty() {
            let broken = format::port_name(name);
            let good = broken.is_empty();
            errors.all(&at.field("name"), &port["name"], broken);
            if good && !names.insert(name) {
                errors.duplicate(&at.field("name"), &port["name"]);
            }
        }
        match int(&port["containerPort"]) {
            0 => errors.required(&at.field("containerPort"), ""),
            _ => errors.port(&at.field("containerPort"), &port["containerPort"]),
        }
        if int(&port["hostPort"]) != 0 {
            errors.port(&at.field("hostPort"), &port["hostPort"]);
        }
        errors.one_of(&at.field("protocol"), &port["protocol"], PROTOCOLS);
    }
}

/// A port of the node is one container's.
fn host_ports(containers: &[Value], at: &Path, errors: &mut Errors) {
    let mut taken = HashSet::new();
    for (c, container) in containers.iter().enumerate() {
        for (p, port) in numbered(&container["ports"]).filter(|(_, p)| int(&p["hostPort"]) != 0) {
            let number = int(&port["hostPort"]);
            let claim = format!("{}/{}/{number}", text(&port["protocol"]), text(&port["hostIP"]));
            let value = json!(claim);
            if !taken.insert(claim) {
                errors.duplicate(&at.at(c).field("ports").at(p).field("hostPort"), &value);
            }
        }
    }
}
