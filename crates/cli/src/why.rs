//! `weft why`: what the planned rules do with a connection to a Service, and which objects say so.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Args;
use serde::Serialize;
use weft_model::service::{Service, ServiceKey, ServicePort};
use weft_model::{Cluster, Node, PodKey};
use weft_service::nftables::{Packet, Tables, Verdict, Walk};
use weft_service::{Frontend, FrontendKey, Place, ServicePlan};

use crate::args::Output;
use crate::ipam_args;
use crate::service::planned_for;
use crate::{daemons, exit, output};

#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    #[command(flatten)]
    cluster: ipam_args::Cluster,
    /// Who connects: [NAMESPACE/]POD, node/NODE, or an address outside of the cluster
    #[arg(value_name = "SRC")]
    from: String,
    /// To what: svc/[NAMESPACE/]NAME[:PORT]
    #[arg(value_name = "svc/NAME[:PORT]")]
    to: String,
    /// Ask for the node port at this node, and not for the cluster IP; from outside it is the first node
    #[arg(long, value_name = "NODE")]
    node_port: Option<String>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    from: String,
    service: String,
    /// Address, port and protocol.
    to: String,
    /// Whose rules decide.
    node: String,
    /// `led`, `passed`, `refused` or `dropped`.
    verdict: &'static str,
    /// The rules that do something, first to last.
    rules: Vec<String>,
    /// Where it goes, each as likely as the others.
    ways: Vec<Way>,
    /// What objects say.
    because: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Way {
    to: SocketAddr,
    pod: Option<String>,
    node: Option<String>,
    /// Whether it goes with an address of the node that decides.
    masqueraded: bool,
    /// The EndpointSlice that has the endpoint.
    slice: Option<String>,
}

/// Who connects.
struct Source {
    name: String,
    ips: Vec<IpAddr>,
    node: Option<Arc<str>>,
}

pub(crate) fn run(options: &WhyArgs) -> anyhow::Result<u8> {
    let cluster = daemons::runtime()?.block_on(async {
        let api = crate::ipam::client(&options.cluster).await?;
        anyhow::Ok(weft_store::snapshot_with_services(&api).await?)
    })?;
    let answer = answer(&cluster, &options.from, &options.to, options.node_port.as_deref())?;
    match options.output {
        Output::Json => output::line(&serde_json::to_string_pretty(&answer)?),
        Output::Text => output::print(&text(&answer)),
    }
    Ok(if answer.verdict == "led" { exit::DONE } else { exit::FALSE })
}

fn answer(cluster: &Cluster, from: &str, to: &str, node_port: Option<&str>) -> anyhow::Result<Answer> {
    let source = source(cluster, from)?;
    let (service, port) = target(cluster, to)?;
    let node: Arc<str> = match (node_port, &source.node, cluster.nodes.keys().next()) {
        (Some(node), ..) => node.into(),
        (None, Some(node), _) => node.clone(),
        (None, None, Some(first)) => first.clone(),
        (None, None, None) => bail!("the cluster has no node"),
    };
    let Some(decides) = cluster.nodes.get(&node) else { bail!("there is no node {node}") };
    let asked = if node_port.is_some() { &decides.addresses } else { &service.cluster_ips };
    let pair = asked.iter().find_map(|to| {
        let from = source.ips.iter().find(|from| from.is_ipv4() == to.is_ipv4())?;
        Some((*from, *to))
    });
    let (mut from, to) =
        pair.with_context(|| format!("{} and {} have no family in common", source.name, service.key()))?;
    // What a pod sends to another node leaves its own under that one's address.
    if source.node.as_ref().is_some_and(|own| *own != node) {
        let own = source.node.as_ref().and_then(|own| cluster.nodes.get(own));
        from = own.and_then(|own| own.address_like(to)).unwrap_or(from);
    }
    let number = match node_port {
        None => port.port,
        Some(_) => {
            port.node_port.with_context(|| format!("{} has no node port for {}", service.key(), port.port))?
        }
    };
    let planner = planned_for(cluster, node.clone());
    let plan = planner.plan();
    let packet = Packet { from, to: SocketAddr::new(to, number), protocol: port.protocol };
    let own = own_addresses(decides);
    let walks = Tables::new(plan, to.is_ipv6()).walk(&packet, &own)?;
    let place = if node_port.is_some() { Place::NodePort { ipv6: to.is_ipv6() } } else { Place::Address(to) };
    let at = FrontendKey { place, protocol: port.protocol, port: number };
    Ok(Answer {
        from: format!("{} ({from})", source.name),
        service: service.key().to_string(),
        to: format!("{} {}", packet.to, port.protocol),
        node: node.to_string(),
        verdict: match walks.first().map(|walk| &walk.verdict) {
            Some(Verdict::Led { .. }) => "led",
            Some(Verdict::Rejected) => "refused",
            Some(Verdict::Dropped) => "dropped",
            Some(Verdict::Passed) | None => "passed",
        },
        rules: walks.first().map(rules).unwrap_or_default(),
        ways: walks.iter().filter_map(|walk| way(cluster, service, walk)).collect(),
        because: because(service, plan, &at),
    })
}

fn source(cluster: &Cluster, text: &str) -> anyhow::Result<Source> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        let pod = cluster.pods.values().find(|pod| !pod.host_network && pod.ips.contains(&ip));
        let node = cluster.nodes.values().find(|node| node.addresses.contains(&ip));
        let at = pod.and_then(|pod| pod.node.clone()).or(node.map(|node| node.name.clone()));
        return Ok(Source { name: text.to_owned(), ips: vec![ip], node: at });
    }
    if let Some(name) = text.strip_prefix("node/") {
        let node = cluster.nodes.get(name).with_context(|| format!("there is no node {name}"))?;
        return Ok(Source {
            name: text.to_owned(),
            ips: node.addresses.clone(),
            node: Some(node.name.clone()),
        });
    }
    let (namespace, name) = text.split_once('/').unwrap_or(("default", text));
    let key = PodKey::new(namespace, name);
    let pod = cluster.pods.get(&key).with_context(|| format!("there is no pod {key}"))?;
    Ok(Source { name: format!("pod {key}"), ips: pod.ips.clone(), node: pod.node.clone() })
}

fn target<'a>(cluster: &'a Cluster, text: &str) -> anyhow::Result<(&'a Service, &'a ServicePort)> {
    let Some(text) = text.strip_prefix("svc/") else {
        bail!("{text} is no Service: write svc/NAMESPACE/NAME, and for others use weft trace");
    };
    let (name, port) = text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port)));
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    let key = ServiceKey::new(namespace, name);
    let service = cluster.services.get(&key).with_context(|| format!("there is no Service {key}"))?;
    if service.headless() {
        bail!("Service {key} has no address of its own: DNS gives its endpoints");
    }
    let named = |p: &&ServicePort| port.is_none_or(|port| *p.name == *port || p.port.to_string() == port);
    let found = service.ports.iter().find(named);
    Ok((service, found.with_context(|| format!("Service {key} has no port {}", port.unwrap_or("at all")))?))
}

/// A node's own addresses as the plan of the network gives them: its InternalIPs, its bridges' and tunnel ends'.
fn own_addresses(node: &Node) -> BTreeSet<IpAddr> {
    let first = node.pod_cidrs.iter().map(ipnet::IpNet::network);
    let second = node.pod_cidrs.iter().filter_map(|cidr| cidr.hosts().find(|host| *host != cidr.network()));
    node.addresses.iter().copied().chain(first).chain(second).collect()
}

fn rules(walk: &Walk) -> Vec<String> {
    walk.steps.iter().map(|step| format!("{}: {}", step.chain, step.rule)).collect()
}

fn way(cluster: &Cluster, service: &Service, walk: &Walk) -> Option<Way> {
    let Verdict::Led { to, masqueraded } = walk.verdict else { return None };
    let pod = cluster.pods.values().find(|pod| !pod.host_network && pod.ips.contains(&to.ip()));
    let of = |slice: &&Arc<weft_model::service::EndpointSlice>| {
        slice.owner() == Some(service.key()) && slice.endpoints.iter().any(|e| e.address == to.ip())
    };
    Some(Way {
        to,
        pod: pod.map(|pod| pod.key().to_string()),
        node: pod.and_then(|pod| pod.node.as_ref()).map(ToString::to_string),
        masqueraded,
        slice: cluster.slices.values().find(of).map(|slice| slice.key().to_string()),
    })
}

fn because(service: &Service, plan: &ServicePlan, at: &FrontendKey) -> Vec<String> {
    let key = service.key();
    let mut because = Vec::new();
    match plan.frontends.get(at) {
        Some(frontend) if frontend.service == key => because.extend(of_frontend(service, frontend)),
        Some(frontend) => because.push(format!("{at} is that of Service {}", frontend.service)),
        None if service.proxy.is_some() => {
            because.push(format!("Service {key} is another proxy's, by its label"));
        }
        None => because.push(format!("no Service is served at {at}")),
    }
    because.extend(plan.refused.get(&key).into_iter().flatten().map(|why| format!("Service {key}: {why}")));
    because
}

fn of_frontend(service: &Service, frontend: &Frontend) -> Vec<String> {
    let key = &frontend.service;
    let (field, local) = match frontend.kind {
        weft_service::Kind::ClusterIp => ("internalTrafficPolicy", service.internal_local),
        _ => ("externalTrafficPolicy", service.external_local),
    };
    let policy = if local { "Local" } else { "Cluster" };
    let mut because = vec![format!("Service {key}: {}, {field} {policy}", frontend.kind)];
    if let Some(seconds) = frontend.affinity {
        because.push(format!("Service {key}: a client that was led before goes there again for {seconds} s"));
    }
    if let Some(sources) = &frontend.sources {
        let nets: Vec<String> = sources.iter().map(ToString::to_string).collect();
        because.push(format!("Service {key}: loadBalancerSourceRanges {}", nets.join(", ")));
    }
    because
}

fn text(answer: &Answer) -> String {
    let mut text = format!("{} to svc/{}, {}\n", answer.from, answer.service, answer.to);
    let _ = writeln!(text, "\nthe rules that {} plans", answer.node);
    for rule in &answer.rules {
        let _ = writeln!(text, "  {rule}");
    }
    let _ = match answer.verdict {
        "led" => writeln!(text, "\nit goes to"),
        "refused" => writeln!(text, "\nit is refused: nobody serves it"),
        "dropped" => writeln!(text, "\nit is dropped: nobody answers"),
        _ => writeln!(text, "\nit goes where it was sent to: no rule of a Service concerns it"),
    };
    let count = answer.ways.len();
    for way in &answer.ways {
        let whose = match (&way.pod, &way.node) {
            (Some(pod), Some(node)) => format!("  pod {pod} on {node}"),
            (Some(pod), None) => format!("  pod {pod}"),
            _ => String::new(),
        };
        let source = if way.masqueraded { "from an address of the node" } else { "from its own address" };
        let slice = way.slice.as_ref().map(|slice| format!(", by EndpointSlice {slice}")).unwrap_or_default();
        let _ = writeln!(text, "  1/{count} {}{whose}  {source}{slice}", way.to);
    }
    text += "\nbecause\n";
    for line in &answer.because {
        let _ = writeln!(text, "  {line}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_model::Pod;
    use weft_model::service::{Endpoint, EndpointPort, EndpointSlice};

    fn cluster() -> Cluster {
        let node = |name: &str, address: &str, cidr: &str| {
            let addresses = vec![address.parse().unwrap()];
            let node = Node {
                name: name.into(),
                addresses,
                pod_cidrs: vec![cidr.parse().unwrap()],
                ..Node::default()
            };
            (node.name.clone(), Arc::new(node))
        };
        let pod = |name: &str, node: &str, ip: &str| {
            let (namespace, name) = ("shop".into(), name.into());
            let ips = vec![ip.parse().unwrap()];
            let pod = Pod { namespace, name, node: Some(node.into()), ips, ..Pod::default() };
            (pod.key(), Arc::new(pod))
        };
        let service = Service {
            namespace: "shop".into(),
            name: "web".into(),
            cluster_ips: vec!["10.96.0.7".parse().unwrap()],
            external_local: true,
            ports: vec![ServicePort {
                name: "http".into(),
                port: 80,
                node_port: Some(30080),
                ..ServicePort::default()
            }],
            ..Service::default()
        };
        let endpoint = |ip: &str, node: &str| Endpoint {
            address: ip.parse().unwrap(),
            ready: true,
            serving: true,
            terminating: false,
            node: Some(node.into()),
            hints: None,
        };
        let slice = EndpointSlice {
            namespace: "shop".into(),
            name: "web-x".into(),
            service: "web".into(),
            ports: vec![EndpointPort { name: "http".into(), port: 8080, ..EndpointPort::default() }],
            endpoints: vec![endpoint("10.244.0.5", "a")],
        };
        Cluster {
            nodes: [node("a", "10.168.0.2", "10.244.0.0/24"), node("b", "10.168.0.3", "10.244.1.0/24")]
                .into_iter()
                .collect(),
            pods: [pod("web-0", "a", "10.244.0.5"), pod("cart-0", "b", "10.244.1.5")].into_iter().collect(),
            services: [(service.key(), Arc::new(service))].into_iter().collect(),
            slices: [(slice.key(), Arc::new(slice))].into_iter().collect(),
            ..Cluster::default()
        }
    }

    #[test]
    fn who_asks_is_told_where_it_goes_and_which_objects_say_so() {
        let cluster = cluster();
        let ask = |from, to, node_port| answer(&cluster, from, to, node_port);
        let found = ask("shop/cart-0", "svc/shop/web:http", None).unwrap();
        assert_eq!((found.verdict, &*found.node, &*found.to), ("led", "b", "10.96.0.7:80 TCP"));
        let [way] = &found.ways[..] else { panic!("{:?}", found.rules) };
        assert_eq!((way.to.to_string().as_str(), way.masqueraded), ("10.244.0.5:8080", false));
        assert_eq!((way.pod.as_deref(), way.slice.as_deref()), (Some("shop/web-0"), Some("shop/web-x")));
        assert!(text(&found).contains("Service shop/web: cluster IP, internalTrafficPolicy Cluster"));
        // Itself, and a node: from an address of the node.
        for from in ["shop/web-0", "node/b"] {
            assert!(ask(from, "svc/shop/web", None).unwrap().ways[0].masqueraded, "{from}");
        }
        // From outside only endpoints of the node that is asked count.
        for (node, verdict) in [("a", "led"), ("b", "dropped")] {
            let found = ask("192.0.2.9", "svc/shop/web", Some(node)).unwrap();
            assert_eq!((found.verdict, &*found.node), (verdict, node));
            assert!(found.because[0].contains("externalTrafficPolicy Local"), "{:?}", found.because);
        }
        for (from, to, word) in [
            ("nobody", "svc/shop/web", "there is no pod default/nobody"),
            ("shop/cart-0", "svc/shop/web:81", "no port 81"),
            ("shop/cart-0", "shop/web-0", "is no Service"),
            ("fd00::9", "svc/shop/web", "no family in common"),
        ] {
            let error = ask(from, to, None).err().unwrap().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
