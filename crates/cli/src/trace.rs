//! `weft trace`.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use weft_lab::enter::{Entered, enter};
use weft_lab::exec::Target;
use weft_lab::places::{Place, PlaceKind};
use weft_lab::state::LabState;
use weft_observe::{Outcome, Probe, Protocol};

use crate::args::{Output, TraceArgs};
use crate::{daemons, exit, output};

/// How long to wait for the answer.
const PATIENCE: Duration = Duration::from_secs(2);

pub(crate) fn run(options: &TraceArgs) -> anyhow::Result<u8> {
    let state = LabState::open(&options.lab.name)?;
    let places = match enter(&state)? {
        Entered::Outside(code) => return Ok(code),
        Entered::Inside(places) => places,
    };
    let door = match options.to.strip_prefix("svc/") {
        Some(service) => Some(door(service, &state)?),
        None => None,
    };
    let probe = probe(options, door.as_ref(), &places)?;
    let watched: anyhow::Result<Vec<weft_observe::Place>> = places.iter().map(watched).collect();
    let trace = weft_observe::trace(&watched?, &probe)?;
    match options.output {
        Output::Json => output::line(&serde_json::to_string_pretty(&trace)?),
        Output::Text => {
            if let Some(door) = &door {
                output::line(&door.text());
            }
            output::print(&weft_observe::render(&trace, output::colour(&std::io::stdout())));
        }
    }
    Ok(if matches!(trace.outcome, Outcome::Answered { .. }) { exit::DONE } else { exit::FALSE })
}

/// A Service's port, as it is traced.
struct Door {
    service: String,
    ips: Vec<IpAddr>,
    port: u16,
    proto: Protocol,
}

impl Door {
    fn text(&self) -> String {
        let ips: Vec<String> = self.ips.iter().map(IpAddr::to_string).collect();
        let (service, ips, port) = (&self.service, ips.join(" and "), self.port);
        format!("svc/{service} is port {port} of {ips}; weft service show {service} says where that leads\n")
    }
}

/// The port that `[NAMESPACE/]NAME[:PORT]` names, by number or name; the first where none is named.
fn door(text: &str, state: &LabState) -> anyhow::Result<Door> {
    let (name, port) = text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port)));
    let name = name.parse::<Target>()?.to_string();
    let (namespace, service) = name.split_once('/').context("a Service is named NAMESPACE/NAME")?;
    let path = format!("/api/v1/namespaces/{namespace}/services/{service}");
    let object = daemons::runtime()?.block_on(async {
        let api = crate::lab::client(&state.kubeconfig_inside()).await?;
        anyhow::Ok(api.get(&path).await?)
    })?;
    door_of(&name, &object, port)
}

fn door_of(name: &str, object: &serde_json::Value, port: Option<&str>) -> anyhow::Result<Door> {
    let service = weft_store::decode_service(&object.to_string()).map_err(anyhow::Error::msg)?;
    if service.headless() {
        bail!("Service {name} has no cluster IP: trace one of its pods");
    }
    let named = |p: &&weft_model::service::ServicePort| {
        port.is_none_or(|port| *p.name == *port || p.port.to_string() == port)
    };
    let Some(found) = service.ports.iter().find(named) else {
        bail!("Service {name} has no port {}", port.unwrap_or("at all"));
    };
    let proto = match found.protocol {
        weft_model::service::Protocol::Tcp => Protocol::Tcp,
        weft_model::service::Protocol::Udp => Protocol::Udp,
        weft_model::service::Protocol::Sctp => {
            bail!("port {} of {name} is SCTP: only TCP and UDP are traced", found.port)
        }
    };
    Ok(Door { service: name.to_owned(), ips: service.cluster_ips, port: found.port, proto })
}

fn watched(place: &Place) -> anyhow::Result<weft_observe::Place> {
    let name = match place.kind {
        PlaceKind::Underlay => place.name.clone(),
        PlaceKind::Node => place.name.replacen("node/", "node ", 1),
        PlaceKind::Pod | PlaceKind::HostPod => format!("pod {}", place.name),
    };
    let netns = place.open().with_context(|| format!("cannot enter {name}"))?;
    Ok(weft_observe::Place { name, netns })
}

fn probe(options: &TraceArgs, door: Option<&Door>, places: &[Place]) -> anyhow::Result<Probe> {
    let (from, src) = find(&options.from, places)?;
    let Some(from) = from else {
        bail!("{} is no address of a pod or node here: a probe is sent from a pod or a node", options.from);
    };
    if let Some(door) = door {
        let family = src.or_else(|| places[from].ips.first().copied());
        let same = |ip: &&IpAddr| family.is_none_or(|family| family.is_ipv4() == ip.is_ipv4());
        let dst = door.ips.iter().find(same).or(door.ips.first()).copied();
        let dst = dst.with_context(|| format!("Service {} has no cluster IP", door.service))?;
        return Ok(Probe { from, src, dst, to: None, proto: door.proto, port: door.port, timeout: PATIENCE });
    }
    let (to, dst) = find(&options.to, places)?;
    let family = src.or_else(|| places[from].ips.first().copied());
    let dst = match (dst, to) {
        (Some(dst), _) => dst,
        (None, Some(to)) => address_like(&places[to], family)?,
        (None, None) => bail!("{} has no address", options.to),
    };
    let port = options.port.unwrap_or(if options.proto == Protocol::Udp { 53 } else { 80 });
    let port = if options.proto == Protocol::Icmp { 0 } else { port };
    Ok(Probe { from, src, dst, to, proto: options.proto, port, timeout: PATIENCE })
}

/// The place a name or address stands for, and the address when one was given.
fn find(text: &str, places: &[Place]) -> anyhow::Result<(Option<usize>, Option<IpAddr>)> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        // A pod of the host network has its node's address: the node stands for it.
        let at = places.iter().position(|place| place.kind != PlaceKind::HostPod && place.ips.contains(&ip));
        return Ok((at, Some(ip)));
    }
    let name = text.parse::<Target>()?.to_string();
    match places.iter().position(|place| place.name == name) {
        Some(at) => Ok((Some(at), None)),
        None => bail!("{name} is not in this lab, or has no network yet: weft lab status shows what is"),
    }
}

fn address_like(place: &Place, family: Option<IpAddr>) -> anyhow::Result<IpAddr> {
    let same = |ip: &&IpAddr| family.is_none_or(|family| family.is_ipv4() == ip.is_ipv4());
    let found = place.ips.iter().find(same).or(place.ips.first()).copied();
    found.with_context(|| format!("{} has no address yet", place.name))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    fn place(name: &str, kind: PlaceKind, ips: &[&str]) -> Place {
        let ips = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        Place { name: name.into(), kind, node: None, ips, uid: None, netns: "/none".into() }
    }

    fn asked(line: &str) -> anyhow::Result<Probe> {
        let places = [
            place("node/node1", PlaceKind::Node, &["10.168.0.2"]),
            place("default/web", PlaceKind::Pod, &["10.244.0.2", "fd00::2"]),
            place("shop/db-0", PlaceKind::Pod, &["fd00::9", "10.244.1.9"]),
            place("kube/host", PlaceKind::HostPod, &["10.168.0.2"]),
        ];
        let Command::Trace(options) = Cli::parse_from(line.split(' ')).command else { panic!("{line}") };
        probe(&options, None, &places)
    }

    #[test]
    fn a_service_is_traced_by_its_cluster_ip() {
        let object = serde_json::json!({"metadata": {"namespace": "shop", "name": "web"}, "spec": {
            "clusterIPs": ["10.96.0.7", "fd00:10:96::7"],
            "ports": [{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]}});
        let at = |port| door_of("shop/web", &object, port).map(|door| (door.proto, door.port));
        assert_eq!(at(None).unwrap(), (Protocol::Tcp, 80));
        assert_eq!(at(Some("dns")).unwrap(), (Protocol::Udp, 53));
        assert_eq!(at(Some("53")).unwrap(), (Protocol::Udp, 53));
        assert!(at(Some("81")).unwrap_err().to_string().contains("no port 81"));
        let places = [place("default/web", PlaceKind::Pod, &["fd00::2", "10.244.0.2"])];
        let Command::Trace(options) = Cli::parse_from(["weft", "trace", "web", "svc/shop/web"]).command
        else {
            panic!()
        };
        let door = door_of("shop/web", &object, Some("dns")).unwrap();
        let probe = probe(&options, Some(&door), &places).unwrap();
        assert_eq!((probe.dst, probe.port), ("fd00:10:96::7".parse().unwrap(), 53), "of the source's family");
    }

    #[test]
    fn names_and_addresses_are_found_and_families_match() {
        let probe = asked("weft trace web shop/db-0").unwrap();
        assert_eq!((probe.from, probe.to, probe.src), (1, Some(2), None));
        assert_eq!(probe.dst, "10.244.1.9".parse::<IpAddr>().unwrap());
        let probe = asked("weft trace 10.168.0.2 192.0.2.9 --proto udp").unwrap();
        assert_eq!((probe.from, probe.to, probe.port), (0, None, 53));
        assert!(asked("weft trace 192.0.2.9 web").is_err());
        assert!(asked("weft trace nobody web").unwrap_err().to_string().contains("default/nobody"));
    }
}
