//! NetworkPolicies.

use ipnet::IpNet;
use serde_json::{Value, json};

use crate::strategy::field::{Errors, Path};
use crate::strategy::value::{default, drop_unset, inner, int, items, list, numbered, text, unset};
use crate::strategy::{format, meta};

/// Completes a policy: what it says of, when its author does not say.
pub(super) fn defaults(policy: &mut Value) {
    default(policy, "spec", json!({}));
    let Some(spec) = inner(policy, "spec") else { return };
    default(spec, "podSelector", json!({}));
    drop_unset(spec, &["policyTypes"]);
    let types = if unset(&spec["egress"]) { json!(["Ingress"]) } else { json!(["Ingress", "Egress"]) };
    default(spec, "policyTypes", types);
    drop_unset(spec, &["ingress", "egress"]);
    for direction in ["ingress", "egress"] {
        for rule in items(spec, direction) {
            items(rule, "ports").for_each(|port| default(port, "protocol", "TCP"));
        }
    }
}

/// Checks a policy.
pub(super) fn check(policy: &Value, old: Option<&Value>, errors: &mut Errors) {
    let (spec, at) = (&policy["spec"], Path::new("spec"));
    let known = old.map(blocks).unwrap_or_default();
    meta::selector(&spec["podSelector"], &at.field("podSelector"), errors);
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for (index, rule) in numbered(&spec[direction]) {
            let at = at.field(direction).at(index);
            for (index, port) in numbered(&rule["ports"]) {
                check_port(port, &at.field("ports").at(index), errors);
            }
            for (index, peer) in numbered(&rule[peers]) {
                check_peer(peer, &known, &at.field(peers).at(index), errors);
            }
        }
    }
    let types = list(&spec["policyTypes"]);
    if types.len() > 2 {
        let rule = "may not specify more than two policyTypes";
        return errors.invalid(&at.field("policyTypes"), &spec["policyTypes"], rule);
    }
    for (index, kind) in types.iter().enumerate().filter(|(_, k)| !matches!(text(k), "Ingress" | "Egress")) {
        errors.not_supported(&at.field("policyTypes").at(index), kind, &["Ingress", "Egress"]);
    }
}

fn check_port(port: &Value, at: &Path, errors: &mut Errors) {
    let protocol = &port["protocol"];
    if !protocol.is_null() && !matches!(text(protocol), "TCP" | "UDP" | "SCTP") {
        errors.not_supported(&at.field("protocol"), protocol, &["TCP", "UDP", "SCTP"]);
    }
    let (number, end) = (&port["port"], &port["endPort"]);
    let at_end = at.field("endPort");
    if let Some(name) = number.as_str() {
        if !end.is_null() {
            errors.invalid(&at_end, end, "may not be specified when `port` is non-numeric");
        }
        errors.all(&at.field("port"), number, format::port_name(name));
    } else if number.is_null() {
        if !end.is_null() {
            errors.invalid(&at_end, end, "may not be specified when `port` is not specified");
        }
    } else {
        errors.port(&at.field("port"), number);
        if !end.is_null() {
            if int(end) < int(number) {
                errors.invalid(&at_end, number, "must be greater than or equal to `port`");
            }
            errors.port(&at_end, end);
        }
    }
}

fn check_peer(peer: &Value, known: &[String], at: &Path, errors: &mut Errors) {
    let mut selectors = 0;
    for field in ["podSelector", "namespaceSelector"].iter().filter(|f| !peer[**f].is_null()) {
        selectors += 1;
        meta::selector(&peer[*field], &at.field(field), errors);
    }
    let block = &peer["ipBlock"];
    if !block.is_null() {
        check_block(block, known, &at.field("ipBlock"), errors);
    } else if selectors == 0 {
        errors.required(at, "must specify a peer");
    }
    if selectors > 0 && !block.is_null() {
        errors.forbidden(at, "may not specify both ipBlock and another peer");
    }
}

fn check_block(block: &Value, known: &[String], at: &Path, errors: &mut Errors) {
    let given = text(&block["cidr"]);
    if given.is_empty() {
        return errors.required(&at.field("cidr"), "");
    }
    let broken = |text: &str| {
        if known.iter().any(|k| k == text) { Vec::new() } else { format::cidr(text) }
    };
    errors.all(&at.field("cidr"), &block["cidr"], broken(given));
    let Ok(whole) = given.parse::<IpNet>() else { return };
    for (index, except) in numbered(&block["except"]) {
        let at = at.field("except").at(index);
        errors.all(&at, except, broken(text(except)));
        let Ok(part) = text(except).parse::<IpNet>() else { continue };
        let within = whole.contains(&part.addr()) && whole.prefix_len() < part.prefix_len();
        if !within {
            errors.invalid(&at, except, "must be a strict subset of `cidr`");
        }
    }
}

/// All networks of a policy: one that was accepted stays accepted.
fn blocks(policy: &Value) -> Vec<String> {
    let mut all = Vec::new();
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        let rules = list(&policy["spec"][direction]).iter();
        for block in rules.flat_map(|r| list(&r[peers])).map(|p| &p["ipBlock"]) {
            all.push(text(&block["cidr"]).to_owned());
            all.extend(list(&block["except"]).iter().map(|e| text(e).to_owned()));
        }
    }
    all
}
