//! The arguments of `weft controller`.

use std::path::PathBuf;

use clap::Args;
use weft_controller::ControllerConfig;

use crate::args::cidr;

#[derive(Debug, Args)]
#[command(
    after_help = "Several may run: the one that holds the Lease kube-system/weft-controller acts. weft apiserver has this among its own controllers.\n\nExample:\n  weft controller --kubeconfig /etc/weft/kubeconfig --cluster-cidr 10.244.0.0/16 --service-cluster-ip-range 10.96.0.0/12"
)]
pub(crate) struct ControllerArgs {
    /// Where the API is and who we are to it [default: in a pod, its ServiceAccount]
    #[arg(long, env = "KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
    /// The pods' CIDR, which no pool may overlap; again for the other family
    #[arg(long, value_name = "CIDR", value_parser = cidr)]
    cluster_cidr: Vec<ipnet::IpNet>,
    /// Where cluster IPs come from, which no pool may overlap either
    #[arg(long, value_name = "CIDR", value_parser = cidr, value_delimiter = ',')]
    service_cluster_ip_range: Vec<ipnet::IpNet>,
}

impl ControllerArgs {
    pub(crate) fn config(self) -> ControllerConfig {
        ControllerConfig {
            kubeconfig: self.kubeconfig.unwrap_or_default(),
            cluster_cidrs: self.cluster_cidr,
            service_cidrs: self.service_cluster_ip_range,
            ..ControllerConfig::default()
        }
    }
}
