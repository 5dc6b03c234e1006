//! core/v1 Service.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::Deserialize;
use weft_model::NamespacedName;
use weft_model::service::{
    ADDRESSES_CONDITION, DEFAULT_AFFINITY, LOAD_BALANCER_CLASS, MOST_AFFINITY, PROXY_NAME_LABEL, Protocol,
    Service, ServiceKey, ServicePort, ServiceType,
};

use super::{Kind, Meta, NAME_LIMIT, one_a_family};

#[derive(Deserialize)]
struct ServiceWire {
    metadata: Labelled,
    #[serde(default)]
    spec: ServiceSpec,
    #[serde(default)]
    status: ServiceStatus,
}

#[derive(Deserialize)]
pub(super) struct Labelled {
    #[serde(default)]
    labels: Option<BTreeMap<Arc<str>, Arc<str>>>,
}

impl Labelled {
    pub(super) fn label(&self, key: &str) -> Option<Arc<str>> {
        self.labels.as_ref()?.get(key).cloned()
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ServiceSpec {
    #[serde(rename = "type")]
    kind: Option<ServiceType>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Option<Vec<String>>,
    #[serde(rename = "externalIPs")]
    external_ips: Option<Vec<String>>,
    load_balancer_source_ranges: Option<Vec<String>>,
    ports: Option<Vec<PortWire>>,
    session_affinity: Option<String>,
    session_affinity_config: Option<AffinityWire>,
    internal_traffic_policy: Option<String>,
    external_traffic_policy: Option<String>,
    health_check_node_port: Option<i64>,
    load_balancer_class: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PortWire {
    name: Option<Arc<str>>,
    protocol: Option<Protocol>,
    port: i64,
    node_port: Option<i64>,
}

#[derive(Deserialize)]
struct AffinityWire {
    #[serde(rename = "clientIP")]
    client_ip: Option<ClientIpWire>,
}

#[derive(Deserialize)]
struct ClientIpWire {
    #[serde(rename = "timeoutSeconds")]
    seconds: Option<i64>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ServiceStatus {
    load_balancer: Option<LoadBalancerWire>,
    conditions: Option<Vec<ConditionWire>>,
}

#[derive(Deserialize)]
struct ConditionWire {
    #[serde(rename = "type", default)]
    kind: String,
}

#[derive(Deserialize)]
struct LoadBalancerWire {
    ingress: Option<Vec<IngressWire>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct IngressWire {
    ip: Option<String>,
    ip_mode: Option<String>,
}

impl Kind for Service {
    type Key = ServiceKey;
    const PATH: &'static str = "/api/v1/services";
    const NAME: &'static str = "service";

    fn decode(meta: &Meta, json: &str) -> Result<Self, String> {
        let ServiceWire { metadata, spec, status } = serde_json::from_str(json).map_err(|e| e.to_string())?;
        let mut nonsense = Vec::new();
        let cluster_ips = spec.cluster_ips.unwrap_or_else(|| spec.cluster_ip.into_iter().collect());
        let cluster_ips = cluster_ips.into_iter().filter(|ip| !ip.is_empty() && ip != "None");
        let cluster_ips = parsed("clusterIPs", cluster_ips, &mut nonsense);
        let mut conditions = status.conditions.iter().flatten();
        let balanced_here = spec.load_balancer_class.as_deref() == Some(LOAD_BALANCER_CLASS)
            || conditions.any(|condition| condition.kind == ADDRESSES_CONDITION);
        let ingress = status.load_balancer.and_then(|balancer| balancer.ingress).unwrap_or_default();
        let vips = ingress.into_iter().filter(|entry| entry.ip_mode.as_deref() != Some("Proxy"));
        let vips = vips.filter_map(|entry| entry.ip).filter(|ip| !ip.is_empty());
        let affinity = spec.session_affinity.as_deref() == Some("ClientIP");
        let seconds = spec.session_affinity_config.and_then(|config| config.client_ip?.seconds);
        let port = |wire: PortWire| service_port(wire, &mut nonsense);
        Ok(Service {
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            uid: meta.uid.clone(),
            created: meta.creation_timestamp.clone().unwrap_or_default(),
            kind: spec.kind.unwrap_or_default(),
            cluster_ips: one_a_family(cluster_ips, IpAddr::is_ipv4),
            ports: spec.ports.unwrap_or_default().into_iter().filter_map(port).collect(),
            external_ips: parsed("externalIPs", spec.external_ips.into_iter().flatten(), &mut nonsense),
            load_balancer_ips: parsed("status.loadBalancer", vips, &mut nonsense),
            balanced_here,
            source_ranges: spec
                .load_balancer_source_ranges
                .filter(|ranges| !ranges.is_empty())
                .map(|ranges| source_ranges(&ranges, &mut nonsense)),
            affinity: affinity.then(|| affinity_seconds(seconds, &mut nonsense)),
            internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            external_local: spec.external_traffic_policy.as_deref() == Some("Local"),
            health_check_port: spec.health_check_node_port.and_then(number),
            proxy: metadata.label(PROXY_NAME_LABEL),
            nonsense,
        })
    }

    fn key(meta: &Meta) -> ServiceKey {
        NamespacedName::new(meta.namespace.clone(), meta.name.clone())
    }
}

/// A port that can be: not 0.
pub(super) fn number(port: i64) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| *port != 0)
}

fn service_port(wire: PortWire, nonsense: &mut Vec<Arc<str>>) -> Option<ServicePort> {
    let Some(port) = number(wire.port) else {
        nonsense.push(format!("ports: {} is no port", wire.port).into());
        return None;
    };
    let name = wire.name.unwrap_or_default();
    if name.len() > NAME_LIMIT {
        nonsense.push("ports: a name is too long".into());
        return None;
    }
    let protocol = wire.protocol.unwrap_or_default();
    Some(ServicePort { name, protocol, port, node_port: wire.node_port.and_then(number) })
}

fn parsed(field: &str, texts: impl IntoIterator<Item = String>, nonsense: &mut Vec<Arc<str>>) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = Vec::new();
    for text in texts {
        match text.parse() {
            Ok(ip) if found.contains(&ip) => {}
            Ok(ip) => found.push(ip),
            Err(_) => nonsense.push(format!("{field}: {:?} is no IP address", short(&text)).into()),
        }
    }
    found
}

/// What cannot be read lets nobody in: a range that was meant is narrower than none.
fn source_ranges(texts: &[String], nonsense: &mut Vec<Arc<str>>) -> Arc<[IpNet]> {
    let mut ranges: Vec<IpNet> = Vec::new();
    for text in texts {
        // Kubernetes trims them, for the annotation's sake that they once were.
        match text.trim().parse::<IpNet>() {
            Ok(net) => ranges.push(net.trunc()),
            Err(_) => {
                nonsense.push(format!("loadBalancerSourceRanges: {:?} is no CIDR", short(text)).into());
            }
        }
    }
    ranges.sort_unstable();
    ranges.dedup();
    ranges.into()
}

fn affinity_seconds(seconds: Option<i64>, nonsense: &mut Vec<Arc<str>>) -> u32 {
    let Some(asked) = seconds else { return DEFAULT_AFFINITY };
    let possible = u32::try_from(asked).ok().filter(|asked| (1..=MOST_AFFINITY).contains(asked));
    possible.unwrap_or_else(|| {
        let told =
            format!("timeoutSeconds: {asked} is not within 1 and {MOST_AFFINITY}: {DEFAULT_AFFINITY} serves");
        nonsense.push(told.into());
        DEFAULT_AFFINITY
    })
}

fn short(text: &str) -> &str {
    let end = text.char_indices().nth(60).map_or(text.len(), |(at, _)| at);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::meta;

    fn decode<K: Kind>(json: &str) -> Result<K, String> {
        K::decode(&meta(json)?, json)
    }

    const SERVICE: &str = r#"{"metadata":{"name":"web","namespace":"shop","uid":"u","resourceVersion":"7",
        "labels":{"service.kubernetes.io/service-proxy-name":"other"}},
        "spec":{"type":"LoadBalancer","clusterIP":"10.96.0.7","clusterIPs":["10.96.0.7","fd00:10:96::7"],
          "externalIPs":["192.0.2.9","192.0.2.9","nowhere"],"sessionAffinity":"ClientIP",
          "sessionAffinityConfig":{"clientIP":{"timeoutSeconds":60}},
          "internalTrafficPolicy":"Cluster","externalTrafficPolicy":"Local","healthCheckNodePort":30100,
          "loadBalancerSourceRanges":[" 10.1.2.3/8 ","10.0.0.0/8","everywhere"],
          "ports":[{"name":"http","port":80,"targetPort":"http","nodePort":30080},
                   {"name":"dns","protocol":"UDP","port":53},{"name":"bad","port":70000}]},
        "status":{"loadBalancer":{"ingress":[{"ip":"203.0.113.1"},{"ip":"203.0.113.2","ipMode":"Proxy"},
          {"hostname":"lb.example"},{"ip":"203.0.113.3","ipMode":"VIP"}]}}}"#;

    #[test]
    fn a_service_has_the_fields_of_the_model() {
        let service = decode::<Service>(SERVICE).unwrap();
        assert_eq!(service.key().to_string(), "shop/web");
        assert_eq!(service.kind, ServiceType::LoadBalancer);
        assert_eq!(service.cluster_ips.len(), 2);
        assert_eq!(service.external_ips, ["192.0.2.9".parse::<IpAddr>().unwrap()], "each once");
        let vips: Vec<String> = service.load_balancer_ips.iter().map(ToString::to_string).collect();
        assert_eq!(vips, ["203.0.113.1", "203.0.113.3"], "those of mode Proxy are not ours");
        assert_eq!(service.source_ranges.as_deref(), Some(&["10.0.0.0/8".parse().unwrap()][..]));
        assert_eq!((service.affinity, service.health_check_port), (Some(60), Some(30100)));
        assert!(service.external_local && !service.internal_local);
        assert_eq!(service.proxy.as_deref(), Some("other"));
        let ports: Vec<_> =
            service.ports.iter().map(|p| (&*p.name, p.protocol, p.port, p.node_port)).collect();
        assert_eq!(ports, [("http", Protocol::Tcp, 80, Some(30080)), ("dns", Protocol::Udp, 53, None)]);
        for word in ["nowhere", "everywhere", "70000"] {
            assert!(service.nonsense.iter().any(|told| told.contains(word)), "{word}");
        }
    }

    #[test]
    fn a_headless_service_has_no_address_and_ranges_that_make_no_sense_let_nobody_in() {
        let none = decode::<Service>(r#"{"metadata":{"name":"a"},"spec":{"clusterIP":"None"}}"#).unwrap();
        assert!(none.headless() && none.nonsense.is_empty());
        let name = r#"{"metadata":{"name":"a"},"spec":{"type":"ExternalName","externalName":"x.example"}}"#;
        assert!(decode::<Service>(name).unwrap().headless());
        let ranges = r#"{"metadata":{"name":"a"},"spec":{"loadBalancerSourceRanges":["x"]}}"#;
        assert_eq!(decode::<Service>(ranges).unwrap().source_ranges.as_deref(), Some(&[][..]));
    }

    #[test]
    fn addresses_outside_are_ours_by_class_or_condition() {
        let class = |class: &str| {
            format!(r#"{{"metadata":{{"name":"a"}},"spec":{{"loadBalancerClass":"{class}"}}}}"#)
        };
        assert!(decode::<Service>(&class("weft.dev/load-balancer")).unwrap().balanced_here);
        assert!(!decode::<Service>(&class("example.org/other")).unwrap().balanced_here);
        let condition =
            r#"{"metadata":{"name":"a"},"status":{"conditions":[{},{"type":"weft.dev/AddressesAssigned"}]}}"#;
        assert!(decode::<Service>(condition).unwrap().balanced_here);
        assert!(!decode::<Service>(SERVICE).unwrap().balanced_here);
    }

    #[test]
    fn an_affinity_that_cannot_be_is_the_usual_one_and_told() {
        for (seconds, kept) in [(0, 10_800), (-5, 10_800), (86_401, 10_800), (86_400, 86_400), (1, 1)] {
            let json = format!(
                r#"{{"metadata":{{"name":"a"}},"spec":{{"sessionAffinity":"ClientIP",
                    "sessionAffinityConfig":{{"clientIP":{{"timeoutSeconds":{seconds}}}}}}}}}"#
            );
            let service = decode::<Service>(&json).unwrap();
            assert_eq!(service.affinity, Some(kept), "{seconds}");
            assert_eq!(service.nonsense.is_empty(), i64::from(kept) == seconds, "{seconds}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(text in ".{0,200}", cut in 0..SERVICE.len()) {
            let _ = (decode::<Service>(&text), decode::<Service>(&SERVICE[..cut]));
        }
    }
}
