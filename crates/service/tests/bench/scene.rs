//! The Services of the bench and their endpoints: for Weft as its model, for kube-proxy as Kubernetes' objects.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde_json::{Value, json};
use weft_model::service::{
    Endpoint, EndpointPort, EndpointSlice, Protocol, Service, ServicePort, ServiceType,
};
use weft_model::{Changes, Cluster, Node};

/// The node under test.
pub(crate) const NODE: &str = "here";
/// All pods.
pub(crate) const PODS: [&str; 2] = ["10.244.0.0/16", "fd00:244::/48"];
/// Who may use the load balancer of a guarded Service, among them the node by its address to the outside.
pub(crate) const ALLOWED: [&str; 2] = ["203.0.113.0/25", "fd00:203::/112"];
/// The port that endpoints answer on.
pub(crate) const TARGET: u16 = 8080;

/// Endpoints by name with the node that they are on, and their addresses.
pub(crate) const ENDPOINTS: [(&str, &str, [&str; 2]); 3] = [
    ("a", NODE, ["10.244.0.2", "fd00:244:0:a::2"]),
    ("b", NODE, ["10.244.0.6", "fd00:244:0:b::2"]),
    ("r", "there", ["10.244.1.2", "fd00:244:1:a::2"]),
];

/// A Service of the bench, with a cluster IP, node ports, an external IP and a load balancer's IP of both families,
/// by every protocol.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spec {
    pub(crate) name: &'static str,
    /// Names of [`ENDPOINTS`].
    pub(crate) endpoints: &'static [&'static str],
    pub(crate) internal_local: bool,
    pub(crate) external_local: bool,
    pub(crate) sticky: bool,
    /// Whether only [`ALLOWED`] may use its load balancer.
    pub(crate) guarded: bool,
}

const PLAIN: Spec = Spec {
    name: "",
    endpoints: &[],
    internal_local: false,
    external_local: false,
    sticky: false,
    guarded: false,
};

/// All of them.
pub(crate) const SPECS: [Spec; 11] = [
    Spec { name: "web", endpoints: &["a", "b", "r"], ..PLAIN },
    Spec { name: "loop", endpoints: &["a"], ..PLAIN },
    Spec { name: "away", endpoints: &["r"], ..PLAIN },
    Spec { name: "empty", ..PLAIN },
    Spec { name: "local", endpoints: &["a", "b", "r"], external_local: true, ..PLAIN },
    Spec { name: "local-away", endpoints: &["r"], external_local: true, ..PLAIN },
    Spec { name: "inner", endpoints: &["a", "b", "r"], internal_local: true, ..PLAIN },
    Spec { name: "inner-away", endpoints: &["r"], internal_local: true, external_local: true, ..PLAIN },
    Spec { name: "sticky", endpoints: &["a", "b", "r"], sticky: true, ..PLAIN },
    Spec { name: "sticky-local", endpoints: &["a", "b", "r"], external_local: true, sticky: true, ..PLAIN },
    Spec { name: "guarded", endpoints: &["a", "b", "r"], guarded: true, ..PLAIN },
];

/// By what a Service is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    ClusterIp,
    NodePort,
    External,
    LoadBalancer,
}

impl By {
    pub(crate) const ALL: [By; 4] = [By::ClusterIp, By::NodePort, By::External, By::LoadBalancer];
}

/// The addresses of the node under test.
pub(crate) fn node_addresses() -> Vec<IpAddr> {
    vec!["192.168.50.1".parse().unwrap(), "fd00:50::1".parse().unwrap()]
}

/// Where the `index`th Service is reached.
pub(crate) fn place(index: usize, by: By, ipv6: bool) -> (IpAddr, u16) {
    let last = index + 1;
    let nets = match by {
        By::ClusterIp => ["10.96.0.", "fd00:96::"],
        By::External => ["198.51.100.", "fd00:198::"],
        By::LoadBalancer => ["198.18.0.", "fd00:18::"],
        By::NodePort => return (node_addresses()[usize::from(ipv6)], node_port(index)),
    };
    (format!("{}{last}", nets[usize::from(ipv6)]).parse().unwrap(), 80)
}

fn node_port(index: usize) -> u16 {
    30080 + index as u16
}

/// The protocols of every Service; the name of its port.
const PORTS: [(Protocol, &str); 3] =
    [(Protocol::Tcp, "web"), (Protocol::Udp, "web-udp"), (Protocol::Sctp, "web-sctp")];

fn service(index: usize, spec: &Spec) -> Service {
    let both = |by| [false, true].map(|ipv6| place(index, by, ipv6).0).to_vec();
    let nets = || ALLOWED.iter().map(|net| net.parse().unwrap()).collect::<Arc<[IpNet]>>();
    Service {
        namespace: "bench".into(),
        name: spec.name.into(),
        uid: spec.name.into(),
        kind: ServiceType::LoadBalancer,
        cluster_ips: both(By::ClusterIp),
        external_ips: both(By::External),
        load_balancer_ips: both(By::LoadBalancer),
        source_ranges: spec.guarded.then(nets),
        ports: PORTS
            .map(|(protocol, name)| ServicePort {
                name: name.into(),
                protocol,
                port: 80,
                node_port: Some(node_port(index)),
            })
            .to_vec(),
        affinity: spec.sticky.then_some(10_800),
        internal_local: spec.internal_local,
        external_local: spec.external_local,
        ..Service::default()
    }
}

fn slices(spec: &Spec) -> [EndpointSlice; 2] {
    [0, 1].map(|family: usize| EndpointSlice {
        namespace: "bench".into(),
        name: format!("{}-{family}", spec.name).into(),
        service: spec.name.into(),
        ports: PORTS
            .map(|(protocol, name)| EndpointPort { name: name.into(), protocol, port: TARGET })
            .to_vec(),
        endpoints: ENDPOINTS
            .iter()
            .filter(|(name, ..)| spec.endpoints.contains(name))
            .map(|(_, node, addresses)| Endpoint {
                address: addresses[family].parse().unwrap(),
                ready: true,
                serving: true,
                terminating: false,
                node: Some((*node).into()),
                hints: None,
            })
            .collect(),
    })
}

/// The cluster as Weft sees it, and every key in it.
pub(crate) fn cluster() -> (Cluster, Changes) {
    let mut cluster = Cluster::default();
    let node = Node { name: NODE.into(), addresses: node_addresses(), ..Node::default() };
    cluster.nodes.insert(NODE.into(), Arc::new(node));
    for (index, spec) in SPECS.iter().enumerate() {
        let service = service(index, spec);
        cluster.services.insert(service.key(), Arc::new(service));
        for slice in slices(spec) {
            cluster.slices.insert(slice.key(), Arc::new(slice));
        }
    }
    let changes = Changes {
        nodes: cluster.nodes.keys().cloned().collect(),
        services: cluster.services.keys().cloned().collect(),
        slices: cluster.slices.keys().cloned().collect(),
        ..Changes::default()
    };
    (cluster, changes)
}

/// The node as Kubernetes' object.
pub(crate) fn node_object() -> Value {
    let addresses: Vec<Value> =
        node_addresses().iter().map(|ip| json!({"type": "InternalIP", "address": ip})).collect();
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE, "uid": NODE}, "spec": {},
        "status": {"addresses": addresses}})
}

/// The Services and EndpointSlices as Kubernetes' objects, each with its resource's path.
pub(crate) fn objects(cluster: &Cluster) -> Vec<(&'static str, Value)> {
    let services = cluster.services.values().map(|service| ("/api/v1/services", service_object(service)));
    let slices = cluster
        .slices
        .values()
        .map(|slice| ("/apis/discovery.k8s.io/v1/endpointslices", slice_object(slice)));
    services.chain(slices).collect()
}

fn service_object(service: &Service) -> Value {
    let policy = |local| if local { "Local" } else { "Cluster" };
    let ports: Vec<Value> = service
        .ports
        .iter()
        .map(|port| {
            json!({"name": port.name, "protocol": port.protocol.name(), "port": port.port, "targetPort": TARGET,
                "nodePort": port.node_port})
        })
        .collect();
    let ingress: Vec<Value> =
        service.load_balancer_ips.iter().map(|ip| json!({"ip": ip, "ipMode": "VIP"})).collect();
    let affinity = match service.affinity {
        Some(seconds) => json!({"clientIP": {"timeoutSeconds": seconds}}),
        None => Value::Null,
    };
    json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": service.namespace, "name": service.name, "uid": service.uid},
        "spec": {"type": "LoadBalancer", "clusterIP": service.cluster_ips[0], "clusterIPs": service.cluster_ips,
            "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack", "ports": ports,
            "externalIPs": service.external_ips, "loadBalancerSourceRanges": service.source_ranges,
            "sessionAffinity": if service.affinity.is_some() { "ClientIP" } else { "None" },
            "sessionAffinityConfig": affinity, "internalTrafficPolicy": policy(service.internal_local),
            "externalTrafficPolicy": policy(service.external_local)},
        "status": {"loadBalancer": {"ingress": ingress}}})
}

fn slice_object(slice: &EndpointSlice) -> Value {
    let ipv6 = slice.name.ends_with("-1");
    let endpoints: Vec<Value> = slice
        .endpoints
        .iter()
        .map(|endpoint| {
            json!({"addresses": [endpoint.address], "nodeName": endpoint.node,
                "conditions": {"ready": endpoint.ready, "serving": endpoint.serving, "terminating": endpoint.terminating}})
        })
        .collect();
    let ports: Vec<Value> = slice
        .ports
        .iter()
        .map(|port| json!({"name": port.name, "protocol": port.protocol.name(), "port": port.port}))
        .collect();
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"namespace": slice.namespace, "name": slice.name, "uid": slice.name,
            "labels": {"kubernetes.io/service-name": slice.service}},
        "addressType": if ipv6 { "IPv6" } else { "IPv4" }, "endpoints": endpoints, "ports": ports})
}
