//! The lab's main process: makes the underlay and the nodes, starts the API server and the
//! agents and keeps them running, and plays kubelet and container runtime for every node.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::fd::OwnedFd;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use weft_kernel::ipvs::Ipvs;
use weft_kernel::{IpTunnel, LinkKind, Netlink, NewLink, Op};
use weft_model::network::Tunnel;
use weft_store::Api;

use crate::apiserver;
use crate::config::LabConfig;
use crate::conflist::Networks;
use crate::daemon::{executable, quiet, release_stdio};
use crate::hearts;
use crate::nodes;
use crate::progress::{Message, Teller};
use crate::relay;
use crate::runtime::Runtime;
use crate::state::{LabInfo, LabState};
use crate::supervisor::Supervisor;
use crate::underlay::{self, Node};

/// How long `lab up` waits for the nodes' networks before it says which are not ready.
const NETWORK_PATIENCE: Duration = Duration::from_secs(30);

/// A device that is only made to see whether the kernel can.
const PROBE: &str = "weft-probe";
/// What takes more than the root of a user namespace.
const NOT_PERMITTED: i32 = rustix::io::Errno::PERM.raw_os_error();
/// A kind of link that the kernel does not know and finds no module for.
const NOT_SUPPORTED: i32 = rustix::io::Errno::OPNOTSUPP.raw_os_error();

pub(crate) fn main(state: &LabState) -> anyhow::Result<()> {
    let teller = Teller::beside_stdout()?;
    let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    release_stdio()?;
    let run = || -> anyhow::Result<()> {
        raise_descriptor_limit()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(until_terminated(state, socket, &teller))
    };
    run().inspect_err(|error| {
        tracing::error!("{error:#}");
        teller.say(&Message::Failed(format!("{error:#}")));
    })
}

async fn until_terminated(state: &LabState, socket: OwnedFd, teller: &Teller) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut children = Supervisor::default();
    let outcome = tokio::select! {
        _ = terminate.recv() => nodes::unregister(state).await,
        outcome = keep(state, socket, teller, &mut children) => outcome,
    };
    children.stop().await;
    outcome
}

async fn keep(
    state: &LabState,
    socket: OwnedFd,
    teller: &Teller,
    children: &mut Supervisor,
) -> anyhow::Result<()> {
    let info = state.info()?.context("the lab was removed while it was made")?;
    let config = &info.config;
    backend_possible(config)?;
    proxy_possible(config)?;
    underlay::build_router(state, config).context("cannot make the underlay")?;
    if config.kubeconfig.is_some() {
        drop(socket);
        relay::inside(state, config.api_address()).await?;
    } else {
        let server_state = state.clone();
        children.start("the API server", None, move || apiserver::command(&server_state, &socket));
    }
    let nodes = underlay::build_nodes(state, config).context("cannot make the nodes' namespaces")?;
    teller.step("namespaces", format!("{} nodes on {} segment(s)", nodes.len(), config.segments()));
    let api = apiserver::wait_ready(state, &info).await?;
    let place = config.kubeconfig.as_ref().map(|given| format!("of {}", given.display()));
    teller.step("apiserver", place.unwrap_or_else(|| format!("answers on 127.0.0.1:{}", info.api_port)));
    nodes::register(&api, config, &nodes).await?;
    teller.step("nodes", format!("{} registered", nodes.len()));
    let networks = Networks::watch(state, &nodes)?;
    for node in &nodes {
        start_agent(state, &info, node, children)?;
    }
    let ready = nodes_ready(&api, &networks, &nodes);
    let pods = Runtime::new(state, api.clone(), &nodes, &networks).run();
    let announce = async {
        let text = ready.await;
        teller.step("agents", text);
        teller.say(&Message::Ready);
        std::future::pending::<anyhow::Result<()>>().await
    };
    let names: Vec<String> = nodes.iter().map(|node| node.spec.name.clone()).collect();
    let hearts = async {
        hearts::keep(&api, &names, &networks).await;
        std::future::pending::<anyhow::Result<()>>().await
    };
    tokio::select! { outcome = pods => outcome, outcome = announce => outcome, outcome = hearts => outcome }
}

/// Likewise that it lacks the proxy mode.
fn proxy_possible(config: &LabConfig) -> anyhow::Result<()> {
    match config.proxy.as_str() {
        "ipvs" => match Ipvs::open().and_then(|mut ipvs| ipvs.servers()) {
            Err(error) if error.not_found() => bail!(
                "this kernel has no IPVS: load its modules (modprobe -a ip_vs ip_vs_rr), or make the lab with \
                 --proxy nftables"
            ),
            Err(error) if error.errno() == Some(NOT_PERMITTED) => bail!(
                "this kernel lets only root of the machine make virtual servers: make the lab as root, or with \
                 --proxy nftables"
            ),
            other => other.map(drop).context("cannot ask for virtual servers"),
        },
        _ => Ok(()),
    }
}

/// Says at once what every agent would say in its log only: that this kernel lacks the backend.
fn backend_possible(config: &LabConfig) -> anyhow::Result<()> {
    let ipip = |local: IpAddr| LinkKind::IpTunnel(IpTunnel { local, dev: None });
    let kinds = match config.backend.tunnel {
        None | Some(Tunnel::Udp) => Vec::new(),
        Some(Tunnel::Vxlan) => {
            let kind = LinkKind::Vxlan { vni: 1, port: 4789, local: None, dev: None, learning: false };
            vec![("vxlan", kind)]
        }
        Some(Tunnel::Ipip) => {
            let v6 = config.has_v6().then(|| ("ip6_tunnel", ipip(Ipv6Addr::LOCALHOST.into())));
            let v4 = config.has_v4().then(|| ("ipip", ipip(Ipv4Addr::LOCALHOST.into())));
            v4.into_iter().chain(v6).collect()
        }
    };
    let mut netlink = Netlink::open()?;
    for (module, kind) in kinds {
        match netlink.apply(&Op::LinkAdd(NewLink::new(PROBE, kind))) {
            Err(error) if error.errno() == Some(NOT_SUPPORTED) => bail!(
                "this kernel has no {module}: load it (modprobe {module}), or make the lab with --backend host-gw"
            ),
            made => made.with_context(|| format!("cannot make a device of {module}"))?,
        }
        if let Some(probe) = netlink.link(PROBE)? {
            netlink.apply(&Op::LinkDel(probe.index))?;
        }
    }
    Ok(())
}

fn start_agent(
    state: &LabState,
    info: &LabInfo,
    node: &Node,
    children: &mut Supervisor,
) -> anyhow::Result<()> {
    let name = node.spec.name.clone();
    for dir in [state.cni_data_dir(&name), state.agent_dir(&name)] {
        make_dir(&dir)?;
    }
    apiserver::identify_node(state, info, &name)?;
    let (state, config) = (state.clone(), info.config.clone());
    children.start(&format!("the agent of {name}"), Some(node.netns.clone()), move || {
        let mut command = Command::new(executable()?);
        command.arg("agent").args(["--node-name", &name, "--backend", &config.backend.to_string()]);
        command.args(["--ipam", &config.ipam.to_string(), "--proxy", &config.proxy]);
        command.arg("--kubeconfig").arg(state.kubeconfig_of_node(&name));
        for cidr in &config.pod_cidrs {
            command.args(["--cluster-cidr", &cidr.to_string()]);
        }
        command.arg("--cni-conf-dir").arg(state.cni_conf_dir(&name));
        command.arg("--cni-data-dir").arg(state.cni_data_dir(&name));
        command.arg("--subnet-file").arg(state.agent_dir(&name).join("subnet.env"));
        command.arg("--state-dir").arg(state.agent_dir(&name)).env_remove(crate::daemon::ROLE);
        quiet(&mut command, &state.log_dir().join(format!("agent-{name}.log")))?;
        Ok(command)
    });
    Ok(())
}

/// Reports every node ready as its network becomes so; says how that went.
fn nodes_ready(api: &Api, networks: &Networks, nodes: &[Node]) -> impl Future<Output = String> + use<> {
    let mut waits = JoinSet::new();
    for node in nodes {
        let (api, name) = (api.clone(), node.spec.name.clone());
        let mut network = networks.of(&name);
        waits.spawn(async move {
            if network.wait_for(Option::is_some).await.is_ok() {
                nodes::set_ready(&api, &name).await;
            }
        });
    }
    let total = nodes.len();
    async move {
        let all = async { while waits.join_next().await.is_some() {} };
        if tokio::time::timeout(NETWORK_PATIENCE, all).await.is_ok() {
            return format!("{total} running, every node has a pod network");
        }
        let missing = waits.len();
        // Those still waiting go on doing so.
        waits.detach_all();
        format!(
            "{total} running, {missing} nodes have no pod network yet: see weft lab status, log/agent-NODE.log"
        )
    }
}

pub(crate) fn make_dir(dir: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make the folder {}", dir.display()))
}

/// A pod costs a descriptor for each port, and the usual soft limit is 1,024.
fn raise_descriptor_limit() -> anyhow::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).context("cannot raise the limit of open files")
}
