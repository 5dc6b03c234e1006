//! `weft service`: Services as a node serves them, in the user's words.

mod list;
mod migrate;
mod show;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::bail;
use clap::{Args, Subcommand};
use weft_model::{Changes, Cluster};
use weft_service::{Planner, ServiceConfig};
use weft_store::snapshot_with_services;

use crate::args::StatusOutput;
use crate::daemons;
use crate::ipam_args;

#[derive(Debug, Subcommand)]
pub(crate) enum ServiceCommand {
    /// List Services with their addresses, ports and how many endpoints serve them
    #[command(after_help = "Examples:\n  weft service list\n  weft service list -n shop -o wide")]
    List(ListArgs),
    /// Show where a Service leads from a node: each address and port, who is led where, and from whom it looks
    #[command(
        after_help = "Examples:\n  weft service show shop/web\n  weft service show shop/web --node node2 -o json"
    )]
    Show(ShowArgs),
    /// Take this host's Services over from another proxy: no established connection breaks
    #[command(
        after_help = "kube-proxy has to be stopped first, and the agent to run; then its rules are removed.\n\nExample:\n  weft service migrate-from kube-proxy"
    )]
    MigrateFrom(migrate::MigrateArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    cluster: ipam_args::Cluster,
    /// Of one namespace alone
    #[arg(short, long)]
    namespace: Option<String>,
    #[command(flatten)]
    view: View,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    cluster: ipam_args::Cluster,
    /// The Service: [NAMESPACE/]NAME
    #[arg(value_name = "SERVICE")]
    service: String,
    /// The folder of this host's agent, which says which node announces an address
    #[arg(long, default_value = "/var/lib/weft/agent")]
    state_dir: PathBuf,
    #[command(flatten)]
    view: View,
}

#[derive(Debug, Args)]
struct View {
    /// As this node serves them [default: the first]
    #[arg(long)]
    node: Option<String>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = StatusOutput::Text)]
    output: StatusOutput,
}

pub(crate) fn run(command: ServiceCommand) -> anyhow::Result<u8> {
    daemons::runtime()?.block_on(async {
        match command {
            ServiceCommand::MigrateFrom(options) => migrate::run(&options),
            ServiceCommand::List(options) => list::run(&options).await,
            ServiceCommand::Show(options) => show::run(&options).await,
        }
    })
}

/// The cluster, and what one of its nodes plans for its Services.
async fn planned(cluster: &ipam_args::Cluster, view: &View) -> anyhow::Result<(Cluster, Planner)> {
    let cluster = snapshot_with_services(&crate::ipam::client(cluster).await?).await?;
    let node: Arc<str> = match (&view.node, cluster.nodes.keys().next()) {
        (Some(node), _) if !cluster.nodes.contains_key(node.as_str()) => bail!("there is no node {node}"),
        (Some(node), _) => node.as_str().into(),
        (None, Some(first)) => first.clone(),
        (None, None) => bail!("the cluster has no node"),
    };
    let planner = planned_for(&cluster, node);
    Ok((cluster, planner))
}

/// What a node plans for the Services of a cluster.
pub(crate) fn planned_for(cluster: &Cluster, node: Arc<str>) -> Planner {
    let of_nodes = cluster.nodes.values().flat_map(|node| node.pod_cidrs.iter().copied());
    let cluster_cidrs = of_nodes.chain(cluster.pools.values().map(|pool| pool.cidr)).collect();
    let mut planner = Planner::new(ServiceConfig { node, cluster_cidrs, ..ServiceConfig::default() });
    let everything = Changes {
        nodes: cluster.nodes.keys().cloned().collect(),
        services: cluster.services.keys().cloned().collect(),
        slices: cluster.slices.keys().cloned().collect(),
        ..Changes::default()
    };
    planner.update(cluster, &everything);
    planner
}
