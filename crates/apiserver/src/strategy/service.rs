//! Services: their defaults, and their addresses and node ports, which nobody else may have.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde_json::{Value, json};

use super::names::random_bytes;
use crate::error::FieldError;
use crate::kinds;
use crate::storage::View;

const NODE_PORTS: std::ops::Range<u16> = 30_000..32_768;

/// Completes a Service. `old` is the Service before this write, whose addresses stay.
pub(super) fn settle(
    object: &mut Value,
    old: Option<&Value>,
    view: &View<'_>,
    cidrs: &[IpNet],
) -> Result<(), FieldError> {
    let uid = object["metadata"]["uid"].clone();
    let Some(spec) = object["spec"].as_object_mut() else {
        return Err(FieldError::required("spec", ""));
    };
    spec.entry("type").or_insert_with(|| json!("ClusterIP"));
    spec.entry("sessionAffinity").or_insert_with(|| json!("None"));
    let kind = spec.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut spec = object["spec"].take();
    if let Some(ports) = spec.get_mut("ports").and_then(Value::as_array_mut) {
        ports.iter_mut().for_each(port_defaults);
    }
    let result = if kind == "ExternalName" {
        Ok(())
    } else {
        default(&mut spec, "internalTrafficPolicy", "Cluster");
        let external = matches!(kind.as_str(), "NodePort" | "LoadBalancer");
        if external {
            default(&mut spec, "externalTrafficPolicy", "Cluster");
        }
        let others: Vec<_> = view
            .list(&kinds::SERVICES.prefix())
            .into_iter()
            .filter(|s| s["metadata"]["uid"] != uid)
            .collect();
        addresses(&mut spec, old.map(|o| &o["spec"]), &others, cidrs)
            .and_then(|()| if external { node_ports(&mut spec, old, &others) } else { Ok(()) })
    };
    object["spec"] = spec;
    result
}

fn default(spec: &mut Value, field: &str, value: &str) {
    if spec[field].is_null() {
        spec[field] = json!(value);
    }
}

fn port_defaults(port: &mut Value) {
    if !port.is_object() {
        return;
    }
    default(port, "protocol", "TCP");
    if port["targetPort"].is_null() {
        port["targetPort"] = port["port"].clone();
    }
}

fn addresses(
    spec: &mut Value,
    old: Option<&Value>,
    others: &[std::sync::Arc<Value>],
    cidrs: &[IpNet],
) -> Result<(), FieldError> {
    let given = |spec: &Value| spec["clusterIP"].as_str().filter(|s| !s.is_empty()).map(str::to_owned);
    if let Some(before) = old.filter(|o| given(o).is_some() && o["type"] != "ExternalName") {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            if spec[field].is_null() || spec[field] == "" {
                spec[field] = before[field].clone();
            }
        }
        if given(spec) != given(before) {
            return Err(FieldError::invalid("spec.clusterIP", &spec["clusterIP"], "may not change once set"));
        }
    }
    let taken = taken(others);
    let address = match given(spec) {
        Some(text) if text == "None" => None,
        Some(text) => Some(wanted(&text, &taken, cidrs)?),
        None => Some(free(&taken, cidrs, spec)?),
    };
    let text = address.map_or_else(|| "None".to_owned(), |a| a.to_string());
    spec["clusterIP"] = json!(text);
    if spec["clusterIPs"].as_array().is_none_or(|all| all.first() != Some(&json!(text))) {
        spec["clusterIPs"] = json!([text]);
    }
    let first = cidrs.first();
    let family = if address.map_or(first.is_none_or(|c| c.addr().is_ipv4()), |a| a.is_ipv4()) {
        "IPv4"
    } else {
        "IPv6"
    };
    if spec["ipFamilies"].as_array().is_none_or(Vec::is_empty) {
        spec["ipFamilies"] = json!([family]);
    }
    default(spec, "ipFamilyPolicy", "SingleStack");
    Ok(())
}

fn taken(others: &[std::sync::Arc<Value>]) -> HashSet<IpAddr> {
    let of = |s: &std::sync::Arc<Value>| {
        let all = s["spec"]["clusterIPs"].as_array().into_iter().flatten().filter_map(Value::as_str);
        all.chain(s["spec"]["clusterIP"].as_str()).filter_map(|t| t.parse().ok()).collect::<Vec<IpAddr>>()
    };
    others.iter().flat_map(of).collect()
}

fn wanted(text: &str, taken: &HashSet<IpAddr>, cidrs: &[IpNet]) -> Result<IpAddr, FieldError> {
    let bad = |rule: &str| FieldError::invalid("spec.clusterIPs", &json!([text]), rule);
    let address: IpAddr = text.parse().map_err(|_| bad("must be a valid IP address, \"None\" or empty"))?;
    if !cidrs.iter().any(|c| c.contains(&address)) {
        let ranges = cidrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        return Err(bad(&format!(
            "failed to allocate IP {address}: the provided IP is not in the valid range {ranges}"
        )));
    }
    if taken.contains(&address) {
        return Err(bad(&format!("failed to allocate IP {address}: provided IP is already allocated")));
    }
    Ok(address)
}

/// A free address of the family that the Service asks for first, from a random start.
fn free(taken: &HashSet<IpAddr>, cidrs: &[IpNet], spec: &Value) -> Result<IpAddr, FieldError> {
    let family = spec["ipFamilies"][0].as_str();
    let fits = |c: &&IpNet| family.is_none_or(|f| (f == "IPv4") == c.addr().is_ipv4());
    let none = |why: String| FieldError::invalid("spec.clusterIP", &Value::Null, &why);
    let Some(cidr) = cidrs.iter().find(fits) else {
        return Err(none(format!("no service CIDR of the family {}", family.unwrap_or("any"))));
    };
    let bits = u32::from(cidr.max_prefix_len() - cidr.prefix_len()).min(20);
    // Neither the network's own address nor the last, nor the first: that is the API's by custom.
    let size = (1u128 << bits).saturating_sub(3);
    let start = if size == 0 { 0 } else { u128::from(u64::from_be_bytes(random_bytes())) % size };
    let address = |n: u128| match cidr.network() {
        IpAddr::V4(base) => IpAddr::V4(Ipv4Addr::from(u32::from(base).wrapping_add(n as u32))),
        IpAddr::V6(base) => IpAddr::V6(Ipv6Addr::from(u128::from(base).wrapping_add(n))),
    };
    (0..size)
        .map(|i| address(2 + (start + i) % size))
        .find(|a| !taken.contains(a))
        .ok_or_else(|| none(format!("the service CIDR {cidr} has no free address")))
}

fn node_ports(
    spec: &mut Value,
    old: Option<&Value>,
    others: &[std::sync::Arc<Value>],
) -> Result<(), FieldError> {
    let of = |s: &Value| {
        let ports = s["spec"]["ports"].as_array().into_iter().flatten();
        ports.filter_map(|p| u16::try_from(p["nodePort"].as_u64()?).ok()).collect::<Vec<_>>()
    };
    let mut taken: HashSet<u16> = others.iter().flat_map(|s| of(s)).collect();
    let before = old.map(|o| o["spec"]["ports"].clone()).unwrap_or_default();
    let Some(ports) = spec.get_mut("ports").and_then(Value::as_array_mut) else { return Ok(()) };
    for (index, port) in ports.iter_mut().enumerate().filter(|(_, p)| p.is_object()) {
        let same = |b: &&Value| b["port"] == port["port"] && b["protocol"] == port["protocol"];
        let kept = before.as_array().into_iter().flatten().find(same).and_then(|b| b["nodePort"].as_u64());
        let given = port["nodePort"].as_u64().filter(|n| *n > 0);
        let field = format!("spec.ports[{index}].nodePort");
        let number = match given.or(kept) {
            Some(n) => u16::try_from(n).ok().filter(|n| NODE_PORTS.contains(n)).ok_or_else(|| {
                FieldError::invalid(
                    &field,
                    &json!(n),
                    "provided port is not in the valid range. The range of valid ports is 30000-32767",
                )
            })?,
            None => free_port(&taken)
                .ok_or_else(|| FieldError::invalid(&field, &json!(0), "no node port is free"))?,
        };
        if taken.contains(&number) {
            return Err(FieldError::invalid(&field, &json!(number), "provided port is already allocated"));
        }
        // Ports of one Service may share a number when their protocols differ: compared with others only.
        if given.is_none() && kept.is_none() {
            taken.insert(number);
        }
        port["nodePort"] = json!(number);
    }
    Ok(())
}

fn free_port(taken: &HashSet<u16>) -> Option<u16> {
    let count = NODE_PORTS.end - NODE_PORTS.start;
    let start = u16::from_be_bytes(random_bytes()) % count;
    (0..count).map(|i| NODE_PORTS.start + (start + i) % count).find(|p| !taken.contains(p))
}
