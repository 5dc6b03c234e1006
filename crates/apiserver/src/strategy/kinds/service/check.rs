//! What makes a Service bad.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::{externally_accessible, headless, needs_health_check, texts};
use crate::strategy::field::{Errors, Path};
use crate::strategy::value::{int, list, numbered, same, text, unset};
use crate::strategy::{format, meta};

const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const TOPOLOGY_MODE: &str = "service.kubernetes.io/topology-mode";
const TOPOLOGY_HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

/// Checks a Service that has its defaults and addresses.
pub(in super::super) fn check(service: &Value, old: Option<&Value>, errors: &mut Errors) {
    let (spec, at) = (&service["spec"], Path::new("spec"));
    let before = old.map(|o| &o["spec"]);
    if let Some(before) = before {
        changed(before, spec, errors);
    }
    topology(&service["metadata"]["annotations"], errors);
    let kind = text(&spec["type"]);
    if unset(&spec["ports"]) && !headless(spec) && kind != "ExternalName" {
        errors.required(&at.field("ports"), "");
    }
    by_type(spec, kind, &at, errors);
    ports(spec, &at, errors);
    meta::labels(&spec["selector"], &at.field("selector"), errors);
    affinity(spec, &at, errors);
    addresses(before, spec, errors);
    external_ips(before, spec, &at, errors);
    errors.one_of(&at.field("type"), &spec["type"], TYPES);
    node_ports(spec, kind, &at, errors);
    balancer(service, before, kind, errors);
    policies(spec, &at, errors);
}

/// The two names of one annotation must say the same.
fn topology(annotations: &Value, errors: &mut Errors) {
    let (mode, hints) = (&annotations[TOPOLOGY_MODE], &annotations[TOPOLOGY_HINTS]);
    if !mode.is_null() && !hints.is_null() && mode != hints {
        let rule = format!("must match annotations[{TOPOLOGY_HINTS}] when both are specified");
        errors.invalid(&Path::new("metadata.annotations").key(TOPOLOGY_MODE), mode, &rule);
    }
}

fn by_type(spec: &Value, kind: &str, at: &Path, errors: &mut Errors) {
    if matches!(kind, "LoadBalancer" | "NodePort") && headless(spec) {
        let rule = format!("may not be set to 'None' for {kind} services");
        errors.invalid(&at.field("clusterIPs").at(0), &json!("None"), &rule);
    }
    if kind != "ExternalName" {
        return;
    }
    for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"].iter().filter(|f| !unset(&spec[**f])) {
        errors.forbidden(&at.field(field), "may not be set for ExternalName services");
    }
    let (at, name) = (at.field("externalName"), text(&spec["externalName"]));
    match name.strip_suffix('.').unwrap_or(name) {
        "" => errors.required(&at, ""),
        name => errors.all(&at, &json!(name), format::dns_subdomain(name)),
    }
}

fn ports(spec: &Value, at: &Path, errors: &mut Errors) {
    let all = list(&spec["ports"]);
    let mut names = HashSet::new();
    for (index, port) in all.iter().enumerate() {
        let at = at.field("ports").at(index);
        let name = text(&port["name"]);
        if name.is_empty() {
            if all.len() > 1 {
                errors.required(&at.field("name"), "");
            }
        } else {
            errors.all(&at.field("name"), &json!(name), format::dns_label(name));
            if !names.insert(name) {
                errors.duplicate(&at.field("name"), &json!(name));
            }
        }
        errors.port(&at.field("port"), &port["port"]);
        errors.one_of(&at.field("protocol"), &port["protocol"], PROTOCOLS);
        port_or_name(&port["targetPort"], &at.field("targetPort"), errors);
        if let Some(protocol) = port["appProtocol"].as_str() {
            errors.all(&at.field("appProtocol"), &json!(protocol), format::label_key(protocol));
        }
    }
}

/// Checks a port's number or name.
pub(in super::super) fn port_or_name(port: &Value, at: &Path, errors: &mut Errors) {
    match port.as_str() {
        Some(name) => errors.all(at, port, format::port_name(name)),
        None => errors.port(at, port),
    }
}

fn affinity(spec: &Value, at: &Path, errors: &mut Errors) {
    errors.one_of(&at.field("sessionAffinity"), &spec["sessionAffinity"], &["ClientIP", "None"]);
    if spec["sessionAffinity"] == "ClientIP" {
        let seconds = int(&spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"]);
        if !(1..=86_400).contains(&seconds) {
            let at = at.field("sessionAffinityConfig.clientIP.timeoutSeconds");
            errors.invalid(&at, &json!(seconds), "must be greater than 0 and less than 86400");
        }
    }
}

/// Checks the cluster addresses and families, which must agree with one another.
pub(super) fn addresses(before: Option<&Value>, spec: &Value, errors: &mut Errors) {
    if spec["type"] == "ExternalName" {
        return;
    }
    let (given, at) = (texts(&spec["clusterIPs"]), Path::new("spec.clusterIPs"));
    match (text(&spec["clusterIP"]), given.first()) {
        ("", None) => {}
        ("", Some(_)) => {
            errors.invalid(&at, &json!(given), "must be empty when `clusterIP` is not specified");
        }
        (_, None) => errors.required(&at, ""),
        (one, Some(first)) if one != first => {
            errors.invalid(&at, &json!(given), "first value must match `clusterIP`");
        }
        _ => {}
    }
    families(spec, errors);
    let kept = before.map(|b| texts(&b["clusterIPs"])).unwrap_or_default();
    let found = errors.0.len();
    for (index, address) in given.iter().enumerate() {
        if index == 0 && address == "None" {
            if given.len() > 1 {
                errors.invalid(&at, &json!(given), "'None' must be the first and only value");
            }
        } else if !kept.contains(address) {
            errors.all(&at.at(index), &json!(address), format::ip(address));
        }
    }
    let bad = errors.0.len() > found;
    if given.len() > 2 {
        errors.invalid(&at, &json!(given), "may only hold up to 2 values");
    }
    if bad {
        return;
    }
    let sixes = given.iter().filter(|a| a.contains(':')).count();
    if given.len() > 1 && (sixes > 1 || given.len() - sixes > 1) {
        errors.invalid(&at, &json!(given), "may specify no more than one IP for each IP family");
    }
    if !headless(spec) {
        for (index, (address, family)) in given.iter().zip(texts(&spec["ipFamilies"])).enumerate() {
            if matches!(family.as_str(), "IPv4" | "IPv6") && address.contains(':') != (family == "IPv6") {
                let rule = format!("expected an {family} value as indicated by `ipFamilies[{index}]`");
                errors.invalid(&at.at(index), &json!(address), &rule);
            }
        }
    }
}

fn families(spec: &Value, errors: &mut Errors) {
    let families = list(&spec["ipFamilies"]);
    for (index, family) in families.iter().enumerate() {
        let at = Path::new("spec.ipFamilies").at(index);
        if !["IPv4", "IPv6"].contains(&text(family)) {
            errors.not_supported(&at, family, &["IPv4", "IPv6"]);
        }
        if families[..index].contains(family) {
            errors.duplicate(&at, family);
        }
    }
    let policies = ["PreferDualStack", "RequireDualStack", "SingleStack"];
    let policy = &spec["ipFamilyPolicy"];
    if !policy.is_null() && !policies.contains(&text(policy)) {
        errors.not_supported(&Path::new("spec.ipFamilyPolicy"), policy, &policies);
    }
}

fn external_ips(before: Option<&Value>, spec: &Value, at: &Path, errors: &mut Errors) {
    for (index, address) in numbered(&spec["externalIPs"]) {
        let at = at.field("externalIPs").at(index);
        let kept = before.is_some_and(|b| list(&b["externalIPs"]).contains(address));
        let broken = if kept { Vec::new() } else { format::ip(text(address)) };
        let broken = if broken.is_empty() { format::endpoint_ip(text(address)) } else { broken };
        errors.all(&at, address, broken);
    }
}

fn node_ports(spec: &Value, kind: &str, at: &Path, errors: &mut Errors) {
    let all = list(&spec["ports"]);
    let node_port = |p: &Value| int(&p["nodePort"]);
    for (index, _) in all.iter().enumerate().filter(|(_, p)| kind == "ClusterIP" && node_port(p) != 0) {
        let at = at.field("ports").at(index).field("nodePort");
        errors.forbidden(&at, "may not be used when `type` is 'ClusterIP'");
    }
    let twice = |index: usize, field: &str| {
        let this = &all[index];
        all[..index]
            .iter()
            .any(|p| int(&p[field]) == int(&this[field]) && same(&p["protocol"], &this["protocol"]))
    };
    for (index, port) in all.iter().enumerate().filter(|(_, p)| node_port(p) != 0) {
        if twice(index, "nodePort") {
            errors.duplicate(&at.field("ports").at(index).field("nodePort"), &json!(node_port(port)));
        }
    }
    for (index, port) in all.iter().enumerate() {
        if twice(index, "port") {
            let value = format!(
                "{{\"Name\":\"\",\"Protocol\":{},\"AppProtocol\":null,\"Port\":{},\"TargetPort\":0,\"NodePort\":0}}",
                port["protocol"],
                int(&port["port"])
            );
            errors.duplicate_text(&at.field("ports").at(index), &value);
        }
    }
}

fn balancer(service: &Value, before: Option<&Value>, kind: &str, errors: &mut Errors) {
    let (spec, at) = (&service["spec"], Path::new("spec"));
    let balanced = kind == "LoadBalancer";
    let only = "may only be used when `type` is 'LoadBalancer'";
    let ranges = at.field("LoadBalancerSourceRanges");
    let annotation = &service["metadata"]["annotations"][SOURCE_RANGES];
    if !unset(&spec["loadBalancerSourceRanges"]) {
        if !balanced {
            errors.forbidden(&ranges, only);
        }
        let kept = before.map(|b| texts(&b["loadBalancerSourceRanges"])).unwrap_or_default();
        for (index, range) in numbered(&spec["loadBalancerSourceRanges"]) {
            let range = text(range).trim();
            if !kept.iter().any(|k| k.trim() == range) {
                errors.all(&ranges.at(index), &json!(range), format::cidr(range));
            }
        }
    } else if let Some(all) = annotation.as_str() {
        let at = Path::new("metadata.annotations").key(SOURCE_RANGES);
        if !balanced {
            errors.forbidden(&at, only);
        }
        for range in all.split(',').map(str::trim).filter(|_| !all.trim().is_empty()) {
            errors.all(&at, &json!(range), format::cidr(range));
        }
    }
    if !spec["allocateLoadBalancerNodePorts"].is_null() && !balanced {
        errors.forbidden(&at.field("allocateLoadBalancerNodePorts"), only);
    }
    if let Some(class) = spec["loadBalancerClass"].as_str() {
        if balanced {
            errors.all(&at.field("loadBalancerClass"), &json!(class), format::label_key(class));
        } else {
            errors.forbidden(&at.field("loadBalancerClass"), only);
        }
    }
}

fn policies(spec: &Value, at: &Path, errors: &mut Errors) {
    let (external, at_external) = (&spec["externalTrafficPolicy"], at.field("externalTrafficPolicy"));
    if externally_accessible(spec) {
        errors.one_of(&at_external, external, &["Cluster", "Local"]);
    } else if !unset(external) {
        errors.invalid(&at_external, external, "may only be set for externally-accessible services");
    }
    let (number, at_number) = (&spec["healthCheckNodePort"], at.field("healthCheckNodePort"));
    if needs_health_check(spec) {
        match int(number) {
            0 => errors.required(&at_number, ""),
            _ => errors.port(&at_number, number),
        }
    } else if int(number) != 0 {
        let rule = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        errors.invalid(&at_number, number, rule);
    }
    if !spec["internalTrafficPolicy"].is_null()
        && !["Cluster", "Local"].contains(&text(&spec["internalTrafficPolicy"]))
    {
        let policy = &spec["internalTrafficPolicy"];
        errors.not_supported(&at.field("internalTrafficPolicy"), policy, &["Cluster", "Local"]);
    }
    let wishes = ["PreferClose", "PreferSameZone", "PreferSameNode"];
    let wish = &spec["trafficDistribution"];
    if !wish.is_null() && !wishes.contains(&text(wish)) {
        errors.not_supported(&at.field("trafficDistribution"), wish, &wishes);
    }
}

/// What may not change while the Service has addresses.
fn changed(before: &Value, spec: &Value, errors: &mut Errors) {
    let at = Path::new("spec");
    if spec["type"] != "ExternalName" && before["type"] != "ExternalName" {
        if !(headless(before) && headless(spec)) {
            kept(before, spec, "clusterIPs", errors);
        }
        if !headless(before) && !headless(spec) {
            kept(before, spec, "ipFamilies", errors);
        }
    }
    let (class, had) = (&spec["loadBalancerClass"], &before["loadBalancerClass"]);
    if before["type"] == "LoadBalancer" && spec["type"] == "LoadBalancer" && class != had {
        errors.invalid(&at.field("loadBalancerClass"), class, "may not change once set");
    }
    if needs_health_check(before)
        && needs_health_check(spec)
        && int(&before["healthCheckNodePort"]) != int(&spec["healthCheckNodePort"])
    {
        errors.forbidden(&at.field("healthCheckNodePort"), "field is immutable");
    }
}

/// The first address or family stays; the second may come, and go with `SingleStack`.
fn kept(before: &Value, spec: &Value, field: &str, errors: &mut Errors) {
    let (had, has) = (texts(&before[field]), texts(&spec[field]));
    let at = Path::new("spec").field(field);
    if had.len() == has.len() {
        for (index, _) in had.iter().zip(&has).enumerate().filter(|(_, (a, b))| a != b) {
            let at = at.at(if field == "clusterIPs" { index } else { 0 });
            errors.invalid(&at, &spec[field], "may not change once set");
        }
        return;
    }
    if let (Some(a), Some(b)) = (had.first(), has.first())
        && a != b
    {
        errors.invalid(&at.at(0), &spec["clusterIPs"], "may not change once set");
    }
    if had.len() > has.len() {
        let one = if field == "clusterIPs" { "clusterIP" } else { "ipFamily" };
        if has.is_empty() {
            errors.invalid(&at.at(0), &spec[field], &format!("primary {one} can not be unset"));
        }
        if has.len() == 1 && spec["ipFamilyPolicy"] != "SingleStack" {
            let rule = format!("must be set to 'SingleStack' when releasing the secondary {one}");
            errors.invalid(&Path::new("spec.ipFamilyPolicy"), &spec["ipFamilyPolicy"], &rule);
        }
    }
}

/// Checks `status.loadBalancer`.
pub(super) fn load_balancer(service: &Value, errors: &mut Errors) {
    let ingress = &service["status"]["loadBalancer"]["ingress"];
    let at = Path::new("status.loadBalancer.ingress");
    if service["spec"]["type"] != "LoadBalancer" {
        if !unset(ingress) {
            errors.forbidden(&at, "may only be used when `spec.type` is 'LoadBalancer'");
        }
        return;
    }
    for (index, point) in numbered(ingress) {
        let at = at.at(index);
        let (address, mode) = (text(&point["ip"]), &point["ipMode"]);
        if !address.is_empty() {
            errors.all(&at.field("ip"), &json!(address), format::ip(address));
        }
        match (mode.as_str(), address) {
            (None, "") | (Some("VIP" | "Proxy"), _) if !address.is_empty() || mode.is_null() => {}
            (None, _) => errors.required(&at.field("ipMode"), "must be specified when `ip` is set"),
            (Some(_), "") => {
                errors.forbidden(&at.field("ipMode"), "may not be specified when `ip` is not set");
            }
            _ => errors.not_supported(&at.field("ipMode"), mode, &["Proxy", "VIP"]),
        }
        let name = text(&point["hostname"]);
        if !name.is_empty() {
            errors.all(&at.field("hostname"), &json!(name), format::dns_subdomain(name));
            if name.parse::<std::net::IpAddr>().is_ok() {
                errors.invalid(&at.field("hostname"), &json!(name), "must be a DNS name, not an IP address");
            }
        }
    }
}
