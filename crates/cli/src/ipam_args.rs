//! The arguments of `weft ipam`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::args::StatusOutput;

#[derive(Debug, Subcommand)]
pub(crate) enum IpamCommand {
    /// Show pools and their use, blocks, or one address
    #[command(
        after_help = "In use are the addresses that pods have by the API. The first address of a block is its node's own.\n\nExamples:\n  weft ipam show\n  weft ipam show --blocks -o wide\n  weft ipam show --ip 10.244.86.130"
    )]
    Show(ShowArgs),
    /// Look for what is wrong: leaks, addresses given twice, blocks of nodes that are gone
    #[command(
        after_help = "Changes nothing: the nodes' agents repair what they can, every half minute. Exits with 1 when something is wrong.\n\nExample:\n  weft ipam check -o json"
    )]
    Check(CheckArgs),
    /// Give back an address that no pod uses any more
    #[command(
        after_help = "The agent of the node that has it gives it back, unless a container there still uses it.\n\nExample:\n  weft ipam release 10.244.86.130"
    )]
    Release(ReleaseArgs),
}

#[derive(Debug, Args)]
pub(crate) struct Cluster {
    /// Where the API is and who we are to it
    #[arg(long, env = "KUBECONFIG", hide_env_values = true, value_name = "FILE")]
    pub(crate) kubeconfig: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    pub(crate) cluster: Cluster,
    /// Pools, which is what is shown when nothing is said
    #[arg(long, conflicts_with_all = ["blocks", "ip"])]
    pub(crate) pools: bool,
    /// Blocks and their nodes
    #[arg(long, conflicts_with = "ip")]
    pub(crate) blocks: bool,
    /// Who has this address
    #[arg(long, value_name = "IP")]
    pub(crate) ip: Option<IpAddr>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = StatusOutput::Text)]
    pub(crate) output: StatusOutput,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) cluster: Cluster,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = StatusOutput::Text)]
    pub(crate) output: StatusOutput,
}

#[derive(Debug, Args)]
pub(crate) struct ReleaseArgs {
    #[command(flatten)]
    pub(crate) cluster: Cluster,
    /// The address
    pub(crate) ip: IpAddr,
}
