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
use crate::{exit, output};

/// How long to wait for the answer.
const PATIENCE: Duration = Duration::from_secs(2);

pub(crate) fn run(options: &TraceArgs) -> anyhow::Result<u8> {
    let state = LabState::open(&options.lab.name)?;
    let places = match enter(&state)? {
        Entered::Outside(code) => return Ok(code),
        Entered::Inside(places) => places,
    };
    let probe = probe(options, &places)?;
    let watched: anyhow::Result<Vec<weft_observe::Place>> = places.iter().map(watched).collect();
    let trace = weft_observe::trace(&watched?, &probe)?;
    match options.output {
        Output::Json => output::line(&serde_json::to_string_pretty(&trace)?),
        Output::Text => output::print(&weft_observe::render(&trace, output::colour(&std::io::stdout()))),
    }
    Ok(if matches!(trace.outcome, Outcome::Answered { .. }) { exit::DONE } else { exit::FALSE })
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

fn probe(options: &TraceArgs, places: &[Place]) -> anyhow::Result<Probe> {
    let (from, src) = find(&options.from, places)?;
    let Some(from) = from else {
        bail!("{} is no address of a pod or node here: a probe is sent from a pod or a node", options.from);
    };
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
        probe(&options, &places)
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
