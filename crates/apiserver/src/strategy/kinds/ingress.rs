//! Ingresses and IngressClasses.

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::strategy::field::{Errors, Path};
use crate::strategy::format;
use crate::strategy::value::{default, inner, int, list, numbered, text, unset};

const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
const LONGEST_CONTROLLER: usize = 250;

/// Completes an IngressClass.
pub(super) fn class_defaults(class: &mut Value) {
    default(class, "spec", json!({}));
    let parameters = inner(class, "spec").and_then(|spec| inner(spec, "parameters"));
    parameters.into_iter().for_each(|p| default(p, "scope", "Cluster"));
}

/// Checks an Ingress.
pub(super) fn check(ingress: &Value, old: Option<&Value>, errors: &mut Errors) {
    let (spec, at) = (&ingress["spec"], Path::new("spec"));
    if unset(&spec["rules"]) && spec["defaultBackend"].is_null() {
        let rule = "either `defaultBackend` or `rules` must be specified";
        errors.invalid(&at, &spec["rules"], rule);
    }
    if !spec["defaultBackend"].is_null() {
        backend(&spec["defaultBackend"], &at.field("defaultBackend"), errors);
    }
    for (index, rule) in numbered(&spec["rules"]) {
        check_rule(rule, &at.field("rules").at(index), errors);
    }
    for (index, tls) in numbered(&spec["tls"]) {
        let at = at.field("tls").at(index);
        for (index, host) in numbered(&tls["hosts"]) {
            errors.all(&at.field("hosts").at(index), host, host_name(text(host)));
        }
        let secret = text(&tls["secretName"]);
        if !secret.is_empty() {
            errors.all(&at.field("secretName"), &tls["secretName"], format::dns_subdomain(secret));
        }
    }
    let class = &spec["ingressClassName"];
    if let Some(name) = class.as_str() {
        errors.all(&at.field("ingressClassName"), class, format::dns_subdomain(name));
        let annotation = &ingress["metadata"]["annotations"][CLASS_ANNOTATION];
        if old.is_none() && annotation.as_str().is_some_and(|a| a != name) {
            let rule = "must match `ingressClassName` when both are specified";
            errors.invalid(&Path::new("annotations").field(CLASS_ANNOTATION), annotation, rule);
        }
    }
}

fn host_name(host: &str) -> format::Broken {
    if host.contains('*') { format::wildcard_subdomain(host) } else { format::dns_subdomain(host) }
}

fn check_rule(rule: &Value, at: &Path, errors: &mut Errors) {
    let host = text(&rule["host"]);
    if !host.is_empty() {
        if host.parse::<IpAddr>().is_ok() {
            errors.invalid(&at.field("host"), &rule["host"], "must be a DNS name, not an IP address");
        }
        errors.all(&at.field("host"), &rule["host"], host_name(host));
    }
    if rule["http"].is_null() {
        return;
    }
    let at = at.field("http").field("paths");
    if unset(&rule["http"]["paths"]) {
        errors.required(&at, "");
    }
    for (index, path) in numbered(&rule["http"]["paths"]) {
        check_path(path, &at.at(index), errors);
    }
}

fn check_path(path: &Value, at: &Path, errors: &mut Errors) {
    let (given, kind) = (text(&path["path"]), &path["pathType"]);
    let value = json!(given);
    let at_path = at.field("path");
    match kind.as_str() {
        None => return errors.required(&at.field("pathType"), "pathType must be specified"),
        Some("Exact" | "Prefix") => {
            if !given.starts_with('/') {
                errors.invalid(&at_path, &value, "must be an absolute path");
            }
            for part in ["//", "/./", "/../", "%2f", "%2F"].iter().filter(|p| given.contains(**p)) {
                errors.invalid(&at_path, &value, &format!("must not contain '{part}'"));
            }
            for end in ["/..", "/."].iter().filter(|e| given.ends_with(**e)) {
                errors.invalid(&at_path, &value, &format!("cannot end with '{end}'"));
            }
        }
        Some("ImplementationSpecific") => {
            if !given.is_empty() && !given.starts_with('/') {
                errors.invalid(&at_path, &value, "must be an absolute path");
            }
        }
        Some(_) => {
            let kinds = ["Exact", "ImplementationSpecific", "Prefix"];
            errors.not_supported(&at.field("pathType"), kind, &kinds);
        }
    }
    backend(&path["backend"], &at.field("backend"), errors);
}

fn backend(backend: &Value, at: &Path, errors: &mut Errors) {
    let (resource, service) = (&backend["resource"], &backend["service"]);
    match (resource.is_null(), service.is_null()) {
        (false, false) => errors.invalid(at, &json!(""), "cannot set both resource and service backends"),
        (false, true) => reference(resource, &at.field("resource"), errors),
        (true, false) => service_backend(service, at, errors),
        (true, true) => errors.invalid(at, &json!(""), "resource or service backend is required"),
    }
}

fn service_backend(service: &Value, at: &Path, errors: &mut Errors) {
    let at_service = at.field("service");
    match text(&service["name"]) {
        "" => errors.required(&at_service.field("name"), ""),
        name => errors.all(&at_service.field("name"), &json!(name), format::dns_label(name)),
    }
    let (name, number) = (text(&service["port"]["name"]), int(&service["port"]["number"]));
    let at_port = at_service.field("port");
    match (name.is_empty(), number) {
        (false, 0) => errors.all(&at_port.field("name"), &json!(name), format::port_name(name)),
        (false, _) => errors.invalid(at, &json!(""), "cannot set both port name & port number"),
        (true, 0) => errors.required(at, "port name or number is required"),
        (true, number) => errors.port(&at_port.field("number"), &json!(number)),
    }
}

fn reference(reference: &Value, at: &Path, errors: &mut Errors) {
    if let Some(group) = reference["apiGroup"].as_str() {
        errors.all(&at.field("apiGroup"), &reference["apiGroup"], format::dns_subdomain(group));
    }
    for field in ["kind", "name"] {
        match text(&reference[field]) {
            "" => errors.required(&at.field(field), ""),
            name => errors.all(&at.field(field), &json!(name), format::path_segment(name)),
        }
    }
}

/// Checks an IngressClass.
pub(super) fn check_class(class: &Value, old: Option<&Value>, errors: &mut Errors) {
    let (spec, at) = (&class["spec"], Path::new("spec"));
    if let Some(old) = old {
        errors.immutable(&at.field("controller"), &old["spec"]["controller"], &spec["controller"]);
    }
    controller(text(&spec["controller"]), &at.field("controller"), errors);
    let (parameters, at) = (&spec["parameters"], at.field("parameters"));
    if parameters.is_null() {
        return;
    }
    reference(parameters, &at, errors);
    let (scope, namespace) = (&parameters["scope"], &parameters["namespace"]);
    let at_namespace = at.field("namespace");
    match (text(scope), namespace.as_str()) {
        ("Namespace", None) => {
            errors.required(&at_namespace, "`parameters.scope` is set to 'Namespace'");
        }
        ("Namespace", Some(name)) => errors.all(&at_namespace, namespace, format::dns_label(name)),
        ("Cluster", Some(_)) => {
            errors.forbidden(&at_namespace, "`parameters.scope` is set to 'Cluster'");
        }
        ("Cluster", None) => {}
        _ => errors.not_supported(&at.field("scope"), scope, &["Cluster", "Namespace"]),
    }
}

fn controller(name: &str, at: &Path, errors: &mut Errors) {
    if name.len() > LONGEST_CONTROLLER {
        errors.too_long(at, LONGEST_CONTROLLER);
    }
    match name.split_once('/') {
        _ if name.is_empty() => errors.required(at, ""),
        Some((host, path)) if !host.is_empty() && !path.is_empty() => {
            errors.all(at, &json!(host), format::dns_subdomain(host));
            let good = |b: u8| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b);
            if !path.bytes().all(good) {
                let rule = "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')";
                errors.invalid(at, &json!(path), rule);
            }
        }
        _ => errors.invalid(at, &json!(name), "must be a domain-prefixed path (such as \"acme.io/foo\")"),
    }
}

/// Checks the addresses that an Ingress' controller wrote.
pub(super) fn check_status(ingress: &Value, errors: &mut Errors) {
    for (index, point) in list(&ingress["status"]["loadBalancer"]["ingress"]).iter().enumerate() {
        let at = Path::new("status.loadBalancer.ingress").at(index);
        let (address, name) = (text(&point["ip"]), text(&point["hostname"]));
        if !address.is_empty() {
            errors.all(&at.field("ip"), &point["ip"], format::ip(address));
        }
        if !name.is_empty() {
            errors.all(&at.field("hostname"), &point["hostname"], format::dns_subdomain(name));
            if name.parse::<IpAddr>().is_ok() {
                let rule = "must be a DNS name, not an IP address";
                errors.invalid(&at.field("hostname"), &point["hostname"], rule);
            }
        }
    }
}
