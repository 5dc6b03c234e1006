//! Services: what they get by default, what a change of type takes away, and their addresses and ports.

mod addresses;
mod check;
mod families;
mod ports;
mod taken;

use ipnet::IpNet;
use serde_json::{Value, json};

use crate::error::FieldError;
use crate::kinds;
use crate::storage::View;
use crate::strategy::value::{
    default, default_filled, drop_fields, drop_unset, int, items, list, same, text, unset,
};
use crate::strategy::{self, field::Errors};

pub(super) use check::{check, port_or_name};

/// Fills in what needs no look at the cluster.
pub(super) fn defaults(service: &mut Value) {
    let Some(spec) = service.get_mut("spec").filter(|s| s.is_object()) else { return };
    default_filled(spec, "sessionAffinity", "None");
    default_filled(spec, "type", "ClusterIP");
    affinity_defaults(spec);
    for port in items(spec, "ports") {
        default_filled(port, "protocol", "TCP");
        let number = port["port"].clone();
        default_filled(port, "targetPort", number);
        drop_unset(port, &["name", "nodePort"]);
    }
    let empty = [
        "clusterIP",
        "clusterIPs",
        "ipFamilies",
        "externalName",
        "externalIPs",
        "externalTrafficPolicy",
        "healthCheckNodePort",
        "loadBalancerIP",
        "loadBalancerSourceRanges",
        "publishNotReadyAddresses",
    ];
    drop_unset(spec, &empty);
    if spec["publishNotReadyAddresses"] == false {
        spec.as_object_mut().map(|s| s.remove("publishNotReadyAddresses"));
    }
    if externally_accessible(spec) {
        default_filled(spec, "externalTrafficPolicy", "Cluster");
    }
    match text(&spec["type"]) {
        "ClusterIP" | "NodePort" | "LoadBalancer" => default(spec, "internalTrafficPolicy", "Cluster"),
        _ => drop_fields(spec, &["internalTrafficPolicy"]),
    }
    if spec["type"] == "LoadBalancer" {
        default(spec, "allocateLoadBalancerNodePorts", true);
        if let Some(status) = service.pointer_mut("/status/loadBalancer") {
            let with_ip = items(status, "ingress").filter(|i| !unset(&i["ip"]));
            with_ip.for_each(|i| default(i, "ipMode", "VIP"));
        }
    }
}

fn affinity_defaults(spec: &mut Value) {
    match text(&spec["sessionAffinity"]) {
        "None" => drop(spec.as_object_mut().and_then(|s| s.remove("sessionAffinityConfig"))),
        "ClientIP" if spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"].is_null() => {
            spec["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": 10_800}});
        }
        _ => {}
    }
}

/// Whether clients outside the cluster reach it.
fn externally_accessible(spec: &Value) -> bool {
    matches!(text(&spec["type"]), "LoadBalancer" | "NodePort")
        || (spec["type"] == "ClusterIP" && !unset(&spec["externalIPs"]))
}

fn needs_node_port(spec: &Value) -> bool {
    matches!(text(&spec["type"]), "LoadBalancer" | "NodePort")
}

fn needs_health_check(spec: &Value) -> bool {
    spec["type"] == "LoadBalancer" && spec["externalTrafficPolicy"] == "Local"
}

fn needs_cluster_ip(spec: &Value) -> bool {
    spec["type"] != "ExternalName"
}

fn headless(spec: &Value) -> bool {
    list(&spec["clusterIPs"]) == ["None"]
}

/// The list of texts in a field.
fn texts(value: &Value) -> Vec<String> {
    list(value).iter().map(|v| text(v).to_owned()).collect()
}

/// Takes addresses and ports for a Service that has its defaults; `old` is the Service before.
pub(super) fn allocate(
    service: &mut Value,
    old: Option<&Value>,
    view: &View<'_>,
    cidrs: &[IpNet],
) -> Result<(), Vec<FieldError>> {
    let (ns, name) = (strategy::namespace_of(service), strategy::name_of(service));
    let taken = taken::Taken::new(view, old.map(|_| kinds::SERVICES.key(ns, name)));
    let Some(spec) = service.get_mut("spec").filter(|s| s.is_object()) else { return Ok(()) };
    let before = old.map(|o| &o["spec"]);
    if let Some(before) = before {
        keep_allocated(before, spec);
    }
    synchronise(before, spec);
    families::settle(before, spec, cidrs)?;
    addresses::allocate(before, spec, &taken, cidrs).map_err(|e| vec![e])?;
    ports::allocate(before, spec, &taken)?;
    let Some(before) = before else { return Ok(()) };
    drop_by_type(before, spec);
    if spec["type"] != "LoadBalancer" {
        service["status"]["loadBalancer"] = json!({});
    }
    Ok(())
}

/// What the server gave and the author left out, stays.
fn keep_allocated(before: &Value, spec: &mut Value) {
    if needs_cluster_ip(before) && needs_cluster_ip(spec) {
        for field in ["clusterIP", "clusterIPs"] {
            if unset(&spec[field]) && !unset(&before[field]) {
                spec[field] = before[field].clone();
            }
        }
    }
    let gives = |spec: &Value| {
        spec["type"] == "NodePort"
            || (spec["type"] == "LoadBalancer" && spec["allocateLoadBalancerNodePorts"] != false)
    };
    if gives(before) && gives(spec) {
        let used = |spec: &Value| -> Vec<i64> {
            list(&spec["ports"]).iter().map(|p| int(&p["nodePort"])).filter(|n| *n != 0).collect()
        };
        let both: Vec<i64> = used(before).into_iter().filter(|n| used(spec).contains(n)).collect();
        for port in items(spec, "ports").filter(|p| int(&p["nodePort"]) == 0) {
            let same_name = |b: &&Value| same(&b["name"], &port["name"]);
            let number =
                list(&before["ports"]).iter().rev().find(same_name).map_or(0, |b| int(&b["nodePort"]));
            if number != 0 && !both.contains(&number) {
                port["nodePort"] = json!(number);
            }
        }
    }
    if needs_health_check(before) && needs_health_check(spec) && int(&spec["healthCheckNodePort"]) == 0 {
        spec["healthCheckNodePort"] = before["healthCheckNodePort"].clone();
    }
}

/// `clusterIP` and `clusterIPs` say the same when the author wrote but one of them.
fn synchronise(before: Option<&Value>, spec: &mut Value) {
    let Some(before) = before else {
        if !unset(&spec["clusterIP"]) && unset(&spec["clusterIPs"]) {
            spec["clusterIPs"] = json!([spec["clusterIP"]]);
        }
        return;
    };
    let same_one = same(&before["clusterIP"], &spec["clusterIP"]);
    if same_one && unset(&spec["clusterIPs"]) && !unset(&before["clusterIPs"]) {
        spec["clusterIPs"] = before["clusterIPs"].clone();
    }
    if !same_one && same(&before["clusterIPs"], &spec["clusterIPs"]) {
        spec["clusterIPs"] = if unset(&spec["clusterIP"]) { json!([]) } else { json!([spec["clusterIP"]]) };
    }
}

/// A change of type takes away what the new type does not have, unless the author changed that too.
fn drop_by_type(before: &Value, spec: &mut Value) {
    let mut gone: Vec<&str> = Vec::new();
    if needs_cluster_ip(before) && !needs_cluster_ip(spec) {
        if same(&before["clusterIP"], &spec["clusterIP"]) && same(&before["clusterIPs"], &spec["clusterIPs"])
        {
            gone.extend(["clusterIP", "clusterIPs"]);
        }
        let others = ["ipFamilies", "ipFamilyPolicy"];
        gone.extend(others.iter().filter(|f| same(&before[**f], &spec[**f])));
        if same(&before["internalTrafficPolicy"], &spec["internalTrafficPolicy"]) {
            gone.push("internalTrafficPolicy");
        }
    }
    if needs_node_port(before) && !needs_node_port(spec) {
        let had: Vec<i64> = list(&before["ports"]).iter().map(|p| int(&p["nodePort"])).collect();
        let known = |p: &Value| int(&p["nodePort"]) == 0 || had.contains(&int(&p["nodePort"]));
        if list(&spec["ports"]).iter().all(known) {
            items(spec, "ports").for_each(|p| drop(p.as_object_mut().map(|p| p.remove("nodePort"))));
        }
    }
    let mut leaves = |held: bool, holds: bool, field: &'static str| {
        if held && !holds && same(&before[field], &spec[field]) {
            gone.push(field);
        }
    };
    leaves(needs_health_check(before), needs_health_check(spec), "healthCheckNodePort");
    let balanced = |spec: &Value| spec["type"] == "LoadBalancer";
    leaves(balanced(before), balanced(spec), "allocateLoadBalancerNodePorts");
    leaves(balanced(before), balanced(spec), "loadBalancerClass");
    leaves(externally_accessible(before), externally_accessible(spec), "externalTrafficPolicy");
    drop_fields(spec, &gone);
}

/// Checks the status that a load balancer's controller wrote.
pub(super) fn check_status(service: &Value, errors: &mut Errors) {
    check::load_balancer(service, errors);
}
