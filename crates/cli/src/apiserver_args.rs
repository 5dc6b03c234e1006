//! The arguments of `weft apiserver`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::args::cidr;
use crate::etcd_args::EtcdArgs;
use crate::objects::ObjectsCommand;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct ApiserverArgs {
    #[command(subcommand)]
    pub(crate) command: Option<ApiserverCommand>,
    #[command(flatten)]
    pub(crate) serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ApiserverCommand {
    /// Make a kubeconfig for a user, by a client certificate that the server's authority signs
    #[command(
        after_help = "Examples:\n  weft apiserver kubeconfig --data-dir /var/lib/weft --user ann --group dev > ann.kubeconfig\n  weft apiserver kubeconfig --data-dir /var/lib/weft --user system:node:node1 --group system:nodes --out node1.kubeconfig"
    )]
    Kubeconfig(KubeconfigArgs),
    #[command(flatten)]
    Objects(ObjectsCommand),
}

#[derive(Debug, Args)]
pub(crate) struct KubeconfigArgs {
    /// The server's data folder
    #[arg(long)]
    pub(crate) data_dir: PathBuf,
    /// The user's name
    #[arg(long)]
    pub(crate) user: String,
    /// A group that the user is in; may be given again
    #[arg(long)]
    pub(crate) group: Vec<String>,
    /// The server's URL [default: as in admin.kubeconfig]
    #[arg(long, value_name = "URL")]
    pub(crate) server: Option<String>,
    /// How long the certificate is good, in days
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub(crate) days: u32,
    /// Write it here, readable by its owner only [default: standard output]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Where the objects and certificates are
    #[arg(long, required = true)]
    pub(crate) data_dir: Option<PathBuf>,
    /// Listen here; may be given again
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:6443")]
    pub(crate) listen: Vec<SocketAddr>,
    /// Another name or address for the certificate; may be given again
    #[arg(long, value_name = "NAME|ADDR")]
    pub(crate) tls_san: Vec<String>,
    /// The server's URL in admin.kubeconfig [default: the first listen address]
    #[arg(long, value_name = "URL")]
    pub(crate) advertise_url: Option<String>,
    /// Where nodes get their pod CIDRs from; again for the other family
    #[arg(long, value_name = "CIDR", value_parser = cidr)]
    pub(crate) cluster_cidr: Vec<ipnet::IpNet>,
    /// Where cluster IPs come from; with a comma one for the other family [default: 10.96.0.0/16 and fd00:10:96::/112, of the families that pods have]
    #[arg(long, value_name = "CIDR", value_parser = cidr, value_delimiter = ',')]
    pub(crate) service_cluster_ip_range: Vec<ipnet::IpNet>,
    /// Prefix length of a node's pod CIDR [default: 24, 64 for IPv6]
    #[arg(long, value_name = "BITS")]
    pub(crate) node_cidr_mask_size: Option<u8>,
    /// Keep flannel's subnets in the same etcd, beside flannel: what its keys start with, as /coreos.com/network
    #[arg(long, value_name = "KEY", requires = "etcd_servers")]
    pub(crate) flannel_etcd_prefix: Option<String>,
    /// Run the controllers too
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    pub(crate) controllers: bool,
    /// Bearer tokens of further users: lines of token,user,uid[,"group1,group2"]
    #[arg(help_heading = "Security", long, value_name = "FILE")]
    pub(crate) token_auth_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) etcd: EtcdArgs,
    /// Have etcd forget what is older than this, so often; 0 is never
    #[arg(long, value_name = "SECONDS", default_value_t = 300, help_heading = "etcd")]
    pub(crate) etcd_compaction_interval: u64,
    /// Show this certificate chain instead of one of the server's own authority
    #[arg(help_heading = "Security", long, value_name = "FILE", requires = "tls_private_key_file")]
    pub(crate) tls_cert_file: Option<PathBuf>,
    /// The key of --tls-cert-file
    #[arg(help_heading = "Security", long, value_name = "FILE", requires = "tls_cert_file")]
    pub(crate) tls_private_key_file: Option<PathBuf>,
    /// Trust clients with certificates of these authorities too
    #[arg(help_heading = "Security", long, value_name = "FILE")]
    pub(crate) client_ca_file: Option<PathBuf>,
    /// Tell of every write here, a line of JSON each; - is standard output [default: audit.log in the data folder]
    #[arg(help_heading = "Audit", long, value_name = "FILE")]
    pub(crate) audit_log_path: Option<PathBuf>,
    /// Put the audit log away when it has this size, in MiB
    #[arg(help_heading = "Audit", long, value_name = "MIB", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1_048_576))]
    pub(crate) audit_log_maxsize: u64,
    /// Keep this many audit logs that were put away
    #[arg(help_heading = "Audit", long, value_name = "N", default_value_t = 3)]
    pub(crate) audit_log_maxbackup: usize,
    /// Answer at most this many requests that read at once
    #[arg(help_heading = "Limits", long, value_name = "N", default_value_t = 400)]
    pub(crate) max_requests_inflight: usize,
    /// Answer at most this many requests that write at once
    #[arg(help_heading = "Limits", long, value_name = "N", default_value_t = 200)]
    pub(crate) max_mutating_requests_inflight: usize,
}
