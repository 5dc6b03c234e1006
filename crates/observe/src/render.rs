//! A trace as text that reads like an explanation.

use std::fmt::Write;
use std::net::IpAddr;

use crate::report::{Decision, Direction, Hop, Lost, Outcome, Protocol, Trace};

const BOLD: &str = "\x1b[1m";
const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const DIM: &str = "\x1b[2m";
const RESET: &str = "\x1b[0m";

/// The text, for a terminal when `colour` is set.
pub fn render(trace: &Trace, colour: bool) -> String {
    let paint = Paint(colour);
    let mut out = String::new();
    let what = match trace.proto {
        Protocol::Icmp => "an ICMP echo request".into(),
        Protocol::Tcp => format!("a TCP connection request to port {}", trace.port),
        Protocol::Udp => format!("a UDP datagram to port {}", trace.port),
    };
    let to = trace.to.as_ref().map_or_else(String::new, |to| format!(" ({to})"));
    line(&mut out, &paint.on(BOLD, &format!("{what} from {} to {}{to}", trace.from, trace.dst)));
    part(&mut out, "the probe's way", &trace.forward, &paint);
    part(&mut out, "the answer's way", &trace.reply, &paint);
    line(&mut out, "");
    outcome(&mut out, trace, &paint);
    if trace.frames_missed > 0 {
        line(
            &mut out,
            &format!("note: {} frames were missed while watching; a hop may be missing", trace.frames_missed),
        );
    }
    out
}

struct Paint(bool);

impl Paint {
    fn on(&self, code: &str, text: &str) -> String {
        if self.0 { format!("{code}{text}{RESET}") } else { text.into() }
    }
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

fn part(out: &mut String, title: &str, hops: &[Hop], paint: &Paint) {
    if hops.is_empty() {
        return;
    }
    line(out, "");
    line(out, &paint.on(BOLD, title));
    let mut place = "";
    for hop in hops {
        if hop.place != place {
            line(out, &format!("  {}", paint.on(BOLD, &hop.place)));
            place = &hop.place;
        }
        let arrow = if hop.direction == Direction::In { "in by" } else { "out by" };
        let mut text = format!(
            "{:>9} µs  {arrow:<6} {:<14} {} → {} ttl {}",
            hop.us, hop.device, hop.src, hop.dst, hop.ttl
        );
        if let Some(outer) = &hop.outer {
            let _ = write!(text, "  [in vxlan {}: {} → {}]", outer.vni, outer.src, outer.dst);
        }
        line(out, &format!("  {text}"));
        for sentence in sentences(hop) {
            line(out, &format!("                   {}", paint.on(DIM, &sentence)));
        }
    }
}

fn sentences(hop: &Hop) -> Vec<String> {
    let mut out: Vec<String> = device(hop).into_iter().collect();
    for nat in &hop.nat {
        out.push(format!("NAT: the {} was changed from {} to {}", nat.side, nat.from, nat.to));
    }
    if !hop.flooded.is_empty() {
        out.push(format!(
            "flooded: the bridge did not know the address and copied it to {} too",
            hop.flooded.join(", ")
        ));
    }
    if hop.ignored {
        out.push("the frame is for another hardware address: ignored here".into());
    }
    out.extend(hop.decisions.iter().map(decision));
    out
}

/// One plain sentence for what the device does.
fn device(hop: &Hop) -> Option<String> {
    let out = hop.direction == Direction::Out;
    match hop.device_kind.as_str() {
        "veth" => Some(match (&hop.peer, out, &hop.bridge) {
            (Some(peer), true, _) => {
                format!("a veth pair is a cable between two namespaces: the other end is {peer}")
            }
            (Some(peer), false, Some(bridge)) => {
                format!("the other end of the cable from {peer}; it is a port of bridge {bridge}")
            }
            (Some(peer), false, None) => format!("the other end of the cable from {peer}"),
            (None, true, _) => {
                "a veth pair is a cable; its other end is in a namespace that is not watched".into()
            }
            (None, false, Some(bridge)) => format!("a port of bridge {bridge}"),
            (None, false, None) => return None,
        }),
        "bridge" if out => Some("a bridge is a switch: this namespace sends into it".into()),
        "bridge" => {
            Some("a bridge is a switch: it hands the packet up to this namespace, which routes it".into())
        }
        "vxlan" if out => {
            Some("a VXLAN device wraps the whole frame in a UDP datagram to another node".into())
        }
        "vxlan" => Some("the VXLAN device took the UDP wrapping off".into()),
        "loopback" => Some("the loopback device: the packet stays in this namespace".into()),
        _ => None,
    }
}

fn decision(decision: &Decision) -> String {
    match decision {
        Decision::Local { address } => format!("{address} is an address of this namespace: delivered here"),
        Decision::Route { to, via, device, .. } => match via {
            Some(via) => format!("route {to} via {via} dev {device}"),
            None => format!("route {to} dev {device}: the destination is on that link"),
        },
        Decision::NoRoute { to, error } => format!("no route to {to}: {error}"),
        Decision::Bridge { bridge, mac, port } => match port {
            Some(port) if port == bridge => {
                format!("{mac} is the bridge's own address: the packet is for this namespace")
            }
            Some(port) => format!("the bridge has {mac} on port {port}"),
            None => format!("the bridge has no entry for {mac}: it copies the frame to all ports"),
        },
        Decision::Neighbour { address, mac, state, device } => match mac {
            Some(mac) => format!("next hop {address} has hardware address {mac} ({state})"),
            None => format!("next hop {address} has no hardware address on {device} ({state})"),
        },
        Decision::Tunnel { device, mac, remote } => match remote {
            Some(remote) => format!("{device} has {mac} behind the node {remote}"),
            None => format!("{device} has no entry for {mac}: it does not know which node that is"),
        },
    }
}

fn outcome(out: &mut String, trace: &Trace, paint: &Paint) {
    match &trace.outcome {
        Outcome::Answered { us } => {
            line(out, &paint.on(GREEN, &format!("arrived, and the answer came back after {us} µs")));
            let source = trace.forward.last().map(|h| h.src.as_str());
            let kept = trace.forward.first().map(|h| h.src.as_str()) == source;
            if kept {
                line(out, "the source address was the same all the way: no NAT");
            }
        }
        Outcome::Refused { by, said } => line(out, &paint.on(RED, &refused(*by, said))),
        Outcome::Unanswered => {
            line(out, &paint.on(RED, "arrived, but nothing answered within the time"));
        }
        Outcome::Lost(lost) => vanished(out, lost, paint),
    }
}

fn refused(by: IpAddr, said: &str) -> String {
    format!("refused: {by} answered: {said}")
}

fn vanished(out: &mut String, lost: &Lost, paint: &Paint) {
    let what = if lost.reply { "the answer" } else { "the probe" };
    let text = match &lost.last {
        None => format!("{what} never left its namespace"),
        Some(last) => {
            let verb = if last.direction == Direction::Out { "leaving" } else { "entering" };
            let never = lost.next.as_ref().map_or_else(String::new, |next| format!(", never seen at {next}"));
            format!(
                "{what} vanished: last seen {verb} {} by {} at {} µs{never}",
                last.place, last.device, last.us
            )
        }
    };
    line(out, &paint.on(RED, &text));
    for finding in &lost.findings {
        let guess = if finding.guess { "a guess: " } else { "" };
        line(out, &format!("  {guess}at {}: {}", finding.place, finding.text));
    }
}
