//! Which etcd: the options that `weft apiserver` and its subcommands share. Named as kube-apiserver's.

use std::path::PathBuf;

use clap::Args;
use weft_apiserver::EtcdConfig;

#[derive(Debug, Args)]
#[command(next_help_heading = "etcd")]
pub(crate) struct EtcdArgs {
    /// Keep the objects in this etcd instead of a file; several URLs with commas
    #[arg(long, value_name = "URLS", value_delimiter = ',')]
    pub(crate) etcd_servers: Vec<String>,
    #[command(flatten)]
    access: EtcdAccess,
}

/// How any etcd is used.
#[derive(Debug, Args)]
#[command(next_help_heading = "etcd")]
pub(crate) struct EtcdAccess {
    /// Start of the keys in etcd
    #[arg(long, value_name = "KEY", default_value = "/weft")]
    pub(crate) etcd_prefix: String,
    /// The authority that signed etcd's certificates
    #[arg(long, value_name = "FILE")]
    pub(crate) etcd_cafile: Option<PathBuf>,
    /// The client certificate for etcd
    #[arg(long, value_name = "FILE", requires = "etcd_keyfile")]
    pub(crate) etcd_certfile: Option<PathBuf>,
    /// The client certificate's key
    #[arg(long, value_name = "FILE", requires = "etcd_certfile")]
    pub(crate) etcd_keyfile: Option<PathBuf>,
}

impl EtcdArgs {
    /// The etcd, if one is named.
    pub(crate) fn config(&self) -> Option<EtcdConfig> {
        (!self.etcd_servers.is_empty()).then(|| self.access.at(self.etcd_servers.clone()))
    }
}

impl EtcdAccess {
    /// An etcd at these URLs.
    pub(crate) fn at(&self, servers: Vec<String>) -> EtcdConfig {
        EtcdConfig {
            prefix: self.etcd_prefix.clone(),
            ca_file: self.etcd_cafile.clone(),
            cert_file: self.etcd_certfile.clone(),
            key_file: self.etcd_keyfile.clone(),
            ..EtcdConfig::new(servers)
        }
    }
}
