//! Columns of Services and of what belongs to them.

use serde_json::{Value, json};

use super::cells::{AGE, NAME, Spec};
use super::values::{balanced, labels, list, or, plain, selector, some};

pub(super) const SERVICES: &[Spec] = &[
    NAME,
    ("Type", "string", false, |o, _| or(&o["spec"]["type"], "ClusterIP")),
    ("Cluster-IP", "string", false, |o, _| or(&o["spec"]["clusterIP"], "<none>")),
    ("External-IP", "string", false, |o, _| json!(external(o))),
    ("Port(s)", "string", false, |o, _| json!(ports(o))),
    AGE,
    ("Selector", "string", true, |o, _| json!(labels(&o["spec"]["selector"]))),
];
pub(super) const ENDPOINTS: &[Spec] =
    &[NAME, ("Endpoints", "string", false, |o, _| json!(some(&subsets(o), 3, "<none>"))), AGE];
pub(super) const ENDPOINT_SLICES: &[Spec] = &[
    NAME,
    ("AddressType", "string", false, |o, _| or(&o["addressType"], "")),
    ("Ports", "string", false, |o, _| json!(some(&slice_ports(o), 3, "<unset>"))),
    ("Endpoints", "string", false, |o, _| json!(some(&slice_addresses(o), 3, "<unset>"))),
    AGE,
];
pub(super) const INGRESSES: &[Spec] = &[
    NAME,
    ("Class", "string", false, |o, _| or(&o["spec"]["ingressClassName"], "<none>")),
    ("Hosts", "string", false, |o, _| json!(hosts(o))),
    ("Address", "string", false, |o, _| json!(balanced(&o["status"]))),
    ("Ports", "string", false, |o, _| {
        json!(if list(&o["spec"]["tls"]).is_empty() { "80" } else { "80, 443" })
    }),
    AGE,
];
pub(super) const INGRESS_CLASSES: &[Spec] = &[
    ("Name", "string", false, |o, _| default_class(o, "ingressclass.kubernetes.io/is-default-class")),
    ("Controller", "string", false, |o, _| or(&o["spec"]["controller"], "")),
    ("Parameters", "string", false, |o, _| json!(parameters(&o["spec"]["parameters"]))),
    AGE,
];
pub(super) const NETWORK_POLICIES: &[Spec] =
    &[NAME, ("Pod-Selector", "string", false, |o, _| selector(&o["spec"]["podSelector"])), AGE];

/// The name of a class, which says whether it is the default one.
pub(super) fn default_class(object: &Value, annotation: &str) -> Value {
    let name = plain(&object["metadata"]["name"], "");
    let default = object["metadata"]["annotations"][annotation] == "true";
    json!(if default { name + " (default)" } else { name })
}

fn external(service: &Value) -> String {
    let spec = &service["spec"];
    if spec["type"] == "ExternalName" {
        return plain(&spec["externalName"], "");
    }
    let given = list(&spec["externalIPs"]).iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",");
    let load_balancer = spec["type"] == "LoadBalancer";
    let balanced = if load_balancer { balanced(&service["status"]) } else { String::new() };
    match (balanced.is_empty(), given.is_empty()) {
        (false, false) => format!("{balanced},{given}"),
        (false, true) => balanced,
        (true, false) => given,
        (true, true) if load_balancer => "<pending>".into(),
        (true, true) => "<none>".into(),
    }
}

fn ports(service: &Value) -> String {
    let one = |p: &Value| {
        let protocol = p["protocol"].as_str().unwrap_or("TCP");
        match p["nodePort"].as_i64() {
            Some(node) if node > 0 => format!("{}:{node}/{protocol}", p["port"]),
            _ => format!("{}/{protocol}", p["port"]),
        }
    };
    let all: Vec<_> = list(&service["spec"]["ports"]).iter().map(one).collect();
    if all.is_empty() { "<none>".into() } else { all.join(",") }
}

fn subsets(endpoints: &Value) -> Vec<String> {
    let mut all = Vec::new();
    for subset in list(&endpoints["subsets"]) {
        let addresses: Vec<&str> =
            list(&subset["addresses"]).iter().filter_map(|a| a["ip"].as_str()).collect();
        let ports = list(&subset["ports"]);
        if ports.is_empty() {
            all.extend(addresses.iter().map(|a| (*a).to_owned()));
        }
        for port in ports {
            let joined = |a: &&str| {
                if a.contains(':') {
                    format!("[{a}]:{}", port["port"])
                } else {
                    format!("{a}:{}", port["port"])
                }
            };
            all.extend(addresses.iter().map(joined));
        }
    }
    all
}

fn slice_ports(slice: &Value) -> Vec<String> {
    let one = |p: &Value| if p["port"].is_null() { plain(&p["name"], "*") } else { plain(&p["port"], "*") };
    list(&slice["ports"]).iter().map(one).collect()
}

fn slice_addresses(slice: &Value) -> Vec<String> {
    let each = list(&slice["endpoints"]).iter().flat_map(|e| list(&e["addresses"]));
    each.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn hosts(ingress: &Value) -> String {
    let rules = list(&ingress["spec"]["rules"]);
    let named = rules.iter().take(3).filter_map(|r| r["host"].as_str()).filter(|h| !h.is_empty());
    let text = named.collect::<Vec<_>>().join(",");
    match (text.is_empty(), rules.len()) {
        (true, _) => "*".into(),
        (false, n) if n > 3 => format!("{text} + {} more...", n - 3),
        (false, _) => text,
    }
}

fn parameters(parameters: &Value) -> String {
    let Some(kind) = parameters["kind"].as_str() else { return "<none>".into() };
    let group = parameters["apiGroup"].as_str().map(|g| format!(".{g}")).unwrap_or_default();
    format!("{kind}{group}/{}", plain(&parameters["name"], ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_and_endpoints() {
        let slice = json!({"ports": [{"port": 80}, {"name": "x"}, {}],
            "endpoints": [{"addresses": ["a", "b"]}, {"addresses": ["c", "d"]}]});
        assert_eq!(slice_ports(&slice), ["80", "x", "*"]);
        assert_eq!(some(&slice_addresses(&slice), 3, "<unset>"), "a,b,c + 1 more...");
        let endpoints = json!({"subsets": [{"addresses": [{"ip": "fd00::1"}, {"ip": "10.0.0.1"}], "ports": [{"port": 80}]}]});
        assert_eq!(subsets(&endpoints), ["[fd00::1]:80", "10.0.0.1:80"]);
    }

    #[test]
    fn addresses_of_services() {
        let service = |kind: &str, status: Value| json!({"spec": {"type": kind, "externalIPs": ["9.9.9.9"]}, "status": status});
        assert_eq!(external(&service("ClusterIP", Value::Null)), "9.9.9.9");
        let status = json!({"loadBalancer": {"ingress": [{"ip": "2.2.2.2"}, {"hostname": "1.example"}]}});
        assert_eq!(external(&service("LoadBalancer", status)), "1.example,2.2.2.2,9.9.9.9");
        assert_eq!(external(&json!({"spec": {"type": "LoadBalancer"}})), "<pending>");
    }
}
