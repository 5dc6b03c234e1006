use std::path::PathBuf;

use ipnet::IpNet;
use weft_model::Cluster;
use weft_model::network::{Backend, Ipam};

use crate::{AnnounceOn, ProxyConfig};

/// How one node's agent works.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// This node's name, as its Node object has it.
    pub node_name: String,
    /// Where the API is and who we are to it; empty in a pod: then its ServiceAccount says both.
    pub kubeconfig: PathBuf,
    /// How packets go from node to node, where the cluster has no `Network` object that says it.
    pub backend: Backend,
    /// Where pods' addresses come from, where the cluster has no `Network` object that says it.
    pub ipam: Ipam,
    /// The CIDRs of all pods, at least one.
    pub cluster_cidrs: Vec<IpNet>,
    /// Where the container runtime looks for network configurations.
    pub cni_conf_dir: PathBuf,
    /// Where `host-local` keeps its allocations.
    pub cni_data_dir: PathBuf,
    /// Sockets at which container runtimes may speak CRI; the first that is there is asked which
    /// sandboxes live.
    pub cri_sockets: Vec<PathBuf>,
    /// Where podman's service listens, which is asked for the labels of its containers.
    pub podman_socket: PathBuf,
    /// The file `subnet.env` of flannel's CNI plugin, written while other nodes run flannel.
    pub subnet_file: PathBuf,
    /// Where `status.json` and the last snapshot of the cluster are kept.
    pub state_dir: PathBuf,
    /// How Services are served.
    pub proxy: ProxyConfig,
    /// On which link addresses of Services of type LoadBalancer are announced.
    pub announce: AnnounceOn,
}

impl AgentConfig {
    /// Whether pods have their addresses out of pools.
    pub(crate) fn uses_pools(&self, cluster: &Cluster) -> bool {
        cluster.ipam(self.ipam) == Ipam::Pools
    }
}
