//! The lab's API server: the process, its socket on the machine's loopback, its kubeconfigs.

use std::fs;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::fd::OwnedFd;
use tokio::time::{Instant, sleep};
use weft_apiserver::Identity;
use weft_store::Api;

use crate::config::{API_PORT, LabConfig};
use crate::daemon;
use crate::kubeconfig::Given;
use crate::state::{LabInfo, LabState, write_atomically};

/// Socket activation hands over the first descriptor after the standard three.
const FIRST_PASSED: i32 = 3;
const PATIENCE: Duration = Duration::from_secs(60);

/// The command that starts the API server; `socket` listens on the machine's loopback.
pub(crate) fn command(state: &LabState, socket: &OwnedFd) -> anyhow::Result<Command> {
    let mut command = daemon::in_role(state, "apiserver")?;
    daemon::quiet(&mut command, &state.log_dir().join("apiserver.log"))?;
    command.stdin(Stdio::from(socket.try_clone()?));
    Ok(command)
}

/// Becomes `weft apiserver`, with standard input passed on as systemd passes sockets. A
/// process of its own, so that the number after the standard three is free.
pub(crate) fn become_server(state: &LabState) -> anyhow::Result<()> {
    let info = state.info()?.context("the lab is gone")?;
    let socket = rustix::io::dup(rustix::stdio::stdin())?;
    if socket.as_raw_fd() != FIRST_PASSED {
        bail!("descriptor {FIRST_PASSED} is taken: the API server's socket cannot be passed on");
    }
    let null = fs::File::open("/dev/null").context("cannot open /dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    let mut command = Command::new(daemon::executable()?);
    command.arg("apiserver").args(arguments(state, &info.config));
    command.env("LISTEN_FDS", "1").env("LISTEN_PID", std::process::id().to_string());
    Err(command.env_remove(daemon::ROLE).exec()).context("cannot start weft apiserver")
}

fn arguments(state: &LabState, config: &LabConfig) -> Vec<String> {
    let mut arguments = vec![
        "--data-dir".into(),
        state.api_dir().display().to_string(),
        "--listen".into(),
        SocketAddr::new(config.api_address(), API_PORT).to_string(),
    ];
    if config.has_v4() {
        // It is the IPv4 one where there are both; that of IPv6 is the server's default.
        arguments.extend(["--node-cidr-mask-size".into(), config.node_mask.to_string()]);
    }
    for name in ["127.0.0.1", "localhost", &config.api_address().to_string()] {
        arguments.extend(["--tls-san".into(), name.into()]);
    }
    for cidr in &config.pod_cidrs {
        arguments.extend(["--cluster-cidr".into(), cidr.to_string()]);
    }
    arguments
}

/// Waits until the API server answers, and writes both kubeconfigs.
pub(crate) async fn wait_ready(state: &LabState, info: &LabInfo) -> anyhow::Result<Api> {
    let deadline = Instant::now() + PATIENCE;
    let admin = state.api_dir().join("admin.kubeconfig");
    loop {
        let error = match try_ready(state, info, &admin).await {
            Ok(api) => return Ok(api),
            Err(error) => error,
        };
        if Instant::now() >= deadline {
            let log = state.log_dir().join("apiserver.log");
            return Err(error.context(format!("the API server does not answer; see {}", log.display())));
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// Writes the kubeconfig by which a node's agent is that node to the API server, and nothing else. In a
/// cluster that was given the lab cannot sign certificates: its agents act by the given kubeconfig.
pub(crate) fn identify_node(state: &LabState, info: &LabInfo, node: &str) -> anyhow::Result<()> {
    if info.config.kubeconfig.is_some() {
        let given = fs::read(state.kubeconfig_inside())?;
        return Ok(write_atomically(&state.kubeconfig_of_node(node), &given)?);
    }
    let identity =
        Identity { user: format!("system:node:{node}"), groups: vec!["system:nodes".into()], days: None };
    let text = weft_apiserver::kubeconfig(&state.api_dir(), &identity, Some(&url(&info.config)))?;
    Ok(write_atomically(&state.kubeconfig_of_node(node), text.as_bytes())?)
}

/// Where the API server is to everybody inside the lab.
fn url(config: &LabConfig) -> String {
    format!("https://{}", SocketAddr::new(config.api_address(), API_PORT))
}

async fn try_ready(state: &LabState, info: &LabInfo, admin: &Path) -> anyhow::Result<Api> {
    let (inside, outside) = match &info.config.kubeconfig {
        Some(path) => {
            let given = Given::read(path)?;
            (given.clone().named()?, given)
        }
        None => {
            let own = Given::read(admin)?;
            (own.clone(), own.at(&format!("https://127.0.0.1:{}", info.api_port))?)
        }
    };
    let inside = inside.at(&url(&info.config))?;
    write_atomically(&state.kubeconfig_inside(), inside.text().as_bytes())?;
    let api = Api::from_kubeconfig(&state.kubeconfig_inside()).await?;
    api.get("/api/v1/namespaces/default").await?;
    write_atomically(&state.kubeconfig(), outside.text().as_bytes())?;
    Ok(api)
}
