//! `weft network adopt-flannel`.

use std::path::PathBuf;

use clap::Args;
use weft_agent::Adoption;

use crate::exit;

/// Where flannel's things are on this host.
#[derive(Debug, Args)]
pub(crate) struct AdoptFlannelArgs {
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Where the container runtime looks for CNI configurations
    #[arg(long, default_value = "/etc/cni/net.d")]
    cni_conf_dir: PathBuf,
    /// Where addresses of this node's pods are noted
    #[arg(long, default_value = "/var/lib/cni/networks")]
    cni_data_dir: PathBuf,
    /// The name of the network in flannel's CNI configuration
    #[arg(long, default_value = "cbr0")]
    network: String,
    /// What flannel's CNI plugin reads
    #[arg(long, default_value = "/run/flannel/subnet.env")]
    subnet_file: PathBuf,
}

pub(crate) fn adopt(options: AdoptFlannelArgs) -> anyhow::Result<u8> {
    let AdoptFlannelArgs { dry_run, cni_conf_dir, cni_data_dir, network, subnet_file } = options;
    let adoption = Adoption { dry_run, cni_conf_dir, cni_data_dir, network, subnet_file };
    let mut steps = 0;
    weft_agent::adopt(&adoption, |step| {
        println!("{}{step}", if dry_run { "would " } else { "" });
        steps += 1;
    })?;
    if steps == 0 {
        println!("nothing of flannel is on this host");
    }
    Ok(exit::DONE)
}
