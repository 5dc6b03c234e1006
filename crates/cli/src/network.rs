//! `weft network show|migrate`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::{Value, json};
use weft_fabric::migration::{self, Standing, Step};
use weft_model::network::{Backend, NETWORK_ANNOTATION, Network, Participation};
use weft_store::{Api, NETWORK_PATH, decode_network};

use crate::args::{StatusOutput, duration};
use crate::flannel::AdoptFlannelArgs;
use crate::output::Progress;
use crate::{daemons, exit, flannel, output};

/// Between two looks at what the nodes have done.
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, Subcommand)]
pub(crate) enum NetworkCommand {
    /// Show the cluster's network and how each node takes part
    #[command(after_help = "Examples:\n  weft network show\n  weft network show -o json")]
    Show(ShowArgs),
    /// Change the backend of a running cluster, node by node, breaking no connection
    #[command(
        after_help = "Both backends are in force until all nodes have moved. Interrupt it at any time: the same command goes on, the old backend's name takes it back.\n\nExamples:\n  weft network migrate --to vxlan\n  weft network migrate --to host-gw --timeout 10m"
    )]
    Migrate(MigrateArgs),
    /// Take this host over from flannel, whose daemon has ended
    #[command(
        after_help = "Removes flannel's links, routes, rules and CNI configuration; its pods keep their links and addresses. The node's agent does nothing before.\n\nExamples:\n  weft network adopt-flannel --dry-run\n  weft network adopt-flannel"
    )]
    AdoptFlannel(AdoptFlannelArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// Where the API is and who we are to it
    #[arg(long, env = "KUBECONFIG")]
    kubeconfig: PathBuf,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = StatusOutput::Text)]
    output: StatusOutput,
}

#[derive(Debug, Args)]
pub(crate) struct MigrateArgs {
    /// Where the API is and who we are to it
    #[arg(long, env = "KUBECONFIG")]
    kubeconfig: PathBuf,
    /// The backend that the cluster is to have
    #[arg(long, value_name = "BACKEND")]
    to: Backend,
    /// How long one node may take for one step, as 90s or 2m
    #[arg(long, value_parser = duration, default_value = "60s")]
    timeout: Duration,
}

pub(crate) fn run(command: NetworkCommand) -> anyhow::Result<u8> {
    daemons::runtime()?.block_on(async {
        match command {
            NetworkCommand::Show(options) => show(options).await,
            NetworkCommand::Migrate(options) => migrate(options).await,
            NetworkCommand::AdoptFlannel(options) => flannel::adopt(options),
        }
    })
}

/// The network and the nodes that have it.
#[derive(Serialize)]
struct View {
    /// None where the agents go by their flags.
    network: Option<Network>,
    nodes: BTreeMap<Arc<str>, Participation>,
    /// Of the object, so that nobody's change is lost.
    #[serde(skip)]
    version: Value,
}

async fn look(api: &Api) -> anyhow::Result<View> {
    let path = format!("{NETWORK_PATH}/default");
    let object = match api.get(&path).await {
        Ok(object) => Some(object),
        Err(error) if error.code() == Some(404) => None,
        Err(error) => return Err(error.into()),
    };
    let network = object.as_ref().map(|object| decode_network(&object.to_string()));
    let network = network.transpose().map_err(|why| anyhow::anyhow!("the Network object default: {why}"))?;
    let list = api.list("/api/v1/nodes").await?;
    let nodes = list["items"].as_array().into_iter().flatten().filter_map(node).collect();
    let version = object.map_or(Value::Null, |object| object["metadata"]["resourceVersion"].clone());
    Ok(View { network, nodes, version })
}

/// A node's name and what its agent tells; nothing where it tells nothing that can be understood.
fn node(object: &Value) -> Option<(Arc<str>, Participation)> {
    let metadata = object.get("metadata")?;
    let told = metadata.pointer("/annotations").and_then(|all| all.get(NETWORK_ANNOTATION));
    let told = told.and_then(Value::as_str).and_then(|text| serde_json::from_str(text).ok());
    Some((metadata.get("name")?.as_str()?.into(), told.unwrap_or_default()))
}

async fn show(options: ShowArgs) -> anyhow::Result<u8> {
    let api = Api::from_kubeconfig(&options.kubeconfig).await?;
    let view = look(&api).await?;
    match options.output {
        StatusOutput::Text => output::print(&text(&view, false)),
        StatusOutput::Wide => output::print(&text(&view, true)),
        StatusOutput::Json => output::line(&serde_json::to_string_pretty(&view)?),
        StatusOutput::Yaml => output::print(&serde_saphyr::to_string(&view)?),
    }
    Ok(exit::DONE)
}

fn text(view: &View, wide: bool) -> String {
    let mut text = match &view.network {
        None => "backend: as each agent was started (there is no Network object)\n".to_owned(),
        Some(network) => match &network.migration {
            None => format!("backend: {}\n", network.backend),
            Some(migration) => {
                let Standing { nodes, ready, moved } = migration::standing(&view.nodes, migration.to);
                let (from, to) = (network.backend, migration.to);
                format!(
                    "backend: {from}, migrating to {to}: {ready} of {nodes} nodes prepared, {moved} moved\n"
                )
            }
        },
    };
    let wide = if wide { "  NOT REACHED BY IT" } else { "" };
    text += &format!("{:<24} {:<20} {}{wide}\n", "NODE", "SENDS BY", "RECEIVES BY");
    for (name, node) in &view.nodes {
        let backend = node.backend.map_or("-".to_owned(), |backend| backend.to_string());
        let receives: Vec<String> = std::iter::once("plain routes".to_owned())
            .chain(
                node.receives
                    .iter()
                    .map(|tunnel| Backend { tunnel: Some(*tunnel), direct: false }.to_string()),
            )
            .collect();
        let mut line = format!("{name:<24} {backend:<20} {}", receives.join(", "));
        if !wide.is_empty() {
            let peers: Vec<&str> = node.fallback.keys().map(|name| &**name).collect();
            line += &format!("  {}", if peers.is_empty() { "-".to_owned() } else { peers.join(", ") });
        }
        text += &format!("{line}\n");
    }
    text
}

async fn migrate(options: MigrateArgs) -> anyhow::Result<u8> {
    let api = Api::from_kubeconfig(&options.kubeconfig).await?;
    let mut progress = Progress::new();
    let mut since = Instant::now();
    let mut last = None;
    loop {
        let view = look(&api).await?;
        let network = match &view.network {
            Some(network) => Some(network.clone()),
            None => common(&view.nodes)?.map(|backend| Network { backend, ..Network::default() }),
        };
        let network = network.unwrap_or_default();
        let step = match silent(&view) {
            Some(node) => Step::Wait { node, until: "tells what it sends by (does its agent run?)".into() },
            None => migration::next(&network, &view.nodes, options.to),
        };
        if last.as_ref() != Some(&step) {
            since = Instant::now();
        }
        match &step {
            Step::Done => {
                drop(progress);
                output::line(&format!("all {} nodes send by {}", view.nodes.len(), options.to));
                return Ok(exit::DONE);
            }
            Step::Refuse(why) => {
                drop(progress);
                output::complain(why);
                return Ok(exit::FALSE);
            }
            Step::Write { network, moves } => {
                write(&api, network, &view.version).await?;
                let Standing { nodes, moved, .. } = migration::standing(&view.nodes, options.to);
                if let Some(name) = moves {
                    output::note(&format!("[{}/{nodes}] {name} sends by {}", moved + 1, options.to));
                }
            }
            Step::Wait { node, until } if since.elapsed() > options.timeout => {
                bail!(
                    "{node} did not follow within {} s: until it {until}, both backends stay in force; \
                     the same command goes on, --to {} goes back",
                    options.timeout.as_secs(),
                    network.backend
                );
            }
            Step::Wait { node, until } => {
                progress.say(|| format!("waiting until {node} {until}"));
                tokio::time::sleep(PAUSE).await;
            }
        }
        last = Some(step);
    }
}

/// A node that does not tell yet what it sends by, where no object says it.
fn silent(view: &View) -> Option<Arc<str>> {
    let mut nodes = view.nodes.iter().filter(|_| view.network.is_none());
    nodes.find(|(_, node)| node.backend.is_none()).map(|(name, _)| name.clone())
}

/// What all nodes send by that tell it, where no object says it.
fn common(nodes: &BTreeMap<Arc<str>, Participation>) -> anyhow::Result<Option<Backend>> {
    if nodes.is_empty() {
        bail!("the cluster has no node");
    }
    let mut told = nodes.iter().filter_map(|(name, node)| Some((name, node.backend?)));
    let Some((first, backend)) = told.next() else { return Ok(None) };
    match told.find(|(_, other)| *other != backend) {
        None => Ok(Some(backend)),
        Some((name, other)) => bail!(
            "{first} sends by {backend} and {name} by {other}: \
             make a Network object named default that says which it is"
        ),
    }
}

/// Writes the object as it is to be; somebody else's change since it was read is not overwritten.
async fn write(api: &Api, network: &Network, version: &Value) -> anyhow::Result<()> {
    let spec = serde_json::to_value(network)?;
    if version.is_null() {
        let object = json!({
            "apiVersion": "weft.dev/v1", "kind": "Network", "metadata": {"name": "default"}, "spec": spec,
        });
        api.create(NETWORK_PATH, &object)
            .await
            .context("make the Network object (are Weft's definitions applied?)")?;
        return Ok(());
    }
    let patch = json!({"metadata": {"resourceVersion": version}, "spec": spec});
    match api.merge_patch(&format!("{NETWORK_PATH}/default"), &patch).await {
        // Somebody changed it meanwhile: the next look decides anew.
        Err(error) if error.code() == Some(409) => Ok(()),
        done => Ok(done.map(|_| ())?),
    }
}
