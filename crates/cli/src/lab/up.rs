use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use weft_lab::config::LabConfig;
use weft_lab::manifest::{self, Manifest};
use weft_lab::status::{Status, collect, not_ready};
use weft_lab::{Progress, down, launch};
use weft_model::network::Ipam;

use super::{Running, apply, pools, status};
use crate::args::UpArgs;
use crate::{daemons, exit, output};

/// How long pods may take to be ready: this, and more for many.
const PATIENCE: Duration = Duration::from_secs(60);
const PATIENCE_EACH: Duration = Duration::from_millis(200);

pub(super) fn run(options: &UpArgs) -> anyhow::Result<u8> {
    let started = Instant::now();
    // Bad manifests are refused before anything is made.
    let manifests = if options.filename.is_empty() { Vec::new() } else { manifest::read(&options.filename)? };
    let kubeconfig = options.kubeconfig.as_deref().map(absolute).transpose()?;
    let config = LabConfig {
        name: options.lab.name.clone(),
        nodes: options.nodes,
        topology: options.topology,
        backend: options.backend,
        ipam: options.ipam,
        proxy: options.proxy.to_string(),
        pod_cidrs: options.pod_cidr.clone(),
        kubeconfig,
        underlay_mtu: options.underlay_mtu,
        hop_mtu: options.hop_mtu,
        ..LabConfig::default()
    };
    let state = launch::up(&config, &mut tell)?;
    let lab = Running { state, config };
    let done = daemons::runtime()?.block_on(fill(&lab, &manifests));
    let (code, status) = done.inspect_err(|_| {
        // The error that is told is the first one.
        let _ = down::down(&lab.config.name);
    })?;
    output::print(&farewell(&lab, &status, started.elapsed()));
    Ok(code)
}

/// The kubeconfig's own place, which the lab's processes read too.
fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    path.canonicalize().with_context(|| format!("cannot use the kubeconfig {}", path.display()))
}

fn tell(progress: &Progress) {
    output::note(&format!("{:<11} {}", progress.stage, progress.text));
}

/// Applies the manifests and waits until all is ready.
async fn fill(lab: &Running, manifests: &[Manifest]) -> anyhow::Result<(u8, Status)> {
    let api = lab.api().await?;
    let mut code = exit::DONE;
    if lab.config.ipam == Ipam::Pools && !manifests.iter().any(|manifest| manifest.kind() == "IPPool") {
        pools::make(&api, &lab.config.pod_cidrs).await?;
    }
    if !manifests.is_empty() {
        let report = apply::write(&api, manifests, false).await;
        code = apply::code(&report);
        let written = report.objects.len() - report.failed();
        output::note(&format!("{:<11} {written} of {} objects", "manifests", report.objects.len()));
    }
    let patience = PATIENCE + PATIENCE_EACH * u32::from(lab.config.nodes);
    let waited = status::wait(lab, &api, patience).await?;
    if !waited.ready && code == exit::DONE {
        code = exit::FALSE;
    }
    Ok((code, collect(&api, &lab.config, lab.state.dir(), true).await?))
}

/// What there is now, and what to try.
fn farewell(lab: &Running, status: &Status, took: Duration) -> String {
    let config = &lab.config;
    let pods = status.pods.iter().filter(|pod| pod.ready).count();
    let mut text = format!(
        "\nLab {}: {} nodes ({}, {}), {pods} of {} pods ready, {:.1} s\n",
        config.name,
        config.nodes,
        config.topology,
        config.backend,
        status.pods.len(),
        took.as_secs_f64()
    );
    if !status.not_acting_yet.is_empty() {
        let kinds: Vec<String> =
            status.not_acting_yet.iter().map(|(kind, n)| format!("{kind} {n}")).collect();
        text += &format!("Stored, not acting yet: {}\n", kinds.join(", "));
    }
    if !status.ready {
        text += &format!("Not ready:\n{}", not_ready(status));
    }
    text + &advice(config, status)
}

fn advice(config: &LabConfig, status: &Status) -> String {
    let weft = std::env::args().next().unwrap_or_else(|| "weft".into());
    let name = if config.name == LabConfig::default().name {
        String::new()
    } else {
        format!(" --name {}", config.name)
    };
    let mut lines = vec![
        (format!("{weft} lab status{name}"), "nodes, pods, addresses"),
        (format!("{weft} lab check{name}"), "real packets between all of them"),
    ];
    let mut own = status.pods.iter().filter(|pod| pod.ready && !pod.host_network && !pod.ips.is_empty());
    if let Some(from) = own.next() {
        let other = own.clone().find(|pod| pod.node != from.node).or_else(|| own.next());
        let from_name = format!("{}/{}", from.namespace, from.name);
        let to = other.map_or("node/node1".to_owned(), |pod| format!("{}/{}", pod.namespace, pod.name));
        lines.push((format!("{weft} trace{name} {from_name} {to}"), "one packet, hop by hop"));
        lines.push((format!("{weft} lab exec{name} {from_name} -- ip addr"), "a command in a pod"));
    } else {
        lines.push((format!("{weft} lab apply{name} -f FILE"), "pods to try it with"));
    }
    lines.push((format!("export KUBECONFIG=$({weft} lab kubeconfig{name})"), "for kubectl"));
    lines.push((format!("{weft} lab down{name}"), "removes all of it"));
    let width = lines.iter().map(|(command, _)| command.chars().count()).max().unwrap_or(0).min(72);
    let line = |(command, what): &(String, &str)| format!("  {command:width$}  # {what}\n");
    format!("\nTry next:\n{}", lines.iter().map(line).collect::<String>())
}
