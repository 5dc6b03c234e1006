use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{NodeStatus, PodStatus, ServiceStatus, Status};

/// Causes that are listed.
const CAUSES: usize = 20;
/// Objects that are named for one cause.
const OBJECTS: usize = 4;

/// The status as a text; `wide` has more columns.
pub fn render(status: &Status, wide: bool, colour: bool) -> String {
    let mut text = String::new();
    let racks = status.nodes.iter().any(|node| node.rack > 0);
    text += &table(&node_rows(&status.nodes, racks, wide));
    if !status.pods.is_empty() {
        text += "\n";
        text += &table(&pod_rows(&status.pods, wide));
    }
    if !status.services.is_empty() {
        text += "\n";
        text += &table(&service_rows(&status.services));
    }
    text += "\n";
    text += &stored(status);
    if status.not_ready.is_empty() {
        let _ = writeln!(text, "{}", paint("Everything is ready.", "32", colour));
    } else {
        let _ = writeln!(text, "{}", paint("Not ready:", "31", colour));
        text += &not_ready(status);
    }
    text
}

/// What is not ready, each cause once with some of the objects that it holds up.
pub fn not_ready(status: &Status) -> String {
    let mut causes: Vec<(&str, Vec<&str>)> = Vec::new();
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    for entry in &status.not_ready {
        let place = *places.entry(&entry.why).or_insert_with(|| {
            causes.push((&entry.why, Vec::new()));
            causes.len() - 1
        });
        if let Some((_, objects)) = causes.get_mut(place) {
            objects.push(&entry.object);
        }
    }
    let mut text = String::new();
    for (why, objects) in causes.iter().take(CAUSES) {
        let shown = objects.iter().take(OBJECTS).copied().collect::<Vec<_>>().join(", ");
        let more = match objects.len().saturating_sub(OBJECTS) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let _ = writeln!(text, "  {shown}{more}: {why}");
    }
    if causes.len() > CAUSES {
        let _ = writeln!(text, "  … and {} more causes: -o json has all", causes.len() - CAUSES);
    }
    text
}

/// What is left to wait for, in a line.
pub fn summary(status: &Status) -> String {
    let ready = |count: usize, of: usize, what: &str| format!("{count} of {of} {what} ready");
    let nodes = status.nodes.iter().filter(|node| node.ready).count();
    let pods = status.pods.iter().filter(|pod| pod.ready).count();
    let mut text =
        format!("{}, {}", ready(nodes, status.nodes.len(), "nodes"), ready(pods, status.pods.len(), "pods"));
    if let Some(first) = status.not_ready.first() {
        let _ = write!(text, "; {}: {}", first.object, first.why);
    }
    text
}

fn paint(text: &str, code: &str, colour: bool) -> String {
    if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// `Stored, not acting yet: Service 12, NetworkPolicy 3`.
pub(super) fn stored(status: &Status) -> String {
    let counts = |kinds: &BTreeMap<String, usize>| {
        kinds.iter().map(|(kind, count)| format!("{kind} {count}")).collect::<Vec<_>>().join(", ")
    };
    let mut text = String::new();
    if !status.not_acting_yet.is_empty() {
        let _ = writeln!(text, "Stored, not acting yet: {}", counts(&status.not_acting_yet));
    }
    if !status.stored.is_empty() {
        let _ = writeln!(text, "Stored as data: {}", counts(&status.stored));
    }
    text
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".into() } else { text.into() }
}

fn node_rows(nodes: &[NodeStatus], racks: bool, wide: bool) -> Vec<Vec<String>> {
    let mut head = vec!["NODE", "ADDRESS", "POD CIDR", "READY", "AGENT", "PEERS"];
    if racks {
        head.insert(1, "RACK");
    }
    if wide {
        head.extend(["REPAIRS", "ERRORS"]);
    }
    let row = |node: &NodeStatus| {
        let mut row = vec![
            node.name.clone(),
            or_dash(&node.addresses.join(",")),
            or_dash(&node.pod_cidrs.join(",")),
            yes(node.ready),
            node.agent.clone(),
            format!("{}/{}", node.peers, node.peers + node.refused.len()),
        ];
        if racks {
            row.insert(1, node.rack.to_string());
        }
        if wide {
            row.extend([node.repairs.to_string(), or_dash(&node.errors.join("; "))]);
        }
        row
    };
    rows(&head, nodes.iter().map(row))
}

fn pod_rows(pods: &[PodStatus], wide: bool) -> Vec<Vec<String>> {
    let mut head = vec!["NAMESPACE", "POD", "NODE", "IP", "PHASE", "READY"];
    if wide {
        head.extend(["PORTS", "NETWORK", "WHY NOT"]);
    }
    let row = |pod: &PodStatus| {
        let mut row = vec![
            pod.namespace.clone(),
            pod.name.clone(),
            or_dash(&pod.node),
            or_dash(&pod.ips.join(",")),
            pod.phase.clone(),
            yes(pod.ready),
        ];
        if wide {
            let network = if pod.host_network { "node's" } else { "own" };
            let why = pod.why.clone().unwrap_or_default();
            row.extend([or_dash(&pod.ports.join(",")), network.into(), or_dash(&why)]);
        }
        row
    };
    rows(&head, pods.iter().map(row))
}

fn service_rows(services: &[ServiceStatus]) -> Vec<Vec<String>> {
    let row = |service: &ServiceStatus| {
        vec![
            service.namespace.clone(),
            service.name.clone(),
            service.kind.clone(),
            or_dash(&service.cluster_ip),
            or_dash(&service.ports.join(",")),
        ]
    };
    rows(&["NAMESPACE", "SERVICE", "TYPE", "CLUSTER IP", "PORTS"], services.iter().map(row))
}

fn yes(is: bool) -> String {
    if is { "yes" } else { "no" }.into()
}

fn rows(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Vec<Vec<String>> {
    let head = head.iter().map(|cell| (*cell).to_owned()).collect();
    std::iter::once(head).chain(rows).collect()
}

/// Columns as wide as their widest cell.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
    }
    text
}
