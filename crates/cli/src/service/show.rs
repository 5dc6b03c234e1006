//! `weft service show`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;

use anyhow::bail;
use serde::{Deserialize, Serialize};
use weft_model::service::{Service, ServiceKey};
use weft_model::{Cluster, PodPhase};
use weft_service::{Choice, Frontend, FrontendKey, Policy, ServicePlan};

use super::{ShowArgs, planned};
use crate::args::StatusOutput;
use crate::{exit, output};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    service: String,
    #[serde(rename = "type")]
    kind: String,
    /// As which node serves it.
    node: String,
    affinity_seconds: Option<u32>,
    /// Where its addresses are announced, as this host's agent knows it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    announced: Vec<Announced>,
    frontends: Vec<ShownFrontend>,
    problems: Vec<String>,
}

#[derive(Serialize)]
struct Announced {
    address: IpAddr,
    #[serde(flatten)]
    place: Announcement,
}

/// An address in the agent's `announce.json`.
#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct Announcement {
    owner: Option<String>,
    since: Option<String>,
    why: Option<String>,
    /// Who else claims it.
    #[serde(skip_deserializing, skip_serializing_if = "Vec::is_empty")]
    conflicts: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ShownFrontend {
    /// Address, port and protocol.
    frontend: String,
    kind: String,
    port_name: String,
    /// Who may connect; absent where everybody may.
    #[serde(skip_serializing_if = "Option::is_none")]
    sources: Option<Vec<String>>,
    ways: Vec<Way>,
}

/// Where some clients are led.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Way {
    /// Which clients.
    clients: &'static str,
    /// What becomes of their source address.
    source: &'static str,
    /// `endpoints`, `refused` or `dropped`.
    outcome: &'static str,
    endpoints: Vec<ShownEndpoint>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ShownEndpoint {
    address: String,
    /// `namespace/name`, where a pod has the address.
    pod: Option<String>,
    node: Option<String>,
    /// Of how many new connections it gets one.
    one_of: usize,
}

pub(super) async fn run(options: &ShowArgs) -> anyhow::Result<u8> {
    let (cluster, planner) = planned(&options.cluster, &options.view).await?;
    let (namespace, name) = options.service.split_once('/').unwrap_or(("default", &options.service));
    let key = ServiceKey::new(namespace, name);
    let Some(service) = cluster.services.get(&key) else {
        bail!("there is no Service {key}: weft service list shows all");
    };
    let announced = announced(service, &options.state_dir);
    let shown = Shown { announced, ..shown(service, &cluster, planner.plan(), &planner.config().node) };
    match options.view.output {
        StatusOutput::Json => output::line(&serde_json::to_string_pretty(&shown)?),
        StatusOutput::Yaml => output::print(&serde_saphyr::to_string(&shown)?),
        StatusOutput::Text | StatusOutput::Wide => output::print(&text(&shown, service)),
    }
    Ok(exit::DONE)
}

fn shown(service: &Service, cluster: &Cluster, plan: &ServicePlan, node: &str) -> Shown {
    let key = service.key();
    let own = plan.frontends.iter().filter(|(_, frontend)| frontend.service == key);
    Shown {
        service: key.to_string(),
        kind: service.kind.to_string(),
        node: node.to_owned(),
        affinity_seconds: service.affinity,
        announced: Vec::new(),
        frontends: own.map(|(at, frontend)| shown_frontend(at, frontend, cluster)).collect(),
        problems: plan.refused.get(&key).into_iter().flatten().map(ToString::to_string).collect(),
    }
}

/// Nothing where no agent of this host says it.
fn announced(service: &Service, state_dir: &Path) -> Vec<Announced> {
    #[derive(Deserialize)]
    struct File {
        addresses: BTreeMap<IpAddr, Announcement>,
        #[serde(default)]
        conflicts: BTreeMap<IpAddr, Vec<String>>,
    }
    let text = std::fs::read(state_dir.join("announce.json")).ok();
    let file: Option<File> = text.and_then(|text| serde_json::from_slice(&text).ok());
    let Some(mut file) = file else { return Vec::new() };
    let own = service.load_balancer_ips.iter();
    own.filter_map(|ip| {
        let conflicts = file.conflicts.remove(ip).unwrap_or_default();
        let place = Announcement { conflicts, ..file.addresses.remove(ip)? };
        Some(Announced { address: *ip, place })
    })
    .collect()
}

fn shown_frontend(at: &FrontendKey, frontend: &Frontend, cluster: &Cluster) -> ShownFrontend {
    let way = |clients, source, choice: &Choice| Way {
        clients,
        source,
        outcome: match choice {
            Choice::Backends(_) => "endpoints",
            Choice::Reject => "refused",
            Choice::Drop => "dropped",
        },
        endpoints: endpoints(choice, cluster),
    };
    const KEPT: &str = "kept";
    const NODE: &str = "this node's";
    let ways = match frontend.policy {
        Policy::Internal => {
            vec![way("pods", KEPT, &frontend.all), way("others", NODE, &frontend.all)]
        }
        Policy::Cluster => vec![way("all", NODE, &frontend.all)],
        Policy::Local => vec![
            way("pods", KEPT, &frontend.all),
            way("this node", NODE, &frontend.all),
            way("from outside", KEPT, &frontend.local),
        ],
    };
    let sources = frontend.sources.as_ref();
    ShownFrontend {
        frontend: at.to_string(),
        kind: frontend.kind.to_string(),
        port_name: frontend.port_name.to_string(),
        sources: sources.map(|nets| nets.iter().map(ToString::to_string).collect()),
        ways,
    }
}

fn endpoints(choice: &Choice, cluster: &Cluster) -> Vec<ShownEndpoint> {
    let backends = choice.backends();
    let of = |ip: IpAddr| {
        let lives = |phase| !matches!(phase, PodPhase::Succeeded | PodPhase::Failed);
        cluster.pods.values().find(|pod| lives(pod.phase) && !pod.host_network && pod.ips.contains(&ip))
    };
    let endpoint = |backend: &weft_service::Backend| {
        let pod = of(backend.address.ip());
        ShownEndpoint {
            address: backend.address.to_string(),
            pod: pod.map(|pod| pod.key().to_string()),
            node: pod.and_then(|pod| pod.node.as_ref()).map(ToString::to_string),
            one_of: backends.len(),
        }
    };
    backends.iter().map(endpoint).collect()
}

fn text(shown: &Shown, service: &Service) -> String {
    let mut text = format!("Service {} ({}), as {} serves it\n", shown.service, shown.kind, shown.node);
    if let Some(proxy) = &service.proxy {
        let _ = writeln!(text, "  not served here: its label hands it to the proxy {proxy}");
    } else if service.headless() {
        text += "  not served here: it has no address of its own, DNS gives its endpoints\n";
    }
    if let Some(seconds) = shown.affinity_seconds {
        let _ = writeln!(text, "  a client stays with its endpoint for {seconds} s");
    }
    for Announced { address, place } in &shown.announced {
        let Announcement { owner, since, why, conflicts } = place;
        let _ = match (owner, since, why) {
            (Some(node), Some(since), Some(why)) => {
                writeln!(text, "  {address} is announced by {node}, since {since}: {why}")
            }
            _ => writeln!(text, "  {address} is announced by nobody"),
        };
        for conflict in conflicts {
            let _ = writeln!(text, "    {conflict}");
        }
    }
    for frontend in &shown.frontends {
        let name = match &*frontend.port_name {
            "" => String::new(),
            name => format!(", port {}", name.escape_debug()),
        };
        let _ = writeln!(text, "\n  {}  {}{name}", frontend.frontend, frontend.kind);
        if let Some(sources) = &frontend.sources {
            let _ = writeln!(text, "    others than {} are dropped", sources.join(", "));
        }
        let mut told: Option<&Vec<ShownEndpoint>> = None;
        for way in &frontend.ways {
            let address = match way.source {
                "kept" => "with their own address",
                _ => "with an address of this node",
            };
            let _ = match way.outcome {
                "endpoints" => writeln!(text, "    {}: {address}, to", way.clients),
                outcome => writeln!(text, "    {}: {outcome}", way.clients),
            };
            let same = told.is_some_and(|told| {
                told.iter().map(|e| &e.address).eq(way.endpoints.iter().map(|e| &e.address))
            });
            if same && !way.endpoints.is_empty() {
                text += "      the same\n";
                continue;
            }
            told = Some(&way.endpoints);
            for endpoint in &way.endpoints {
                let whose = match (&endpoint.pod, &endpoint.node) {
                    (Some(pod), Some(node)) => format!("  pod {pod} on {node}"),
                    (Some(pod), None) => format!("  pod {pod}"),
                    _ => String::new(),
                };
                let _ = writeln!(text, "      1/{} {}{whose}", endpoint.one_of, endpoint.address);
            }
        }
    }
    for problem in &shown.problems {
        let _ = writeln!(text, "\n  not done: {problem}");
    }
    text
}
