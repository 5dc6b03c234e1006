//! EndpointSlices and Endpoints.

use serde_json::{Value, json};

use crate::strategy::field::{Errors, Path};
use crate::strategy::format;
use crate::strategy::meta;
use crate::strategy::value::{
    default, default_filled, drop_fields, items, list, numbered, same, text, unset,
};

const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const MOST_ENDPOINTS: usize = 1000;
const MOST_PORTS: usize = 20_000;
const MOST_ADDRESSES: usize = 100;
const MOST_HINTS: usize = 8;

/// Completes an EndpointSlice.
pub(super) fn slice_defaults(slice: &mut Value) {
    for field in ["endpoints", "ports"] {
        if unset(&slice[field]) {
            slice[field] = Value::Null;
        }
    }
    // The first version of slices has no such field.
    items(slice, "endpoints").for_each(|endpoint| drop_fields(endpoint, &["deprecatedTopology"]));
    for port in items(slice, "ports") {
        default(port, "name", "");
        default(port, "protocol", "TCP");
    }
}

/// Completes Endpoints.
pub(super) fn defaults(endpoints: &mut Value) {
    for subset in items(endpoints, "subsets") {
        items(subset, "ports").for_each(|port| default_filled(port, "protocol", "TCP"));
    }
}

/// Checks an EndpointSlice.
pub(super) fn check_slice(slice: &Value, old: Option<&Value>, errors: &mut Errors) {
    let kind = &slice["addressType"];
    errors.one_of(&Path::new("addressType"), kind, &["FQDN", "IPv4", "IPv6"]);
    slice_ports(&slice["ports"], errors);
    if !old.is_some_and(|old| same(&old["endpoints"], &slice["endpoints"])) {
        slice_endpoints(slice, text(kind), errors);
    }
    if let Some(old) = old {
        errors.immutable(&Path::new("addressType"), &old["addressType"], kind);
    }
}

fn slice_ports(ports: &Value, errors: &mut Errors) {
    let at = Path::new("ports");
    let ports = list(ports);
    if ports.len() > MOST_PORTS {
        return errors.too_many(&at, ports.len(), MOST_PORTS);
    }
    let mut names = std::collections::HashSet::new();
    for (index, port) in ports.iter().enumerate() {
        let (at, name) = (at.at(index), text(&port["name"]));
        if !name.is_empty() {
            errors.all(&at.field("name"), &port["name"], format::dns_label(name));
        }
        if !names.insert(name) {
            errors.duplicate(&at.field("name"), &json!(name));
        }
        port_protocols(port, &at, errors);
    }
}

fn port_protocols(port: &Value, at: &Path, errors: &mut Errors) {
    errors.one_of(&at.field("protocol"), &port["protocol"], PROTOCOLS);
    if let Some(protocol) = port["appProtocol"].as_str() {
        errors.all(&at.field("appProtocol"), &port["appProtocol"], format::label_key(protocol));
    }
}

fn slice_endpoints(slice: &Value, kind: &str, errors: &mut Errors) {
    let at = Path::new("endpoints");
    let endpoints = list(&slice["endpoints"]);
    if endpoints.len() > MOST_ENDPOINTS {
        return errors.too_many(&at, endpoints.len(), MOST_ENDPOINTS);
    }
    for (index, endpoint) in endpoints.iter().enumerate() {
        let at = at.at(index);
        slice_addresses(list(&endpoint["addresses"]), kind, &at.field("addresses"), errors);
        if let Some(node) = endpoint["nodeName"].as_str() {
            errors.all(&at.field("nodeName"), &endpoint["nodeName"], format::dns_subdomain(node));
        }
        meta::labels(&endpoint["deprecatedTopology"], &at.field("deprecatedTopology"), errors);
        if let Some(name) = endpoint["hostname"].as_str() {
            errors.all(&at.field("hostname"), &endpoint["hostname"], format::dns_label(name));
        }
        let at = at.field("hints");
        hints(&endpoint["hints"]["forZones"], &at.field("forZones"), format::label_value, errors);
        hints(&endpoint["hints"]["forNodes"], &at.field("forNodes"), format::dns_subdomain, errors);
    }
}

fn slice_addresses(addresses: &[Value], kind: &str, at: &Path, errors: &mut Errors) {
    if addresses.is_empty() {
        errors.required(at, "must contain at least 1 address");
    } else if addresses.len() > MOST_ADDRESSES {
        errors.too_many(at, addresses.len(), MOST_ADDRESSES);
    }
    for (index, address) in addresses.iter().enumerate() {
        let (here, given) = (at.at(index), text(address));
        if kind == "FQDN" {
            domain(given, address, &here, errors);
            continue;
        }
        let broken = if kind == "IPv6" { format::canonical_ip(given) } else { format::ip(given) };
        if !broken.is_empty() {
            errors.all(&here, address, broken);
            continue;
        }
        if given.contains(':') != (kind == "IPv6") && matches!(kind, "IPv4" | "IPv6") {
            errors.invalid(at, address, &format!("must be an {kind} address"));
        }
        errors.all(&here, address, format::endpoint_ip(given));
    }
}

fn domain(name: &str, value: &Value, at: &Path, errors: &mut Errors) {
    let short = name.strip_suffix('.').unwrap_or(name);
    let broken = format::dns_subdomain(short);
    if name.is_empty() {
        errors.required(at, "");
    } else if !broken.is_empty() {
        errors.invalid(at, &json!(short), &broken.join(","));
    } else if !short.contains('.') {
        errors.invalid(at, value, "should be a domain with at least two segments separated by dots");
    }
}

fn hints(hints: &Value, at: &Path, rules: format::Rules, errors: &mut Errors) {
    let hints = list(hints);
    if hints.len() > MOST_HINTS {
        return errors.too_many(at, hints.len(), MOST_HINTS);
    }
    for (index, hint) in hints.iter().enumerate() {
        let (at, name) = (at.at(index).field("name"), json!(text(&hint["name"])));
        if hints[..index].iter().any(|h| same(&h["name"], &hint["name"])) {
            errors.duplicate(&at, &name);
        }
        errors.all(&at, &name, rules(text(&name)));
    }
}

/// Checks Endpoints.
pub(super) fn check(endpoints: &Value, old: Option<&Value>, errors: &mut Errors) {
    if old.is_some_and(|old| same(&old["subsets"], &endpoints["subsets"])) {
        return;
    }
    for (index, subset) in numbered(&endpoints["subsets"]) {
        let at = Path::new("subsets").at(index);
        if unset(&subset["addresses"]) && unset(&subset["notReadyAddresses"]) {
            errors.required(&at, "must specify `addresses` or `notReadyAddresses`");
        }
        for field in ["addresses", "notReadyAddresses"] {
            for (index, address) in numbered(&subset[field]) {
                check_address(address, &at.field(field).at(index), errors);
            }
        }
        let ports = list(&subset["ports"]);
        for (index, port) in ports.iter().enumerate() {
            let (at, name) = (at.field("ports").at(index), text(&port["name"]));
            if !name.is_empty() {
                errors.all(&at.field("name"), &port["name"], format::dns_label(name));
            } else if ports.len() > 1 {
                errors.required(&at.field("name"), "");
            }
            errors.port(&at.field("port"), &port["port"]);
            port_protocols(port, &at, errors);
        }
    }
}

fn check_address(address: &Value, at: &Path, errors: &mut Errors) {
    let given = text(&address["ip"]);
    errors.all(&at.field("ip"), &json!(given), format::ip(given));
    let host = text(&address["hostname"]);
    if !host.is_empty() {
        errors.all(&at.field("hostname"), &json!(host), format::dns_label(host));
    }
    if let Some(node) = address["nodeName"].as_str() {
        errors.all(&at.field("nodeName"), &json!(node), format::dns_subdomain(node));
    }
    errors.all(&at.field("ip"), &json!(given), format::endpoint_ip(given));
}
