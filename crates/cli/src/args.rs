//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use weft_agent::ProxyMode;
use weft_lab::config::Topology;
use weft_model::network::{Backend, Ipam, parse_cidr};
use weft_observe::Protocol;

use crate::apiserver_args::ApiserverArgs;
use crate::bgp::{BgpCommand, ReflectorArgs};
use crate::cni_args::CniCommand;
use crate::controller_args::ControllerArgs;
use crate::ipam_args::IpamCommand;
use crate::network::NetworkCommand;
use crate::proxy_args::ProxyArgs;
use crate::service::ServiceCommand;
use crate::why::WhyArgs;

/// A container network: every pod an address, every pod and node reachable, every hop explained.
#[derive(Debug, Parser)]
#[command(name = "weft", version, about, propagate_version = true, max_term_width = 100)]
#[command(
    after_help = "Start here:\n  weft lab up -f examples/shop   a cluster of three nodes on this machine, with an application\n  weft lab check                 real packets between all pods and nodes\n  weft lab down                  removes it\n\nExit codes: 0 done, 1 found false, 2 wrong usage, 3 could not."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// A whole cluster on this machine, made of network namespaces
    #[command(subcommand)]
    Lab(LabCommand),
    /// Send one probe through a lab and explain every hop it takes
    #[command(
        after_help = "SRC and DST are [NAMESPACE/]POD, node/NODE or an address; DST may be svc/[NAMESPACE/]NAME[:PORT].\n\nExamples:\n  weft trace shop/web-0 shop/db-0\n  weft trace shop/web-0 svc/shop/cart\n  weft trace web node/node2 --proto tcp --port 9100\n  weft trace node/node1 10.244.2.7 --proto udp --port 53 -o json"
    )]
    Trace(TraceArgs),
    /// What the planned rules do with a connection to a Service, and which objects say so
    #[command(
        after_help = "Nothing is sent: weft trace shows what does happen.\n\nExamples:\n  weft why shop/web-0 svc/shop/cart\n  weft why node/node1 svc/shop/web:http -o json\n  weft why 192.0.2.9 svc/shop/web --node-port node2"
    )]
    Why(WhyArgs),
    /// One node's daemon: programs what the cluster says
    #[command(
        after_help = "Example:\n  weft agent --node-name node1 --kubeconfig /etc/weft/kubeconfig --backend vxlan --cluster-cidr 10.244.0.0/16"
    )]
    Agent(Box<AgentArgs>),
    /// The Kubernetes API where there is no Kubernetes
    #[command(
        after_help = "The folder given by --data-dir then holds the objects, ca.crt and admin.kubeconfig.\n\nExample:\n  weft apiserver --data-dir /var/lib/weft --listen 10.0.0.1:6443 --cluster-cidr 10.244.0.0/16"
    )]
    Apiserver(Box<ApiserverArgs>),
    /// What needs one owner in a Kubernetes cluster: addresses of Services of type LoadBalancer
    Controller(ControllerArgs),
    /// The network of a running cluster: its backend, and how to change that
    #[command(subcommand)]
    Network(NetworkCommand),
    /// Pools of addresses: show, check, release
    #[command(subcommand)]
    Ipam(IpamCommand),
    /// Services as a node serves them: list, show
    #[command(subcommand)]
    Service(ServiceCommand),
    /// A node's BGP speaker: its sessions, its routes, and why they are so
    #[command(subcommand)]
    Bgp(BgpCommand),
    /// A BGP route reflector, outside of any node
    RouteReflector(Box<ReflectorArgs>),
    /// The CNI plugins: attach, check, explain, install
    #[command(subcommand)]
    Cni(Box<CniCommand>),
    /// The processes behind a lab
    #[command(hide = true)]
    LabDaemon {
        /// The lab's folder
        #[arg(long)]
        state: PathBuf,
    },
    /// Print the completion script of a shell
    #[command(after_help = "Example:\n  source <(weft completion bash)")]
    Completion {
        /// For which shell
        shell: clap_complete::Shell,
    },
    /// Write manual pages into a folder
    #[command(hide = true)]
    Man {
        /// The folder
        folder: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum LabCommand {
    /// Make a lab, apply manifests to it and wait until all is ready
    #[command(
        after_help = "Examples:\n  weft lab up\n  weft lab up --nodes 5 --topology racks=2 -f examples/shop\n  weft lab up --name small --nodes 1 --backend host-gw -f pods.yaml -f services/"
    )]
    Up(UpArgs),
    /// Write manifests to a lab, as kubectl apply does
    #[command(
        after_help = "Examples:\n  weft lab apply -f app.yaml\n  helm template my-app ./chart | weft lab apply -f -"
    )]
    Apply(ApplyArgs),
    /// Show nodes, pods, Services, and what is not ready and why
    #[command(after_help = "Examples:\n  weft lab status -o wide\n  weft lab status --wait --timeout 30s")]
    Status(StatusArgs),
    /// Send real packets between all pods and nodes and compare with what should be
    #[command(
        after_help = "Rows send, columns receive; each pair is probed with ICMP, TCP and UDP.\n\nExamples:\n  weft lab check\n  weft lab check --sample 5000 --seed 7 -o json\n  weft lab check --sizes"
    )]
    Check(CheckArgs),
    /// Run a command in a pod or on a node
    #[command(
        after_help = "Examples:\n  weft lab exec shop/web-0 -- ip route\n  weft lab exec node/node1 -- tcpdump -ni eth0"
    )]
    Exec(ExecArgs),
    /// Print the path of a kubeconfig for kubectl and any Kubernetes client
    #[command(after_help = "Example:\n  export KUBECONFIG=$(weft lab kubeconfig)")]
    Kubeconfig {
        #[command(flatten)]
        lab: LabName,
    },
    /// Stop a lab and remove everything of it
    Down(DownArgs),
}

#[derive(Debug, Args)]
pub(crate) struct LabName {
    /// Which lab
    #[arg(long, default_value = "weft", env = "WEFT_LAB", hide_env_values = true)]
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    pub(crate) lab: LabName,
    /// How many nodes
    #[arg(long, default_value_t = 3)]
    pub(crate) nodes: u16,
    /// One segment, or several joined by a router: flat or racks=R
    #[arg(long, default_value = "flat")]
    pub(crate) topology: Topology,
    /// How packets go from node to node: auto (plain routes on one segment, vxlan beyond), host-gw,
    /// vxlan, udp, ipip, bgp; udp-cross-subnet and ipip-cross-subnet tunnel between segments only
    #[arg(long, default_value = "auto")]
    pub(crate) backend: Backend,
    /// Where pods' addresses come from; again for the other family
    #[arg(long, value_name = "CIDR", value_parser = cidr, default_value = "10.244.0.0/16")]
    pub(crate) pod_cidr: Vec<ipnet::IpNet>,
    /// MTU of the nodes' links, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = weft_lab::config::DEFAULT_MTU)]
    pub(crate) underlay_mtu: u32,
    /// MTU of the router between racks, where it is less
    #[arg(long, value_name = "BYTES")]
    pub(crate) hop_mtu: Option<u32>,
    /// From the CIDRs of their node (node-cidr) or from pools (pools): the pod CIDRs, if no IPPool is
    /// among the manifests
    #[arg(long, default_value = "node-cidr")]
    pub(crate) ipam: Ipam,
    /// How Services are served: nftables, iptables, ipvs, userspace or none
    #[arg(long, value_name = "MODE", default_value = "nftables")]
    pub(crate) proxy: ProxyMode,
    /// Join the cluster of this kubeconfig, instead of one with an API server of the lab's own
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Manifests: a file, a folder, or - for standard input; may be given again
    #[arg(short, long, value_name = "FILE|DIR")]
    pub(crate) filename: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    #[command(flatten)]
    pub(crate) lab: LabName,
    /// Manifests: a file, a folder, or - for standard input; may be given again
    #[arg(short, long, value_name = "FILE|DIR|-", required = true)]
    pub(crate) filename: Vec<PathBuf>,
    /// How to print: text or json
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Text,
    /// For machines
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StatusOutput {
    /// For people
    Text,
    /// With more columns
    Wide,
    /// For machines
    Json,
    /// For machines and people
    Yaml,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) lab: LabName,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = StatusOutput::Text)]
    pub(crate) output: StatusOutput,
    /// Wait until all is ready
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long to wait, as 90s or 2m
    #[arg(long, value_parser = duration, default_value = "60s", requires = "wait")]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) lab: LabName,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
    /// Probe so many pairs at most [default: all, 20000 of more]
    #[arg(long, value_name = "PAIRS")]
    pub(crate) sample: Option<usize>,
    /// Chooses the sample; the same number chooses the same pairs
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Measure the paths between nodes too: packets of all sizes, fragments, a large transfer
    #[arg(long)]
    pub(crate) sizes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    #[command(flatten)]
    pub(crate) lab: LabName,
    /// [NAMESPACE/]POD or node/NODE
    #[arg(value_name = "POD|node/NODE")]
    pub(crate) target: weft_lab::exec::Target,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct DownArgs {
    #[command(flatten)]
    pub(crate) lab: LabName,
    /// Every lab of this user
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TraceArgs {
    #[command(flatten)]
    pub(crate) lab: LabName,
    /// Who sends: [NAMESPACE/]POD, node/NODE or an address
    #[arg(value_name = "SRC")]
    pub(crate) from: String,
    /// To whom: [NAMESPACE/]POD, node/NODE, svc/[NAMESPACE/]NAME[:PORT] or an address
    #[arg(value_name = "DST")]
    pub(crate) to: String,
    /// icmp, tcp or udp
    #[arg(long, default_value = "icmp")]
    pub(crate) proto: Protocol,
    /// The port, for tcp and udp [default: 80, 53 for udp]
    #[arg(long)]
    pub(crate) port: Option<u16>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct AgentArgs {
    /// This node's name in the cluster
    #[arg(long, env = "NODE_NAME")]
    pub(crate) node_name: String,
    /// Where the API is and who we are to it [default: in a pod, its ServiceAccount]
    #[arg(long, env = "KUBECONFIG")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// How packets go from node to node: auto (plain routes on one segment, vxlan beyond), host-gw,
    /// vxlan, udp, ipip, bgp; udp-cross-subnet and ipip-cross-subnet tunnel between segments only
    #[arg(long, default_value = "auto")]
    pub(crate) backend: Backend,
    /// Where pods' addresses come from: the CIDRs of their node (node-cidr), or pools of which nodes
    /// claim blocks (pools); the object Network goes before it
    #[arg(long, default_value = "node-cidr")]
    pub(crate) ipam: Ipam,
    /// The pods' CIDR; again for the other family
    #[arg(long, value_name = "CIDR", value_parser = cidr, required = true)]
    pub(crate) cluster_cidr: Vec<ipnet::IpNet>,
    /// Where the container runtime looks for CNI configurations
    #[arg(long, default_value = "/etc/cni/net.d")]
    pub(crate) cni_conf_dir: PathBuf,
    /// Where addresses of this node's pods are noted
    #[arg(long, default_value = "/var/lib/cni/networks")]
    pub(crate) cni_data_dir: PathBuf,
    /// Sockets of container runtimes that are asked which sandboxes live: the first that is there
    #[arg(
        long,
        value_name = "SOCKET",
        value_delimiter = ',',
        default_value = "/run/containerd/containerd.sock,/run/crio/crio.sock"
    )]
    pub(crate) cri_socket: Vec<PathBuf>,
    /// The socket of podman's service, which is asked for the labels of its containers
    #[arg(long, value_name = "SOCKET", default_value = "/run/podman/podman.sock")]
    pub(crate) podman_socket: PathBuf,
    /// What flannel's CNI plugin reads: written while other nodes run flannel
    #[arg(long, default_value = "/run/flannel/subnet.env")]
    pub(crate) subnet_file: PathBuf,
    /// Where the agent keeps its status and its last view of the cluster
    #[arg(long, default_value = "/var/lib/weft/agent")]
    pub(crate) state_dir: PathBuf,
    #[command(flatten)]
    pub(crate) proxy: ProxyArgs,
}

pub(crate) fn cidr(text: &str) -> Result<ipnet::IpNet, weft_model::network::CidrError> {
    parse_cidr(text)
}

/// `90s`, `2m`, `500ms`, or a bare number of seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let wrong = || format!("{text:?} is no duration: write it as 90s or 2m");
    let number: u64 = text[..end].parse().map_err(|_| wrong())?;
    match &text[end..] {
        "" | "s" => Ok(Duration::from_secs(number)),
        "ms" => Ok(Duration::from_millis(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs).ok_or_else(wrong),
        "h" => number.checked_mul(3600).map(Duration::from_secs).ok_or_else(wrong),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_commands_of_the_manual_are_understood() {
        for line in [
            "weft lab up --name a --nodes 4 --topology racks=2 --backend host-gw --pod-cidr 10.1.0.0/16 -f x -f y",
            "weft lab apply -f -",
            "weft lab status -o json",
            "weft lab status -o wide --wait --timeout 2m",
            "weft lab check -o json",
            "weft lab exec shop/web-0 -- ip -d link",
            "weft lab exec node/node1 -- ping -c 1 10.244.0.2",
            "weft lab kubeconfig --name a",
            "weft lab down --all",
            "weft trace web shop/db-0 --proto tcp --port 80 -o json",
            "weft agent --node-name n --cluster-cidr 10.244.0.0/16",
            "weft agent --node-name n --kubeconfig k --cluster-cidr 10.244.0.0/16 --state-dir s",
            "weft apiserver --data-dir d --listen 10.168.0.1:6443 --tls-san 127.0.0.1 --cluster-cidr 10.244.0.0/16 --node-cidr-mask-size 24",
            "weft apiserver --data-dir d --etcd-servers http://10.0.0.1:2379,http://10.0.0.2:2379 --etcd-prefix /lab",
            "weft apiserver kubeconfig --data-dir d --user system:node:a --group system:nodes --group x --out f",
            "weft apiserver backup f --data-dir d",
            "weft apiserver backup f --etcd-servers http://10.0.0.1:2379",
            "weft apiserver restore f --data-dir d",
            "weft apiserver copy --from d --to http://10.0.0.1:2379 --etcd-prefix /lab",
            "weft cni add net /run/netns/a --ifname eth1 -o yaml",
            "weft cni del net a",
            "weft cni check net a --container-id x",
            "weft cni gc net a",
            "weft cni status net",
            "weft cni list net -o wide",
            "weft cni validate a.conflist b.conf -o json",
            "weft cni install /opt/cni/bin --remove",
            "weft lab-daemon --state /run/weft/lab/weft",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
    }

    #[test]
    fn wrong_usage_is_exit_code_2_and_says_what_to_do() {
        for (line, says) in [
            ("weft lab up --pod-cidr 10.244.0.1/16", "did you mean 10.244.0.0/16?"),
            ("weft lab up --backend tunnel", "use auto, host-gw, vxlan, udp"),
            ("weft lab up --topology ring", "use flat or racks=R"),
            ("weft lab exec a/b/c -- ls", "names no place"),
            ("weft lab status --wait --timeout soon", "write it as 90s or 2m"),
            ("weft lab apply", "--filename"),
            ("weft apiserver", "--data-dir"),
            ("weft apiserver kubeconfig --data-dir d", "--user"),
            ("weft apiserver --data-dir d --tls-cert-file f", "--tls-private-key-file"),
        ] {
            let error = Cli::try_parse_from(line.split(' ')).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(says), "{line}: {error}");
        }
    }
}
